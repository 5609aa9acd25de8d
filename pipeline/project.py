"""Reelwright from Python: open a pipeline file, run it, and read what it made.

project = Project.open("reelwright.yaml", overrides=["train.epochs=5"])
result = project.run(until=["train"])
rows = project.embeddings("embed")["some_video"]
rows.output("pooled"), rows.spans.start_seconds
project.predictions("predict").windows().to_pandas()
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.config.pipeline_file import PipelineFile, find_pipeline_file, load_pipeline
from reelwright.pipeline.plan.graph import NodePlan, names_of
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.run.results import NodeResult, Observer, RunOptions
from reelwright.pipeline.run.runner import RunResult, open_planner, run_pipeline
from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.work import Reporter, SilentReporter
from reelwright.storage.errors import ConfigError, StoreError, nearest
from reelwright.storage.kinds import KINDS
from reelwright.storage.ledger.records import Record

if TYPE_CHECKING:
    from reelwright.storage.arrays.embeddings import EmbeddingRows
    from reelwright.storage.arrays.frames import FrameRows
    from reelwright.storage.arrays.window_outputs import WindowOutputs
    from reelwright.storage.results.predictions import PredictionSet
    from reelwright.storage.results.runs import RunFolder
    from reelwright.storage.results.steps import StepSet

_SHOWN = 10  # names of videos


class SilentObserver:
    """Watches a run and says nothing."""

    def warned(self, texts: Sequence[str]) -> None:
        """Ignore warnings; `run` returns them."""

    def planned(self, plans: Sequence[NodePlan]) -> None:
        """Ignore the plan."""

    def started(self, plan: NodePlan) -> Reporter:
        """Ignore progress."""
        del plan
        return SilentReporter()

    def finished(self, result: NodeResult) -> None:
        """Ignore results; `run` returns them."""

    def making(self, num_videos: int) -> Reporter:
        """Ignore progress."""
        del num_videos
        return SilentReporter()

    def indexing(self, num_videos: int) -> Reporter:
        """Ignore progress."""
        del num_videos
        return SilentReporter()


class Project:
    """A pipeline file and the store behind it."""

    def __init__(self, file: PipelineFile) -> None:
        self.file = file

    @classmethod
    def open(cls, path: str | Path | None = None, *, overrides: str | Sequence[str] = ()) -> Project:
        """Read and check a pipeline file; None: the one in the working folder. Raises ConfigError."""
        return cls(load_pipeline(find_pipeline_file(None if path is None else Path(path)), names_of(overrides)))

    def run(self, *, observer: Observer | None = None, **options: Any) -> RunResult:
        """Bring nodes up to date; options are those of `RunOptions` (only, until, force, limit, ...).

        A node is named by its whole name, alone or in a list of several.
        """
        known = [option.name for option in dataclasses.fields(RunOptions)]
        for name in options:
            if name not in known:
                raise ConfigError(f"run has no option {name!r}.{nearest(name, known)} Known: {', '.join(known)}")
        return run_pipeline(self.file, observer or SilentObserver(), RunOptions(**options))

    def planner(self, *, read: bool = False) -> Planner:
        """What is up to date and why, as the store is now; with ``read``, touched and moved files are read for it."""
        return open_planner(self.file, read=read)

    def status(self) -> list[NodePlan]:
        """The plan of every node, in running order; nothing is run."""
        return self.planner().plans()

    def frames(self, node: str) -> Mapping[str, FrameRows]:
        """Stored frames of a decode node by video_id."""
        return self._rows(node, "frames")

    def embeddings(self, node: str) -> Mapping[str, EmbeddingRows]:
        """Stored embeddings of an embed node by video_id."""
        return self._rows(node, "embeddings")

    def trained(self, node: str) -> RunFolder:
        """The run of a train or finetune node: config, metrics, weights."""
        run: RunFolder = self._opened(self._plan(node, "run")[1])
        return run

    def predictions(self, node: str) -> PredictionSet:
        """The tables of a predict node."""
        tables: PredictionSet = self._opened(self._finished(node, "predictions"))
        return tables

    def attention(self, node: str) -> Mapping[str, WindowOutputs]:
        """What a predict node keeps of the model beside its scores (`keep`), by video_id; windows as in its tables."""
        return self._rows(node, "attention")

    def steps(self, node: str) -> StepSet:
        """The tables of a steps node: recognised and true steps."""
        tables: StepSet = self._opened(self._finished(node, "steps"))
        return tables

    def report(self, node: str) -> Path:
        """The folder of an evaluate or probe node (metrics.json, report.html), or of a render node (index.html)."""
        produces = self.file.nodes[node].produces if node in self.file.nodes else ""
        folder: Path = self._opened(self._finished(node, produces if produces and KINDS[produces].page else "scores"))
        return folder

    def _rows(self, node: str, produces: str) -> Mapping[str, Any]:
        planner, plan = self._plan(node, produces)
        return _ByVideo(KINDS[produces].open(self.file.store.output(produces, plan.spec_key)), planner)

    def _opened(self, plan: NodePlan) -> Any:
        """What reads the output of a node, brought to this machine where the store is in a bucket."""
        produces = plan.node.config.produces
        folder = self.file.store.output(produces, plan.key)
        self.file.store.backend.pull(folder)
        return KINDS[produces].open(folder)

    def record(self, node: str) -> Record | None:
        """The record of a node as it is set now; None when it is not up to date."""
        return self.planner(read=True).plan(node).record

    def _finished(self, node: str, produces: str) -> NodePlan:
        """The plan of a node whose output is there. Raises StoreError that says why it is not."""
        planner, plan = self._plan(node, produces)
        if not planner.is_made(plan):
            raise StoreError(f"node {node!r} is not finished: {'; '.join(plan.reasons)}. Run it first")
        return plan

    def _plan(self, node: str, produces: str) -> tuple[Planner, NodePlan]:
        planner = self.planner(read=True)
        planner.graph.check_name(node)
        plan = planner.plan(node)
        if produces not in _made_by(plan.node.config):
            fitting = [other.name for other in planner.graph.nodes.values() if produces in _made_by(other.config)]
            raise ConfigError(
                f"node {node!r} makes {plan.node.config.produces}, not {produces}; these do: {', '.join(fitting)}"
            )
        if not plan.key:
            raise StoreError(f"node {node!r} has not run yet: {'; '.join(plan.reasons)}. Run it first")
        return planner, plan


def _made_by(config: StageConfig) -> tuple[str, ...]:
    return (config.produces, *config.also_produces)


class _ByVideo(Mapping[str, Any]):
    """Rows of a store by video_id."""

    def __init__(self, store: Any, planner: Planner) -> None:
        self._store = store
        present = set(store.digests())
        digests = planner.dataset.digests
        self._digests = {name: digest for name, digest in digests.items() if digest is not None and digest in present}

    def __repr__(self) -> str:
        shown = [*list(self._digests)[:_SHOWN], *(["..."] if len(self) > _SHOWN else [])]
        return f"<stored rows of {len(self)} videos{': ' if shown else ''}{', '.join(shown)}>"

    def __getitem__(self, video_id: str) -> Any:
        if video_id not in self._digests:
            raise KeyError(
                f"no rows of video {video_id!r}.{nearest(video_id, self._digests)} {len(self._digests)} have some"
            )
        return self._store.rows(self._digests[video_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._digests)

    def __len__(self) -> int:
        return len(self._digests)
