"""Keys over what a stage is given: nothing that it reads may differ without its key, however it came to differ."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.graph import Node
from reelwright.pipeline.plan.keys import material, node_key, reads, source_digests
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.run.runner import open_planner
from reelwright.pipeline.run.work_units import build_work
from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.registry import STAGES, config_model
from reelwright.stages.index.config import LabelsConfig, VideosConfig
from reelwright.storage.digests import digest
from reelwright.storage.errors import InputError
from reelwright.storage.ledger.digest_cache import KnownFiles, VideoProbe, stamp
from tests.pipeline.test_key_properties import BASE, STRATEGIES, all_leaves, at, name_of, values_of, with_value

CLASSES = ("x", "y", "z")
NAMES = ("a", "b", "c", "d")
PIPELINE: dict[str, Any] = {
    "videos": {"manifest": "videos.csv"},
    "labels": {"segments": "segments.csv"},
    "stages": {
        "frames": {"uses": "decode"},
        "rows": {"uses": "embed", "frames": "frames", "encoder": "timm/resnet10t", "weights": "none"},
        "train": {"uses": "train", "embeddings": ["rows"], "val_splits": []},
        "states": {"uses": "pretrain", "frames": "frames", "encoder": "timm/resnet10t", "weights": "none"},
        "tune": {"uses": "finetune", "frames": "frames", "spatial": "rows", "temporal": "train", "val_splits": []},
        "scores": {"uses": "import_predictions", "embeddings": "rows"},
        "steps": {"uses": "steps", "procedure": "procedure.yaml", "predictions": ["scores"]},
        "grouped": {
            "uses": "train", "embeddings": ["rows"], "val_splits": [], "model": {"name": "vanilla"},
            "objective": {"name": "scl"}, "views": {"one_label": True},
        },
        "together": {"uses": "probe", "embeddings": "rows"},
        "by_action": {"uses": "probe", "embeddings": "rows", "per_action": True},
    },
}  # fmt: skip
LABELLED = ("train", "states", "tune", "scores", "steps", "grouped", "together", "by_action")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files that the store knows as videos, and the pipeline."""
    folder = tmp_path_factory.mktemp("inputs")
    known = KnownFiles(folder / ".reelwright" / "store" / "files.json")
    for name in NAMES:
        (folder / f"{name}.mp4").write_text(name)
        known.add(folder / f"{name}.mp4", f"content of {name}", stamp(folder / f"{name}.mp4"))
    known.save()
    (folder / "procedure.yaml").write_text("procedure")
    return folder


KINDS = ("segments", "steps", "column", "columns")
PARTS = {  # what is another, of which kinds of labels
    "all": KINDS,
    "background": KINDS[:2],  # a column labels whole videos
    "classes": KINDS[:3],
    "columns": ("columns",),
    "videos.csv": KINDS,
    "segments.csv": ("segments",),
    "steps.csv": ("steps",),
}


