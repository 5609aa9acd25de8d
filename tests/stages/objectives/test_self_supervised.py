"""SimCLR, MoCo and BYOL as objectives: queue, pointer, target network, what is logged, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from reelwright.models.contracts import VideoModel
from reelwright.models.systems.embedding_head import PREDICTED, VECTOR, ComparisonHeads, SelfSupervisedRows
from reelwright.stages.objectives.config import ObjectiveSettings, SelfSupervisedSettings
from reelwright.stages.objectives.contract import batch_loss
from reelwright.stages.objectives.self_supervised import TARGET, Byol, MoCo, self_supervised_objective
from reelwright.storage.errors import ConfigError

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "self_supervised.json").read_text())


class Rows(VideoModel):
    """A batch norm and a linear layer on every row."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(3), nn.Linear(3, 4)

    def forward(self, batch):
        return {"embedding": self.layer(self.norm(batch["rows"].flatten(0, 1))).unflatten(0, batch["rows"].shape[:2])}


def model(name="simclr", **settings):
    how = SelfSupervisedSettings(name=name, dim=3, hidden=5, **settings)
    torch.manual_seed(0)
    made = SelfSupervisedRows(
        Rows(), ComparisonHeads(4, dim=how.dim_used, hidden=how.hidden, predictor_hidden=how.predictor_used)
    )
    objective = self_supervised_objective(how, seed=1)
    objective.start(made)
    made.train()
    objective.train()
    return made, objective


def views(num=4, *, seed=0, first=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "rows": torch.randn(2 * num, 5, 3, generator=generator),
        "mask": torch.ones(2 * num, 5, dtype=torch.bool),
        "video": torch.arange(first, first + num).repeat_interleave(2),
    }


def loss_of(made, objective, batch):
    outputs = {**made(objective.model_inputs(batch)), **objective.target_outputs(batch)}
    return batch_loss(objective, outputs, batch, is_shared=False)


def paired(first, second):
    return torch.stack([torch.tensor(first), torch.tensor(second)], dim=1).flatten(0, 1)


def test_views_side_by_side_have_the_published_losses():
    entry = VECTORS["simclr"]
    _, simclr = model("simclr")
    found = simclr({VECTOR: paired(entry["q"], entry["k"])}, {})
    assert found.total.item() == pytest.approx(entry["loss"], abs=1e-6)
    assert {name: value.item() for name, value in found.measures.items()} == {"accuracy_1": 1.0, "accuracy_5": 1.0}
    entry = VECTORS["byol_loss"]
    p, z = torch.tensor(entry["p"]), torch.tensor(entry["z"])
    _, byol = model("byol")
    # each first view's prediction against what the target made of the second, and the other way round
    outputs = {PREDICTED: paired(entry["p"], entry["z"]), TARGET: paired(entry["p"], entry["z"])}
    other = 2 - 2 * torch.nn.functional.cosine_similarity(p, z).mean().item()
    assert byol(outputs, {}).total.item() == pytest.approx(entry["loss=2*(1-mean cos)"], abs=1e-6)
    assert byol(outputs, {}).total.item() == pytest.approx(other, abs=1e-6)


def test_queue_takes_the_published_keys():
    entry = VECTORS["moco"]
    moco = MoCo(temperature=entry["T"], size=6, dim=3, momentum=0.999, seed=0)
    moco.queue.copy_(torch.tensor(entry["queue_before"]))
    moco.queue_video.copy_(torch.tensor(entry["queue_file_before"]))
    video = torch.tensor(entry["file_idxs"]).repeat_interleave(2)
    key = torch.nn.functional.normalize(torch.tensor(entry["k"]), dim=1)
    query = torch.tensor(entry["q"], requires_grad=True)
    found = moco({VECTOR: query, TARGET: key}, {"video": video})
    found.total.backward()  # the queue has moved on, the gradient is of the old one
    assert found.total.item() == pytest.approx(entry["loss"], abs=1e-6)
    torch.testing.assert_close(moco.queue[:3], torch.tensor(entry["queue_after_first3"]), atol=1e-6, rtol=0)
    assert moco.queue_video.tolist() == entry["queue_file_after"]
    assert moco.pointer.item() == entry["ptr_after"]
    before = moco.queue.clone()
    moco.eval()
    moco({VECTOR: query, TARGET: key}, {"video": video})
    assert torch.equal(moco.queue, before)


def test_a_queue_goes_round():
    moco = MoCo(temperature=0.1, size=5, dim=2, momentum=0.9, seed=0)
    for start in (0, 3, 6):
        moco.enqueue(torch.arange(start, start + 3.0)[:, None].repeat(1, 2), torch.arange(start, start + 3))
    assert moco.queue_video.tolist() == [5, 6, 7, 8, 4]
    assert moco.queue[:, 1].tolist() == [5, 6, 7, 8, 4]
    assert moco.pointer.item() == 4
    moco.enqueue(torch.arange(20.0, 27)[:, None].repeat(1, 2), torch.arange(20, 27))  # more than it holds
    assert sorted(moco.queue_video.tolist()) == [22, 23, 24, 25, 26]
    assert moco.queue_video[(moco.pointer - 1) % 5].item() == 26


