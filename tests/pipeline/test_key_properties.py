"""Keys, for all settings and all ways to write them: what is in a spec changes the key, nothing else does."""

from __future__ import annotations

import itertools
import math
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from reelwright.pipeline.config.pipeline_file import PipelineFile, load_pipeline
from reelwright.stages.base.config import Settings, StageConfig
from reelwright.stages.base.registry import STAGES, config_model
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.objectives.config import ComparisonSettings
from reelwright.storage.digests import digest

Setting = tuple[str, ...]
_LEARNING = ("train", "finetune", "pretrain")

BASE: dict[str, dict[str, Any]] = {
    "decode": {"short_side": 64},
    "embed": {"frames": "f", "encoder": "timm/resnet10t", "weights": "none"},
    "features": {"fps": 15},
    "import_predictions": {"embeddings": "e"},
    "import_model": {"weights": "model.safetensors"},
    "pretrain": {"frames": "f", "encoder": "timm/resnet10t", "weights": "none"},
    "train": {"embeddings": ["e"], "model": {"name": "ms_tcn", "width": 32}},
    "finetune": {"frames": "f", "spatial": "e", "temporal": "t"},
    "predict": {"run": "r"},
    "evaluate": {"predictions": "p"},
    "probe": {
        "embeddings": "e",
        "tasks": ["phase_classification", "kendalls_tau", "retrieval", "alignment", "linear_probe"],
        "beside": ["other"],
    },
    "render": {"embeddings": "e"},
    "summary": {"scores": ["s"]},
    "steps": {"procedure": "procedure.yaml", "predictions": ["p"]},
}
# What else must be set for a setting to say something, or to be allowed.
NEEDS: dict[tuple[str, Setting], dict[str, Any]] = {
    ("decode", ("size",)): {"short_side": None},
    **{("evaluate", ("map", name)): {"embeddings": "e"} for name in ("method", "output", "rows", "seed")},
    ("decode", ("quality",)): {"codec": "jpeg"},
    ("decode", ("image_start",)): {"image_tmpl": "{:05d}.jpg"},
    ("features", ("times_key",)): {"fps": None},
    **{
        ("render", (name,)): {"embeddings": None, "predictions": "p"}
        for name in ("videos", "worst", "best", "display", "sheet")
    },
    **{(stage, ("optimizer", "momentum")): {"optimizer": {"name": "sgd"}} for stage in _LEARNING},
    **{
        ("pretrain", ("objective", name)): {"clips": {"batch_size": 2}, "objective": {"name": objective}}
        for name in ComparisonSettings.model_fields
        for objective in ["byol" if name == "predictor_hidden" else "moco"]
    },
}
# Of finetune: a new model on windows, behind the encoder or without one.
_BEHIND: dict[str, Any] = {"temporal": None, "model": {"name": "gru"}}
NEW_MODEL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("task", "head_weights", "labels_of_window", "window"), _BEHIND),
    "preprocess": {"temporal": None, "spatial": None, "model": {"name": "st_abn"}},
}
STRATEGIES: dict[tuple[str, Setting], st.SearchStrategy[Any]] = {
    **{(stage, ("task",)): st.sampled_from(list(TASKS)) for stage in ("train", "finetune")},
    ("train", ("model", "name")): st.sampled_from(["ms_tcn", "gru", "lstm"]),
    **{(stage, ("optimizer", "name")): st.sampled_from(["adamw", "sgd", "lamb"]) for stage in _LEARNING},
    ("decode", ("times",)): st.lists(st.floats(0, 100), min_size=1, max_size=4, unique=True).map(sorted),
    ("pretrain", ("processes",)): st.just(1),
    ("features", ("fps",)): st.floats(1, 240),
    ("features", ("times_key",)): st.text("abc", min_size=1, max_size=3),
}

NUMBERS = st.integers(0, 4096) | st.floats(0, 1) | st.floats(1, 4096)
PLAIN_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 8) | st.integers(0, 4096),  # many are allowed to be small only
    float: st.floats(0, 1) | st.floats(1, 4096),
    bool: st.booleans(),
    str: st.text("abcxyz.*/_0123", min_size=1, max_size=8),
    type(None): st.none(),
    Any: st.booleans() | NUMBERS | st.text(max_size=4),
}


