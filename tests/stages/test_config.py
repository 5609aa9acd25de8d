"""Specs: every setting is either in the key or declared as execution; a change of any that is in it changes the key."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import BaseModel

from reelwright.pipeline.config.pipeline_file import without_effect
from reelwright.stages.base.config import Settings, StageConfig, parse_config
from reelwright.stages.base.registry import STAGES, config_model
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
VIEWS: dict[str, Any] = {"model": {"name": "carl"}, "objective": {"name": "scl"}, "views": {"length": 8}}
FRAMES: dict[str, Any] = {"spatial": "e", "temporal": None}


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


def test_usual_clips_that_are_given_beside_a_run_are_told_from_none() -> None:
    """Its own may be others: `hop: 8` is then a change, on the way to where the work is done and in the key."""
    settings = {"frames": "f", "run": "r"}
    model = config_model("embed", where="test")
    without, given = (parse_config(model, {**settings, **more}, where="test") for more in ({}, {"clip": {"hop": 8}}))
    assert parse_config(model, given.plain(), where="test").clip_given == {"hop": 8}
    assert parse_config(model, without.plain(), where="test").clip_given == {}
    assert digest(given.spec()) != digest(without.spec())
    other = parse_config(model, {**settings, "clip": {"hop": 4, "length": None}}, where="test")
    assert other.clip_given == {"hop": 4}
    assert other.spec().keys() == without.spec().keys()
    of_library = config_of("embed", clip={"hop": 8})
    assert digest(of_library.spec()) == digest(config_of("embed").spec())


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
    ("stage", "given", "needs"),
    [
        ("decode", {"quality": 50}, {"codec": "jpeg"}),
        ("embed", {"seed": 3}, {"weights": "none"}),
        ("embed", {"ignore": ["head.*"], "weights": "none"}, {"weights": "w.pth"}),
        ("embed", {"clip": {"hop": 4}}, {"encoder": "tsm/resnet18", "weights": "none"}),
        ("train", {"init_head": "keep"}, {"init_from": "t"}),
        ("train", {"window": {"events": {"sigma_rows": 3}}}, {"window.sampling": "events"}),
        ("train", {"window": {"sampling": "events", "events": {"separation_rows": 3, "density": "poisson"}}}, {}),
        ("train", {"window": {"segment_rule": "whole"}, "task": "video"}, {"window.sampling": "segments"}),
        ("train", {"mix": {"cutmix_alpha": 0.3, "cutmix_minmax": [0.2, 0.8]}}, {"mix.cutmix_minmax": None}),
        ("train", {"mix": {"switch_probability": 0.3, "cutmix_alpha": 0}}, {"mix.cutmix_alpha": 1}),
        ("train", {"optimizer": {"groups": [{"match": "head", "frozen": True, "lr_scale": 2}]}}, {}),
        ("train", {"schedule": {"warmup_start": 0.5, "warmup_epochs": 0}}, {"schedule.warmup_epochs": 1}),
        ("train", {"schedule": {"warmup_epochs": 2, "warmup_updates": 3}}, {"schedule.warmup_updates": None}),
        ("train", {"schedule": {"power": 2}}, {"schedule.name": "polynomial"}),
        ("finetune", {"augment": {"rand_augment_fill": [0, 0, 0]}}, {"augment.rand_augment": "rand-m7-n2"}),
        ("finetune", {"augment": {"scene": {"foreground": {"scale": {"clone": 0, "clone_degrees": 9}}}}}, {}),
        ("steps", {"threshold": 3, "decoder": "naive"}, {"decoder": "expected"}),
        ("steps", {"confidence": 0.3}, {"decoder": "naive"}),
        ("steps", {"weight": 0.3}, {"detections": "d.csv"}),
        ("probe", {"depths": [3], "tasks": ["alignment"]}, {"tasks": ["retrieval"]}),
        ("pretrain", {"key_frames": {"seconds": 1}, "sampling": "all"}, {"sampling": "key_frames"}),
        ("pretrain", {"synthetic_splits": ["made"]}, {"batch": {"synthetic_per_class": 2}}),
        ("pretrain", {"objective": {"margin": 0.2}}, {"objective.name": "batch_all"}),
        (
            "train",
            {"model": {"name": "attention_branch", "branch": False, "time": "convolutional"}},
            {"model.branch": True},
        ),
        ("train", {"model": {"name": "attention_branch", "branch": "ungated", "space": "positive"}}, {}),
        ("train", {"model": {"name": "storm_transformer", "projected": 8}}, {"model.attention": "linformer"}),
    ],
    ids=str,
)
def test_settings_that_change_nothing_are_found(stage: str, given: dict[str, Any], needs: dict[str, Any]) -> None:
    base = {"weights": "w.pth"} if stage == "embed" else {}
    (found,) = without_effect(config_of(stage, **{**base, **given}))
    place, _, name = found[0].partition("[")[0].rpartition(".")
    assert (place or name).partition(".")[0] in given
    if needs:
        assert not list(without_effect(config_of(stage, **{**base, **_with(given, needs)})))


def _with(given: dict[str, Any], needs: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(given)
    for place, value in needs.items():
        *blocks, name = place.split(".")
        block = found
        for entry in blocks:
            block = block.setdefault(entry, {})
        block[name] = value
    return found


@pytest.mark.parametrize(
    ("stage", "given", "match"),
    [
        ("train", {**VIEWS, "model": {"name": "carl", "split": 2}}, r"model\.split has no effect with source: rows"),
        (
            "train",
            {**VIEWS, "model": {"name": "carl", "projection": False, "projection_hidden": 9}},
            "projection: false",
        ),
        ("train", {**VIEWS, "model": {"name": "vanilla"}, "views": {"context_stride": 3}}, "have no contexts"),
        ("train", {**VIEWS, "objective": {"name": "tcc", "huber_delta": 2}}, "huber_delta is of form regression_huber"),
        (
            "finetune",
            {**VIEWS, **FRAMES, "model": {"name": "carl", "source": "rows", "split": 2}},
            r"model\.split has no",
        ),
        ("finetune", {**FRAMES, "model": {"name": "gru", "pool": "mean"}, "task": "per_row"}, "leave pool out"),
        ("pretrain", {"mix": {}}, "mix is of windows with labels"),
        (
            "embed",
            {"encoder": "tsm/resnet18", "views": {"num": 2}},
            "views are of single frames, but tsm/resnet18 sees",
        ),
        (
            "pretrain",
            {"encoder": "tsm/resnet18", "objective": {"name": "byol"}, "clips": {"val_clips": 3}},
            r"clips\.val_clips is of validation with labels",
        ),
    ],
    ids=str,
)
def test_options_that_change_nothing_are_refused(stage: str, given: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config_of(stage, **given)


def test_what_is_fed_to_a_model_on_views_says_which_options_count() -> None:
    config_of("train", **{**VIEWS, "model": {"name": "conv", "split": 2}, "output": "layer2.map"})
    config_of("finetune", **{**VIEWS, **FRAMES, "model": {"name": "carl", "split": 2, "base": "trained"}})
    config_of("finetune", **{**VIEWS, **FRAMES, "model": {"name": "carl", "source": "rows", "base": "trained"}})


@pytest.mark.parametrize(
    ("stage", "given", "read", "match"),
    [
        ("evaluate", {"steps": {"videos": 3}}, {"p": ("predict", {})}, "steps is of completed steps"),
        ("evaluate", {"topk": [3]}, {"p": ("steps", {})}, "topk is of scores of classes"),
    ],
    ids=str,
)
def test_scores_of_what_is_not_scored_are_refused(
    stage: str, given: dict[str, Any], read: dict[str, Any], match: str
) -> None:
    config = config_of(stage, **given)
    with pytest.raises(ConfigError, match=match):
        config.check_inputs({"predictions": [config_of(name, **values) for name, values in read.values()]})


def test_windows_of_stored_views_are_refused_before_any_work() -> None:
    embed = config_of("embed", views={"num": 2})
    with pytest.raises(ConfigError, match="node 'e' stores views of every frame"):
        config_of("train").check_inputs({"embeddings": [embed]})
    config_of("train", **VIEWS).check_inputs({"embeddings": [embed]})
    config_of("train").check_inputs({"embeddings": [config_of("embed")]})


def test_a_threshold_of_another_task_and_a_grid_of_a_run_on_clips_are_refused() -> None:
    run = config_of("train", task="video", window={"sampling": "segments"})
    predict = config_of("predict", embeddings=["e"])
    with pytest.raises(ConfigError, match=r"threshold is 0\.3, of task multi_label or heads, but the run's is video"):
        config_of("evaluate", threshold=0.3).complete({"p": predict, "r": run}, where="scores")
    for task in ("multi_label", "heads"):  # of heads macro_f1 and micro_f1 are by it too
        config_of("evaluate", threshold=0.3).complete(
            {"p": predict, "r": config_of("train", task=task)}, where="scores"
        )
    with pytest.raises(ConfigError, match=r"window\.hop is 4 and of a grid of windows, but 'r' is trained on clips"):
        config_of("predict", embeddings=["e"], window={"hop": 4}).complete({"r": run}, where="predict")
    config_of("predict", embeddings=["e"], window={"hop": 4, "sampling": "grid"}).complete({"r": run}, where="predict")


@pytest.mark.parametrize(
    ("given", "task", "match"),
    [
        (
            {"background": "idle"},
            "majority",
            "background is idle, of task last_row or per_row, but",
        ),
        ({"topk": [1, 3]}, "multi_label", "topk is 1, 3, of task video or .*, but the run's is multi_label"),
        ({"joint": ["independent"]}, "multi_label", "joint: independent is of task heads"),
    ],
    ids=str,
)
def test_scores_that_a_task_has_not_are_refused(given: dict[str, Any], task: str, match: str) -> None:
    config, predict = config_of("evaluate", **given), config_of("predict", embeddings=["e"])
    with pytest.raises(ConfigError, match=match):
        config.complete({"p": predict, "r": config_of("train", task=task)}, where="scores")
    if task == "multi_label":
        with pytest.raises(ConfigError, match=match):
            config.complete({"p": config_of("import_predictions", task=task)}, where="scores")
    fitting = "heads" if "joint" in given else "per_row"
    config.complete({"p": predict, "r": config_of("train", task=fitting)}, where="scores")
    config.complete({"p": predict}, where="scores")


def test_rows_of_another_encoder_are_refused_before_the_run_is_trained() -> None:
    run = config_of("train", embeddings=["e", "f"])
    encoders = {"e": "timm/a", "f": "timm/b", "again": "timm/a"}
    nodes = {name: config_of("embed", encoder=encoder) for name, encoder in encoders.items()} | {"r": run}
    config_of("predict", embeddings=["again", "f"]).complete(nodes, where="predict")
    config_of("predict", embeddings=["absent", "f"]).complete(nodes, where="predict")
    with pytest.raises(ConfigError, match=r"'f' has rows of timm/b, but 'r' is trained on those of timm/a \('e'\)"):
        config_of("predict", embeddings=["f", "e"]).complete(nodes, where="predict")


def test_an_option_of_a_plug_in_may_be_called_as_one_of_ours() -> None:
    """Of task per_row our models pool nothing; what `pool` is of a model of somebody's own is not known."""
    of_windows: dict[str, Any] = {"temporal": None, "task": "per_row", "window": {"length": 4}}
    config_of("finetune", **of_windows, model={"name": "own.py:Model", "pool": "max"})
    with pytest.raises(ConfigError, match=r"per_row answers for every row, which model\.pool does not"):
        config_of("finetune", **of_windows, model={"name": "gru", "pool": "last"})


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


def test_runs_that_start_from_others_by_the_old_rule_are_no_hits() -> None:
    """Heads of ms_tcn and of the attention branch were taken where init_head said that they are not."""
    assert "init" not in config_of("train").spec()
    assert config_of("train", init_from="other").spec()["init"] == "layers of classes"


def test_unknown_keys_of_nested_blocks_name_the_nearest() -> None:
    known = "Known: dilation, events, hop, length, per_epoch"
    with pytest.raises(ConfigError, match=rf"window.lenght: unknown key. Did you mean 'length'\? {known}"):
        config_of("train", window={"lenght": 3})


def test_unknown_keys_that_blocks_have_name_the_blocks() -> None:
    with pytest.raises(ConfigError, match=r"lr: unknown key. Did you mean 'optimizer.lr'\? Known: batch"):
        config_of("train", lr=0.1)
    with pytest.raises(ConfigError, match=r"length: unknown key. Did you mean 'views.length' or 'window.length'\?"):
        config_of("train", length=16)


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
