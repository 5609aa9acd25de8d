"""What train refuses of CAST's last blocks before any work."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from reelwright.models.encoders.base import DataConfig
from reelwright.stages.base.config import parse_config
from reelwright.stages.embed.config import ClipSettings, PreprocessSettings
from reelwright.stages.embed.encoding.preprocess import override
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.fit.init_from import _own_names
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.experts import Experts
from reelwright.storage.errors import ConfigError, InputError
from tests.models.test_cast import cast

FINE = {
    "embeddings": ["space", "time"],
    "output": "block-3.input",
    "task": "video",
    "window": {"length": 1},
    "model": {"name": "cast", "top": 3},
}


@pytest.mark.parametrize("output", ["block-3.input", "block9.input"])
def test_what_goes_together(output):
    config = parse_config(TrainConfig, {**FINE, "output": output}, where="train")
    assert config.model.joins_tokens
    assert config.row_outputs == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"embeddings": ["space"]}, "names 1 embed nodes; give that of the spatial expert first"),
        ({"output": "tokens"}, r"what enters the last 3 blocks is block-3.input"),
        ({"output": "block-2.input"}, r"output is 'block-2.input', but model.top is 3"),
        ({"model": {"name": "cast"}}, r"model.top: give the number of last blocks"),
        ({"model": {"name": "cast", "top": 3, "space": "timm/x"}}, r"model.space is what the embed nodes say"),
        ({"model": {"name": "cast", "top": 3, "source": "frames"}}, r"train reads stored rows; use finetune"),
        ({"model": {"name": "cast", "top": 3, "experts": "trained"}}, r"experts: trained needs frames"),
        ({"model": {"name": "cast", "top": 0}}, r"block12.input \(behind the last of 12\)"),
        ({"window": {"length": 2}}, r"window.length is 2, but a stored row is a whole clip"),
        ({"task": "per_row"}, "task: per_row has an answer for every row"),
        ({"model": {"name": "cast", "top": 3, "botleneck": 1}}, "did you mean 'bottleneck'"),
        ({"model": {"name": "cast", "top": 3, "fusion": "mean"}}, "allowed: own, add, concat"),
        ({"model": {"name": "cast", "top": 3, "exchange_blocks": [1.5]}}, "exchange_blocks is"),
        ({"model": {"name": "attention_branch"}}, "the model reads positions, which 2 embeddings do not share"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(TrainConfig, {**FINE, **given}, where="train")


TUNED = {
    "frames": "frames",
    "experts": ["space", "time"],
    "model": {"name": "cast", "top": 3},
    "task": "video",
    "window": {"length": 16},
}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"experts": ["space"]}, "experts names 1 embed nodes; give that of the spatial expert and that of"),
        ({"model": {"name": "st_abn"}}, "experts are of model cast, not of st_abn; leave them out"),
        ({"model": {"name": "linear"}, "spatial": "space"}, "experts is of model cast; leave it out"),
        ({"model": {"name": "cast", "time": "videomae/x"}}, "model.time is what the nodes of experts say"),
        ({"task": "per_row"}, "model cast answers for a window, but task is per_row"),
        ({"model": None, "temporal": "train", "spatial": "space", "task": "last_row"}, "experts is of model cast"),
    ],
)
def test_refusals_of_experts(given, message):
    values = {**TUNED, **given}
    if values["model"] is None:
        values = {name: value for name, value in values.items() if name not in {"model", "task", "window"}}
    with pytest.raises(ConfigError, match=message):
        parse_config(FinetuneConfig, values, where="tune")


def test_experts_are_inputs_of_finetune():
    config = parse_config(FinetuneConfig, TUNED, where="tune")
    assert config.inputs()["experts"] == ["space", "time"]
    without = parse_config(FinetuneConfig, {**TUNED, "experts": []}, where="tune")
    assert "experts" not in without.spec()


def test_tokens_of_other_weights_are_refused():
    loaded: Any = {name: SimpleNamespace(weights_digest=f"{name} now") for name in ("space", "time")}
    stores: Any = [SimpleNamespace(spec={"weights_digest": f"{name} now"}) for name in loaded]
    experts = Experts(loaded, "train")
    experts.check_rows(stores)
    stores[1].spec["weights_digest"] = "time before"
    with pytest.raises(InputError, match="tokens of time are of weights time before, but its encoder has time now"):
        experts.check_rows(stores)


def test_the_last_blocks_go_on_from_a_whole_network():
    model, whole = cast(top=2, source="tokens"), cast()
    found = _own_names({f"model.{name}": value for name, value in whole.state_dict().items()}, model)
    assert found.keys() >= model.state_dict().keys()


SEEN = DataConfig(
    size=(8, 8),
    resize=8,
    interpolation="bicubic",
    antialias=True,
    crop="center",
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    clip_length=4,
)


def test_experts_that_want_other_frames_are_refused_unless_the_node_says_what_both_see():
    time = replace(SEEN, interpolation="bilinear", antialias=False, mean=(0.4,) * 3)
    loaded: Any = {"space": SimpleNamespace(data_config=SEEN), "time": SimpleNamespace(data_config=time)}
    own, given = replace(SEEN, mean=(0.0,) * 3), PreprocessSettings(interpolation="bilinear")
    with pytest.raises(
        ConfigError, match=r"interpolation: bicubic and bilinear; antialias: True and False.*Set preproc"
    ):
        Experts(loaded, "tune").data_config(own, given=PreprocessSettings())
    with pytest.raises(ConfigError, match=r"tune: .*\(space and time; antialias: True and False\)"):
        Experts(loaded, "tune").data_config(own, given=given)
    both = given.model_copy(update={"antialias": False})
    found = override(Experts(loaded, "tune").data_config(own, given=both), both, clip=ClipSettings())
    assert (found.interpolation, found.antialias, found.mean) == ("bilinear", False, (0.0,) * 3)
    alike: Any = {name: SimpleNamespace(data_config=SEEN) for name in ("space", "time")}
    assert Experts(alike, "tune").data_config(own, given=PreprocessSettings()) == own


def test_frames_that_an_expert_does_not_see_are_refused():
    """`every` of the embed node counts, and no other is dropped in silence."""

    def frames(**arguments: int) -> Any:
        return SimpleNamespace(name="frames/vit", config=SimpleNamespace(model_args=arguments))

    video = SimpleNamespace(name="videomae/vit", config=SimpleNamespace(model_args={}))
    experts: Any = {"space": frames(every=4), "time": video}
    assert Experts(experts, "tune").options({"top": 1})["every"] == 4
    assert Experts(experts, "tune").options({"every": 4})["every"] == 4
    with pytest.raises(ConfigError, match=r"tune: frames/vit sees the last of every 4 frames .* says 2"):
        Experts(experts, "tune").options({"every": 2})
    with pytest.raises(ConfigError, match=r"sees the last of every 2 frames .* the other expert says 4"):
        Experts({"space": frames(every=4), "time": frames()}, "tune").options({})
