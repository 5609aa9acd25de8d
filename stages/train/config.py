"""Settings of train: windows over stored embeddings, the temporal model, and how it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import AfterValidator, NonNegativeFloat, PositiveInt, model_validator

from reelwright.models.clip_options import CLIP_MODEL_OPTIONS
from reelwright.models.temporal.options import TEMPORAL_OPTIONS
from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import execution, matters, node_input, setting, training
from reelwright.stages.datasets.sampling.settings import CLIPS, WHOLE, EventSettings, Short, WindowGridSettings
from reelwright.stages.datasets.tasks.registry import TASKS, TaskTraits
from reelwright.stages.fit.network_config import ModelSettings, NetworkSettings
from reelwright.stages.objectives.config import LossSettings
from reelwright.stages.train.token_settings import check_tokens
from reelwright.storage.errors import ConfigError, nearest

SHAPE_FIELDS = ("length", "hop", "dilation", "to_end", "short")  # of a window, as config.yaml keeps them


class WindowSettings(WindowGridSettings):
    """Windows over the rows of a video: ``length`` rows, ``dilation`` apart; windows start ``hop`` apart."""

    length: PositiveInt = 32
    """Rows in a window."""
    hop: PositiveInt = 1
    """Rows from the start of one window to the start of the next, where windows lie on a grid."""
    dilation: PositiveInt = 1
    """Rows from one row of a window to its next; 1: neighbours."""
    short: Short = "pad"
    """A video shorter than a window. pad: one window, padded (with a mask); repeat: one window, the last row repeated
    (no mask); leave_out: none, and the run says so."""


class TrainWindowSettings(WindowSettings):
    """Windows to train on."""

    sampling: Literal[
        "grid", "random", "all", "per_video", "balanced", "events", "segments", "dense", "multi_start", "stretched"
    ] = "grid"
    """grid: windows of the grid, in random order. Others draw from every possible start; random: uniformly; all: each
    once an epoch; per_video: each video alike; balanced: each class alike; events: around events, each video alike.
    Clips that stand for their video (task: video), one each an epoch: segments: a row somewhere in each of `segments`
    equal parts, the middle in validation; dense and multi_start: from a random start, the middle in validation; they
    differ in how predict spreads its `views`; stretched: CAST's dense clips, `length` rows stretched over a random span
    of length x dilation rows; a short video is stretched too and its last row repeated; predict's `views` as dense."""
    segments: PositiveInt | None = None
    """Of sampling segments: parts of the video; each has length / segments rows, `dilation` apart; null: one
    row each."""
    segment_rule: Literal["even", "whole"] = matters("even", when=lambda window: window.sampling == "segments")
    """even: any row can be drawn; whole: parts have a whole number of rows and those left over at the end are never
    drawn (TSN, CAST, ST-ABN)."""
    per_epoch: PositiveInt | None = None
    """Windows an epoch; null: as many as the grid has (all: as there are starts; clips: one of each video)."""
    events: EventSettings = matters(EventSettings(), when=lambda window: window.sampling == "events")
    """Of sampling: events."""

    @property
    def reach(self) -> tuple[int, str] | None:
        """As `StageConfig.window_rows`; rows of segments and stretched clips may repeat: they fit any video."""
        return None if self.sampling in WHOLE else ((self.length - 1) * self.dilation + 1, self.short)

    def num_windows(self, num_rows: float) -> int:
        """About how many windows of a video of so many rows there are in an epoch."""
        span = (self.length - 1) * self.dilation + 1
        if self.sampling in CLIPS:
            return 1
        if num_rows < span:
            return int(self.short != "leave_out")
        return int((num_rows - span) / (1 if self.sampling == "all" else self.hop)) + 1


class WindowedSettings(Protocol):
    """Settings of a node that learns from windows with labels."""

    @property
    def task(self) -> str:
        """What is predicted, of `tasks.registry`."""

    @property
    def head_weights(self) -> dict[str, float]:
        """Factors on losses of heads, by name."""

    @property
    def labels_of_window(self) -> Literal["any", "net_change"]:
        """Which labels a set is of."""

    @property
    def window(self) -> TrainWindowSettings:
        """The windows."""

    @property
    def loss(self) -> LossSettings:
        """Of the task."""

    @property
    def seed(self) -> int:
        """Of what is drawn."""


