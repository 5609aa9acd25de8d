"""An objective with a buffer of its own: what it remembers is in the checkpoint, its parts are logged."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from reelwright.stages.objectives.contract import LossParts, Objective
from reelwright.storage.errors import Interrupted, StageError
from tests.stages.learning.test_trainer import SignalAt, _fit, _numbers, _same_weights, _trainer


class Queued(Objective):
    """Cross entropy, and the distance of the mean logits from those of the updates before, which a queue keeps."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(3, 2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.mean = torch.zeros(2)
        self.updates = []

    def forward(self, outputs, batch):
        logits = outputs["logits"]
        if self.training:
            self.mean = logits.detach().mean(0)
        parts = {
            "class": functional.cross_entropy(logits, batch["targets"]),
            "drift": (logits.mean(0) - self.queue.mean(0)).square().sum(),
        }
        return LossParts(parts["class"] + parts["drift"], parts)

    def after_step(self, module, update):
        assert isinstance(module, nn.Sequential)
        self.queue = torch.cat([self.queue[1:], self.mean[None]])
        self.steps += 1
        self.updates.append(update)


@pytest.mark.parametrize("update", [1, 7, 12, 13])
def test_a_resume_goes_on_with_the_queue(tmp_path, update):
    whole = _fit(_trainer(tmp_path / "whole", objective=Queued()))
    with pytest.raises(Interrupted):
        _fit(_trainer(tmp_path / "cut", objective=Queued(), reporter=SignalAt(update)))
    resumed = _fit(_trainer(tmp_path / "cut", objective=Queued()))
    assert _numbers(resumed.folder) == _numbers(whole.folder)
    assert _same_weights(whole.module, resumed.module)
    assert _same_weights(whole.updater.objective, resumed.updater.objective)
    assert int(resumed.updater.objective.steps) == 24
    assert resumed.updater.objective.updates == list(range(update + 1, 25))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_parts_of_the_loss_are_in_every_line_and_add_up(tmp_path, accumulate):
    trainer = _fit(_trainer(tmp_path, objective=Queued(), accumulate=accumulate))
    for record in _numbers(trainer.folder):
        parts = record["train_loss_class"] + record["train_loss_drift"]
        assert record["train_loss"] == pytest.approx(parts, rel=1e-5)
        assert record["train_loss_drift"] > 0


def test_a_checkpoint_of_another_objective_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        _fit(_trainer(tmp_path, objective=Queued(), reporter=SignalAt(7)))
    with pytest.raises(StageError, match="another model: 2 tensors differ"):
        _fit(_trainer(tmp_path))


def test_parameters_of_an_objective_are_refused_since_nothing_trains_them(tmp_path):
    objective = Queued()
    objective.centre = nn.Parameter(torch.zeros(2))
    with pytest.raises(StageError, match="Queued has parameters, which no optimizer trains"):
        _trainer(tmp_path, objective=objective)
