"""A trained model on its own: the nodes that lead from a video to its scores, with their weights, as a pipeline file.

The run and every run that it needs (of an encoder) stand in it as import_model, so that nothing is trained; what was
decided for training (rate, size, encoder, preprocessing) stands in it as it was, so that nobody says it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf

from reelwright.pipeline.config.adhoc import adhoc_pipeline, videos_block
from reelwright.pipeline.config.overrides import read_yaml
from reelwright.pipeline.config.pipeline_file import DEFAULT_NAMES, STORE_VARIABLE, PipelineFile
from reelwright.pipeline.config.seeds import BETWEEN
from reelwright.pipeline.inspect.export import check_own_folder
from reelwright.pipeline.project import Project
from reelwright.stages.base.plugin_source import Source
from reelwright.stages.base.registry import IMPORTS_RUN, PREDICTS, load
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ConfigError, StoreError
from reelwright.storage.files import replacing_folder, write_json
from reelwright.storage.results.runs import EXPORTED, RunFolder, check_exported, exported_names
from reelwright.storage.store import is_url

if TYPE_CHECKING:
    from reelwright.pipeline.plan.graph import Node
    from reelwright.pipeline.plan.plan import Planner

PREDICT, PIPELINE, ONNX = "predictions", "pipeline.yaml", "model.onnx"
_EXPORT_ONNX = "reelwright.stages.export.onnx_model:export_onnx"
_CARD, _RUNS = "README.md", "runs/"  # in the folder of an exported model
_NEW = {"split": "test", "max_failed": 1.0}  # of videos that are predicted: each for itself, whatever others are like
_KEPT = frozenset({"materialize"})  # of the settings that enter no key: jpeg frames are stored ones

Place = Callable[[Path, str], str]  # a file, and what it is called in an exported model -> how the pipeline names it


@dataclass
class _Nodes:
    """The nodes from videos to the scores of a run, as a pipeline file has them."""

    planner: Planner
    place: Place
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add_run(self, name: str) -> RunFolder:
        """The run of a node. Raises StoreError where it is not there."""
        plan = self.planner.plan(name)
        if plan.record is None or not plan.key:
            raise StoreError(f"node {name!r} has no trained model: {'; '.join(plan.reasons)}. Run it first")
        store = self.planner.file.store
        store.backend.pull(store.run(plan.key))
        folder = RunFolder(store.run(plan.key))
        behind = [self.planner.graph.nodes[other] for other in self.planner.graph.upstream([name])]
        used = {use.key for node in behind for use in node.config.plugins().values()}  # the encoder inside may be one
        own = _written(name)
        self.place(folder.path / "config.yaml", f"{_RUNS}{own}/config.yaml")
        self.stages[own] = {
            "uses": IMPORTS_RUN,
            "weights": self.place(folder.weights, f"{_RUNS}{own}/model.safetensors"),
            **({"imports": sorted(used)} if used else {}),
        }
        return folder

    def add(self, name: str) -> None:
        """A node, and before it those that it reads."""
        if _written(name) in self.stages:
            return
        node = self.planner.graph.nodes[name]
        if node.config.kind == "run":
            self.add_run(name)
            return
        if not node.parents and node.config.produces != "frames":
            raise ConfigError(
                f"{name} is a {node.stage} node: its rows came from files, and there is no way from a new video to "
                "them. Predict in a pipeline file that names the new files"
            )
        for parent in node.parents:
            self.add(parent)
        self.stages[_written(name)] = {"uses": node.stage, **self._settings(node)}

    def _settings(self, node: Node) -> dict[str, Any]:
        """What is set of a node, files at their new place; how the work was done is not part of a model."""
        config, plan = node.config, self.planner.plan(node.name)
        names = {name for name in config.model_fields_set if config.role(name) != "execution" or name in _KEPT}
        values = config.model_dump(mode="json", include=names, exclude_unset=True)
        for name, read in config.inputs().items():
            if name in values and read:
                values[name] = _written(values[name]) if isinstance(values[name], str) else list(map(_written, read))
        files = {name: self.planner.file.resolve(path) for name, path in config.sources().items()}
        if (hub := config.hub_weights()) is not None:
            files["weights"] = self.planner.file.store.weights(hub)
        for name, path in files.items():
            if not path.is_file():
                raise StoreError(f"{node.name}: {path} is not there ({'; '.join(plan.reasons)}). Run the node first")
            values[name] = self.place(path, f"weights/{_written(node.name)}/{path.name}")
        return values


def model_stages(planner: Planner, run: str, place: Place) -> tuple[dict[str, dict[str, Any]], RunFolder]:
    """The nodes from videos to the scores of the node ``run``, and its run; the last is `predictions` if none is yet.

    Raises ConfigError for a node that trains nothing or gives no scores, StoreError where something is missing.
    """
    planner.graph.check_name(run)
    node = planner.graph.nodes[run]
    runs = [name for name, other in planner.graph.nodes.items() if other.config.kind == "run"]
    if node.config.kind != "run":
        raise ConfigError(f"{run} is a {node.stage} node, which trains nothing. Runs here: {', '.join(runs) or 'none'}")
    nodes = _Nodes(planner, place)
    folder = nodes.add_run(run)
    if folder.config().get("task") not in TASKS:
        raise ConfigError(
            f"the run of {run} ({node.stage}) gives no scores. Embed with it (embed: {{run: {run}}}) in the pipeline "
            "file"
        )
    reads = next((name for name in ("embeddings", "frames") if node.inputs.get(name)), None)
    if reads is None:
        raise ConfigError(f"{run} is a {node.stage} node, which reads neither embeddings nor frames of videos")
    for parent in node.inputs[reads]:
        nodes.add(parent)
    read = list(map(_written, node.inputs[reads]))
    last = PREDICT
    while last in nodes.stages:
        last = f"{last}_"
    given = read if reads == "embeddings" else read[0]
    return {**nodes.stages, last: {"uses": PREDICTS, "run": _written(run), reads: given}}, folder


def pipeline_of_model(
    model: str, videos: str | None, overrides: Sequence[str] = (), *, config: Path | None = None
) -> PipelineFile:
    """A pipeline that predicts ``videos`` with a model: a folder that was exported, or a node of a pipeline file.

    ``videos`` is what `videos_block` takes (None: none, for who only wants the nodes), ``config`` the pipeline file of
    a node. The store is that of the pipeline file, of an exported model that of the working folder. An override
    without a node's name is a setting of predict. Raises ConfigError, StoreError for a node that is not trained, and
    InputError for files that are not those exported.
    """
    if config is None and (Path(model) / EXPORTED).is_file():
        names = exported_names(Path(model))  # import_model looks at those of runs
        check_exported(Path(model), [name for name in names if name != _CARD and not name.startswith(_RUNS)])
        path = (Path(model) / PIPELINE).absolute()
        stages: Any = OmegaConf.to_container(read_yaml(path).stages)
        store = os.environ.get(STORE_VARIABLE) or str(Path.cwd() / ".reelwright" / "store")
        return adhoc_pipeline(PREDICT, _absolute(videos), stages, overrides, path=path, store=store)
    has_file = config is not None or any(Path(name).is_file() for name in DEFAULT_NAMES)
    if config is None and Path(model).exists() and not (has_file and model in Project.open().file.nodes):
        raise ConfigError(f"{model} has no {EXPORTED}: it is no folder that `reelwright export-model` wrote")
    return pipeline_of_run(Project.open(config), model, videos, overrides)


def pipeline_of_run(project: Project, run: str, videos: str | None, overrides: Sequence[str] = ()) -> PipelineFile:
    """The same of the node ``run`` of a project, as its settings are now."""
    stages, _ = model_stages(project.planner(read=True), run, lambda path, _: str(path))
    path, store = project.file.folder / f"reelwright-{PREDICT}.yaml", project.file.store.place
    return adhoc_pipeline(PREDICT, _absolute(videos), stages, overrides, path=path, store=store)


def export_model(project: Project, run: str, out: Path, *, onnx: bool = False) -> Path:
    """Write the trained model of a node into a folder of its own, which appears when it is whole.

    out/pipeline.yaml    the nodes from a video to its scores; `reelwright predict --run out` runs them
        runs/NODE/       config.yaml (model, task, classes, windows) and model.safetensors of each run
        weights/NODE/    weights of encoders that no run learned
        model.onnx       with ``onnx``: what is behind the encoder, rows of windows in, probabilities out
        *.py             plug-ins from files beside the pipeline file, with what they import from there
        model.json       classes, task, scores on val, and the digest of every file, which is checked when it is read
        README.md        the same for people

    Raises ConfigError where ``out`` holds something else, or the node has no model that gives scores.
    """
    if out.exists() and not (out / EXPORTED).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} holds files that are no exported model; give an empty folder, or a new one")
    check_own_folder(out)
    planner = project.planner(read=True)
    planner.graph.check_name(run)
    with replacing_folder(out) as temporary:

        def copied(path: Path, name: str) -> str:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)
            return name

        stages, folder = model_stages(planner, run, copied)
        for name in sorted(planner.graph.upstream([run])):  # of the nodes, and of what runs are made of
            for use in planner.graph.nodes[name].config.plugins().values():
                _copy_source(use.name, project.file.folder, copied)
        text = yaml.safe_dump({"stages": stages}, sort_keys=False, allow_unicode=True, width=120)
        (temporary / PIPELINE).write_text(text, encoding="utf-8")
        described = _description(planner, run, folder)
        if onnx:
            plugins = planner.plugins.behind(planner.graph.nodes[run])
            described["onnx"] = load(_EXPORT_ONNX)(folder, temporary / ONNX, plugins=plugins)
        (temporary / _CARD).write_text(_card(described, text), encoding="utf-8")
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        digests = {path.relative_to(temporary).as_posix(): file_digest(path) for path in files}
        write_json(temporary / EXPORTED, {**described, "files": digests})
    return out


def _written(node: str) -> str:
    """A node's name as a pipeline file may have it: train-seed3 of train@3, a seed of several, train-anna of a fold."""
    name, between, seed = node.partition(BETWEEN)
    return f"{name}-{'seed' if seed.isdigit() else ''}{seed}" if between else node


