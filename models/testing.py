"""What a temporal model has to do, for authors of plug-ins: `checked_model`, and `TemporalModelTests` to subclass.

    class TestNet(TemporalModelTests):
        def build(self, sizes): return Net(sizes, hidden=8)

Shape letters: B batch, T rows of a window, D features, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reelwright.models.contracts import VideoModel
from reelwright.models.temporal_parts import TemporalSizes

_BATCH = 2


def checked_model(model: VideoModel, sizes: TemporalSizes) -> VideoModel:
    """``model``, after one forward pass on zeros. Raises ValueError or TypeError for other outputs than are needed.

    Mode and random numbers are as before afterwards.
    """
    if not isinstance(model, VideoModel):
        raise TypeError(f"{type(model).__name__} is no subclass of reelwright.models.contracts.VideoModel.")
    was_training = model.training
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        found = model.eval()(_batch(torch.zeros(_BATCH, sizes.length, sizes.input_dim)))
    model.train(was_training)
    wanted = (_BATCH, sizes.length, sizes.num_outputs) if sizes.per_row else (_BATCH, sizes.num_outputs)
    if not isinstance(found, dict) or not isinstance(found.get("logits"), Tensor):
        raise TypeError(f"{type(model).__name__} gives no tensor called logits.")
    if tuple(found["logits"].shape) != wanted:
        shape = tuple(found["logits"].shape)
        raise ValueError(
            f"{type(model).__name__} gives logits of shape {shape} for {_BATCH} windows of {sizes.length} rows; "
            f"needed is {wanted}."
        )
    return model


def _batch(rows_BTD: Tensor) -> dict[str, Tensor]:
    return {"rows": rows_BTD, "mask": torch.ones(rows_BTD.shape[:2], dtype=torch.bool)}
