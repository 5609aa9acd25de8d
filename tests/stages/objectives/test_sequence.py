"""Objectives of frames: what they read of outputs and batch, parts that add up, two processes that are one."""

from __future__ import annotations

import json
import math
import os
import socket
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from reelwright.models.losses.cycle_consistency import CycleConsistency, cycle_consistency_loss
from reelwright.models.losses.sequence_contrastive import SequenceContrast, sequence_contrastive_loss
from reelwright.stages.objectives.config import SequenceObjectiveSettings
from reelwright.stages.objectives.contract import batch_loss
from reelwright.stages.objectives.sequence import sequence_objective
from tests import forks
from tests.stages.objectives.sequence_processes import NUM_VIDEOS, OBJECTIVES, SPLITS, part_of, whole_batch

SCRIPT, ROOT = Path(__file__).with_name("sequence_processes.py"), Path(__file__).parents[3]
VALUES = json.loads((ROOT / "tests" / "data" / "carl_losses.json").read_text(encoding="utf-8"))


def objective(**settings):
    return sequence_objective(SequenceObjectiveSettings(**settings))


def loss(outputs, batch, **settings):
    return batch_loss(objective(**settings), outputs, batch, is_shared=False)


@pytest.mark.parametrize("case", VALUES["scl"], ids=lambda case: f"{case['negative_type']}-{case['sigma_squared']}")
def test_sequence_contrast_of_the_public_code(case):
    """Two views of each video side by side."""
    positions = torch.tensor(case["steps"]).flatten(0, 1)
    z = torch.tensor(case["embeddings_flat_B_view_T"], dtype=torch.float64).reshape(*positions.shape, -1)
    batch = {
        "row_numbers": positions,
        "mask": torch.tensor(case["masks"]).flatten(0, 1) > 0,
        "num_rows": torch.tensor(case["seq_lens"]).flatten(),
    }
    settings = {"negatives": case["negative_type"], "variance": case["sigma_squared"], "compat": True}
    settings["temperature"] = case["temperature"]
    assert objective(**settings).num_views == 2
    assert loss({"embedding": z}, batch, **settings).total.item() == pytest.approx(case["loss"], rel=1e-9)


def test_cycle_consistency_of_the_public_code():
    tcc = VALUES["tcc"]
    positions = torch.tensor(tcc["steps"])
    batch = {"row_numbers": positions, "mask": positions >= 0, "num_rows": torch.tensor(tcc["seq_lens"])}
    outputs = {"embedding": torch.tensor(tcc["embeddings"], dtype=torch.float64)}
    found = loss(outputs, batch, name="tcc")
    assert found.total.item() == pytest.approx(14.1437099913, abs=1e-9)
    assert sorted(found.parts) == ["error", "variance"]
    assert loss(outputs, batch, name="tcc", form="regression_mse").total.item() == pytest.approx(0.0895764877, abs=1e-9)
    assert objective(name="tcc").num_views == 1


def test_n_pairs_of_the_public_code():
    tcn = VALUES["tcn"]
    z = torch.tensor([tcn["embeddings_anchor_positive_interleaved"]], dtype=torch.float64)
    batch = {"mask": torch.ones(1, 6, dtype=torch.bool)}
    assert loss({"embedding": z}, batch, name="tcn").total.item() == pytest.approx(tcn["loss"], rel=1e-9)
    plain = loss({"embedding": z}, batch, name="tcn", norm_weight=0.0)
    assert plain.total.item() == pytest.approx(tcn["loss_reg0"], rel=1e-9)


def test_labels_count_where_they_are_known_and_rows_real():
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0], [9.0, 0.0], [0.0, 9.0]]])
    batch = {"targets": torch.tensor([[0, 1, -1, 0]]), "mask": torch.tensor([[True, True, True, False]])}
    found = loss({"logits": logits}, batch, name="per_frame").total.item()
    assert found == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert objective(name="per_frame").weight(batch).item() == 2


