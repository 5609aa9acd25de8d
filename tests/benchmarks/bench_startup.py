"""Start-up: `reelwright --help`, `status` on 1,000 videos, and `run` with nothing to do on up to 100,000.

The videos are stand-ins: files of a few bytes that the store knows already, with item rows and store folders as a
finished embed node leaves them. Commands are whole processes; the reference is a Python that does nothing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from reelwright.pipeline.project import Project
from reelwright.storage.files import write_table
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes, VideoProbe, stamp
from reelwright.storage.ledger.items import ItemRow, items_table
from tests.benchmarks.harness import Figures, Options, Row, Turns

COUNTS = (1_000, 10_000, 100_000)
PER_FOLDER = 1000
PIPELINE = """
videos: {manifest: videos.csv}
stages:
  frames: {uses: decode, fps: 5, materialize: false}
  embed: {uses: embed, frames: frames, encoder: timm/resnet10t, weights: none}
"""
COMMAND = "from reelwright.cli.main import main; main()"
AIM_SECONDS = 0.5


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    folders = {count: options.folder / f"startup{count}" for count in COUNTS[: 1 if options.quick else None]}
    for count, folder in folders.items():
        make_finished(folder, count)
    smallest = folders[COUNTS[0]]
    turns = Turns(options.repeats)
    turns.add("python -c pass", partial(_seconds, ["-c", "pass"], smallest))
    turns.add("reelwright --help", partial(_seconds, ["-c", COMMAND, "--help"], smallest))
    for count, folder in folders.items():
        turns.add(f"status, {count:,} videos", partial(_seconds, ["-c", COMMAND, "status"], folder))
        turns.add(f"run, nothing to do, {count:,} videos", partial(_seconds, ["-c", COMMAND, "run"], folder))
    found = turns.measure()
    aims = {"reelwright --help", f"status, {COUNTS[0]:,} videos"}
    return [
        Row(what=name, unit="s", figures=figures, note=_note(figures, is_aimed=name in aims))
        for name, figures in found.items()
    ]


def _note(figures: Figures, *, is_aimed: bool) -> str:
    """Processor seconds, which other work on the machine changes little."""
    used = statistics.median(seconds * cores for seconds, cores in zip(figures.values, figures.cores, strict=True))
    return f"{used:.2f} processor seconds" + (f", aim under {AIM_SECONDS:g} s" if is_aimed else "")


def make_finished(folder: Path, count: int) -> None:
    """A project of ``count`` stand-ins in ``folder`` whose embed node is done."""
    paths = [folder / f"{number // PER_FOLDER}" / f"{number}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_text(str(number), encoding="utf-8")
    lines = [f"v{number},{path.relative_to(folder)},train" for number, path in enumerate(paths)]
    (folder / "videos.csv").write_text("\n".join(["video_id,path,split", *lines]) + "\n", encoding="utf-8")
    (folder / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    project = Project.open(folder / "reelwright.yaml")
    digests = [f"{number:064x}" for number in range(count)]
    _know(project, paths, digests)
    _finish(project, digests)
    project.run()  # writes the settings of the group
    assert project.run().nothing_to_do


def _know(project: Project, paths: list[Path], digests: list[str]) -> None:
    known = KnownFiles(project.file.store.files)
    for path, digest in zip(paths, digests, strict=True):
        known.add(path, digest, stamp(path))
    known.save()
    probe = {"duration_seconds": 1.0, "num_frames": 25, "fps": 25.0, "height": 240, "width": 320, "codec": "h264"}
    KnownProbes(project.file.store.videos).add({digest: VideoProbe(digest=digest, **probe) for digest in digests})


def _finish(project: Project, digests: list[str]) -> None:
    store, key = project.file.store, project.planner().plan("embed").spec_key
    for digest in digests:
        (store.embeddings(key) / digest).mkdir(parents=True)
    rows = [
        asdict(ItemRow(digest=digest, status="ok", rows=5, bytes=5120, seconds=0.1, backend="decord"))
        for digest in digests
    ]
    write_table(store.node(key) / "items.parquet", items_table(rows))


def environment(folder: Path) -> dict[str, str]:
    """As of an installed package: compiled modules are kept, beside ``folder`` and not in the source tree."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**own, "PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode")}


def _seconds(arguments: list[str], folder: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    return seconds
