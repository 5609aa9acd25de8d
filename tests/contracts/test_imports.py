"""Start-up is quick because nothing heavy is imported, and no module of ours exists under a bare name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = ("cli", "pipeline", "stages", "models", "storage")
HEAVY = (
    "fsspec",
    "torch",
    "torchvision",
    "timm",
    "decord",
    "av",
    "zarr",
    "sklearn",
    "tensorboard",
    "dask",
    "distributed",
)
PIPELINE = """
videos: {manifest: videos.csv}
stages:
  frames: {uses: decode, fps: 5}
  embed: {uses: embed, frames: frames, encoder: timm/resnet10t, weights: none}
"""


def run_python(code: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["graph"], ["embed", "--help"]], ids=" ".join)
def test_light_commands_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "videos.csv").write_text("path\na.mp4\n")
    (tmp_path / "reelwright.yaml").write_text(PIPELINE)
    code = (
        "import sys, json, atexit\n"
        "from reelwright.cli.main import main\n"
        "sys.argv = ['reelwright', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    modules = json.loads(run_python(code, *arguments, cwd=tmp_path).splitlines()[-1])
    assert not set(modules) & set(HEAVY)
    assert "typer" in modules


def test_the_python_interface_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "videos.csv").write_text("path\na.mp4\n")
    (tmp_path / "reelwright.yaml").write_text(PIPELINE)
    code = (
        "import sys, reelwright\n"
        "first = {name.split('.')[0] for name in sys.modules}\n"
        "reelwright.Project('.').status()\n"
        "print(sorted(first & {'pydantic', 'numpy'}), sorted({name.split('.')[0] for name in sys.modules} & "
        f"{set(HEAVY) | {'pandas', 'matplotlib'}!r}))\n"
    )
    assert run_python(code, cwd=tmp_path).strip() == "[] []"


@pytest.mark.slow
def test_a_local_run_imports_no_dask(folder: Path) -> None:
    code = (
        "import sys\n"
        "from reelwright.pipeline.project import Project\n"
        "assert Project.open('reelwright.yaml').run(until=['embed']).exit_code == 0\n"
        "print(sorted({'dask', 'distributed', 'dask_jobqueue'} & {name.split('.')[0] for name in sys.modules}))\n"
    )
    assert run_python(code, cwd=folder).splitlines()[-1] == "[]"


def test_storage_never_imports_torch(tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, sys, reelwright.storage as storage\n"
        "for module in pkgutil.iter_modules(storage.__path__):\n"
        "    importlib.import_module('reelwright.storage.' + module.name)\n"
        "print('torch' in sys.modules)\n"
    )
    assert run_python(code, cwd=tmp_path).split() == ["False"]


@pytest.mark.slow
def test_predicting_over_embeddings_imports_what_it_needs_only(tmp_path: Path) -> None:
    """These take longer to import than most predictions take."""
    code = (
        "import sys, reelwright.stages.predict.work\n"
        "found = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted({'timm', 'torchvision', 'sklearn', 'tensorboard'} & found))\n"
    )
    assert run_python(code, cwd=tmp_path).strip() == "[]"


@pytest.mark.slow
def test_no_module_of_ours_has_a_bare_name(tmp_path: Path) -> None:
    code = (
        "import sys, reelwright.pipeline.project, reelwright.stages.train.work, reelwright.models.temporal.build\n"
        "bare = {'pipeline', 'stages', 'models', 'storage', 'cli'}\n"
        "print(sorted(bare & {name.split('.')[0] for name in sys.modules}))\n"
    )
    assert run_python(code, cwd=tmp_path).strip() == "[]"


@pytest.mark.slow
def test_a_wheel_holds_our_packages_under_one_name(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "demo", "typings")
    shutil.copytree(root, source, ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)],
        check=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"reelwright"}
    for needed in (
        "cli/main.py",
        "pipeline/config/recipes/demo.yaml",
        "stages/evaluate/report.html",
        "storage/store.py",
        "__init__.py",
        "py.typed",
    ):
        assert f"reelwright/{needed}" in names
    committed = {
        path.relative_to(source).as_posix() for package in PACKAGES for path in (source / package).rglob("*.py")
    } - {"pipeline/reelwright/__init__.py"}  # it is that of the import name
    assert {f"reelwright/{name}" for name in committed} <= set(names)
