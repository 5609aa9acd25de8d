"""Settings of probe: which rows are measured, on which videos, and by what."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.base.config import Settings, StageConfig
from reelwright.stages.base.fields import node_input, setting

Fraction = Annotated[float, Field(gt=0, le=1)]
TaskName = Literal[
    "phase_classification",
    "progression",
    "kendalls_tau",
    "retrieval",
    "time_retrieval",
    "alignment",
    "linear_probe",
]  # as in tasks.TASKS
LEARNT = frozenset({"phase_classification", "progression", "linear_probe"})  # on the videos of train_splits
SEARCHED = frozenset({"retrieval", "time_retrieval"})


class LinearProbeSettings(Settings):
    """How the linear layer of the task linear_probe is trained: SGD, its rate falling as half a cosine."""

    learning_rate: PositiveFloat = 50.0
    """50 suits rows of unit length that were learnt without labels, .1 those learnt with labels."""
    momentum: float = Field(0.9, ge=0, lt=1)  # Of SGD.
    weight_decay: NonNegativeFloat = 1e-6  # Of SGD.
    epochs: PositiveInt = 100  # Times that all rows are seen.
    batch_videos: PositiveInt = 10
    """Videos whose rows are one batch."""


class ProbeConfig(StageConfig):
    """Measures of rows, of an encoder or of a run alike; what needs labels is left out where there are none.

    Labels are those of rows (segments, times, frames): the phases. kendalls_tau and time_retrieval need none.
    """

    stage: ClassVar[str] = "probe"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "table"
    produces: ClassVar[str] = "scores"
    reads_labels: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...] | None] = ("tasks",)

    embeddings: str = node_input(kinds=("embeddings",))
    """The node whose rows are measured."""
    beside: tuple[str, ...] = node_input((), kinds=("embeddings",))
    """Nodes whose rows are measured in the same way and shown beside them, as those of the encoder. All are measured on
    the videos that all have rows of; the scores of this node are those of `embeddings`."""
    output: str | None = None
    """Which stored output, (D,) a row, of `embeddings` and of those beside that have it; null, and of those that have
    not: the only one, or pooled where there are several."""
    tasks: tuple[TaskName, ...] = Field(
        ("phase_classification", "progression", "kendalls_tau", "retrieval"), min_length=1
    )
    """What is measured."""
    train_splits: tuple[str, ...] = setting(("train",), when=lambda config: config.is_learnt)
    """Videos that phase_classification, progression and linear_probe learn from."""
    splits: tuple[str, ...] = Field(("test",), min_length=1)
    """Videos that are measured, all splits together."""
    normalize: bool = True
    """Rows are brought to unit length first, as CARL's are."""
    per_action: bool = False
    """Each task is done with the videos of one action (their own label) at a time; scores are means over actions.
    labels.column says, beside labels of rows, which column of the manifest has it."""

    classifiers: tuple[Literal["logistic", "svm", "svm_linear"], ...] = setting(
        ("logistic", "svm"), when=lambda config: "phase_classification" in config.tasks, min_length=1
    )
    """phase_classification: what is fitted to the rows; svm has RBF kernels, svm_linear linear ones."""
    fractions: tuple[Fraction, ...] = setting((0.1, 0.5, 1.0), when=lambda config: config.is_learnt, min_length=1)
    """Shares of the labelled training videos; scores are those of the last one."""
    seeds: tuple[NonNegativeInt, ...] = setting((0, 1, 2), when=lambda config: config.is_learnt, min_length=1)
    """A draw of the training videos for each; scores are means over them."""

    stride: PositiveInt = setting(1, when=lambda config: config.is_strided)
    """kendalls_tau, retrieval and time_retrieval: every so many rows."""
    stride_seconds: PositiveFloat | None = setting(None, when=lambda config: "kendalls_tau" in config.tasks)
    """kendalls_tau: a row every so many seconds instead."""
    distance: Literal["sqeuclidean", "euclidean", "cosine"] = setting(
        "sqeuclidean", when=lambda config: bool({"kendalls_tau", "alignment", *SEARCHED} & set(config.tasks))
    )
    """Between rows."""
    depths: tuple[PositiveInt, ...] = setting(
        (5, 10, 15), when=lambda config: bool(SEARCHED & set(config.tasks)), min_length=1
    )
    """K of precision@K, average_precision@K and time_error@K."""
    alignments: tuple[Literal["dtw", "nearest", "stretch"], ...] = setting(
        ("dtw", "nearest", "stretch"), when=lambda config: "alignment" in config.tasks, min_length=1
    )
    """How videos are aligned: by dynamic time warping, nearest rows, or as if all took equally long."""
    linear_probe: LinearProbeSettings = setting(
        LinearProbeSettings(), when=lambda config: "linear_probe" in config.tasks
    )
    compat: bool = False
    """As in the public code of CARL: the first training videos instead of drawn ones, unlabelled rows left out of
    kendalls_tau and of the time in progression, which fails where a video lacks a phase."""

    report: bool = True
    """Write report.html: all numbers side by side, and pictures of the rows."""
    report_videos: int = setting(6, when=lambda config: config.report, of_report=True, ge=1, le=40)
    """Videos in the pictures of the report, the first ones by name."""

    @property
    def is_learnt(self) -> bool:
        """Whether any task learns from the videos of train_splits."""
        return bool(LEARNT & set(self.tasks))

    @property
    def is_strided(self) -> bool:
        """Whether any task takes every so many rows."""
        return bool(SEARCHED & set(self.tasks)) or ("kendalls_tau" in self.tasks and self.stride_seconds is None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({self.embeddings, *self.beside}) < 1 + len(self.beside):
            raise ValueError(f"beside must name other nodes than embeddings, each once; got {', '.join(self.beside)}")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must not repeat, got {', '.join(self.tasks)}")
        if self.is_learnt and not self.train_splits:
            learnt = ", ".join(sorted(LEARNT & set(self.tasks)))
            raise ValueError(f"{learnt}: learns from labelled videos; give train_splits, or leave it out of tasks")
        return self

    @property
    def video_label_setting(self) -> str:
        """As of every stage."""
        return "per_action" if self.per_action else ""

    def spec(self) -> dict[str, Any]:
        """With the names of the nodes beside, by which numbers are called in the report and among the scores."""
        return {**super().spec(), **({"names": [self.embeddings, *self.beside]} if self.beside else {})}

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of every stage."""
        learnt = {"train_splits": (self.train_splits, True)} if self.is_learnt else {}
        return {"splits": (self.splits, True), **learnt}

    def wanted_splits(self) -> tuple[str, ...]:
        """As of every stage."""
        return tuple(dict.fromkeys((*self.splits, *(self.train_splits if self.is_learnt else ()))))