def known_task(name: str) -> str:
    """``name``. Raises ValueError, with the nearest known, where no task is called so."""
    if name not in TASKS:
        raise ValueError(f"no such task.{nearest(name, TASKS)} Known: {', '.join(TASKS)}")
    return name


TaskName = Annotated[str, AfterValidator(known_task)]


def check_windows(config: WindowedSettings) -> None:
    """Raise ValueError where windows, heads or sets of labels are not those of the task."""
    window, traits = config.window, TASKS[config.task]
    if window.sampling in CLIPS and not traits.of_video:
        raise ValueError(
            f"window.sampling: {window.sampling} takes clips that stand for their video, but task is {config.task}; "
            "set task: video, or choose sampling per_video"
        )
    if window.short == "leave_out" and window.sampling in WHOLE:
        raise ValueError(
            f"window.short: leave_out leaves out no video where sampling is {window.sampling}, whose clips fill short "
            "videos up themselves; leave short out, or choose sampling dense"
        )
    if window.segments is not None and window.sampling != "segments":
        raise ValueError(f"window.segments is of sampling: segments, not of {window.sampling}; leave it out")
    if window.segments is not None and window.length % window.segments:
        raise ValueError(
            f"window.length {window.length} is no multiple of window.segments {window.segments}; each segment has "
            "as many rows"
        )
    if config.head_weights and not traits.has_heads:
        raise ValueError(f"head_weights are of task heads, but task is {config.task}; leave them out")
    if traits.has_heads and window.sampling == "balanced":
        raise ValueError(
            "window.sampling: balanced makes classes of one label alike, but task heads has several; choose "
            "per_video, or loss.class_weights: balanced, which weighs each head's classes"
        )
    if config.labels_of_window == "net_change" and not traits.of_sets:
        raise ValueError(
            f"labels_of_window: net_change is of task multi_label, but task is {config.task}; leave it out, or set "
            "task: multi_label"
        )