@pytest.mark.parametrize("name", ["scl", "tcc", "tcn"])
def test_what_the_model_makes_for_the_loss_alone_is_compared(name):
    outputs, batch = whole_batch(2)
    alone = loss(outputs, batch, name=name).total
    both = {"embedding": torch.randn_like(outputs["embedding"]), "aux.projected": outputs["embedding"]}
    assert loss(both, batch, name=name).total == alone


def test_settings_reach_the_loss():
    """Each setting changes the number, and to that of the loss with it."""
    outputs, batch = whole_batch(2)
    z, positions, mask = (
        v.unflatten(0, (NUM_VIDEOS, 2)) for v in (outputs["embedding"], batch["row_numbers"], batch["mask"])
    )
    cases = [{"negatives": "batch"}, {"variance": 2.0}, {"temperature": 0.3}, {"compat": True}]
    for case in cases:
        expected = sequence_contrastive_loss(z, positions, mask, how=SequenceContrast(**case))
        assert loss(outputs, batch, **case).total.item() == pytest.approx(expected.item())
        assert loss(outputs, batch).total.item() != pytest.approx(expected.item(), rel=1e-7)
    rest = (outputs["embedding"], batch["row_numbers"], batch["num_rows"], batch["mask"])
    base = {"similarity": "cosine"}, {"temperature": 1.0}, {"label_smoothing": 0.3}, {"variance_weight": 1.0}
    forms = {"normalize": False}, {"form": "regression_huber", "huber_delta": 0.01}, {"form": "regression_huber"}
    for case in (*base, *forms, {"form": "classification"}, {"form": "classification", "compat": True}):
        expected = cycle_consistency_loss(*rest, how=CycleConsistency(**case)).total
        assert loss(outputs, batch, name="tcc", **case).total.item() == pytest.approx(expected.item())
        assert loss(outputs, batch, name="tcc").total.item() != pytest.approx(expected.item(), rel=1e-7)


@pytest.mark.parametrize("name", ["scl single", "scl single_noself", "tcn", "per_frame"])
def test_parts_of_a_batch_add_up(name):
    """Where no videos are compared: the weighted mean of the losses of parts is that of the whole."""
    found = objective(**OBJECTIVES[name])
    assert found.gathers == ()
    outputs, batch = whole_batch(found.num_views)
    sums = torch.zeros(2)
    for start, stop in ((0, 1), (1, 3), (3, 5)):
        part = part_of(batch, start * found.num_views, stop * found.num_views)
        value = found(part_of(outputs, start * found.num_views, stop * found.num_views), part).total
        sums += torch.stack([value * found.weight(part), found.weight(part)])
    assert (sums[0] / sums[1]).item() == pytest.approx(found(outputs, batch).total.item(), rel=1e-5)
    assert sums[1] == found.weight(batch)


@pytest.fixture(scope="module")
def together():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    code = SCRIPT.read_text(encoding="utf-8")
    started = [forks.start(cwd=ROOT, env={**os.environ, **common, "RANK": str(rank)}, code=code) for rank in (0, 1)]
    try:
        printed = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0]
    return json.loads(printed[0])


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_are_one(together, name, split):
    """Loss and gradients of every row, whatever part of the batch each process has."""
    alone, shared, gradient, of_both = together[f"{name}, {split}"]
    assert shared == pytest.approx(alone, rel=1e-5)
    torch.testing.assert_close(torch.tensor(of_both), torch.tensor(gradient), rtol=1e-4, atol=1e-6)
    assert torch.tensor(gradient).abs().sum() > 0


BAD = {
    "name": ({"name": "carl"}, "scl"),
    "negatives": ({"negatives": "self"}, "single_noself"),
    "variance": ({"variance": 0}, "greater than 0"),
    "smoothing": ({"name": "tcc", "label_smoothing": 1.0}, "less than 1"),
    "unknown": ({"sigma": 10}, "sigma"),
}


@pytest.mark.parametrize(("settings", "match"), BAD.values(), ids=BAD)
def test_refused(settings, match):
    with pytest.raises(ValidationError, match=match):
        SequenceObjectiveSettings(**settings)
