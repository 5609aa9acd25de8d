"""Settings of evaluate: which predictions are scored, and how."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from reelwright.stages.base.config import Settings, StageConfig
from reelwright.stages.base.fields import node_input, setting
from reelwright.stages.base.plugins import is_plugin
from reelwright.stages.datasets.tasks.registry import TASKS, TaskTraits
from reelwright.stages.named import NamedSettings
from reelwright.storage.errors import ConfigError

_OF_TASKS: Mapping[str, Callable[[TaskTraits], bool]] = {  # which tasks have what these settings are of
    "topk": lambda task: not task.of_sets,
    "background": lambda task: task.is_sequence,
    "threshold": lambda task: task.of_sets or task.has_heads,
}


class StepScoreSettings(Settings):
    """How completed steps are scored; of steps nodes only."""

    variant: Literal["corrected", "industreal", "storm"] = "corrected"
    """How steps are matched: the nearest in time, or as the public code of IndustReal or STORM-PSR has it."""
    pos_tie_window: PositiveFloat | None = None
    """Frames (without fps in the procedure: seconds) within which a swapped order is mended before POS; null: never."""
    videos: NonNegativeInt = 0
    """Recordings of which a video with the steps written below it is made, the worst ones first."""


class MapSettings(Settings):
    """The map of embeddings in the report."""

    method: Literal["pca", "tsne", "umap"] = "pca"
    """umap where umap-learn is installed."""
    output: str = "pooled"
    """Which stored output."""
    rows: PositiveInt = 2000
    """How many rows are drawn, spread evenly over the videos."""
    seed: NonNegativeInt = 0  # Of the plane; which rows are drawn has no chance in it.


class EvaluatorSettings(NamedSettings):
    """What is measured besides: its name and its own options (checked before any work)."""

    group: ClassVar[str] = "evaluators"
    num_given: ClassVar[int] = 0

    name: str
    """An entry point of reelwright.evaluators, package.module:Evaluator, or file.py:Evaluator."""

    @property
    def label(self) -> str:
        """How its numbers are called."""
        return self.name.rpartition(":")[2]

    @model_validator(mode="after")
    def _evaluator_is_known(self) -> Self:
        if not is_plugin(self.group, self.name):
            raise ValueError(
                f"unknown evaluator {self.name!r}: no installed package offers it (reelwright.{self.group}); or write "
                "package.module:Evaluator, or file.py:Evaluator for a file beside the pipeline file"
            )
        return self


class EvaluateConfig(StageConfig):
    """Scores of predictions against targets, and a report to look at."""

    stage: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 2
    kind: ClassVar[str] = "table"
    produces: ClassVar[str] = "scores"
    costs: ClassVar[tuple[str, ...] | None] = ("report",)

    predictions: str = node_input(kinds=("predictions", "steps"))
    """The predict or steps node."""
    splits: tuple[str, ...] = ("test",)
    """Videos of these splits are scored; each split is also scored alone."""
    topk: tuple[PositiveInt, ...] = (1, 5)  # Accuracies among the first so many classes.
    joint: tuple[Literal["rank_paired", "independent"], ...] = setting((), when=lambda config: bool(config.joint))
    """Of task heads: two odd measures of CAST's code beside action_top5, which ranks all pairs by p(verb) x p(noun).
    rank_paired: the k-th verb and the k-th noun together (action_rank_paired_top5); independent: the verb among k verbs
    and the noun among k nouns (action_independent_top5). Their top 1 is that of action_top1."""
    background: str | None = None
    """Class left out of segmental scores, besides rows without a target."""
    report: bool = True
    """Write report.html."""
    thumbnails: int = setting(8, when=lambda config: config.report, of_report=True, ge=0)
    """Frames shown above each video's timeline in the report."""
    report_videos: PositiveInt = setting(50, when=lambda config: config.report, of_report=True)
    """Videos with a timeline in the report, the worst ones first; all are in the tables."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Probability from which a class counts as present (tasks multi_label and heads)."""
    steps: StepScoreSettings = StepScoreSettings()
    embeddings: str | None = node_input(None, kinds=("embeddings",))
    """An embed node whose rows the report shows in a plane, coloured by label; of steps, by the true state. Unless
    given, the one that the predictions were made of, where they were made of stored rows."""
    map: MapSettings | None = setting(
        MapSettings(),
        when=lambda config: config.report and (config.embeddings is not None or config.map != MapSettings()),
        of_report=True,
    )
    """null: no such map."""

    evaluators: tuple[EvaluatorSettings, ...] = setting((), when=lambda config: bool(config.evaluators))
    """Plug-ins that measure the predictions too; their numbers are called NAME_NUMBER."""

    @field_validator("joint")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(names)))

    @model_validator(mode="after")
    def _joint_has_a_rank(self) -> Self:
        if self.joint and max(self.topk, default=1) < 2:
            raise ValueError(
                "joint measures ranks above the first, which topk leaves out; add a number above 1 to topk, or leave "
                "joint out (their top 1 is that of action_top1)"
            )
        return self

    @model_validator(mode="after")
    def _embeddings_are_shown(self) -> Self:
        if self.embeddings is not None and self.map is None:
            raise ValueError("map: null draws no map, but embeddings names a node for it; leave one of them out")
        return self

    @model_validator(mode="after")
    def _evaluators_differ(self) -> Self:
        labels = [evaluator.label for evaluator in self.evaluators]
        if len(set(labels)) < len(labels):
            raise ValueError(f"evaluators: two are called alike, and so would be their numbers: {', '.join(labels)}")
        return self

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Refuse evaluators and joint measures of completed steps, which have no scores of windows."""
        if not any(config.produces == "steps" for config in inputs.get("predictions", ())):
            if inputs.get("predictions") and self.steps != StepScoreSettings():
                raise ConfigError("steps is of completed steps, but predictions names no steps node; leave it out")
            return
        for name in ("topk", "background", "threshold"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ConfigError(f"{name} is of scores of classes, but predictions names a steps node; leave it out")
        if self.evaluators:
            raise ConfigError("evaluators measure predictions, but predictions names a steps node; leave them out")
        if self.joint:
            raise ConfigError("joint measures predictions, but predictions names a steps node; leave it out")

    def complete(self, read: Mapping[str, StageConfig], *, where: str) -> Self:
        """As of every stage; what is of other tasks than that of the predictions is refused, where it is known."""
        source = read.get(self.predictions)
        run = read.get(getattr(source, "run", ""), source)
        task = getattr(read.get(getattr(run, "temporal", None) or "", run), "task", None)
        if task is None:
            return self
        if self.joint and not TASKS[task].has_heads:
            raise ConfigError(f"{where}: joint: {', '.join(self.joint)} is of task heads, but the run's is {task}")
        for name, has_it in _OF_TASKS.items():
            value = getattr(self, name)
            if value != type(self).model_fields[name].default and not has_it(TASKS[task]):
                fitting = " or ".join(other for other, traits in TASKS.items() if has_it(traits))
                shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
                raise ConfigError(
                    f"{where}: {name} is {shown}, of task {fitting}, but the run's is {task}; leave it out"
                )
        return self

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of every stage."""
        return {"splits": (self.splits, True)}

    def wanted_splits(self) -> tuple[str, ...]:
        """As set."""
        return self.splits

    def packages(self, endings: Collection[str]) -> dict[str, str]:
        """As of every stage."""
        del endings
        is_drawn = self.report and self.map is not None and self.map.method == "umap"
        return {"umap": "map.method: umap; pip install umap-learn, or choose pca or tsne"} if is_drawn else {}
