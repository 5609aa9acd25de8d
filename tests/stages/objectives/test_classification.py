"""The objective of tasks: one stage as it is, several as MS-TCN sums them."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from reelwright.models.losses.classification import truncated_smoothing_loss
from reelwright.models.temporal.build import build_temporal
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.fit.config import LossSettings
from reelwright.stages.train.config import TrainConfig
from reelwright.storage.errors import ConfigError

CPU = torch.device("cpu")
COUNTS = np.array([4, 3, 2])
BALANCED = {"class_weights": "balanced"}


def _objective(task="per_row", **loss):
    labels = LabelSpace(classes=("a", "b", "c"))
    return build_task(task, labels).objective(LossSettings(**loss), counts=COUNTS, device=CPU)


def _model(stages, *, per_row=True):
    torch.manual_seed(0)
    options = {"stages": stages, "layers": 2, "width": 6, "dropout": 0.0}
    return build_temporal("ms_tcn", input_dim=5, num_outputs=3, length=8, per_row=per_row, **options)


def _outputs(model, x, mask):
    return model({"rows": x, "mask": mask})


def _batch():
    x, mask = torch.randn(4, 8, 5), torch.ones(4, 8, dtype=torch.bool)
    target = torch.randint(0, 3, (4, 8))
    mask[1, 6:] = False
    target[1, 6:] = -1
    target[2, :3] = -1
    return x, mask, target


def test_smoothing_by_hand():
    # Two classes, log probabilities of rows: (-ln 2, -ln 2), (ln 1/4, ln 3/4), then one row with a step above tau.
    logits = torch.tensor([[[0.0, 0.0], [0.0, math.log(3)], [50.0, 0.0]]])
    first = (math.log(0.25) - math.log(0.5)) ** 2 + (math.log(0.75) - math.log(0.5)) ** 2
    second = min((0 - math.log(0.25)) ** 2, 16) + 16
    known = torch.tensor([[0, 1, 0]])
    found = truncated_smoothing_loss(logits, known, divisor=torch.tensor(3.0))
    assert float(found) == pytest.approx((first + second) / (2 * 3), rel=1e-5)
    found = truncated_smoothing_loss(logits, torch.tensor([[0, 1, -1]]), divisor=torch.tensor(2.0))
    assert float(found) == pytest.approx(first / (2 * 2), rel=1e-5)


def test_smoothing_teaches_the_later_row_of_a_pair_alone():
    logits = torch.randn(1, 2, 3, requires_grad=True)
    truncated_smoothing_loss(logits, torch.zeros(1, 2, dtype=torch.long), divisor=torch.tensor(2.0)).backward()
    assert logits.grad[0, 0].abs().sum() == 0
    assert logits.grad[0, 1].abs().sum() > 0


def test_nothing_known_costs_nothing():
    logits = torch.randn(1, 2, 3, requires_grad=True)
    loss = truncated_smoothing_loss(logits, torch.full((1, 2), -1), divisor=torch.tensor(0.0))
    loss.backward()
    assert loss.detach() == 0
    assert logits.grad.abs().sum() == 0


def test_one_stage_is_plain_cross_entropy_to_the_bit():
    x, mask, target = _batch()
    outputs = _outputs(_model(1), x, mask)
    found = _objective()(outputs, {"targets": target})
    assert list(outputs) == ["logits"]
    assert not found.parts
    expected = functional.cross_entropy(outputs["logits"].flatten(0, 1), target.flatten(), ignore_index=-1)
    assert torch.equal(
        found.total,
        functional.cross_entropy(outputs["logits"].flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum")
        / (target >= 0).sum(),
    )
    torch.testing.assert_close(found.total, expected)


def test_several_stages_as_the_public_code_sums_them():
    """The loss of MS-TCN's `model.py`, for one video whose rows are all known; but 1 / T, as in the paper."""
    x, mask, target = torch.randn(1, 8, 5), torch.ones(1, 8, dtype=torch.bool), torch.randint(0, 3, (1, 8))
    model = _model(3)
    expected = torch.zeros(())
    for p in _outputs(model, x, mask).values():
        expected += functional.cross_entropy(p.flatten(0, 1), target.flatten())
        log = functional.log_softmax(p, dim=2)
        squares = functional.mse_loss(log[:, 1:], log.detach()[:, :-1], reduction="none")
        expected += 0.15 * squares.clamp(min=0, max=16).mean() * 7 / 8
    found = _objective()(_outputs(model, x, mask), {"targets": target})
    torch.testing.assert_close(found.total, expected)
    assert list(found.parts) == ["stage1", "stage2", "stage3", "smoothing"]
    torch.testing.assert_close(sum(found.parts.values()), found.total)


