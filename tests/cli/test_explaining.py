"""`explain` and `status --exit-code`, as text and as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.pipeline.project import Project
from reelwright.storage.errors import ConfigError
from tests.small_project import put_back, write_video


@pytest.fixture
def project(restorable: Path) -> Path:
    put_back(restorable)
    return restorable / "reelwright.yaml"


def message(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["embed"], ["embed (embed): up to date", "key ", "lies in ", "finished ", "work: ", "videos total: 5"]),
        (
            ["embed", "-S", "embed.precision=bf16"],
            ["embed (embed): stale", '  spec.precision: "fp32" -> "bf16"', "  nothing done yet of 5 videos", "key "],
        ),
        (["predict", "-S", "train.epochs=3"], ["predict (predict): waiting", "  waits for train"]),
        (["embed", "a"], ["a in embed: up to date: ok, 10 rows", "content "]),
        (["train", "a"], ["a in train: up to date", "content "]),
        (["train", "d"], ["d in train: left out: its split is test; train reads train", "content "]),
        (["frames", "a", "-S", "frames.fps=2"], ["a in frames: to do: spec.fps: 5 -> 2", "content "]),
        (
            ["train", "a", "-S", "train.epochs=3", "-S", "train.seed=1"],
            ["a in train: stale: spec.epochs: 2 -> 3", "  spec.seed: 0 -> 1", "content "],
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if value[0].isalpha() else "",
)
def test_explain(project: Path, arguments: list[str], lines: list[str]) -> None:
    shown = message("explain", "-c", str(project), *arguments).splitlines()
    assert all(line.startswith(expected) for line, expected in zip(shown, lines, strict=False)), shown
    assert arguments == ["embed"] or len(shown) == len(lines)


def test_explain_as_json(project: Path) -> None:
    node = json.loads(message("explain", "-c", str(project), "train", "-S", "train.epochs=3", "--json"))
    assert (node["state"], node["reasons"]) == ("stale", ["spec.epochs: 2 -> 3"])
    assert node["material"]["spec"]["epochs"] == 3
    assert (node["place"], node["record"]) == (None, None)
    done = json.loads(message("explain", "-c", str(project), "train", "--json"))
    assert (Path(done["place"]) / "summary.json").is_file()
    assert done["record"]["outputs"]["weights"]
    video = json.loads(message("explain", "-c", str(project), "embed", "a", "--json"))
    assert (video["video"], video["node"], video["state"], video["reasons"]) == ("a", "embed", "up to date", [])
    assert (video["row"]["status"], video["row"]["rows"]) == ("ok", 10)
    assert video["digest"] == video["row"]["digest"]


def test_explain_names_the_nearest(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"no node 'embde'. Did you mean 'embed'\?"):
        message("explain", "-c", str(project), "embde")
    with pytest.raises(ConfigError, match="no video 'z' in the manifest"):
        message("explain", "-c", str(project), "embed", "z")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["show", "train"], "explain"),
        (["failures"], "logs"),
        (["procedure", "meccano"], "prepare procedure"),
        (["import-detections", "x", "-o", "y.csv"], "prepare detections"),
    ],
)
def test_a_command_that_has_another_name_now_says_so(old: list[str], new: str) -> None:
    with pytest.raises(ConfigError, match=f"the command {old[0]} is `reelwright {new}` now"):
        message(*old)


def test_the_exit_code_of_status(project: Path) -> None:
    message("status", "-c", str(project), "--exit-code")
    message("status", "-c", str(project), "--exit-code", "-S", "train.epochs=3", code=1)
    message("status", "-c", str(project), "-S", "train.epochs=3")


STREAMED = """
videos: {folder: .}
stages:
  frames: {uses: decode, fps: 5, materialize: false}
  embed: {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none}
"""


def test_a_damaged_video_and_a_changed_setting_of_frames_that_are_not_stored(tmp_path: Path) -> None:
    """Neither is seen in the state of any node: embed has all rows that can be had, frames are never stale."""
    file = tmp_path / "reelwright.yaml"
    file.write_text(STREAMED, encoding="utf-8")
    for seed, name in enumerate(("whole", "damaged")):
        write_video(tmp_path / f"{name}.mp4", seed=seed)
    content = bytearray((tmp_path / "damaged.mp4").read_bytes())
    start = content.index(b"mdat") - 4
    middle = start + int.from_bytes(content[start : start + 4]) * 3 // 4  # behind the first frame
    content[middle : middle + 40] = bytes(40)
    (tmp_path / "damaged.mp4").write_bytes(content)
    assert Project.open(file).run().exit_code == 3
    shown = message("status", "-c", str(file)).splitlines()
    assert [line.split()[0] for line in shown if line.endswith("truncated: 1")] == ["embed"]
    assert shown[-1].startswith("truncated: damaged or cut off, with rows of what can be decoded; `logs` says")
    assert "damaged" in message("logs", "-c", str(file))
    assert [node["truncated"] for node in json.loads(message("status", "-c", str(file), "--json"))["nodes"]] == [0, 1]
    changed = message("explain", "-c", str(file), "embed", "-S", "frames.fps=2").splitlines()
    assert changed[1] == "  input frames: frames changed (spec.fps: 5 -> 2)"
    assert Project.open(file, overrides=["frames.fps=2"]).run().exit_code == 3
    assert "changed" not in message("status", "-c", str(file), "-S", "frames.fps=2")


def test_another_process_elsewhere_finds_all_up_to_date(project: Path, tmp_path: Path) -> None:
    other = {"PYTHONHASHSEED": "7", "HOME": str(tmp_path), "TZ": "Asia/Tokyo", "LC_ALL": "C", "USER": "someone"}
    command = "from reelwright.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "status", "-c", str(project), "--exit-code"],
        cwd=tmp_path,
        env={**os.environ, **other},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
