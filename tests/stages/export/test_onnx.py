"""Trained models as ONNX: the numbers are torch's, and what has no such form is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from reelwright import Project
from reelwright.cli.main import app
from reelwright.models.temporal.build import build_temporal
from reelwright.models.temporal.common import zero_padding
from reelwright.stages.export import onnx_model
from reelwright.storage.errors import ConfigError, UnusableMachineError


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_recurrent_models_run_without_packing_as_with_it(name: str) -> None:
    """ONNX knows no packed sequences; padding may lie anywhere."""
    model = build_temporal(name, input_dim=5, length=6, per_row=True, num_outputs=3).eval()
    draws = torch.Generator().manual_seed(0)
    rows, mask = torch.randn(4, 6, 5, generator=draws), torch.rand(4, 6, generator=draws) > 0.4
    mask[0], mask[1] = True, torch.arange(6) == 2
    rows = zero_padding(rows, mask)
    with torch.inference_mode():
        expected, found = model._run(rows, mask)[mask], model._run_whole(rows, mask)[mask]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_what_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "frames_seen", lambda values: values)
    with pytest.raises(ConfigError, match="tune sees clips of frames"):
        onnx_model.check_onnx({"node": "tune"})
    monkeypatch.setattr(onnx_model, "find_spec", lambda _: None)
    with pytest.raises(UnusableMachineError, match=r"pip install 'reelwright\[onnx\]'"):
        onnx_model.check_onnx({"node": "train"})


@pytest.mark.slow
def test_an_exported_model_runs_without_torch(finished: Path, tmp_path: Path) -> None:
    import onnxruntime

    arguments = ["export-model", "train", "--out", str(tmp_path / "model"), "--onnx", "-c"]
    result = CliRunner().invoke(app, [*arguments, str(finished / "reelwright.yaml")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    assert "model.onnx" in about["files"]
    assert about["onnx"].startswith("any number of windows of 4 rows at once")
    project = Project(finished)
    windows = project.windows("train")
    rows = np.stack([windows[place]["rows"].numpy() for place in range(len(windows))])
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"rows": rows, "mask": np.ones(rows.shape[:2], dtype=bool)})
    found = project["train"].model().module({"rows": torch.from_numpy(rows), "mask": torch.ones(rows.shape[:2]) > 0})
    np.testing.assert_allclose(scores, found["logits"].softmax(-1).detach().numpy(), atol=1e-4)