def _absolute(videos: str | None) -> dict[str, Any]:
    if videos is None:
        return {"glob": "none", **_NEW}
    block = videos_block(videos).items()
    return {name: text if is_url(text) else str(Path(text).absolute()) for name, text in block} | _NEW


def _copy_source(name: str, folder: Path, place: Place) -> None:
    """A plug-in's file and what it imports from beside it, if it is one. Raises ConfigError outside ``folder``."""
    written, _, _ = name.rpartition(":")
    if not written.endswith(".py"):
        return
    top = (folder / written).resolve().parent
    for module in Source.of_file(folder / written).modules.values():
        path = module.path.resolve()
        if not path.is_file():
            continue
        if Path(written).is_absolute() or not path.is_relative_to(folder.resolve()) or not path.is_relative_to(top):
            raise ConfigError(f"{path}, of the plug-in {name}, lies outside {folder}; move it beside the pipeline file")
        place(path, path.relative_to(folder.resolve()).as_posix())


def _description(planner: Planner, run: str, folder: RunFolder) -> dict[str, Any]:
    values, record = folder.config(), planner.plan(run).record
    assert record is not None
    names = ("task", "classes", "heads", "window", "output", "model")
    return {
        "run": run,
        "stage": values["stage"],
        "key": folder.path.name,
        **{name: values[name] for name in names if values.get(name)},
        "val": {name: value for name, value in record.outputs.get("metrics", {}).items() if name.startswith("val_")},
        "trained": record.finished,
    }


def _card(described: Mapping[str, Any], pipeline: str) -> str:
    """A page about the model, for people."""
    scores = [f"| {name.removeprefix('val_')} | {value:.4g} |" for name, value in described["val"].items()]
    table = "\n".join(["| on val | |", "|---|---|", *scores]) if scores else "It was not measured on val."
    model = described.get("model") or {}
    name = model.get("name", "as config.yaml says")
    onnx = f"\n{ONNX}: what is behind the encoder, {described['onnx']}.\n" if "onnx" in described else ""
    return f"""# {described["run"]}

A model of reelwright ({described["stage"]}, trained {described["trained"]}): {name},
task {described["task"]}. Predict videos with it, no labels and no pipeline file needed:

    reelwright predict --run FOLDER --videos VIDEOS --out scores.parquet

Classes, in the order of the scores: {", ".join(described["classes"])}.

{table}
{onnx}
How a video becomes scores (pipeline.yaml):

```yaml
{pipeline}```
"""
