"""Frames to logits through both models."""

from __future__ import annotations

import pytest
import torch

from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.joint import JointModel
from reelwright.models.temporal.build import build_temporal
from tests.models.calling import logits_of


def build_joint(*, per_row=False, outputs=("pooled",)):
    spatial = build_encoder("timm/test_vit", outputs=outputs, seed=0, model_args={"img_size": 32})
    torch.manual_seed(0)
    temporal = build_temporal("gru", input_dim=64, num_outputs=3, length=4, per_row=per_row, width=8)
    return JointModel(spatial, temporal).eval()


FRAMES = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])


def joint_logits(model, *, mask=MASK):
    return model({"frames": FRAMES, "mask": mask})["logits"]


@pytest.mark.parametrize("per_row", [False, True])
def test_equals_both_models_in_turn(per_row):
    model = build_joint(per_row=per_row)
    with torch.no_grad():
        found = joint_logits(model)
        rows = torch.stack([model.spatial(video)["pooled"] for video in FRAMES])
        expected = logits_of(model.temporal, rows, MASK)
    assert found.shape == ((2, 4, 3) if per_row else (2, 3))
    torch.testing.assert_close(found[MASK] if per_row else found, expected[MASK] if per_row else expected)


def test_padded_frames_are_not_encoded():
    model = build_joint()
    seen = []
    model.spatial.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    joint_logits(model)
    assert seen == [6]


def test_gradients_reach_both_parts():
    model = build_joint().train()
    joint_logits(model).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_refused():
    with pytest.raises(ValueError, match="VideoEncoder is a video encoder"):
        JointModel(build_encoder("torchvision/r3d_18"), build_joint().temporal)
    with pytest.raises(ValueError, match=r"'tokens' has shape \(5, 64\) per frame"):
        joint_logits(build_joint(outputs=("tokens",)))
    with pytest.raises(ValueError, match="all 8 frames are padded"):
        joint_logits(build_joint(), mask=torch.zeros_like(MASK))
