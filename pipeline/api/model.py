"""A trained model on its own: over frames or rows in memory, or over video files.

model = Model.load("model")                    # what export-model wrote, or the folder of a run
model(frames, fps=25).to_pandas()              # uint8 (T, H, W, 3)
model.predict("clips").to_pandas()             # a folder of videos, as `reelwright predict --run`
"""

from __future__ import annotations

import csv
import itertools
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.inspect.trained_model import pipeline_of_model
from reelwright.pipeline.plan.graph import Graph, build_graph, names_of
from reelwright.pipeline.plan.keys import NodePlugins
from reelwright.pipeline.project import Project
from reelwright.pipeline.run.results import FAILED
from reelwright.stages.base.registry import IMPORTS_RUN, PREDICTS, load
from reelwright.stages.base.work import InputRef, Work
from reelwright.storage.errors import ConfigError, InputError, StageError, StoreError
from reelwright.storage.results.runs import EXPORTED, RunFolder, check_exported, exported_names
from reelwright.storage.store import Store, is_url

if TYPE_CHECKING:
    import numpy.typing as npt

    from reelwright.stages.arrays.model import ArrayModel
    from reelwright.stages.arrays.scores import ModelScores, Predictions

PipelineOf = Callable[[str | None], PipelineFile]  # videos -> the nodes from these to scores
_CARD = "README.md"


