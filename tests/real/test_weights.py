"""Real ImageNet weights load strictly and name what is on real pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval

from reelwright.models.blocks.weights import load_weights
from reelwright.models.encoders.build import build_encoder

MODEL_ARGS = {"pad_type": "same", "num_classes": 1001}


def read_state(folder, name):
    return torch.load(folder / "weights" / name, weights_only=True)


@pytest.fixture(scope="module")
def classifier(real_data):
    encoder = build_encoder("timm/mobilenetv2_100", outputs=["pooled", "logits"], seed=0, model_args=MODEL_ARGS)
    state = read_state(real_data, "mobilenetv2_100.imagenet1001.fp16.pth")
    report = load_weights(encoder, state)
    assert set(report.matched) == set(state)
    assert report.missing == report.unexpected == report.mismatched == ()
    return encoder.eval()


@pytest.mark.parametrize(
    ("picture", "expected"),
    [("cat_720p.jpg", {"tabby", "tiger cat", "Egyptian cat"}), ("hot_dog.jpg", {"hotdog"}), ("parrot.jpg", {"macaw"})],
    ids=["cat", "hot_dog", "parrot"],
)
def test_names_the_picture(real_data, classifier, picture, expected):
    # The weights' own preprocessing (data README): input 224, mean = std = 0.5.
    transform = transforms_imagenet_eval(224, crop_pct=0.875, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    with Image.open(real_data / "weights" / picture) as image:
        x_CHW = transform(image.convert("RGB"))
    with torch.no_grad():
        logits_K = classifier(x_CHW[None])["logits"][0]
    labels = (real_data / "weights" / "imagenet_labels.txt").read_text().splitlines()
    assert len(labels) == len(logits_K)
    assert labels[int(logits_K.argmax())].split(",")[0] in expected


def test_trunk_loads_when_the_classifier_is_ignored(real_data):
    state = read_state(real_data, "mobilenetv1_100.trunk.fp16.pth")
    encoder = build_encoder("timm/mobilenetv1_100", seed=0)
    report = load_weights(encoder, state, ignore=["classifier.*"])
    assert len(report.matched) == len(encoder.model.state_dict())
    first = next(iter(report.matched))
    np.testing.assert_array_equal(encoder.model.state_dict()[first].numpy(), state[first].float().numpy())
