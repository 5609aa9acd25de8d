"""Settings of predict: a run, what it looks at, and the windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import PositiveInt, field_validator, model_validator

from reelwright.models.clip_options import CLIP_MODEL_OPTIONS
from reelwright.models.temporal.options import TEMPORAL_OPTIONS, kept_names, output_names
from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import execution, node_input, setting, source_file
from reelwright.stages.datasets.sampling.settings import CLIPS, Short, WindowGridSettings
from reelwright.stages.index.config import LabelsConfig
from reelwright.storage.errors import ConfigError
from reelwright.storage.tables.attention_edits import read_attention_edits

_KNOWN = {**TEMPORAL_OPTIONS, **CLIP_MODEL_OPTIONS}  # models that answer for windows


class PredictWindowSettings(WindowGridSettings):
    """Windows to predict; what is not given is as the run was trained."""

    length: PositiveInt | None = None
    """Rows in a window; null: as in training. Models with a fixed length allow no other."""
    hop: PositiveInt = 1
    """Rows from one window to the next."""
    dilation: PositiveInt | None = None
    """Rows from one row of a window to its next; null: as in training."""
    short: Short | None = None
    """A video shorter than a window. pad: one window, padded (with a mask); repeat: one window, the last row repeated
    (no mask); leave_out: none, listed as skipped. null: as in training; padded where training left them out."""
    views: PositiveInt | None = None
    """Of runs on clips (window.sampling segments, dense, multi_start, stretched): clips of each video, spread over it;
    the video's answer is the mean of theirs, those of short videos that show the same frames counted once. multi_start:
    at most so many, `hop` rows apart. null: one, the middle."""
    phase: Literal["centred", "first"] = setting("centred", when=lambda window: window.phase != "centred")
    """Of runs on segments: where view v of V looks in each segment. centred: at (v + 1/2) / V of it, so that one view
    is the middle; first: at v / V (with two views CAST's test)."""
    sampling: Literal["grid"] | None = setting(None, when=lambda window: window.sampling is not None)
    """grid: windows `hop` rows apart over the whole video also of runs on clips, for long footage in which something
    happens now and then; null: as the run was trained."""

    @model_validator(mode="after")
    def _clips_or_windows(self) -> Self:
        if self.sampling is not None and (self.views is not None or self.phase != "centred"):
            raise ValueError(
                "sampling: grid slides windows, but views and phase are of clips; leave sampling or these out"
            )
        return self


class PredictConfig(StageConfig):
    """Sliding-window predictions of a run, over embeddings or over frames."""

    stage: ClassVar[str] = "predict"
    version: ClassVar[int] = 3
    kind: ClassVar[str] = "items"
    produces: ClassVar[str] = "predictions"
    publishes: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...] | None] = ("keep", "precision")

    run: str = node_input(kinds=("run",))
    """The train or finetune node."""
    embeddings: tuple[str, ...] = node_input((), kinds=("embeddings",))
    """Embeddings to predict from, in the order of training; of a train run, its own are the default."""
    frames: str | None = node_input(None, kinds=("frames",))
    """Frames to predict from: each goes through the spatial encoder once, however many windows contain it. Runs that
    see clips (st_abn, encoders of clips) read stored ones (materialize: true)."""
    window: PredictWindowSettings = PredictWindowSettings()
    crops: PositiveInt = 1
    """Over frames: square crops of every frame, spread over its longer side (3: left, centre, right, or top, centre,
    bottom); every answer is the mean of theirs. 1: frames as the encoder was trained to see them."""
    short_side: PositiveInt | None = None
    """Of crops: pixels of a frame's shorter side before it is cropped to what the encoder sees; null: just that."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] | None = setting(
        None, when=lambda config: config.precision is not None
    )
    """Over frames, of the forward pass of the spatial encoder, or of the network that sees clips (autocast for bf16 and
    fp16); null: as the embed node has it that a train run's rows are of, else fp32."""
    keep: tuple[str, ...] = setting((), when=lambda config: bool(config.keep))
    """Outputs of the model to keep for every window beside the scores, such as attention.space and attention.time; or
    attention: all that begin so. They are read with `Project.attention(NODE)`."""
    edit_attention: str | None = source_file(None)
    """A table of edits: how much attention in time weighs when, and attention in space where, in which videos
    (video_id, weight, start_seconds, stop_seconds, x0, y0, x1, y1, how). Models gate with attention as edited."""
    splits: tuple[str, ...] | None = execution(None)
    """Only videos of these splits; null: all."""
    labels: LabelsConfig | None = execution(None)
    """What targets are taken from, as the `labels` block has it; null: as of the run, else those of the pipeline."""

    batch_size: PositiveInt = execution(256)
    """Windows a forward pass of the temporal model."""
    frame_batch_size: PositiveInt | None = execution(None)
    """Frames a forward pass of the spatial encoder; null: chosen by measuring. Of runs that see clips, frames of all
    windows of a forward pass; null: 64."""
    device: str = execution("auto")
    """auto: the first GPU, else the CPU; or cpu, cuda, cuda:1."""
    deterministic: bool = execution(False)
    """The same bits whichever videos are predicted together (on one kind of machine): a batch holds windows of one
    video, what is null is not measured but fixed, on a CPU one thread computes."""

    @field_validator("keep")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(names)))

    @model_validator(mode="after")
    def _consistent(self) -> PredictConfig:
        if self.frames is not None and self.embeddings:
            raise ValueError("predict from embeddings or from frames, not both; remove one")
        if self.embeddings and self.is_cropped:
            raise ValueError("crops and short_side are of frames, embeddings have none; predict from frames")
        if self.embeddings and self.precision is not None:
            raise ValueError("precision is of encoders of frames; predict from frames, or remove precision")
        if self.keep and self.crops > 1:
            raise ValueError("keep is of whole frames, but each of several crops shows another part; set crops: 1")
        if self.edit_attention is not None and self.crops > 1:
            raise ValueError("edit_attention is of whole frames, and several crops show other parts; set crops: 1")
        return self

    @property
    def also_produces(self) -> tuple[str, ...]:
        """As of every stage."""
        return ("attention",) if self.keep else ()

    @property
    def is_cropped(self) -> bool:
        """Whether frames are cropped otherwise than the encoder says."""
        return self.crops > 1 or self.short_side is not None

    def spec(self) -> dict[str, Any]:
        """As in StageConfig; crops and views count where they are asked for (of a single view nothing is dropped)."""
        values = super().spec()
        if not self.is_cropped:
            values.pop("crops")
            values.pop("short_side")
        if (self.window.views or 1) > 1:
            values["merged"] = "distinct views"
        return values

    def complete(self, read: Mapping[str, StageConfig], *, where: str) -> Self:
        """Without embeddings and frames, what the run was trained on is read; without labels, those of the run."""
        known = read.get(self.run)
        if known is not None and known.stage == "pretrain":
            raise ConfigError(
                f"{where}: run: {self.run!r} is a pretrain node, whose encoder gives embeddings and no predictions. "
                "Name a train or finetune node"
            )
        if not getattr(known, "gives_scores", True):
            raise ConfigError(
                f"{where}: run: {self.run!r} learns from views without labels and gives no scores. Embed rows with it "
                f"(embed: {{run: {self.run}}}), and probe these or train on them"
            )
        trained = read.get(getattr(known, "temporal", None) or self.run)
        self._check_kept(trained, where=where)
        self._check_grid(getattr(getattr(trained, "window", None), "sampling", "grid"), where=where)
        self._check_clips(known, read, where=where)
        self._check_rows(known, read, where=where)
        if self.labels is None and getattr(known, "labels", None) is not None:
            return self.model_copy(update={"labels": known.labels}).complete(read, where=where)  # type: ignore[union-attr]
        if self.embeddings or self.frames is not None or self.run not in read:
            return self
        trained_on = read[self.run].inputs()
        if trained_on.get("embeddings"):
            for is_set, what, more in (
                (self.is_cropped, "crops and short_side are of frames", ""),
                (self.precision is not None, "precision is of encoders of frames", ", or remove precision"),
            ):
                if is_set:
                    raise ConfigError(
                        f"{where}: {what}, but {self.run!r} was trained on embeddings, which are predicted from. Give "
                        f"`frames` too{more}"
                    )
            return self.model_copy(update={"embeddings": tuple(trained_on["embeddings"])})
        if trained_on.get("frames"):
            return self.model_copy(update={"frames": trained_on["frames"][0]})
        raise ConfigError(f"{where}: give embeddings or frames to predict from")

    def check_files(self, place: Callable[[str], Path]) -> None:
        """As of every stage."""
        if self.edit_attention is not None:
            read_attention_edits(place(self.edit_attention))

    def files_with_videos(self) -> tuple[str, ...]:
        """As of every stage."""
        return () if self.edit_attention is None else ("edit_attention",)

    def _check_clips(self, known: StageConfig | None, read: Mapping[str, StageConfig], *, where: str) -> None:
        """Raise ConfigError where a network that sees frames itself is given rows, or frames that are not stored."""
        if not getattr(known, "is_whole", False):
            return
        if self.embeddings:
            raise ConfigError(
                f"{where}: run: {self.run!r} has a model that sees clips of frames, not rows. Give frames, or leave "
                "embeddings out"
            )
        frames = self.frames or known.inputs()["frames"][0]  # type: ignore[union-attr]
        if getattr(read.get(frames), "materialize", True) is False:
            raise ConfigError(
                f"{where}: run: {self.run!r} has a model that sees clips of stored frames, but node {frames!r} has "
                f"materialize: false. Set materialize: true for {frames!r}"
            )

    def _check_rows(self, known: StageConfig | None, read: Mapping[str, StageConfig], *, where: str) -> None:
        """Raise ConfigError for rows of other encoders than those of training; weights are compared before the work."""
        trained_on = [] if known is None else known.inputs().get("embeddings", [])
        for own, wanted in zip(self.embeddings, trained_on, strict=False):
            encoders = [getattr(read.get(name), "encoder", None) for name in (own, wanted)]
            if None not in encoders and encoders[0] != encoders[1]:
                raise ConfigError(
                    f"{where}: {own!r} has rows of {encoders[0]}, but {self.run!r} is trained on those of "
                    f"{encoders[1]} ({wanted!r}). Give the embeddings that it is trained on, in the same order"
                )

    def _check_grid(self, trained: str, *, where: str) -> None:
        """Raise ConfigError for settings of a grid of windows where the run was ``trained`` on clips of videos."""
        if self.window.sampling is not None or trained not in CLIPS:
            return
        for name in ("to_end",) if trained == "multi_start" else ("hop", "to_end"):
            value = getattr(self.window, name)
            if value != type(self.window).model_fields[name].default:
                raise ConfigError(
                    f"{where}: window.{name} is {value} and of a grid of windows, but {self.run!r} is trained on clips "
                    f"that stand for their video (sampling {trained}). Leave it out, or set window.sampling: grid"
                )

    def _check_kept(self, trained: StageConfig | None, *, where: str) -> None:
        """Raise ConfigError for outputs that the model of a train node does not give; of plug-ins `Scorer` knows it."""
        model = getattr(trained, "model", None)
        if model is None or model.name not in _KNOWN:
            return
        given = output_names(model.name, model.options(), known=_KNOWN)
        try:
            kept_names(self.keep, given)
        except ValueError as error:
            raise ConfigError(f"{where}: keep: {error}") from None
        if self.edit_attention is not None and "attention.time" not in given:  # Grad-CAM gates nothing
            raise ConfigError(
                f"{where}: edit_attention: {model.name} has no attention that can be edited; attention_branch (with "
                "branch: true) and st_abn have"
            )

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of every stage."""
        return {} if self.splits is None else {"splits": (self.splits, True)}

    def window_rows(self) -> tuple[int, str] | None:
        """As of every stage; what is as in training is looked at there."""
        window = self.window
        if window.length is None or window.dilation is None:
            return None
        return (window.length - 1) * window.dilation + 1, window.short or "pad"

    def wanted_splits(self) -> tuple[str, ...] | None:
        """As set."""
        return self.splits
