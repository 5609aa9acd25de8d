"""The command `synthesize` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.storage.errors import ConfigError, InputError

QUICK = ["--res", "48", "--bs-point", "256", "--iter", "50", "--iter-b", "40", "-j", "1"]


def message(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["synthesize", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_videos_and_their_manifest(tmp_path: Path) -> None:
    out = tmp_path / "set"
    first = message("fractal", "--out", str(out), "--samples", "2", "--var", "0", "--var", "16", *QUICK)
    assert first.startswith(f"2 files in {out}, ")
    assert "2 samples new, 0 were there; 0 degenerate draws rejected" in first
    assert f"videos: {{manifest: {out / 'manifest.csv'}}}" in first
    again = message("fractal", "--out", str(out), "--samples", "2", "--var", "0", "--var", "16", *QUICK, "--json")
    found = json.loads(again)
    assert (found["new"], found["found"], found["samples"]) == (0, 2, 2)


def test_classes_and_instances_of_them(tmp_path: Path) -> None:
    classes, out = tmp_path / "classes", tmp_path / "set"
    message("octopus", "--gen-param", "2", "--out", str(classes), "--res", "48", "-j", "1")
    assert sorted(path.name for path in classes.glob("*.npz")) == ["1.npz", "2.npz"]
    message("octopus", "--dir-in", str(classes), "--out", str(out), "--samples", "2", "--res", "48", "-j", "1")
    assert sorted(path.parent.name for path in out.rglob("*.mp4")) == ["1", "2"]


def test_a_contact_sheet(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert message("dead_leaves", "--sheet", str(sheet), "--samples", "2", "--res", "64") == f"wrote {sheet}\n"
    with Image.open(sheet) as image:
        assert image.size == (8 * 98 - 2, 2 * 98 - 2)
        assert len(image.getcolors(1 << 20) or []) > 5
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_procedures_are_those_of_the_demo(tmp_path: Path) -> None:
    from reelwright.stages.synthesize.procedures.write import DatasetParameters, make_procedure_dataset

    out = tmp_path / "set"
    arguments = ("procedure", "--out", str(out), "--samples", "2", "--val", "1", "--res", "48", "--fps", "2")
    assert message(*arguments, "-j", "1").startswith(f"2 files in {out}")
    make_procedure_dataset(tmp_path / "demo", DatasetParameters(1, 1, 0, seed=1, height=48, width=48, fps=2.0))
    for path in (tmp_path / "demo").rglob("*.*"):
        assert (out / path.relative_to(tmp_path / "demo")).read_bytes() == path.read_bytes()
    assert json.loads(message(*arguments, "--json"))["new"] == 0


def test_procedures_as_hard_as_life_in_the_layout_of_a_data_set(tmp_path: Path) -> None:
    out = tmp_path / "set"
    arguments = ["procedure", "--out", str(out), "--samples", "1", "--res", "48", "--fps", "1", "-j", "1"]
    arguments += ["--preset", "realistic", "--setting", "gap_seconds=0", "--layout", "industreal"]
    assert message(*arguments).startswith(f"1 files in {out}")
    assert "marked red bar" in (out / "procedure.yaml").read_text(encoding="utf-8")
    assert (out / "recordings/train/01_assy_0_1/PSR_labels_raw.csv").exists()
    record = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    assert (record["procedure"]["tool"], "gap_seconds" in record["procedure"]) == (True, False)
    assert json.loads(message(*arguments, "--json"))["new"] == 0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["fractl", "--out", "x", "--samples", "1"], "'fractl'. Did you mean 'fractal'"),
        (["fractal", "--samples", "1"], "where to"),
        (["fractal", "--out", "x"], "how much"),
        (["fractal", "--out", "x", "--time", "90m"], "'90m' is no duration"),
        (["fractal", "--out", "x", "--samples", "1", "--time", "0m"], "'0m' is no time at all"),
        (["fractal", "--out", "x", "--samples", "1", "--var", "23"], "no variation has the number 23"),
        (["fractal", "--out", "x", "--samples", "1", "--iter", "20"], "nothing would be drawn"),
        (["octopus", "--out", "x", "--samples", "1", "--img"], "no meaning for octopus"),
        (["octopus", "--out", "x", "--gen-param", "2", "--samples", "1"], "--gen-param does not go with --samples"),
        (["octopus", "--out", "x", "--gen-param", "2", "--dir-in", "y"], "--gen-param does not go with --dir-in"),
        (["octopus", "--out", "x", "--sheet", "x.png"], "--sheet does not go with --out"),
        (["perlin", "--out", "x", "--gen-param", "2"], "perlin has no class files"),
        (["procedure", "--out", "x", "--time", "1h"], "procedure does not go with --time"),
        (["procedure", "--out", "x", "--samples", "1", "--val", "2"], "at least --val and --test together"),
        (["procedure", "--out", "x", "--samples", "1", "--preset", "real"], "preset"),
        (["procedure", "--out", "x", "--samples", "1", "--setting", "camera"], "write NAME=VALUE"),
        (["procedure", "--out", "x", "--samples", "1", "--setting", "camera=[1"], "is no value"),
        (["procedure", "--out", "x", "--samples", "1", "--setting", "camra=1"], "Did you mean 'camera'"),
        (["procedure", "--out", "x", "--samples", "1", "--layout", "pourin"], "Did you mean 'pouring'"),
        (["octopus", "--out", "x", "--samples", "1", "--preset", "easy"], "octopus does not go with --preset"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, InputError), match=match):
        CliRunner().invoke(app, ["synthesize", *arguments], catch_exceptions=False)
    assert not any(path.suffix in {".mp4", ".npz", ".png"} for path in tmp_path.rglob("*"))


def test_samples_of_which_none_can_be_seen_exit_with_3(tmp_path: Path) -> None:
    import numpy as np

    from reelwright.stages.synthesize.families.class_files import write_class

    weights = np.tile([4.0, 0, 9.0, 0, 4.0, 9.0], (2, 3, 1))
    write_class(tmp_path / "classes" / "1-0.npz", {"var": np.array(0), "weights": weights})
    arguments = ["fractal", "--img", "--dir-in", str(tmp_path / "classes"), "--out", str(tmp_path / "set"), *QUICK]
    done = CliRunner().invoke(app, ["synthesize", *arguments, "--samples", "1"], catch_exceptions=False)
    assert done.exit_code == 3
    assert "50 degenerate draws rejected" in done.stdout
