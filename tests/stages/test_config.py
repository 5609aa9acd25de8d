"""Specs: every setting is either in the key or declared as execution; a change of any that is in it changes the key."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from reelwright.stages.base.config import Settings, parse_config
from reelwright.stages.base.registry import STAGES, config_model
from reelwright.stages.base.stage_config import StageConfig
from reelwright.stages.index.config import LabelsConfig
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError

REQUIRED: dict[str, dict[str, Any]] = {
    "decode": {},
    "embed": {"frames": "f", "encoder": "timm/resnet10t", "weights": "none"},
    "train": {"embeddings": ["e"], "model": {"name": "ms_tcn", "width": 32}},
    "finetune": {"frames": "f", "spatial": "e", "temporal": "t"},
    "predict": {"run": "r"},
    "steps": {"procedure": "p.yaml", "predictions": ["p"]},
    "evaluate": {"predictions": "p"},
    "probe": {"embeddings": "e"},
    "summary": {"scores": ["s"]},
    "render": {"embeddings": "e"},
    "features": {"fps": 15},
    "import_predictions": {"embeddings": "e"},
    "import_model": {"weights": "model.safetensors"},
    "pretrain": {"frames": "f", "encoder": "timm/resnet10t", "weights": "none"},
}


# Settings that say nothing without another one; test_settings_count_only_where_they_say_something has both. The loss of
# windows must not be set in pretrain.
CONDITIONAL = {
    ("decode", "interpolation"),
    ("decode", "quality"),
    ("decode", "image_start"),
    ("embed", "embed_dim"),
    ("embed", "views"),
    ("embed", "pieces"),  # of rows that a run embeds
    ("evaluate", "map"),
    ("evaluate", "joint"),  # where there are none, older keys stay
    ("evaluate", "evaluators"),  # where there are none, older keys stay
    ("probe", "alignments"),
    ("probe", "linear_probe"),
    *((stage, name) for stage in ("train", "finetune") for name in ("objective", "views")),
    ("finetune", "model"),  # in place of a temporal run
    *(("finetune", name) for name in ("task", "head_weights", "labels_of_window", "window", "preprocess")),  # with it
    ("pretrain", "loss"),
    ("pretrain", "clips"),
    *(("render", name) for name in ("videos", "worst", "best", "display", "sheet")),  # of predictions; older keys stay
    ("predict", "crops"),  # 1 of the encoder's own size are no crops, and older keys stay
    ("predict", "short_side"),
    ("predict", "precision"),  # that which it was trained with, and older keys stay
    ("predict", "keep"),  # nothing, and older keys stay
    *((stage, "evaluate_updates") for stage in ("pretrain", "train", "finetune")),  # older keys stay
}


def config_of(stage: str, **values: Any) -> StageConfig:
    return parse_config(config_model(stage, where="test"), {**REQUIRED[stage], **values}, where="test")


def leaves(model: BaseModel, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all settings, those of nested blocks too."""
    found = []
    for name in type(model).model_fields:
        value = getattr(model, name)
        found += leaves(value, (*prefix, name)) if isinstance(value, Settings) else [(*prefix, name)]
    return found


