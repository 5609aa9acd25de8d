"""What is shipped, in an environment of its own, and the first ten minutes with it.

These are the steps of README.md and docs/start.md, on real videos with real weights, up to the report and the scores
of a video that nobody labelled.
"""

from __future__ import annotations

import csv
import functools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT, blocks, words_of

VARIABLE = "REELWRIGHT_REAL_DATA"
VIDEOS = ("Subject_1/ADL/10", "Subject_1/Fall/13", "Subject_2/ADL/23")
NEW = "Subject_1/ADL/16"
ENCODER = {  # of the weights that a person has
    "encoder": "timm/mobilenetv2_100",
    "weights": "weights/mobilenetv2_100.imagenet1001.fp16.pth",
    "model_args": {"num_classes": 1001, "pad_type": "same"},
    "preprocess": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, of what git has and of new files, and the wheel that is made of it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "typings/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def environment(shipped: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; what it depends on is that of the tests, but for their editable package."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(shipped[1])], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n", encoding="utf-8")
    return folder


def command(environment: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env = {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    path = str(environment / "bin" / "reelwright")
    return subprocess.run([path, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_sdist_and_wheel_have_all_modules_and_data(shipped: tuple[Path, Path]) -> None:
    with tarfile.open(shipped[0]) as sdist, zipfile.ZipFile(shipped[1]) as wheel:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
        installed = {name.removeprefix("reelwright/") for name in wheel.namelist()}
    kinds = {".py", ".yaml", ".html", ".css", ".js", ".typed"}
    files = {
        path.relative_to(ROOT).as_posix()
        for package in ("cli", "pipeline", "stages", "models", "storage")
        for path in (ROOT / package).rglob("*")
        if path.suffix in kinds
    }
    assert {Path(name).suffix for name in files} >= kinds - {".js"}
    assert files - packed == set()
    assert {_installed(name) for name in files} - installed == set()
    assert not [path for path in installed if path.startswith(("tests", "docs", "typings"))]


def _installed(name: str) -> str:
    """Where a file of the repository lies in the installed package, below `reelwright`."""
    folders = {folder: package for package, folder in _places().items() if name.startswith(f"{folder}/")}
    longest = max(folders, key=len)
    package = folders[longest].replace(".", "/").partition("/")[2]
    return f"{package}{name.removeprefix(longest)}".removeprefix("/")


@functools.cache
def _places() -> dict[str, str]:
    """Package -> folder, as pyproject.toml says."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["tool"]["setuptools"]["package-dir"]


@pytest.mark.slow
def test_the_installed_command_works_away_from_the_repository(environment: Path, tmp_path: Path) -> None:
    said = command(environment, "--version", cwd=tmp_path)
    assert re.match(r"reelwright \d+\.\d+\.\d+", said.stdout), said.stderr
    assert "falls: " in command(environment, "init", "--list", cwd=tmp_path).stdout
    assert "top" in command(environment, "settings", "evaluate", cwd=tmp_path).stdout
    code = "import reelwright.pipeline.project as found; print(found.__file__)"
    python = [str(environment / "bin" / "python"), "-c", code]
    where = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert str(environment) in where


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; skips where there is none."""
    folder = Path(os.environ.get(VARIABLE) or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data beside the repository; set {VARIABLE} to their folder.")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)  # 30 s of processor time; a busy machine takes many times that
def test_a_person_with_the_readme_reaches_a_report(environment: Path, real_data: Path, tmp_path: Path) -> None:
    mine = real_data / "gmdcsa24"
    with (mine / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["video_id"] in VIDEOS]
    assert {row["split"] for row in rows} == {"train", "test"}
    for row in rows:
        (tmp_path / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mine / row["path"], tmp_path / row["path"])
    with (tmp_path / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lines = (mine / "phases.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.startswith(("video_id", *(f"{name}," for name in VIDEOS)))]
    (tmp_path / "segments.csv").write_text("\n".join(kept) + "\n", encoding="utf-8")

    for steps in _steps():
        done = command(environment, *steps, cwd=tmp_path)
        assert done.returncode == 0, f"{steps}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        if steps[0] == "init":
            _edit(tmp_path / "reelwright.yaml", real_data)
    lines = done.stdout.splitlines()
    assert len([line for line in lines if "up to date" in line or "streamed" in line]) >= 5, done.stdout
    assert not [line for line in lines if " stale " in line or " waiting " in line]
    report = Path(command(environment, "report", cwd=tmp_path).stdout.split(": ", 1)[1].strip())
    text = report.read_text(encoding="utf-8")
    assert "fallen" in text
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.https?:", text)

    shutil.copy(mine / f"{NEW}.mp4", tmp_path / "new.mp4")
    done = command(environment, "predict", "--run", "train", "--videos", "new.mp4", "--out", "scores.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        scores = list(csv.DictReader(file))
    named = [name for name in scores[0] if name.startswith("score.")]
    assert named
    assert all(abs(sum(float(row[name]) for name in named) - 1) < 1e-3 for row in scores)


def _steps() -> list[list[str]]:
    """The commands of docs/start.md in their order; `init`, `run -n`, `run` and `status` are those of the README."""
    block = next(  # the first: another one shows what `init` says of a folder
        b for b in blocks("console") if b.page.name == "start.md" and b.commands[0].startswith("reelwright init")
    )
    steps = [words for line in block.commands for words in words_of(line)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [words for words in steps if f"reelwright {' '.join(words)}" in readme]
    assert [words[0] for words in shown] == ["init", "run", "run", "status"]
    return steps


def _edit(path: Path, real_data: Path) -> None:
    """What a person changes in the file that `init` wrote: the encoder that there is, and less work."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    stages = content["stages"]
    stages["frames"]["fps"] = 2
    stages["embed"] |= {**ENCODER, "weights": str(real_data / ENCODER["weights"])}
    stages["train"] |= {"window": {"length": 6, "hop": 2}, "epochs": 3}
    stages["predict"]["window"] = {"hop": 2}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