@pytest.mark.parametrize("per_row", [True, False], ids=["per_row", "last_row"])
def test_every_stage_learns_from_its_own_loss(per_row):
    x, mask, target = _batch()
    target = target if per_row else target[:, 0].clamp(min=0)
    model = _model(3, per_row=per_row)
    objective = _objective("per_row" if per_row else "last_row")
    outputs = _outputs(model, x, mask)
    parts = objective(outputs, {"targets": target}).parts
    assert ("smoothing" in parts) is per_row
    for number, stage in enumerate(model.stages, start=1):
        gradients = torch.autograd.grad(parts[f"stage{number}"], list(stage.parameters()), retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("loss", [{}, BALANCED, {"label_smoothing": 0.1}], ids=str)
def test_parts_of_a_batch_add_up_to_the_whole(loss):
    x, mask, target = _batch()
    objective, outputs = _objective(**loss), _outputs(_model(2), x, mask)
    total, weight = 0.0, 0.0
    for part in (slice(0, 1), slice(1, 4)):
        batch = {"targets": target[part]}
        found = objective({name: value[part] for name, value in outputs.items()}, batch)
        total += float(found.total.detach()) * float(objective.weight(batch))
        weight += float(objective.weight(batch))
    whole = objective(outputs, {"targets": target}).total
    assert total / weight == pytest.approx(float(whole.detach()), rel=1e-5)


def _branch(**options):
    torch.manual_seed(0)
    given = {"input_dim": 5, "num_outputs": 3, "length": 8, "per_row": False, "width": 8, "dropout": 0.0, **options}
    return build_temporal("attention_branch", **given)


@pytest.mark.parametrize(("task", "per_row"), [("last_row", False), ("per_row", True), ("multi_label", False)])
@pytest.mark.parametrize("weight", [None, 0.0, 0.4])
def test_the_attention_branch_is_taught_beside_the_answer(task, per_row, weight):
    x, mask, rows = _batch()
    targets = {"last_row": rows[:, 0].clamp(min=0), "per_row": rows, "multi_label": (torch.rand(4, 3) < 0.5).float()}
    objective = _objective(task)
    objective.attention_weight = weight
    outputs = _outputs(_branch(per_row=per_row), x, mask)
    found = objective(outputs, {"targets": targets[task]})
    answer, branch = (objective.loss(outputs[name], targets[task]) for name in ("logits", "aux.attention_logits"))
    factor = 1.0 if weight is None else weight
    assert list(found.parts) == ["perception", "attention"]
    torch.testing.assert_close(found.total, answer + factor * branch)
    torch.testing.assert_close(found.parts["attention"], factor * branch)
    assert float((answer - branch).detach().abs()) > 1e-4


def test_a_weight_of_a_branch_that_is_not_there_is_refused():
    x, mask, target = _batch()
    objective = _objective()
    objective.attention_weight = 0.5
    with pytest.raises(ConfigError, match=r"loss.attention_weight is 0.5, but the model has no attention branch"):
        objective(_outputs(_model(1), x, mask), {"targets": target})


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ({"name": "gru"}, "gru"),
        ({"name": "ms_tcn", "stages": 2}, "ms_tcn"),
        ({"name": "attention_branch", "branch": False}, "attention_branch with branch: false"),
    ],
)
def test_a_weight_of_a_branch_that_is_not_there_is_refused_while_planning(model, given):
    loss = {"attention_weight": 0.5}
    with pytest.raises(ValueError, match=rf"loss.attention_weight is 0.5, but model {given} has no attention branch"):
        TrainConfig(embeddings=("embed",), model=model, loss=loss)
    run = TrainConfig(embeddings=("embed",), model=model)
    tune = FinetuneConfig(frames="frames", spatial="embed", temporal="run", loss=loss)
    with pytest.raises(ConfigError, match="has no attention branch"):  # no traceback while planning
        tune.check_inputs({"temporal": [run]})
    tune.check_inputs({"temporal": [FinetuneConfig(frames="frames", spatial="embed", temporal="run")]})


def test_a_weight_of_a_branch_is_taken():
    for branch in (True, "ungated"):
        model = {"name": "attention_branch", "branch": branch}
        TrainConfig(embeddings=("embed",), model=model, loss={"attention_weight": 0.5})
    FinetuneConfig(frames="frames", model={"name": "st_abn"}, task="video", loss={"attention_weight": 0.5})


def test_only_a_weight_that_is_set_is_in_the_key():
    def spec(**loss):
        return TrainConfig(embeddings=("embed",), model={"name": "attention_branch"}, loss=loss).spec()["loss"]

    assert spec() == spec(attention_weight=None) == {"class_weights": "none", "label_smoothing": 0.0}
    assert spec(attention_weight=1.0)["attention_weight"] == 1.0