def at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values[name]
    return values


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_is_in_the_spec_or_declared_otherwise(stage: str) -> None:
    config = config_of(stage)
    spec = config.spec()
    for path in leaves(config):
        role = config.role(path[0])
        in_spec = path[0] in spec
        assert in_spec == (role in {"spec", "training"} and (stage, path[0]) not in CONDITIONAL), path
    assert "workers" not in spec
    assert "device" not in spec


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("train", {"model": {"name": "ms_tcn", "width": 64}}),
        ("train", {"model": {"name": "ms_tcn", "width": 32, "layers": 3}}),
        ("train", {"window": {"dilation": 2}}),
        ("train", {"evaluate_updates": 100}),
        ("train", {"optimizer": {"lr": 2e-3}}),
        ("embed", {"outputs": ["pooled", "tokens"]}),
        ("embed", {"preprocess": {"size": [96, 96]}}),
        ("embed", {"preprocess": {"resize_with": "torch"}}),
        ("embed", {"model_args": {"pad_type": "same"}}),
        ("embed", {"seed": 1}),
        ("embed", {"weights": "w.pth", "key_map": {"^a": "b"}}),
        ("decode", {"fps": 5}),
        ("predict", {"window": {"hop": 2}}),
        ("steps", {"threshold": 8.0}),
        ("evaluate", {"steps": {"variant": "storm"}}),
    ],
    ids=str,
)
def test_a_setting_that_changes_the_output_changes_the_spec(stage: str, changes: dict[str, Any]) -> None:
    assert digest(config_of(stage, **changes).spec()) != digest(config_of(stage).spec())


def test_models_of_several_stages_alone_have_another_key_since_all_stages_learn() -> None:
    one, two = (config_of("train", model={"name": "ms_tcn", "stages": stages}).spec() for stages in (1, 2))
    assert "stages" not in one["loss"]
    assert two["loss"] == {**one["loss"], "stages": "all"}


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("embed", {"batch_size": 3, "device": "cpu", "codec": "zstd", "compile": True}),
        ("decode", {"workers": 2, "timeout_seconds": 3, "materialize": False}),
        ("train", {"device": "cpu", "memory_bytes": 5}),
        ("predict", {"batch_size": 2}),
        ("train", {"model": {"width": 32, "name": "ms_tcn"}}),
        ("train", {"optimizer": {"lr": 0.001}}),
        ("train", {"optimizer": {"fused": False}}),
        ("predict", {"crops": 1}),
    ],
    ids=str,
)
def test_how_it_is_done_or_written_does_not(stage: str, changes: dict[str, Any]) -> None:
    assert digest(config_of(stage, **changes).spec()) == digest(config_of(stage).spec())


def test_the_order_of_replacements_counts() -> None:
    """They are applied one after the other; a mapping's order is in no digest by itself."""
    maps = [{"a": "b", "b": "c"}, {"b": "c", "a": "b"}]
    for stage in ("embed", "pretrain"):
        first, second = (digest(config_of(stage, weights="w.pth", key_map=written).spec()) for written in maps)
        assert first != second


def test_the_seed_of_random_weights_counts_only_for_random_weights() -> None:
    given = {"weights": "w.safetensors"}
    assert config_of("embed", seed=1, **given).spec() == config_of("embed", **given).spec()
    assert config_of("embed", **given).sources() == {"weights": "w.safetensors"}


@pytest.mark.parametrize(
    ("stage", "setting", "needs"),
    [
        ("decode", {"interpolation": "nearest"}, {"short_side": 32}),
        ("decode", {"interpolation": "nearest"}, {"size": [32, 32]}),
        ("decode", {"quality": 50}, {"codec": "jpeg"}),
        ("decode", {"image_start": 3}, {"image_tmpl": "{:05d}.jpg"}),
        ("evaluate", {"thumbnails": 3}, {"report": True}),
        ("evaluate", {"report_videos": 3}, {"report": True}),
        ("evaluate", {"map": {"seed": 3}}, {"embeddings": "e"}),
        ("probe", {"alignments": ["dtw"]}, {"tasks": ["alignment"]}),
        ("probe", {"linear_probe": {"epochs": 3}}, {"tasks": ["linear_probe"]}),
    ],
    ids=str,
)
def test_settings_count_only_where_they_say_something(
    stage: str, setting: dict[str, Any], needs: dict[str, Any]
) -> None:
    without = {"report": False} if stage == "evaluate" else {}
    assert digest(config_of(stage, **setting, **needs).spec()) != digest(config_of(stage, **needs).spec())
    assert digest(config_of(stage, **setting, **without).spec()) == digest(config_of(stage, **without).spec())


