"""The list of encoders: names by their parts, what each is, what is known of it here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.models.encoders.listing import encoder_facts, encoder_names
from reelwright.models.encoders.names import check_encoder


def _listed(*arguments: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(app, ["encoders", *arguments, "--json"], catch_exceptions=False)
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def test_what_is_listed_is_what_a_pipeline_file_takes() -> None:
    names = encoder_names(("x3d",))
    assert names == ["x3d/x3d_xs", "x3d/x3d_s", "x3d/x3d_m", "x3d/x3d_l", "x3d/x3d_xl"]
    of_frames = encoder_names(("frames", "resnet18"))
    assert {f"timm/{name.removeprefix('frames/')}" for name in of_frames} == {
        name for name in encoder_names(("resnet18",)) if name.startswith("timm/")
    }
    assert encoder_names(("frames/vit_tiny",))
    for name in [*names, *encoder_names(("test_resnet",)), *encoder_names(("dinov2", "small")), *of_frames]:
        check_encoder(name, outputs=("pooled",), model_args={})


def test_facts_are_those_of_the_network() -> None:
    facts = encoder_facts("tsm/test_resnet")
    assert (facts.kind, facts.dim, facts.clip_length, facts.size) == ("video", 96, 8, (160, 160))
    assert encoder_facts("timm/resnet18.a1_in1k").num_parameters == 11_689_512 - 513_000  # without the classifier


def test_weights_and_rates_are_those_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _listed("test_resnet.r160")[0]["rows_per_second"] is None
    text = "videos: {folder: .}\nstore: store\nstages: {frames: {uses: decode}}\n"
    (tmp_path / "reelwright.yaml").write_text(text, encoding="utf-8")
    tuning = tmp_path / "store" / "tuning"
    tuning.mkdir(parents=True)
    for name, rate in (("a", 50.0), ("b", 70.0)):
        content = {"encoder": "timm/test_resnet", "choice": {"rows_per_second": rate}}
        (tuning / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (tuning / "c.json").write_text("cut o", encoding="utf-8")
    (row,) = _listed("test_resnet.r160")
    assert (row["rows_per_second"], row["weights"], row["embed_dim"]) == (70.0, "at the hub", 96)


def test_many_are_cut_and_none_is_said() -> None:
    shown = CliRunner().invoke(app, ["encoders", "test_", "--limit", "2"]).stdout
    assert "more: give more of the name" in shown
    assert CliRunner().invoke(app, ["encoders", "nonsense"]).stdout == "no encoder has nonsense in its name\n"
