"""A project for people who program: nodes, what they made, labels; `Project` of the pipeline with arrays and tables.

project = Project("reelwright.yaml")          # or its folder
project.run()                                 # as the command; project.run("train") gives what the node made
project["embed"]["some_video"].rows           # what a node made, without running anything
project.labels()                              # a pandas DataFrame
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.api.model import Model
from reelwright.pipeline.api.outputs import FRAME, PROBED, Report, Run
from reelwright.pipeline.config.pipeline_file import DEFAULT_NAMES, PipelineFile, find_pipeline_file, load_pipeline
from reelwright.pipeline.inspect.trained_model import export_model
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.graph import names_of
from reelwright.pipeline.project import Project as PipelineProject
from reelwright.pipeline.run.results import FAILED, SKIPPED, Observer
from reelwright.pipeline.run.work_units import build_work
from reelwright.stages.base.registry import load
from reelwright.storage.errors import ConfigError, StageError, StoreError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import UNKNOWN, Annotation

if TYPE_CHECKING:
    from reelwright.stages.arrays.embeddings import EmbeddedVideo, Embeddings
    from reelwright.stages.arrays.scores import Predictions
    from reelwright.stages.arrays.windows import WindowDataset
    from reelwright.storage.arrays.frames import FrameRows

_LABEL_FIELDS = ("video_id", "split", "kind", "label", "start_seconds", "stop_seconds", "frame")


class Project(PipelineProject):
    """A pipeline file and the store behind it."""

    def __init__(self, path: str | Path | PipelineFile | None = None, *, overrides: str | Sequence[str] = ()) -> None:
        """Read and check a pipeline file, or the one in a folder; None: the one in the working folder.

        ``overrides`` are as those of the command: `train.epochs=5`. Raises ConfigError.
        """
        super().__init__(path if isinstance(path, PipelineFile) else _read(path, overrides))

    @classmethod
    def open(cls, path: str | Path | None = None, *, overrides: str | Sequence[str] = ()) -> Project:
        """The same as `Project(path)`."""
        return cls(path, overrides=overrides)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes, as the file has them."""
        return tuple(self.file.nodes)

    def run(self, node: str | None = None, *, observer: Observer | None = None, **options: Any) -> Any:
        """Bring nodes up to date: the same code path and cache as the command.

        Without ``node`` a `RunResult` of all, or of what ``options`` choose (until, only, force, limit, ...: those of
        `RunOptions`). With ``node``, it and what it needs, and what it made is returned, as by ``project[node]``; then
        StageError is raised where it failed.
        """
        if node is None:
            return super().run(observer=observer, **options)
        self.planner().graph.check_name(node)
        result = super().run(observer=observer, **{"until": (node,), **options})
        for name in (FAILED, SKIPPED):
            for found in result.nodes:
                if found.state == name:
                    raise StageError(f"{found.node}: {found.message}")
        return self[node]

    def __getitem__(self, node: str) -> Any:
        """What a node made with its settings as they are now; nothing is run.

        decode: frames by video_id; embed, features: `Embeddings`; train, finetune, pretrain, import_model: `Run`;
        predict: `Predictions`; steps: `StepSet`; evaluate, probe, render: `Report`. Raises ConfigError for a node that
        is not there, StoreError for one that has not run.
        """
        graph = self.planner().graph
        produces = graph.nodes[graph.check_name(node)].config.produces
        if produces not in _MADE:
            raise ConfigError(f"{node} makes {produces}, of which there is no object")
        return _MADE[produces](self, node)

    def __iter__(self) -> Iterator[str]:
        return iter(self.file.nodes)

    def __len__(self) -> int:
        return len(self.file.nodes)

    def frames(self, node: str) -> Mapping[str, FrameRows]:
        """Stored frames of a decode node by video_id. Raises StoreError for one that stores none."""
        if not self.planner().graph.nodes[node].config.stores:
            raise StoreError(
                f"{node} stores no frames (materialize: false), so there are none to read. Set materialize: true and "
                "run it, or take what reads them, as embeddings"
            )
        return super().frames(node)

    def embeddings(self, node: str) -> Embeddings:
        """Stored embeddings of a node by video_id: rows, times and labels; NumPy, torch, pandas, xarray."""
        planner, plan = self._plan(node, "embeddings")
        dataset = planner.dataset_of(plan.node)
        made: Embeddings = load("reelwright.stages.arrays.embeddings:Embeddings")(
            self.file.store.embeddings(plan.spec_key),
            lambda present: _videos(dataset, present),
            labels=SimpleNamespace(classes=dataset.labels.classes, background=dataset.background),
            node=node,
        )
        return made

    def trained_run(self, node: str) -> Run:
        """The run of a node that trains, or that took a trained model."""
        _, plan = self._plan(node, "run")
        if plan.record is None:
            raise StoreError(f"node {node!r} has not run yet: {'; '.join(plan.reasons)}. Run it first")
        folder: RunFolder = self._opened(plan)
        return Run(folder, record=plan.record, project=self)

    def predictions(self, node: str) -> Predictions:
        """The tables of a predict node, also for pandas."""
        found: Predictions = load("reelwright.stages.arrays.scores:Predictions")(super().predictions(node).folder)
        return found

    def report_of(self, node: str) -> Report:
        """What an evaluate, probe or render node wrote."""
        return Report(node, self.report(node), self.file.nodes[node].produces)

    def windows(self, node: str, *, split: str | Sequence[str] | None = None) -> WindowDataset:
        """The windows of a train node with their targets, as the trainer takes them: a torch data set.

        ``split`` is one, or several, of those that the node reads; None: those that it learns from. Nothing is trained;
        its embeddings must be there. Raises ConfigError for another node or split, StoreError where embeddings are
        missing.
        """
        planner = self.planner(read=True)
        plan = planner.plan(planner.graph.check_name(node))
        if plan.material is None:
            raise StoreError(f"{node} cannot learn yet: {'; '.join(plan.reasons)}. Run what it reads first")
        made = load("reelwright.stages.arrays.windows:window_dataset")
        found: WindowDataset = made(build_work(planner, plan, ()), None if split is None else names_of(split))
        return found

    def labels(self) -> Any:
        """A line a label: video_id, split, kind, label, start_seconds, stop_seconds, frame; a pandas DataFrame.

        kind is video (of the whole video), head NAME, segment (half-open seconds), step (the second when it was done),
        from (the second from which on it holds) or frame (of one source frame). Without pandas a `pyarrow.Table`.
        """
        dataset = self.planner().dataset
        lines = [line for video in dataset.videos for line in _labels(dataset, video.video_id, video.split)]
        return load(FRAME)(_LABEL_FIELDS, lines)

    def videos(self) -> Any:
        """A line a video, as a pandas DataFrame, without pandas a `pyarrow.Table`.

        video_id, path, split, and what was read of it (null where it was not yet): status, duration_seconds,
        num_frames, fps, width, height, codec.
        """
        dataset = self.planner(read=True).dataset
        lines = []
        for video in dataset.videos:
            probe = dataset.probes.get(dataset.digests[video.video_id] or "")
            known = [None if probe is None else getattr(probe, name) for name in PROBED]
            lines.append([video.video_id, video.path, video.split, *known])
        return load(FRAME)(("video_id", "path", "split", *PROBED), lines)

    def status_table(self) -> Any:
        """A line a node: node, stage, state, reasons; a pandas DataFrame, without pandas a `pyarrow.Table`."""
        return load(FRAME)(("node", "stage", "state", "reasons"), self._status())

    def export_model(self, node: str, out: str | Path, *, onnx: bool = False) -> Model:
        """Write the model of a node into a folder that works on any machine, and load it from there."""
        return Model.load(export_model(self, node, Path(out), onnx=onnx))

    def _status(self) -> list[list[str]]:
        return [[plan.node.name, plan.node.stage, plan.state, "; ".join(plan.reasons)] for plan in self.status()]

    def __repr__(self) -> str:
        return f"<project {str(self.file.path)!r}: {', '.join(self.file.nodes)}>"

    def _repr_html_(self) -> str:
        shown: str = load("reelwright.stages.arrays.tables:html_table")(
            ("node", "stage", "state", "why"), self._status(), title=str(self.file.path)
        )
        return shown