def leaves(model: type[BaseModel], prefix: Setting = ()) -> list[tuple[Setting, Any, bool]]:
    """(path, annotation, whether it is in the key) of all settings, those of nested blocks too."""
    found: list[tuple[Setting, Any, bool]] = []
    for name, info in model.model_fields.items():
        role = (info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}).get("role", "spec")
        path, kind = (*prefix, name), info.annotation
        if role in {"input", "source"}:
            continue
        if isinstance(kind, type) and issubclass(kind, Settings):
            found += leaves(kind, path)
        else:
            found.append((path, kind, role in {"spec", "training"}))
    return found


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's annotation; limits of the field are not looked at."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in PLAIN_VALUES:
        return PLAIN_VALUES[kind]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return st.just({})
    if origin is typing.Annotated:
        return values_of(arguments[0])
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in {typing.Union, types.UnionType}:
        return st.one_of([values_of(argument) for argument in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=3)
    if origin is tuple:
        return st.tuples(*(values_of(argument) for argument in arguments)).map(list)
    assert origin is dict, kind
    return st.dictionaries(st.text("abc", min_size=1, max_size=3), values_of(arguments[1]), max_size=2)


def with_value(stage: str, path: Setting, value: Any) -> StageConfig | None:
    """The settings with one of them set; None where that is not allowed."""
    of_model = NEW_MODEL.get(path[0], {}) if stage == "finetune" else {}
    values: dict[str, Any] = {**BASE[stage], **of_model, **NEEDS.get((stage, path), {})}
    block = values
    for name in path[:-1]:
        block[name] = dict(block.get(name, {}))
        block = block[name]
    block[path[-1]] = value
    try:
        return config_model(stage, where="test").model_validate(values)
    except ValidationError:
        return None


def drawn_configs(stage: str, path: Setting, kind: Any, data: st.DataObject) -> list[StageConfig]:
    """The settings with values of one of them that are allowed."""
    values = STRATEGIES.get((stage, path), values_of(kind))
    drawn = (with_value(stage, path, data.draw(values)) for _ in range(NUM_VALUES))
    return [config for config in drawn if config is not None]


def at(config: Any, path: Setting) -> Any:
    for name in path:
        config = getattr(config, name)
    return config


def all_leaves(*, in_key: bool) -> list[tuple[str, Setting, Any]]:
    found = [(stage, *leaf) for stage in STAGES for leaf in leaves(config_model(stage, where="test"))]
    return [(stage, path, kind) for stage, path, kind, is_spec in found if is_spec == in_key]


def name_of(value: Any) -> str | None:
    return ".".join(value) if isinstance(value, tuple) else None if isinstance(value, str) else ""


QUICK = settings(
    max_examples=2, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
NUM_VALUES = 8  # of each example: drawing is quick, an example is not


@pytest.mark.parametrize(("stage", "path", "kind"), all_leaves(in_key=True), ids=name_of)
@QUICK
@given(data=st.data())
def test_two_values_have_one_key_only_when_they_are_equal(
    stage: str, path: Setting, kind: Any, data: st.DataObject
) -> None:
    configs = drawn_configs(stage, path, kind, data)
    assume(len(configs) > 1)
    values = [at(config, path) for config in configs]
    if path == ("key_map",):  # applied in order
        values = [list(value.items()) for value in values]
    keys = [digest(config.spec()) for config in configs]
    for first, second in itertools.combinations(range(len(configs)), 2):
        assert (keys[first] == keys[second]) == (values[first] == values[second]), (values[first], values[second])


@pytest.mark.parametrize(("stage", "path", "kind"), all_leaves(in_key=False), ids=name_of)
@QUICK
@given(data=st.data())
def test_how_the_work_is_done_is_in_no_key(stage: str, path: Setting, kind: Any, data: st.DataObject) -> None:
    configs = drawn_configs(stage, path, kind, data)
    assume(configs)
    base = digest(config_model(stage, where="test").model_validate(BASE[stage]).spec())
    assert {digest(config.spec()) for config in configs} == {base}


# --- ways to write a pipeline file

PIPELINE: dict[str, Any] = {
    "videos": {"manifest": "videos.csv", "splits": ["train", "val", "test"]},
    "labels": {"segments": "segments.csv", "classes": ["up", "on", "1"]},
    "stages": {
        "frames": {"uses": "decode", "fps": 12.5, "size": [48, 64], "stop": 3, "workers": 2},
        "embed": {"uses": "embed", "frames": "frames", "encoder": "timm/resnet10t", "weights": "none", "seed": 7},
        "train": {
            "uses": "train",
            "embeddings": ["embed"],
            "window": {"length": 8, "hop": 2},
            "model": {"name": "ms_tcn", "width": 16, "dropout": 0.25},
            "optimizer": {"lr": 0.0003, "clip_norm": None},
            "val_splits": [],
        },
        "predict": {"uses": "predict", "run": "train", "window": {"hop": 1, "pad": False}},
        "scores": {"uses": "evaluate", "predictions": "predict", "topk": [1, 5]},
    },
}


@st.composite
def written(draw: st.DrawFn) -> str:
    """YAML text that says what PIPELINE says."""

    def otherwise(value: Any) -> Any:
        """The same with keys in another order, and numbers as another type."""
        if isinstance(value, dict):
            return {name: otherwise(value[name]) for name in draw(st.permutations(list(value)))}
        if isinstance(value, list):
            return [otherwise(entry) for entry in value]
        return float(value) if type(value) is int and draw(st.booleans()) else value

    text = yaml.safe_dump(
        otherwise(PIPELINE),
        sort_keys=draw(st.booleans()),
        default_flow_style=draw(st.sampled_from([None, True, False])),
        default_style=draw(st.sampled_from([None, None, '"', "'"])),
        indent=draw(st.integers(2, 6)),
        width=draw(st.integers(20, 200)),
        explicit_start=draw(st.booleans()),
    )
    lines = []
    for line in text.splitlines():
        lines += ["", "# a comment: {of: the file}"] if draw(st.integers(0, 9)) == 0 else []
        lines.append(line + draw(st.sampled_from(["", "  "])))
    return draw(st.sampled_from(["\n", "\r\n"])).join([*lines, "# the end", ""])


def said(file: PipelineFile) -> dict[str, Any]:
    """All that enters keys by value or names what does."""
    nodes = {
        name: [config.stage, config.spec(), config.inputs(), config.sources()] for name, config in file.nodes.items()
    }
    assert file.labels is not None
    return {"videos": file.videos.model_dump(), "labels": file.labels.model_dump(), "nodes": nodes}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=written())
def test_order_and_formatting_of_the_file_mean_nothing(tmp_path: Path, text: str) -> None:
    plain, other = tmp_path / "plain.yaml", tmp_path / "other.yaml"
    plain.write_text(yaml.safe_dump(PIPELINE), encoding="utf-8")
    other.write_text(text, encoding="utf-8", newline="")
    assert digest(said(load_pipeline(other))) == digest(said(load_pipeline(plain)))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=NUMBERS, right=NUMBERS, shown=st.sampled_from(["{!r}", "'{!r}'"]))
def test_numbers_in_yaml_are_equal_as_numbers(tmp_path: Path, left: float, right: float, shown: str) -> None:
    """In quotes or not, and as an override; of a field, and of a model's own options (where quotes mean a text)."""
    assume(left > 0 and right > 0 and (left == right or not math.isclose(left, right)))
    keys = []
    for value in (left, right):
        path = tmp_path / "reelwright.yaml"
        own = f"{{own: {value!r}}}"
        path.write_text(
            f"videos: {{manifest: v.csv}}\nstages:\n  frames: {{uses: decode, fps: {shown.format(value)}}}\n"
            f"  embed: {{uses: embed, encoder: timm/a, weights: none, model_args: {own}}}\n"
        )
        nodes, overridden = load_pipeline(path).nodes, load_pipeline(path, [f"frames.fps={value!r}"]).nodes
        assert digest(overridden["frames"].spec()) == digest(nodes["frames"].spec())
        keys.append([digest(nodes[name].spec()) for name in ("frames", "embed")])
    assert [old == new for old, new in zip(*keys, strict=True)] == [left == right] * 2
