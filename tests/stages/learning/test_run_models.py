"""Models as the config.yaml of a run describes them."""

from __future__ import annotations

import pytest
import torch

from reelwright.models.systems.carl import Carl
from reelwright.stages.fit.run_models import build_run_model
from reelwright.storage.errors import ConfigError

SIZES = {"input_dim": 5, "length": 8, "per_row": True}


@pytest.mark.parametrize("num_outputs", [None, 3])
def test_a_frame_model_embeds_rows_and_classifies_where_it_has_classes(num_outputs):
    values = {"name": "carl", "options": {"layers": 1, "embed_dim": 16}, "num_outputs": num_outputs, **SIZES}
    model = build_run_model(values, plugins={}).eval()
    assert isinstance(model, Carl)
    batch = {"rows": torch.randn(2, 6, 5), "mask": torch.ones(2, 6, dtype=torch.bool)}
    with torch.no_grad():
        found = model(batch)
        again = build_run_model(values, plugins={}).eval()(batch)
    assert found["embedding"].shape == (2, 6, 16)
    assert ("logits" in found) == (num_outputs is not None)
    assert torch.equal(found["embedding"], again["embedding"])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"options": {"layer": 1}}, "model: unknown option of carl 'layer'.*did you mean 'layers'"),
        ({"options": {"layers": 2, "heads": 3}}, "model: width 256 does not divide into 3 heads"),
    ],
)
def test_options_that_do_not_fit_are_refused(values, match):
    with pytest.raises(ConfigError, match=match):
        build_run_model({"name": "carl", "num_outputs": None, **SIZES, **values}, plugins={})
