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


def joint_logits(model, *, mask=MASK, frames=FRAMES):
    return model({"frames": frames, "mask": mask})["logits"]


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


def test_a_window_is_a_clip_of_a_video_encoder():
    spatial = build_encoder("x3d/x3d_xs", seed=0)
    temporal = build_temporal("linear", input_dim=2048, num_outputs=3, length=1, per_row=False)
    model = JointModel(spatial, temporal).eval()
    clips = FRAMES.repeat(1, 1, 1, 2, 2)  # pixels of which its last map has two by two
    with torch.no_grad():
        found = joint_logits(model, frames=clips)
        pooled = spatial(clips.transpose(1, 2))["pooled"]
        expected = logits_of(temporal, pooled[:, None], torch.ones(2, 1, dtype=torch.bool))
    assert found.shape == (2, 3)
    torch.testing.assert_close(found, expected)


def test_refused():
    with pytest.raises(ValueError, match=r"'tokens' has shape \(5, 64\) per frame"):
        joint_logits(build_joint(outputs=("tokens",)))
    with pytest.raises(ValueError, match="all 8 frames are padded"):
        joint_logits(build_joint(), mask=torch.zeros_like(MASK))
