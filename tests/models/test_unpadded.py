"""Masks that are marked as without padding, as on a GPU: the same outputs and gradients without looking at the mask."""

from __future__ import annotations

import pytest
import torch

from reelwright.models.contracts import is_unpadded, mark_unpadded, put_rows, real_rows
from reelwright.models.systems.joint import JointModel
from reelwright.models.temporal.build import build_temporal
from reelwright.stages.fit.loop.batches import Batch

ROWS = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))


class _Unread(torch.Tensor):
    """A mask of which nobody may ask what is in it."""

    def __new__(cls):
        return mark_unpadded(torch.Tensor._make_subclass(cls, torch.ones(3, 6, dtype=torch.bool)))

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        assert function not in {torch.Tensor.__bool__, torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.nonzero}
        assert function is not torch.Tensor.__getitem__ or not isinstance(arguments[1], _Unread)
        return super().__torch_function__(function, types, arguments, options or {})


class _Pooling(torch.nn.Module):
    """Stands for an encoder of frames: the means of its channels."""

    kind, outputs = "image", ("pooled",)

    def __init__(self):
        super().__init__()
        self.model = torch.nn.Linear(3, 8)

    def forward(self, frames):
        return {"pooled": self.model(frames.mean(dim=(2, 3)))}


def _joint():
    return JointModel(_Pooling(), build_temporal("transformer", input_dim=8, num_outputs=3, length=6, per_row=True))


def _transformer(**options):
    return build_temporal("transformer", input_dim=8, num_outputs=3, length=6, per_row=False, heads=2, **options)


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (_transformer, {"rows": ROWS}),
        (lambda: _transformer(causal=True, pool="last"), {"rows": ROWS}),
        (_joint, {"frames": torch.randn(3, 6, 3, 4, 4, generator=torch.Generator().manual_seed(1))}),
    ],
    ids=["transformer", "causal", "joint"],
)
def test_the_same_comes_out(build, inputs):
    torch.manual_seed(0)
    model = build().eval()
    found = []
    for mask in (torch.ones(3, 6, dtype=torch.bool), _Unread()):
        model.zero_grad()
        logits = model({**inputs, "mask": mask})["logits"].as_subclass(torch.Tensor)
        logits.square().sum().backward()
        found.append(
            [logits, *(parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None)]
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_rows_there_and_back():
    mask = torch.ones(3, 6, dtype=torch.bool)
    assert not is_unpadded(mask)
    marked = mark_unpadded(mask.clone())
    assert is_unpadded(marked)
    assert not is_unpadded(marked[:2])
    assert not is_unpadded(marked.clone())
    assert torch.equal(real_rows(ROWS, marked), real_rows(ROWS, mask))
    assert torch.equal(put_rows(real_rows(ROWS, marked), marked), ROWS)


@pytest.mark.parametrize("is_padded", [False, True])
def test_a_mask_is_marked_where_it_leaves_the_host(is_padded):
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[0, 5] = not is_padded

    class Upload:
        device = torch.device("meta")

        def __call__(self, value):
            return value.to("meta")

    moved = Batch({"rows": ROWS, "mask": mask}, torch.zeros(3)).to(Upload())
    assert is_unpadded(moved.inputs["mask"]) == (not is_padded)
    assert not is_unpadded(mask)
    assert moved.targets.device.type == "meta"