_MADE: dict[str, Callable[[Project, str], Any]] = {  # by what a stage makes
    "frames": Project.frames,
    "embeddings": Project.embeddings,
    "run": Project.trained_run,
    "predictions": Project.predictions,
    "steps": Project.steps,
    "scores": Project.report_of,
    "pictures": Project.report_of,
}


def _read(path: str | Path | None, overrides: str | Sequence[str]) -> PipelineFile:
    given = None if path is None else Path(path).expanduser()
    if given is not None and given.is_dir():
        found = [given / name for name in DEFAULT_NAMES if (given / name).is_file()]
        if not found:
            raise ConfigError(f"{given} holds no {' or '.join(DEFAULT_NAMES)}; name the pipeline file")
        given = found[0]
    return load_pipeline(find_pipeline_file(given), names_of(overrides))


def _videos(dataset: Dataset, present: set[str]) -> list[EmbeddedVideo]:
    make = load("reelwright.stages.arrays.embeddings:EmbeddedVideo")
    return [
        make(video_id=video.video_id, digest=digest, split=video.split, annotation=annotation)
        for video, digest, annotation in dataset.named(present)
    ]


def _labels(dataset: Dataset, video_id: str, split: str) -> Iterator[list[Any]]:
    known, classes = dataset.labels.of(video_id), dataset.labels.classes
    heads = [name for name, _ in dataset.labels.heads]
    for kind, label, start, stop, frame in _entries(known, heads):
        if label != UNKNOWN:
            yield [video_id, split, kind, classes[label], start, stop, frame]
    if known.video_label:
        yield [video_id, split, "video", known.video_label, None, None, None]


def _entries(
    known: Annotation, heads: Sequence[str]
) -> Iterator[tuple[str, int, float | None, float | None, int | None]]:
    yield "video", known.label, None, None, None
    for name, label in zip(heads, known.labels, strict=False):
        yield f"head {name}", label, None, None, None
    for start, stop, label in known.segments:
        yield "segment", label, start, stop, None
    for seconds, label in known.steps:
        yield "step", label, seconds, None, None
    for seconds, label in known.times:
        yield "from", label, seconds, None, None
    for frame, label in known.frames:
        yield "frame", label, None, None, frame
