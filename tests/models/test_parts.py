"""What a model declares of its parts: which are trained, which stay as they are, and which layer comes first."""

import pytest
import torch
from torch import nn

from reelwright.models.contracts import Part, VideoModel, model_layers
from reelwright.stages.fit.optim.build import freeze_groups, parameter_groups
from reelwright.stages.fit.optim.config import GroupSettings, OptimizerSettings
from tests.models.calling import Net


class Two(VideoModel):
    """A body of two layers with batch norms, and a head."""

    def __init__(self, *, state="trained", head=("weight", "bias")):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)
        self.neck = nn.BatchNorm1d(4)
        layers = {name: int(name.startswith("3.")) for name, _ in self.body.named_parameters()}
        self.parts = {
            "body": Part(state=state, layers=layers),
            "neck": Part(layers={"weight": 0, "bias": 0}),
            "head": Part(layers=dict.fromkeys(head, 0)),
        }

    def forward(self, batch):
        return {"logits": self.head(self.neck(self.body(batch["rows"])))}


def _learned(model):
    """Names of what changes in an update in train mode."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([entry for entry in model.parameters() if entry.requires_grad], lr=0.1)
    model.train()
    model({"rows": torch.randn(8, 3)})["logits"].square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    return {name.rsplit(".", 1)[0] for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize(
    ("state", "learned"),
    [
        ("trained", {"body.0", "body.1", "body.3", "neck", "head"}),
        ("frozen_norms", {"body.0", "body.1", "body.3", "neck", "head"}),
        ("frozen", {"neck", "head"}),
    ],
)
def test_what_is_declared_is_what_is_trained(state, learned):
    torch.manual_seed(0)
    model = Two(state=state)
    statistics = model.body[1].running_mean.clone()
    freeze_groups(model, [], where="train")
    assert _learned(model) == learned
    assert torch.equal(model.body[1].running_mean, statistics) is (state != "trained")
    assert model.body[2].training is (state != "frozen")
    assert model.neck.training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_batch_norm_that_settings_freeze_keeps_its_statistics_and_the_others_learn_theirs():
    model = Net(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.1), nn.Linear(3, 3), nn.BatchNorm1d(3))
    freeze_groups(model, [GroupSettings(match="0", frozen=True), GroupSettings(match="1", frozen=True)], where="train")
    model.train()
    assert [part.training for part in model] == [True, False, True, True, True]


def test_layers_of_the_parts_follow_one_another():
    rates = {}
    model = Two()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in parameter_groups(model, OptimizerSettings(lr=1.0, layer_decay=0.5)):
        rates |= {names[id(parameter)]: group["lr"] for parameter in group["params"]}
    assert {name: rates[f"{name}.weight"] for name in ("body.0", "body.1", "body.3", "neck", "head")} == {
        "body.0": 0.125,
        "body.1": 0.125,
        "body.3": 0.25,
        "neck": 0.5,
        "head": 1.0,
    }


def test_parts_that_leave_a_parameter_out_are_refused():
    with pytest.raises(ValueError, match=r"the parts of Two have no layer for head.bias\."):
        model_layers(Two(head=("weight",)))