def test_a_queue_starts_alike_wherever_it_is_made():
    one, other = (MoCo(temperature=0.1, size=7, dim=4, momentum=0.9, seed=3) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(one.queue, other.queue)
    torch.testing.assert_close(one.queue.norm(dim=1), torch.ones(7))
    assert one.queue_video.eq(-1).all()


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_the_target_follows_by_its_momentum_and_counts_statistics_of_its_own(name):
    made, objective = model(name)
    objective.num_steps = 10
    objective.target_outputs(views())
    norm = objective.target.network.norm
    assert norm.training
    assert norm.running_mean.abs().sum() > 0
    assert made.network.norm.running_mean.abs().sum() == 0  # the model has seen nothing
    kept = {key: value.clone() for key, value in objective.target.named_parameters()}
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1)
    objective.after_step(made, 4)
    share = 0.001 if name == "moco" else 0.003 * (1 + torch.cos(torch.tensor(0.4 * torch.pi)).item()) / 2
    for key, value in objective.target.named_parameters():
        torch.testing.assert_close(value, kept[key] + share, atol=1e-6, rtol=0)
    assert not any(value.requires_grad for value in objective.parameters())
    objective.eval()
    assert not norm.training
    objective.train()
    assert norm.training


def test_what_is_frozen_in_the_model_is_so_in_the_target():
    made, _ = model("moco")
    made.network.norm.requires_grad_(False)
    objective = MoCo(temperature=0.1, size=8, dim=3, momentum=0.9, seed=0)
    objective.start(made.eval())
    assert not made.training
    objective.train()
    assert objective.target.heads.training
    assert not objective.target.network.norm.training


def test_moco_shows_the_model_first_views_and_the_target_second_ones():
    made, objective = model("moco", queue=8)
    batch = views()
    assert all(torch.equal(value, batch[name][::2]) for name, value in objective.model_inputs(batch).items())
    expected = objective.target.eval()({name: value[1::2] for name, value in batch.items()})[VECTOR]
    key = objective.target_outputs(batch)[TARGET]
    torch.testing.assert_close(key, torch.nn.functional.normalize(expected, dim=1))
    made.eval()
    loss = loss_of(made, objective, batch)
    loss.total.backward()
    assert set(loss.measures) == {"accuracy_1", "accuracy_5"}
    assert made.network.layer.weight.grad.abs().sum() > 0
    assert objective.target.network.layer.weight.grad is None


def test_byol_predicts_the_other_view():
    made, objective = model("byol")
    batch = views()
    same = {
        name: value.unflatten(0, (-1, 2))[:, :1].repeat_interleave(2, 1).flatten(0, 1) for name, value in batch.items()
    }
    made.heads.predictor = nn.Identity()
    made.eval(), objective.eval()
    assert loss_of(made, objective, same).total.item() == pytest.approx(0, abs=1e-5)
    assert loss_of(made, objective, batch).total.item() > 1e-3
    assert loss_of(made, objective, batch).measures == {}
    assert isinstance(objective, Byol)


def test_all_of_it_is_in_the_state():
    made, objective = model("moco", queue=8)
    names = set(objective.state_dict())
    assert {
        "queue",
        "queue_video",
        "pointer",
        "target.network.norm.running_mean",
        "target.heads.projector.0.weight",
    } <= names
    loss_of(made, objective, views())
    other = model("moco", queue=8)[1]
    other.load_state_dict(objective.state_dict())
    assert other.pointer.item() == 4
    assert torch.equal(other.queue, objective.queue)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"name": "simclr", "queue": 8}, "queue is no option of simclr"),
        ({"name": "moco", "predictor_hidden": 8}, "predictor_hidden is no option of moco"),
        ({"name": "byol", "temperature": 0.1}, "temperature is no option of byol"),
        ({"name": "moco", "momentum": 1.0}, "momentum: 1 is not allowed"),
        ({"name": "moco", "que": 8}, "que: unknown key.*queue"),
        ({"name": "mocco"}, "unknown objective 'mocco'.*simclr, moco, byol"),
    ],
)
def test_what_is_refused(settings, match):
    with pytest.raises((ValidationError, ConfigError), match=match):
        ObjectiveSettings(**settings)


def test_defaults_are_the_published_ones():
    found = {
        name: (how.dim_used, how.predictor_used)
        for name in ("simclr", "moco", "byol")
        for how in [SelfSupervisedSettings(name=name)]
    }
    assert found == {"simclr": (128, None), "moco": (128, None), "byol": (256, 1024)}
    assert SelfSupervisedSettings(name="simclr").temperature_used == 0.1
    assert (SelfSupervisedSettings(name="moco").temperature_used, SelfSupervisedSettings(name="moco").queue) == (
        0.07,
        16384,
    )
    assert SelfSupervisedSettings(name="moco").momentum_used == 0.999
