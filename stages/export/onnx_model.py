"""A trained temporal model as ONNX: rows and mask of windows in, scores out, compared with torch before it is kept."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.embed.encoding.clip_models import frames_seen
from reelwright.stages.fit.run_models import load_run_model, task_of_run
from reelwright.storage.errors import ConfigError, StageError, UnusableMachineError
from reelwright.storage.results.runs import RunFolder

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4  # of probabilities
_BATCHES = (1, 3)  # windows at once, that are compared
_ROWS, _MASK, _SCORES, _BATCH = "rows", "mask", "scores", "batch"


class _Scores(nn.Module):
    """The model with what makes probabilities of its logits."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self._model, self._task = model, task

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Rows (B,T,...) float32 and mask (B,T) bool to probabilities (B,K) or (B,T,K)."""
        scores: Tensor = self._task.probabilities(self._model({_ROWS: rows, _MASK: mask})["logits"])
        return scores


def check_onnx(values: Mapping[str, Any]) -> None:
    """Raise ConfigError for the run of a config.yaml that sees frames, UnusableMachineError where a package lacks."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UnusableMachineError(
            f"--onnx needs {', '.join(missing)}, not installed here: pip install 'reelwright[onnx]'"
        )
    if frames_seen(values) is not None:
        raise ConfigError(
            f"--onnx: {values['node']} sees clips of frames; written as ONNX are models of rows. Export without --onnx"
        )


def export_onnx(folder: RunFolder, path: Path, *, plugins: Mapping[str, Any]) -> str:
    """Write the model behind the encoder to ``path``; returns a line about it.

    in: rows float32 (batch, length, D), or with positions, and mask bool (batch, length); out: scores, probabilities
    (batch, K), or (batch, length, K) of task per_row. The length is that of training; the batch is free, or 1 where the
    exporter cannot leave it free.

    Raises what `check_onnx` raises, ConfigError for a model that has no such form, StageError where its numbers differ
    by more than 1e-4.
    """
    values = folder.config()
    check_onnx(values)
    model, _ = load_run_model(folder, plugins=plugins)
    scores = _Scores(model.eval(), task_of_run(values)).eval()
    name, length = str(values["model"]["name"]), int(values["window"]["length"])
    shape = (length, *values["model"].get("row_shape", [values["model"]["input_dim"]]))
    _write(scores, _inputs(2, shape, seed=0), path, name=name, is_free=True)
    is_free = _is_free(path)
    if not is_free:
        _write(scores, _inputs(1, shape, seed=0), path, name=name, is_free=False)
    counts = _BATCHES if is_free else (1,)
    difference = max(_difference(scores, path, _inputs(count, shape, seed=count)) for count in counts)
    if not difference <= TOLERANCE:
        path.unlink()
        raise StageError(
            f"--onnx: probabilities of {name} as ONNX differ from torch's by {difference:.2g}, above {TOLERANCE:g}; "
            "nothing was kept. Export without --onnx"
        )
    at_once = "any number of windows" if is_free else "one window"
    return f"{at_once} of {length} rows at once; probabilities differ from torch's by {difference:.1g}"


def _inputs(count: int, shape: tuple[int, ...], *, seed: int) -> tuple[Tensor, Tensor]:
    """Random rows; the last window has padding, where there is more than one row."""
    rows = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(count, shape[0], dtype=torch.bool)
    mask[-1, max(1, shape[0] - 1) :] = False
    rows[~mask] = 0
    return rows, mask


def _write(scores: nn.Module, inputs: tuple[Tensor, Tensor], path: Path, *, name: str, is_free: bool) -> None:
    batch = torch.export.Dim(_BATCH)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, about its own parts
            torch.onnx.export(
                scores,
                inputs,
                path,
                input_names=[_ROWS, _MASK],
                output_names=[_SCORES],
                dynamic_shapes=({0: batch}, {0: batch}) if is_free else None,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ConfigError(f"--onnx: {name} has no form in ONNX ({reason}). Export without --onnx") from error


def _is_free(path: Path) -> bool:
    """Whether a model takes any number of windows."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return isinstance(session.get_inputs()[0].shape[0], str)


def _difference(scores: nn.Module, path: Path, inputs: tuple[Tensor, Tensor]) -> float:
    """Of the probabilities of real rows, at most; infinite where some are not numbers."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = dict(zip((_ROWS, _MASK), (tensor.numpy() for tensor in inputs), strict=True))
    needed = {entry.name for entry in session.get_inputs()}
    (found,) = session.run(None, {name: value for name, value in given.items() if name in needed})
    with torch.inference_mode():
        expected = scores(*inputs).numpy()
    if found.shape != expected.shape:
        return float("inf")
    real = inputs[1].numpy() if expected.ndim == 3 else np.ones(len(expected), dtype=bool)
    difference = np.abs(found[real] - expected[real])
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")
