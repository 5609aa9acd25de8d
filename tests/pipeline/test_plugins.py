"""Plug-ins in a pipeline: keys and reasons, checks before work, and runs whose plug-in is needed again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project
from reelwright.pipeline.run.checks import check_before_run
from reelwright.pipeline.run.results import RunOptions
from reelwright.pipeline.run.runner import open_planner
from reelwright.stages.base.work import work_from_plain, work_to_plain
from reelwright.storage.errors import ConfigError

NET = '''
import torch
from reelwright.models.temporal.common import TemporalModel
from layers import block


class Net(TemporalModel):
    """Logits, and the embedding beside them."""

    def __init__(self, sizes, *, width: int = 8):
        super().__init__(sizes)
        self.body, self.head = block(sizes.input_dim, width), torch.nn.Linear(width, sizes.num_outputs)

    def forward(self, batch):
        embedding = self.body(batch["rows"].masked_fill(~batch["mask"].unsqueeze(-1), 0.0))
        return {"logits": self.head(embedding), "embedding": embedding}
'''
LAYERS = "import torch\n\n\ndef block(d, w):\n    return torch.nn.Sequential(torch.nn.Linear(d, w), torch.nn.ReLU())\n"
LOSS = '''
import torch
from torch.nn import functional
from reelwright.stages.objectives.contract import LossParts, Objective


class Loss(Objective):
    """Cross entropy, and a pull of embeddings to a mean that is remembered."""

    def __init__(self, sizes, *, pull: float = 0.1):
        super().__init__()
        self.pull = pull
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, outputs, batch):
        fit = functional.cross_entropy(outputs["logits"].flatten(0, -2), batch["targets"].flatten(), ignore_index=-1)
        now = outputs["embedding"].mean()
        pulled = self.pull * (now - self.mean) ** 2
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * now.detach()
        return LossParts(fit + pulled, {"fit": fit, "pull": pulled})
'''
FILES = {"net.py": NET, "layers.py": LAYERS, "loss.py": LOSS}
OWN = [
    "model: {name: linear}",
    "model: {name: net.py:Net, width: 6}\n    objective: {name: loss.py:Loss, pull: 0.2}\n    device: cpu",
]


@pytest.fixture
def own(copied: Path) -> Path:
    """The small project with frames and embeddings, about to be trained with a model and an objective of its own."""
    for name, text in FILES.items():
        (copied / name).write_text(text)
    path = copied / "reelwright.yaml"
    path.write_text(path.read_text().replace(*OWN))
    return copied


def opened(folder: Path, *overrides: str) -> Project:
    return Project.open(folder / "reelwright.yaml", overrides=overrides)


def states(project: Project) -> dict[str, str]:
    return {plan.node.name: plan.state for plan in project.status()}


def change(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


def test_a_model_and_an_objective_of_ones_own_learn_predict_and_are_found_again(own: Path) -> None:
    project = opened(own)
    assert project.run().exit_code == 0
    record = project.record("train")
    assert record is not None
    assert {field: entry["name"] for field, entry in record.material["plugins"].items()} == {
        "model": "net.py:Net",
        "objective": "loss.py:Loss",
    }
    line = project.trained("train").metrics()[-1]
    assert line["train_loss"] == pytest.approx(line["train_loss_fit"] + line["train_loss_pull"], rel=1e-5)
    assert set(states(opened(own)).values()) == {"up to date"}
    lock = (own / "reelwright.lock").read_text()
    assert record.material["plugins"]["model"]["source"] in lock

    change(own, "layers.py", "def block(d, w):", "def block(d, w):  # features in, features out")
    assert set(states(opened(own)).values()) == {"up to date"}

    change(own, "loss.py", "0.9 *", "0.8 *")
    plans = {plan.node.name: plan for plan in opened(own).status()}
    assert plans["embed"].state == "up to date"
    assert plans["train"].reasons == ("objective loss.py:Loss: source changed",)
    change(own, "loss.py", "0.8 *", "0.9 *")

    change(own, "layers.py", "ReLU", "GELU")
    project = opened(own)
    plans = {plan.node.name: plan for plan in project.status()}
    assert plans["train"].reasons == ("model net.py:Net: source changed",)
    assert plans["predict"].reasons == ("waits for train",)
    before = record.outputs["weights"]
    assert project.run().exit_code == 0
    after = project.record("train")
    assert after is not None
    assert after.outputs["weights"] != before

    change(own, "layers.py", "GELU", "ReLU")
    assert set(states(opened(own)).values()) == {"up to date"}


def test_what_reads_the_weights_needs_the_model_and_not_the_objective(own: Path) -> None:
    assert opened(own).run().exit_code == 0
    read = opened(own).planner().plan("predict").material
    change(own, "loss.py", "0.9 *", "0.90 *")  # the same number: the weights will be equal
    project = opened(own)
    assert project.run(until=["train"]).exit_code == 0
    assert project.planner().plan("predict").material == read
    change(own, "layers.py", "torch.nn.ReLU()", "torch.nn.Threshold(0, 0)")
    project = opened(own)
    assert project.run(until=["train"]).exit_code == 0
    assert project.planner().plan("predict").material != read


MISTAKES = [
    (
        ["embed.encoder=tiny.py:Tiny", "embed.weights=hub"],
        "",
        "",
        r"weights: hub has none of an encoder that is a plug-in",
    ),
    (["embed.encoder=tiny.py:Tiny"], "", "", r"stages.embed.encoder: .*tiny.py: no such file"),
    (["scores.evaluators=[{name: nope}]"], "", "", r"unknown evaluator 'nope': no installed package offers it"),
    (
        ["scores.evaluators=[{name: net.py:Net, with: 3}]"],
        "",
        "",
        r"scores.evaluators\[0\]: unknown option of net.py:Net 'with'",
    ),
    (["train.metric=net.py:Net"], "", "", r"stages.train.metric: net.py:Net takes 1 arguments, but is given 2"),
    (["train.metric=met.py:best"], "", "", r"stages.train.metric: .*met.py: no such file"),
    ([], "net.py", None, r"stages.train.model: .*net.py: no such file"),
    (["train.model.name=nte.py:Net"], "", "", r"stages.train.model: .*nte.py: no such file"),
    (["train.model.name=net.py:Nte"], "", "", r"net.py has no Nte. Did you mean 'Net'"),
    (["train.model.name=nett"], "", "", r"unknown temporal model 'nett'"),
    (["train.objective.name=nett"], "", "", r"unknown objective 'nett': no installed package offers it"),
    (
        ["train.model={widht: 3}"],
        "",
        "",
        r"stages.train.model: unknown option of net.py:Net 'widht'. Did you mean 'width'",
    ),
    (
        ["train.objective={push: 3}"],
        "",
        "",
        r"stages.train.objective: unknown option of loss.py:Loss 'push'.* Known: pull",
    ),
    (["train.objective={pull: much}"], "", "", r"pull is 'much': Input should be a valid number"),
    (
        [],
        "layers.py",
        "import torhc\n",
        r"stages.train.model: net.py:Net cannot be imported: .*No module named 'torhc'.*layers.py:1",
    ),
    (
        ["train.loss.label_smoothing=0.1"],
        "",
        "",
        r"loss is what the task minimises by itself, but objective takes its place",
    ),
]


@pytest.mark.parametrize(("overrides", "file", "text", "message"), MISTAKES)
def test_mistakes_are_told_before_work(
    own: Path, overrides: list[str], file: str, text: str | None, message: str
) -> None:
    if file and text is None:
        (own / file).unlink()
    elif file:
        (own / file).write_text(str(text))
    with pytest.raises(ConfigError, match=message):
        check_before_run(open_planner(opened(own, *overrides).file), RunOptions())


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "net.py",
            "self.head(embedding)",
            "self.head(embedding).mean(1)",
            r"logits of shape \(2, 2\).*needed is \(2, 4, 2\)",
        ),
        ("net.py", '"logits": self', '"scores": self', r"Net gives no tensor called logits"),
        (
            "loss.py",
            "class Loss(Objective)",
            "class Loss(torch.nn.Module)",
            r"gives Loss, which is no subclass of .*Objective",
        ),
        ("loss.py", "super().__init__()", "super().__init__(); raise ValueError('pull is odd')", r"pull is odd"),
    ],
)
def test_what_is_no_model_or_objective_is_told(own: Path, file: str, old: str, new: str, message: str) -> None:
    change(own, file, old, new)
    result = opened(own).run(until=["train"])
    assert result.exit_code == 1
    assert any(re.search(message, node.message) for node in result.nodes), result.nodes


def test_units_of_work_keep_their_plugins(own: Path) -> None:
    from reelwright.pipeline.run.work_units import build_work

    planner = opened(own).planner()
    work = build_work(planner, planner.plan("train"))
    assert work_from_plain(json.loads(json.dumps(work_to_plain(work)))) == work
    assert set(work.plugins) == {"models:net.py:Net", "objectives:loss.py:Loss"}
    assert work.plugins["models:net.py:Net"]["target"] == f"{own / 'net.py'}:Net"