@st.composite
def tables(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Videos and labels as people write them: names, splits, kind of labels, order of classes and heads, background."""
    rows = [f"{draw(st.sampled_from([name, name * 2]))},{name}.mp4,{draw(st.sampled_from(['train', 'test']))}"
            for name in NAMES]  # fmt: skip
    ids = [row.split(",")[0] for row in rows]
    label = st.sampled_from(CLASSES[:2])
    block: dict[str, Any] = {"classes": draw(st.permutations(CLASSES)), "background": draw(st.sampled_from([None, *CLASSES]))}  # fmt: skip  # noqa: E501
    if kind == "columns":
        heads = draw(st.sampled_from([["verb", "noun"], ["noun", "verb"], ["verb"]]))
        block = {"columns": {head: head for head in heads}}
    elif kind == "column":
        block = {"classes": block["classes"], "column": "verb"}
    else:
        block |= {kind: f"{kind}.csv"} | draw(st.sampled_from([{}, {"column": "verb"}, {"column": "noun"}]))
    cells = [f"{row},{draw(label)},{draw(label)}" for row in rows]
    times = {"segments": "start_seconds,stop_seconds,label", "steps": "time_seconds,step"}.get(kind, "")
    spans = {"segments": ["0,1", "1,2", "0,2"], "steps": ["0", "1"]}.get(kind, [])
    lines = [f"{name},{draw(st.sampled_from(spans))},{draw(label)}" for name in ids for _ in range(2)] if spans else []
    return {
        "labels": block,
        "videos.csv": "\n".join(["video_id,path,split,verb,noun", *cells]),
        f"{kind}.csv": "\n".join([f"video_id,{times}", *lines]),
    }


def written(folder: Path, tables: dict[str, Any]) -> Planner:
    """A planner over these tables; all videos are known and usable."""
    for name, text in tables.items():
        if name.endswith(".csv"):
            (folder / name).write_text(text)
    (folder / "reelwright.yaml").write_text(yaml.safe_dump({**PIPELINE, "labels": tables["labels"]}, sort_keys=False))
    planner = open_planner(load_pipeline(folder / "reelwright.yaml"))
    planner.dataset = dataclasses.replace(
        planner.dataset, probes={f"content of {name}": VideoProbe(f"content of {name}") for name in NAMES}
    )
    return planner


def key_and_payload(planner: Planner, name: str) -> tuple[str, str]:
    """The key of a node whose inputs are all the same, and all that its stage would be given of videos and labels.

    Paths are where contents lie, and the durations theirs; names of what is learned from are for messages.
    """
    node, dataset = planner.graph.nodes[name], planner.dataset
    identities = dict.fromkeys(node.parents, "equal")
    wanted = dataset.all_items
    made_of = material(node, dataset, wanted, identities=identities, sources={})
    plan = types.SimpleNamespace(node=node, material=made_of, spec_key="", key="", wanted=wanted, todo=wanted)
    payload = dict(build_work(_Alone(planner, node), plan).payload)  # type: ignore[arg-type]
    for name in ("left_out", "num_left_out"):  # videos that failed, as of the day that a report names
        payload.pop(name, None)
    left_out = {"path", "duration_seconds", *(["video_id"] if node.config.kind == "run" else [])}
    payload["videos"] = [
        {field: value for field, value in video.items() if field not in left_out} for video in payload["videos"]
    ]
    return node_key(node, dataset, digest(made_of), wanted), digest(payload)


class _Alone:
    """A planner of one node, whose inputs are not planned."""

    def __init__(self, planner: Planner, node: Node) -> None:
        self.file, self.graph, self.dataset = planner.file, planner.graph, planner.dataset
        self.plugins = planner.plugins
        for name in dict.fromkeys(node.parents):
            assert name in self.graph.nodes

    def dataset_of(self, node: Node) -> Dataset:
        del node
        return self.dataset

    def plan(self, name: str) -> Any:
        node = dataclasses.replace(self.graph.nodes[name], inputs={})
        known = {"key": "equal", "spec_key": "equal", "material": {"inputs": {}}, "record": None}
        return types.SimpleNamespace(node=node, is_one_thing=False, **known)


@pytest.mark.parametrize("part", PARTS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_a_stage_is_given_of_videos_and_labels_is_in_its_key(folder: Path, part: str, data: st.DataObject) -> None:
    """Two files, or one in which only one setting or only one table is another; equal keys, equal payloads."""
    kind = data.draw(st.sampled_from(PARTS[part]))
    first, second = data.draw(tables(kind)), data.draw(tables(kind))
    if part in first:
        second = {**first, part: second[part]}
    elif part in first["labels"]:
        value = data.draw(st.sampled_from([None, *CLASSES])) if part == "background" else second["labels"][part]
        second = {**first, "labels": {**first["labels"], part: value}}
    found = []
    for side in (first, second):
        try:
            planner = written(folder, side)
        except InputError:  # ids of the manifest and the labels that do not go together
            return
        found.append({name: key_and_payload(planner, name) for name in LABELLED})
    for name in LABELLED:
        (key, payload), (other_key, other_payload) = (side[name] for side in found)
        assert key != other_key or payload == other_payload, name


# --- what reads the weights of a run


def run_stages() -> list[str]:
    return [stage for stage in STAGES if config_model(stage, where="test").kind == "run"]


@pytest.mark.parametrize(
    ("stage", "path", "kind"), [leaf for leaf in all_leaves(in_key=True) if leaf[0] in run_stages()], ids=name_of
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(data=st.data())
def test_a_setting_of_a_run_is_one_of_training_or_in_the_keys_of_what_reads_its_weights(
    stage: str, path: tuple[str, ...], kind: Any, data: st.DataObject
) -> None:
    values = STRATEGIES.get((stage, path), values_of(kind))
    first, second = (with_value(stage, path, data.draw(values)) for _ in range(2))
    if first is None or second is None or at(first, path) == at(second, path):
        return
    seen = [digest(reads({"stage": stage, "spec": config.spec(), "inputs": {}}, [])) for config in (first, second)]
    assert (seen[0] == seen[1]) == (config_model(stage, where="test").role(path[0]) == "training")


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        (stage, name)
        for stage in STAGES
        for name in config_model(stage, where="test").model_fields
        if config_model(stage, where="test").role(name) in {"input", "source"}
    ],
)
def test_every_input_and_source_is_in_the_key_and_in_that_of_users_unless_it_is_of_training(
    folder: Path, stage: str, name: str
) -> None:
    model = config_model(stage, where="test")
    is_many = "tuple" in str(model.model_fields[name].annotation)
    is_input = model.role(name) == "input"
    values = {**BASE[stage], name: (["n"] if is_many else "n") if is_input else "one.txt"}
    values |= {"fps": None} if (stage, name) == ("features", "times") else {}
    values |= {"predictions": []} if (stage, name) == ("steps", "detections") else {}
    values |= {"encoder": None, "weights": "hub"} if stage == "embed" and name in {"run", "embeddings"} else {}
    values |= {"frames": None, "run": "r"} if (stage, name) == ("embed", "embeddings") else {}
    if stage == "render" and name != "embeddings":
        values = {"predictions": "p", name: "n"}
    values |= {"config": "procedure.yaml"} if (stage, name) == ("import_model", "weights") else {}
    values |= {"weights": "procedure.yaml"} if (stage, name) == ("import_model", "config") else {}
    if name == "experts":
        values = {"frames": "f", "model": {"name": "cast"}, "experts": ["n", "m"]}
    config: StageConfig = model.model_validate(values)
    node = Node("it", config, {field: tuple(names) for field, names in config.inputs().items()})
    (folder / "videos.csv").write_text(
        "\n".join(["video_id,path,split,verb,noun", *(f"{name},{name}.mp4,train,x,y" for name in NAMES)])
    )
    (folder / "segments.csv").write_text("video_id,start_seconds,stop_seconds,label\na,0,1,x\nb,0,1,y")
    (folder / "reelwright.yaml").write_text(yaml.safe_dump(PIPELINE))
    planner, made_of = open_planner(load_pipeline(folder / "reelwright.yaml")), []
    for text in ("one", "two"):
        for file in ("one.txt", "procedure.yaml"):
            (folder / file).write_text(text if file == config.sources().get(name) else "same")
        sources = {} if is_input else source_digests(node, planner.file, KnownFiles(folder / "none.json"))
        identities = {parent: text if parent == "n" else "same" for parent in node.parents}
        made_of.append(material(node, planner.dataset, (), identities=identities, sources=sources))
    assert digest(made_of[0]) != digest(made_of[1])
    if model.kind == "run" and model.used(name) != "start":
        assert (digest(reads(made_of[0], [])) == digest(reads(made_of[1], []))) == (model.used(name) == "training")


# --- the blocks of videos and labels

_OF_LABELS = {"column", "columns", "segments", "steps", "rows", "classes", "background", "time_origin"}
_OF_VIDEOS = {"manifest", "folder", "features", "glob", "synthesize", "root", "split", "splits", "digest", "missing"}
_OF_VIDEOS |= {"split_column"}


def test_every_setting_of_videos_and_labels_says_which_they_are_or_is_declared_otherwise() -> None:
    """The first enter keys by contents, splits and annotations; a new setting has to be put into one of the two."""
    roles = {
        model: {
            name
            for name, info in model.model_fields.items()
            if (info.json_schema_extra or {}).get("role") != "execution"  # type: ignore[union-attr]
        }
        for model in (VideosConfig, LabelsConfig)
    }
    assert roles == {VideosConfig: _OF_VIDEOS, LabelsConfig: _OF_LABELS}