class Model:
    """A trained model with all that leads from a video to its scores, in eval mode."""

    def __init__(self, work: Work, *, pipeline: PipelineOf | None, device: str, name: str) -> None:
        """Use `Model.load`, or `model()` of a run of a project. ``work`` has a store of its own, which goes with it."""
        self.name = name
        self._work, self._pipeline, self._device = work, pipeline, device
        weakref.finalize(self, shutil.rmtree, work.store, ignore_errors=True)
        (run,) = work.inputs["run"]
        self._folder = RunFolder(Store.at(work.store).run(run.key))
        self._arrays: ArrayModel | None = None

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", overrides: str | Sequence[str] = ()) -> Model:
        """The model in a folder that `reelwright export-model` wrote, or in the folder of a run (store/runs/KEY).

        A run alone knows no encoder but its own: that of a train node takes rows only, and none takes video files. Nor
        does it know which frames, at which size, it was made for: of a finetune node all are taken, with a warning.
        ``device`` is auto (the first GPU, else the CPU), cpu, cuda or cuda:1. ``overrides`` are settings of predict,
        as ``window.hop=2`` or ``crops=3``, else its defaults hold; of a run alone there are none. Plug-ins that are
        named in an exported model are imported. Raises ConfigError for another folder, InputError for files that are
        not those exported, StoreError for a run without weights.
        """
        folder = Path(path).expanduser()
        if (folder / EXPORTED).is_file():
            check_exported(folder, [name for name in exported_names(folder) if name != _CARD])
            return cls.of_pipeline(
                lambda videos: pipeline_of_model(str(folder), videos, names_of(overrides)),
                device=device,
                name=folder.resolve().name,
            )
        if not (folder / "config.yaml").is_file():
            raise ConfigError(
                f"{folder} holds no model: neither {EXPORTED} (of `reelwright export-model`) nor config.yaml (of a run)"
            )
        if overrides:
            raise ConfigError(f"overrides {list(names_of(overrides))}: {folder} is a run alone; give an exported model")
        return cls._of_run(RunFolder(folder), device=device)

    @classmethod
    def of_pipeline(cls, pipeline: PipelineOf, *, device: str = "auto", name: str) -> Model:
        """The model of the pipeline that predicts with it; its last node is the predict node."""
        file = pipeline(None)
        graph = build_graph(file)
        runs = {
            node.name: file.resolve(node.config.sources()["weights"]).parent
            for node in graph.nodes.values()
            if node.stage == IMPORTS_RUN
        }
        return cls(_work(file, graph, _store_of(runs)), pipeline=pipeline, device=device, name=name)

    @classmethod
    def _of_run(cls, folder: RunFolder, *, device: str) -> Model:
        if not folder.is_complete:
            raise StoreError(f"{folder.weights} is not there: training has not ended")
        values = folder.config()
        name = str(values.get("node", folder.path.name))
        run = InputRef(node=name, stage=str(values.get("stage", "")), key=name)
        work = Work(
            node=PREDICTS,
            stage=PREDICTS,
            key=str(folder.path.absolute()),
            config={"run": name},
            spec={},
            store=_store_of({name: folder.path}),
            inputs={"run": (run,)},
        )
        return cls(work, pipeline=None, device=device, name=name)

    @property
    def config(self) -> dict[str, Any]:
        """What config.yaml of the run says: task, classes, window, model and its options."""
        return self._folder.config()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the scores."""
        return tuple(self.config["classes"])

    @property
    def task(self) -> str:
        """What it was trained for: video, last_row, majority, per_row, multi_label or heads."""
        return str(self.config["task"])

    @property
    def module(self) -> Any:
        """The network that answers for windows, a `torch.nn.Module` in eval mode: a dict of tensors in and out.

        in: rows (B,T,D) float32, or frames (B,T,h,w,3) uint8, and mask (B,T) bool; out: logits, ...
        """
        return self._loaded().run.module

    @property
    def fps(self) -> float | None:
        """Frames a second that it was made for; None where the frames were not taken at a rate, or none is known."""
        return self._loaded().fps

    def __call__(
        self,
        frames: npt.ArrayLike,
        *,
        fps: float | None = None,
        times: npt.ArrayLike | None = None,
        name: str = "frames",
    ) -> ModelScores:
        """Scores of the frames of one video, uint8 (T, H, W, 3) RGB, in memory: what predict gives for such a video.

        ``fps`` (a second) or ``times`` (T,) seconds say when they were shown, and of them those are taken that the
        model was made for; without both they are taken to be those already, `Model.fps` a second. What an encoder's
        batch size is measured for is fixed here, so rows may differ by rounding.

        Times of a file are as its container has them and may not be k / fps to the last digit; give them as ``times``
        where that counts. The last frame is taken to be shown for as long as most others.

        Raises InputError for arrays that do not fit, ConfigError where no encoder is known.
        """
        if self._pipeline is None and self._loaded().reads_frames:
            _warn_of_unknown_frames(self.name, is_timed=fps is not None or times is not None)
        return self._loaded().of_frames(frames, fps=fps, times=times, name=name)

    def rows(self, rows: npt.ArrayLike, *, times: npt.ArrayLike | None = None, name: str = "rows") -> ModelScores:
        """Scores of the embeddings of one video, (T, D) as the model was trained on, its stores side by side.

        Tokens (T, N, D) and maps (T, C, h, w) are averaged as in training, where the model does not read positions.

        ``times`` (T, 2) are start and stop of each row in seconds, half-open; without, times of the scores are NaN.
        Raises InputError for rows of another shape or that are not finite, ConfigError for a model of frames.
        """
        return self._loaded().of_rows(rows, times, name=name)

    def predict(
        self, videos: str | Path | Sequence[str | Path], *, store: str | Path | None = None, **options: Any
    ) -> Predictions:
        """Scores of video files: a folder, a video, a pattern or a manifest, or a list of videos.

        The same as `reelwright predict --run`, in its store: that of the project, of an exported model that of the
        working folder, or ``store``. What is there is not done again. ``options`` are those of `Project.run`. Videos
        that fail are left out with a warning. Raises ConfigError for a run alone, StageError where no video has scores.
        """
        if self._pipeline is None:
            raise ConfigError(
                "this model is a run alone, and no way from a video to its rows is known. Export it with `reelwright "
                "export-model`, or take project['NODE'].model()"
            )
        file = self._pipeline(_videos(videos, Path(self._work.store)))
        if store is not None:
            file = replace(file, store=Store.at(store))
        project = Project(file)
        result = project.run(**options)
        for failure in result.failures:
            warnings.warn(f"{', '.join(failure.video_ids)}: {failure.row.message}", stacklevel=2)
        failed = [node for node in result.nodes if node.state == FAILED]
        if failed:
            raise StageError(f"{failed[0].node}: {failed[0].message}")
        name = list(file.nodes)[-1]
        tables: Predictions = load("reelwright.stages.arrays.scores:Predictions")(project.predictions(name).folder)
        return tables

    def _loaded(self) -> ArrayModel:
        if self._arrays is None:
            self._arrays = load("reelwright.stages.arrays.model:ArrayModel")(self._work, device=self._device)
        return self._arrays

    def __repr__(self) -> str:
        model = self.config.get("model") or {}
        return f"<model {self.name!r}: {model.get('name', '?')}, task {self.task}, {len(self.classes)} classes>"

    def _repr_html_(self) -> str:
        values = self.config
        rows = [("task", values["task"]), ("classes", ", ".join(values["classes"])), ("window", values.get("window"))]
        shown: str = load("reelwright.stages.arrays.tables:html_table")(("", ""), rows, title=repr(self).strip("<>"))
        return shown


def _store_of(runs: Mapping[str, Path]) -> str:
    """A store of its own in a temporary folder, in which runs are called by their nodes; their folders are linked."""
    store = Store.at(tempfile.mkdtemp(prefix="reelwright-model-"))
    for node, folder in runs.items():
        store.run(node).parent.mkdir(exist_ok=True)
        store.run(node).symlink_to(folder.absolute(), target_is_directory=True)
    return str(store.root)


def _warn_of_unknown_frames(name: str, *, is_timed: bool) -> None:
    """Of a run alone. Raises InputError where nothing says when the frames were shown."""
    known = f"{name} is a run alone, which does not say at which rate and size the frames of its training were taken"
    if not is_timed:
        raise InputError(f"{known}; fps or times (seconds of each frame) must say when these were shown")
    warnings.warn(f"{known}: all of these are taken. What `reelwright export-model` writes says it", stacklevel=3)


def _videos(videos: str | Path | Sequence[str | Path], folder: Path) -> str:
    """One source as it is; a list as a manifest, ids from the folder that all share. Raises ConfigError for none."""
    if isinstance(videos, str | Path):
        return str(videos)
    if not videos:
        raise ConfigError("no videos were given")
    path = folder / "videos.csv"
    names = [str(video) if is_url(str(video)) else str(Path(video).absolute()) for video in videos]
    ids = _ids(names)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "video_id"], *zip(names, ids, strict=True)])
    return str(path)


def _ids(names: Sequence[str]) -> list[str]:
    """Paths below what all share, without their endings where these tell none apart; of one video its name."""
    folders = [name.split("/")[:-1] for name in names]
    shared = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False)))
    below = ["/".join(name.split("/")[shared:]) for name in names]
    short = [name.removesuffix(PurePosixPath(name).suffix) for name in below]
    return short if len(set(short)) == len(set(below)) else below


def _work(file: PipelineFile, graph: Graph, store: str) -> Work:
    """The work of the last node, runs by the names of their nodes."""
    node = graph.nodes[list(file.nodes)[-1]]
    return Work(
        node=node.name,
        stage=node.stage,
        key=store,
        config=_config(file, graph, node.name),
        spec={},
        store=store,
        inputs=_refs(file, graph, node.name),
        plugins=NodePlugins(file, graph).behind(node),
    )


def _refs(file: PipelineFile, graph: Graph, name: str) -> dict[str, tuple[InputRef, ...]]:
    return {
        field: tuple(
            InputRef(
                node=parent,
                stage=graph.nodes[parent].stage,
                key=parent,
                config=_config(file, graph, parent),
                inputs=_refs(file, graph, parent),
            )
            for parent in parents
        )
        for field, parents in graph.nodes[name].inputs.items()
    }


def _config(file: PipelineFile, graph: Graph, name: str) -> dict[str, Any]:
    """Plain settings; files as absolute paths."""
    config = graph.nodes[name].config
    values = config.plain()
    return values | {field: str(file.resolve(path)) for field, path in config.sources().items()}
