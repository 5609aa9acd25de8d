"""How many of our files and functions a command goes through: what a reader crosses who follows it.

Counted are functions that the command's main thread calls; what modules and classes do while they are imported is not,
nor what other processes do.
Commands are run in processes of their own over a pipeline of two nodes, decode and embed, of videos with labels; which
files are crossed, and by which functions, is printed before the table.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import FrameType

from tests.benchmarks.harness import Figures, Options, Row
from tests.small_project import PIPELINE, write_project

FOLDERS = ("cli", "pipeline", "stages", "models", "storage")
ROOT = Path(__file__).parents[2]
COMMANDS = {
    "run, nothing done yet": ["run"],
    "run, nothing to do": ["run"],
    "status": ["status"],
    "explain NODE": ["explain", "embed"],
}
AIM = 25  # files, of a run with nothing to do
CHILD = "from tests.benchmarks.bench_crossed import trace; trace()"


def run(options: Options) -> list[Row]:
    """Rows of the table; the list of files goes to stdout before it."""
    folder = options.folder / "crossed"
    folder.mkdir()
    write_project(folder)
    (folder / "reelwright.yaml").write_text(PIPELINE[: PIPELINE.index("  train:")], encoding="utf-8")
    rows = []
    for name, command in COMMANDS.items():
        found = crossed(folder, command)
        lines = "\n".join(f"  {file} ({len(functions)}): {', '.join(functions)}" for file, functions in found.items())
        print(f"\n{name}: {len(found)} files\n{lines}")
        note = f"{sum(map(len, found.values()))} functions" + (f", aim {AIM}" if name == "run, nothing to do" else "")
        rows.append(Row(what=name, unit="files", figures=Figures((float(len(found)),)), note=note))
    return rows


def crossed(folder: Path, command: list[str]) -> dict[str, list[str]]:
    """By file of ours, the functions that a command in ``folder`` calls."""
    target = folder / "crossed.json"
    call = [sys.executable, "-c", CHILD, str(target), *command]
    done = subprocess.run(
        call, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(target.read_text(encoding="utf-8"))
    return found


def trace() -> None:
    """Run the command of this process; the functions of ours that it called go to the file named first."""
    from reelwright.cli.main import main

    target = Path(sys.argv.pop(1))
    places = tuple(f"{ROOT / folder}/" for folder in FOLDERS)
    found: defaultdict[str, set[str]] = defaultdict(set)

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        is_function = bool(code.co_flags & inspect.CO_OPTIMIZED)  # not the body of a module or a class
        if event == "call" and is_function and code.co_filename.startswith(places) and not _is_imported(frame, places):
            found[code.co_filename.removeprefix(f"{ROOT}/")].add(code.co_qualname)

    sys.setprofile(note)
    try:
        main()
    finally:
        sys.setprofile(None)
        target.write_text(json.dumps({file: sorted(found[file]) for file in sorted(found)}), encoding="utf-8")


def _is_imported(frame: FrameType, places: tuple[str, ...]) -> bool:
    """Whether a module of ours is being imported."""
    caller = frame.f_back
    while caller is not None:
        if caller.f_code.co_name == "<module>" and caller.f_code.co_filename.startswith(places):
            return True
        caller = caller.f_back
    return False