@pytest.mark.parametrize(
    ("options", "other"), [({"width": 32}, {"width": 32.0}), ({"dropout": 0}, {"dropout": 0.0})], ids=str
)
def test_a_models_own_options_are_equal_as_numbers(options: dict[str, Any], other: dict[str, Any]) -> None:
    specs = [
        config_of("train", model={"name": "ms_tcn", **given}).spec() for given in (options, other, {"dropout": 0.5})
    ]
    keys = [digest(spec) for spec in specs]
    assert keys[0] == keys[1] != keys[2]
    assert digest(config_of("embed", model_args={"a": [1.0]}).spec()) == digest(
        config_of("embed", model_args={"a": [1]}).spec()
    )


def test_unknown_keys_of_nested_blocks_name_the_nearest() -> None:
    known = "Known: dilation, events, hop, length, per_epoch"
    with pytest.raises(ConfigError, match=rf"window.lenght: unknown key. Did you mean 'length'\? {known}"):
        config_of("train", window={"lenght": 3})


SKIP = r"unknown key. 'skip' is called 'dilation' now: it is skip \+ 1, so 1 for neighbours\. Known: dilation, .*hop"


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        (
            "embed",
            {"clip": {"stride": 4}},
            r"clip.stride: unknown key. 'stride' is called 'hop' now\. Known: dilation, hop",
        ),
        ("embed", {"clip": {"skip": 0}}, f"clip.skip: {SKIP}"),
        ("train", {"window": {"stride": 4}}, "window.stride: unknown key. 'stride' is called 'hop' now"),
        ("train", {"window": {"skip": 3}}, f"window.skip: {SKIP}"),
        ("train", {"labels_of_window": "or"}, "labels_of_window: 'or' is not allowed: .*'or' is called 'any' now"),
        ("train", {"labels_of_window": "xor"}, "'xor' is not allowed: .*'xor' is called 'net_change' now"),
        ("train", {"model": {"name": "tcn"}}, "model: .*'tcn' is called 'ms_tcn' now"),
        ("train", {"model": {"name": "clip_transformer"}}, "'clip_transformer' is called 'storm_transformer' now"),
        ("predict", {"window": {"stride": 4}}, "window.stride: unknown key. 'stride' is called 'hop' now"),
        ("predict", {"window": {"skip": 3}}, f"window.skip: {SKIP}"),
        ("features", {"stride": 4}, "stride: unknown key. 'stride' is called 'hop' now"),
        ("pretrain", {"contrast": {"name": "ce"}}, "contrast: unknown key. 'contrast' is called 'objective' now"),
        ("take_scores", {}, "'take_scores' is no stage. 'take_scores' is called 'import_predictions' now"),
    ],
    ids=str,
)
def test_names_of_earlier_releases_are_refused_with_those_of_now(
    stage: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(config_model(stage, where="test"), {**REQUIRED.get(stage, {}), **values}, where="test")


def test_a_stride_of_frames_is_still_called_so() -> None:
    """Every n-th source frame is decoded; hops are from window to window."""
    assert config_of("decode", stride=4).spec()["stride"] == 4


def test_numbers_of_classes() -> None:
    assert LabelsConfig(column="label", classes=3).class_names() == ("0", "1", "2")
    assert LabelsConfig(column="label", classes=("b", "a")).class_names() == ("b", "a")
    assert LabelsConfig(column="label").class_names() is None


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"column": "label", "classes": {"verb": 3}}, "classes by head are of columns"),
        ({"column": "label", "classes": 0}, "classes"),
        ({"columns": {"verb": "v"}, "classes": 3}, "leave background out, and give classes by head or not"),
        ({"columns": {"verb": "v"}, "classes": {"nuon": 3}}, "classes: 'nuon' is no head of columns, which has verb"),
    ],
)
def test_classes_that_fit_no_labels(values: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_config(LabelsConfig, values, where="labels")
