"""The chain on every Python that is supported, and on the lowest releases that pyproject.toml allows: `make versions`.

Each is an environment of its own, of a few GB with PyTorch: minutes the first time, seconds while uv has the wheels.
A Python that is not on this machine is said to be not tried.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.small_project import write_project

ROOT = Path(__file__).parents[1]
UV = (sys.executable, "-m", "uv")
HIGHEST, LOWEST = "highest", "lowest-direct"
TRIED = (("3.11", LOWEST), ("3.11", HIGHEST), ("3.12", HIGHEST), ("3.13", HIGHEST))
TUNE = """
  tune: {uses: finetune, frames: frames, spatial: embed, temporal: train, epochs: 1, batch_size: 4, val_splits: []}
"""
COMMANDS = (
    "init new",
    "doctor reelwright.yaml",
    "index",
    "run -n",
    "run",
    "status --exit-code",
    "explain train",
    "report",
    "compare --out runs.html",
    "predict --run train --videos new --out scores.csv",
    "export-model train --out model",
    "predict --run model --videos new --out scores.parquet",
    "export embed --to npy --out npy",
    "export embed --to parquet --out parquet",
    "export embed --to zarr --out zarr",
)


def main() -> int:
    """Try each; 1 where one failed."""
    lines, code = [], 0
    for version, resolution in TRIED:
        name = f"Python {version}, {'lowest' if resolution == LOWEST else 'newest'} releases"
        python = next(_interpreters(version), None)
        if python is None:
            lines.append(f"{name}: NOT TRIED, there is no python{version} on this machine")
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="reelwright-versions-") as folder:
            problem = _try(python, resolution, Path(folder))
        lines.append(f"{name}: {problem or 'passed'} ({time.monotonic() - start:.0f} s)")
        code = code or int(bool(problem))
        print(lines[-1], flush=True)
    print("\n".join(["", *lines]))
    return code


def _interpreters(version: str) -> Iterator[str]:
    """Those on the path, and pyenv's; a shim of pyenv answers for some versions only."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    pyenv = sorted(root.glob(f"versions/{version}.*/bin/python"))
    for python in filter(None, [shutil.which(f"python{version}"), *map(str, pyenv)]):
        done = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.startswith(f"Python {version}."):
            yield python


def _try(python: str, resolution: str, folder: Path) -> str:
    """Install into a new environment and run the chain; returns what failed."""
    environment, project = folder / "environment", folder / "project"
    project.mkdir()
    write_project(project)
    text = (project / "reelwright.yaml").read_text(encoding="utf-8")
    (project / "reelwright.yaml").write_text(f"{text.rstrip()}{TUNE}", encoding="utf-8")
    (project / "new").mkdir()
    shutil.copy(project / "a.mp4", project / "new" / "z.mp4")
    source = folder / "source"  # setuptools builds in the folder of the sources
    ignored = shutil.ignore_patterns(".*", "build", "tests", "typings", "docs", "demo", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=ignored)
    installed = str(environment / "bin" / "python")
    steps = [
        [*UV, "venv", "--quiet", "--python", python, str(environment)],
        [*UV, "pip", "install", "--quiet", "--python", installed, "--resolution", resolution, str(source)],
        *([str(environment / "bin" / "reelwright"), *command.split()] for command in COMMANDS),
    ]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "default"}
    for step in steps:
        done = subprocess.run(step, cwd=project, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"FAILED: {' '.join(step)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