class TrainConfig(NetworkSettings):
    """A temporal model trained on stored embeddings: on windows with labels, or on views of whole videos."""

    stage: ClassVar[str] = "train"
    renamed: ClassVar[Mapping[str, str]] = {"or": "any", "xor": "net_change"}  # values of labels_of_window
    version: ClassVar[int] = 3
    kind: ClassVar[str] = "run"
    produces: ClassVar[str] = "run"
    costs: ClassVar[tuple[str, ...] | None] = ("model", "task", "views", "precision")
    time_grows_with: ClassVar[str] = "epochs"

    embeddings: tuple[str, ...] = node_input(kinds=("embeddings",), min_length=1)
    """One embed node, or several whose rows are joined by time and concatenated."""
    output: str = "pooled"
    """Which stored output is learned from; token and map outputs are averaged over their positions, but for models
    attention_branch and cast (which reads what enters a block: block-3.input)."""
    task: TaskName = "last_row"
    """video: the video's own label; last_row: the label at the window's last row; majority: the window's commonest
    label; per_row: a label a row; multi_label: the set of labels that occur in the window;
    heads: the video's own label of each head, such as verb and noun (labels.columns)."""
    head_weights: dict[str, NonNegativeFloat] = training(default_factory=dict)
    """Of task heads: factors on the losses of heads by name, which are summed; 1 where none is given."""
    labels_of_window: Literal["any", "net_change"] = "any"
    """Of multi_label. any: labels that occur in the window; net_change: those of which it holds an odd number of
    steps (or of ends of segments, or of turns from one time or labelled frame to the next), so that a part put on
    and taken off again is none."""
    window: TrainWindowSettings = setting(TrainWindowSettings(), when=lambda config: config.views is None)
    model: ModelSettings = ModelSettings()
    memory_bytes: PositiveInt = execution(4 << 30)
    """Embeddings above this size are memory-mapped from a scratch file instead of held in memory."""

    @property
    def traits(self) -> TaskTraits:
        """What kind of labels the task is of."""
        return TASKS[self.task]

    @model_validator(mode="after")
    def _views_take_the_place_of_windows(self) -> Self:
        if self.views is None:
            return self
        for name in ("window", "task", "head_weights", "labels_of_window"):
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) != default:
                raise ValueError(f"{name} is of windows, but views are learned from; leave {name} or views out")
        source, layer = self.model.option("source"), self.model.option("split") or 4
        if source == "frames":
            raise ValueError("model.source: frames reads pictures, train reads stored rows; use finetune")
        if source != "maps":
            return self
        allowed = (f"layer{layer}.map", *(("map",) if layer == 4 else ()))
        if self.output not in allowed or len(self.embeddings) > 1:
            named = f"{self.model.name}, split {self.model.option('split')}"
            raise ValueError(
                f"model.source: maps (of {named}) reads maps of layer {layer} of one embed node; set output: "
                f"{allowed[0]}, which that node has among its outputs, and one name in embeddings"
            )
        return self

    @property
    def reads_maps(self) -> bool:
        """Whether stored maps of a ResNet are learned from, whose last layers are the model's."""
        return self.views is not None and self.model.option("source") == "maps"

    @model_validator(mode="after")
    def _positions_of_one_or_of_experts(self) -> Self:
        num = len(self.embeddings)
        if self.model.joins_tokens and self.views is None:
            length, per_row = self.window.length, self.traits.per_row
            check_tokens(self.model, num_embeddings=num, output=self.output, length=length, per_row=per_row)
        elif self.model.keeps_positions and num > 1:
            raise ValueError(f"the model reads positions, which {num} embeddings do not share; name one of them.")
        return self

    @model_validator(mode="after")
    def _windows_fit_the_task(self) -> Self:
        check_windows(self)
        return self

    @model_validator(mode="after")
    def _model_fits_the_task(self) -> Self:
        if self.model.name in CLIP_MODEL_OPTIONS and not self.model.joins_tokens:
            raise ValueError(f"model {self.model.name} sees frames, but train reads stored rows; use finetune")
        if self.traits.per_row and self.model.name == "mlp":
            raise ValueError(
                "model mlp gives no logits per row, but task is per_row; use linear, gru, transformer, ms_tcn"
            )
        if self.traits.per_row and self.model.is_ours() and self.model.options().get("pool") is not None:
            raise ValueError("model.pool: a model of task per_row pools nothing; leave pool out")
        return self

    def spec(self) -> dict[str, Any]:
        """As of every stage; a model with several stages learns from all of them, which it did not always do."""
        values = super().spec()
        stages = self.model.options().get("stages", 1)
        return values if stages == 1 else {**values, "loss": {**values["loss"], "stages": "all"}}

    @property
    def row_outputs(self) -> tuple[str, ...] | None:
        """What the model gives of each row: logits alone of those that learn from windows; None: it is to be tried."""
        if self.model.name not in TEMPORAL_OPTIONS:
            return () if self.model.joins_tokens else None
        if self.compares_views:
            return ("embedding",)
        return ("logits",) if self.traits.per_row else ()

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Refuse windows of rows that are stored in several views: which of them a window has is not said."""
        of_views = [
            name
            for name, read in zip(self.embeddings, inputs.get("embeddings", ()), strict=False)
            if getattr(read, "views", None) is not None
        ]
        if of_views and self.views is None:
            raise ConfigError(
                f"embeddings: node {of_views[0]!r} stores views of every frame (views), which are learned from with "
                "views here; windows are of rows of single frames. Give views, or name a node without them"
            )

    def window_rows(self) -> tuple[int, str] | None:
        """As of every stage."""
        return None if self.views is not None else self.window.reach

    @model_validator(mode="after")
    def _there_is_time_to_cut(self) -> Self:
        if self.mix is not None and self.mix.can_cut and self.window.length == 1:
            raise ValueError(
                "mix: cutmix replaces a stretch of rows, but window.length is 1; set mix.cutmix_alpha: 0 "
                "(and no cutmix_minmax) for mixup alone"
            )
        return self
