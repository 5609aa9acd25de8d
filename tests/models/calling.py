"""Call a model as the contract says."""

from __future__ import annotations

from torch import nn

from reelwright.models.contracts import VideoModel


def logits_of(model, rows, mask):
    """The logits of windows of rows."""
    return model({"rows": rows, "mask": mask})["logits"]


class Net(VideoModel, nn.Sequential):
    """Layers one after the other, from `rows` to `logits`."""

    def forward(self, batch):
        return {"logits": nn.Sequential.forward(self, batch["rows"])}


class Modules(VideoModel, nn.ModuleDict):
    """Modules by name, which are trained and never called."""
