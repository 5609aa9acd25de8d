"""Settings of finetune: an encoder and a temporal model learn on together, or a network of clips, from stored frames.

temporal          the model, window and task of a train run, behind the encoder of `spatial`
model, views      a model of one of the systems (CARL), behind the encoder of `spatial`
model, window     a new model behind the encoder of `spatial`; without one a model that sees clips of frames itself
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from reelwright.models.clip_options import CLIP_MODEL_OPTIONS
from reelwright.models.temporal.options import output_names
from reelwright.stages.augment.config import AugmentSettings
from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import execution, matters, node_input, setting, training
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.embed.config import EmbedConfig, PreprocessSettings
from reelwright.stages.fit.network_config import ModelSettings, NetworkSettings
from reelwright.stages.fit.optim.config import OptimizerSettings
from reelwright.stages.train.config import TaskName, TrainWindowSettings, check_windows
from reelwright.stages.train.token_settings import check_experts
from reelwright.storage.errors import ConfigError

PARTS = ("spatial", "temporal")  # names of what learns, and starts of the names of its parameters
_OF_WINDOWS = ("task", "head_weights", "labels_of_window", "window")
_OF_ENCODER = ("spatial_lr_scale", "temporal_lr_scale", "frozen_norm")  # mean nothing of a network of one part


class FinetuneOptimizerSettings(OptimizerSettings):
    """As in train, with a smaller learning rate: both parts are trained already."""

    lr: float = Field(1e-4, gt=0)


class FinetuneConfig(NetworkSettings):
    """Encoder and temporal model trained together from frames; window, task and model are those of the temporal run.

    Or an encoder and a model of one of the systems, on views of whole videos. Or a new model, with the task and window
    of this node: behind an encoder, or one that sees clips of frames itself.
    """

    stage: ClassVar[str] = "finetune"
    version: ClassVar[int] = 5  # 5: crops are of the stored frame, not of the middle that the encoder sees
    kind: ClassVar[str] = "run"
    produces: ClassVar[str] = "run"
    costs: ClassVar[tuple[str, ...] | None] = ("precision", "model")
    time_grows_with: ClassVar[str] = "epochs"
    usual_source: ClassVar[str | None] = "frames"

    frames: str = node_input("frames", kinds=("frames",), used="training")
    """The decode node, with materialize: true; the one that the embeddings were made from."""
    spatial: str | None = node_input(None, kinds=("embeddings",))
    """The embed node whose encoder, weights and preprocessing are taken. Encoders of clips take the whole window as
    one, and need model, task and window. None where the model sees frames itself (st_abn)."""
    temporal: str | None = node_input(None, kinds=("run",), used="start")
    """The train node whose model, weights, window and task are taken; or give model, with task and window, or views."""
    model: ModelSettings | None = setting(None, when=lambda config: config.model is not None)
    """What begins anew (or from init_from). With task and window: a model of rows (linear, transformer, ...) behind the
    encoder of `spatial`; without `spatial` a network that sees clips of frames: st_abn, or a plug-in's.
    With views carl, conv or vanilla (or a plug-in): `source` is frames unless it is given: `spatial` is a ResNet, the
    base of it up to layer `split` (2, 3; null: all of it), which `base` freezes, and the layers behind learn in the
    model; rows: the pooled output of any encoder."""
    task: TaskName = setting("last_row", when=lambda config: config.learns_windows)
    """Of model without views: as in train."""
    head_weights: dict[str, NonNegativeFloat] = training(
        default_factory=dict, when=lambda config: config.learns_windows
    )
    """As in train."""
    labels_of_window: Literal["any", "net_change"] = setting("any", when=lambda config: config.learns_windows)
    """As in train."""
    window: TrainWindowSettings = setting(TrainWindowSettings(), when=lambda config: config.learns_windows)
    """Of model without views: as in train, in frames."""
    preprocess: PreprocessSettings = setting(PreprocessSettings(), when=lambda config: config.is_whole)
    """Without `spatial`: overrides of the preprocessing that the model was made for, as in embed."""
    experts: tuple[str, ...] = node_input((), kinds=("embeddings",))
    """Of model cast: two embed nodes whose encoders are its experts, with their weights: that of space, then of time
    (timm/NAME, frames/NAME or videomae/NAME). Without them they are as model.space and time say, with random weights or
    those of init_from."""
    spatial_lr_scale: NonNegativeFloat = matters(
        0.1, when=lambda config: config.views is None or config.base_state != "frozen", role="training"
    )
    """Factor on the learning rate for the encoder; 0 freezes it. Of a model on views, model.base says it."""
    temporal_lr_scale: NonNegativeFloat = training(1.0)
    """Factor on the learning rate for the temporal model; 0 freezes it."""
    freeze: tuple[str, ...] = training(())
    """spatial, temporal, or patterns of parameter names (as of file names), such as spatial.model.layer1.*; without
    `spatial` all names begin with model."""
    frozen_norm: bool = training(True)
    """Batch norms of the encoder keep their statistics: windows are too alike to estimate new ones. Of a model on
    views, model.base says it; without `spatial` all batch norms learn."""
    augment: AugmentSettings = training(AugmentSettings())
    windows_per_epoch: PositiveInt | None = training(None)
    """Windows drawn an epoch; null: all of the grid (of the temporal run's window)."""
    repeats: PositiveInt = training(1)
    """How often each of them comes, side by side and augmented anew each time: so many times the windows an epoch."""

    epochs: PositiveInt = training(5)
    batch_size: PositiveInt = training(4)
    """Windows a batch; each has as many frames as the window is long."""
    optimizer: FinetuneOptimizerSettings = training(FinetuneOptimizerSettings())
    channels_last: bool | None = execution(None)
    """Layout of pictures in memory; null: where it is faster (convolutions on GPUs)."""
    memory_bytes: PositiveInt = execution(2 << 30)
    """Frames (as they are stored where crops are cut from them, else as the encoder sees them) are held in memory up to
    this size; beyond, they are read for every window."""

    @property
    def learns_windows(self) -> bool:
        """Whether a new model learns from windows that these settings describe."""
        return self.model is not None and self.views is None

    @property
    def is_whole(self) -> bool:
        """Whether the model sees frames itself, without an encoder before it."""
        return self.learns_windows and self.spatial is None

    @property
    def clip_outputs(self) -> tuple[str, ...] | None:
        """What a model that sees frames itself gives; None where that is not known, or there is an encoder."""
        if not self.is_whole or self.model is None or not self.model.is_ours():
            return None
        return output_names(self.model.name, self.model.options(), known=CLIP_MODEL_OPTIONS)

    @property
    def row_outputs(self) -> tuple[str, ...] | None:
        """What the model gives of stored rows; None: it is to be tried."""
        return () if self.is_whole else None

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.temporal is None) == (self.model is None):
            raise ValueError(
                "give either temporal (a train node) or model: with task and window, or with objective and views"
            )
        if not self.learns_windows:
            whose = "temporal is that of its run" if self.model is None else "views are learned from"
            self._refuse_given((*_OF_WINDOWS, "preprocess"), f"of a new model on windows, but {whose}; leave it out")
            self._refuse_given(("experts",), "of model cast on windows; leave it out")
            if self.spatial is None:
                raise ValueError("spatial is missing: the embed node whose encoder sees the frames")
            return self
        self._refuse_given(("windows_per_epoch",), "of a temporal run; set window.per_epoch")
        check = self._check_whole if self.spatial is None else self._check_behind_encoder
        check()
        return self

    @model_validator(mode="after")
    def _something_learns(self) -> Self:
        if not self.is_whole and set(PARTS) <= set(self.frozen):
            raise ValueError("spatial and temporal are both frozen (freeze, lr_scale: 0); nothing is left to learn")
        return self

    @model_validator(mode="after")
    def _views_are_of_frames(self) -> Self:
        if self.model is None or self.views is None:
            return self
        for name in ("windows_per_epoch", "repeats", "frozen_norm"):
            if getattr(self, name) != type(self).model_fields[name].default:
                instead = "set model.base" if name == "frozen_norm" else "an epoch has each video once"
                raise ValueError(f"{name} is of a temporal run and its windows; leave it out ({instead})")
        if self.model_source not in {"frames", "rows"}:
            raise ValueError("model.source: maps are stored ones, of train; give frames (with split) or rows")
        if self.compares_views:
            raise ValueError(
                f"objective {self.objective.name} is of train (stored rows) and pretrain (clips), not of finetune"  # type: ignore[union-attr]
            )
        return self

    def _check_whole(self) -> None:
        """Refuse what a network of one part has no use for."""
        model = self.model
        assert model is not None
        if model.is_ours() and model.name not in CLIP_MODEL_OPTIONS:
            raise ValueError(
                f"model {model.name} learns from rows of an encoder; give spatial (an embed node), or a model that "
                f"sees frames: {', '.join(CLIP_MODEL_OPTIONS)}, or a plug-in's"
            )
        check_experts(model, self.experts)
        self._refuse_given(_OF_ENCODER, "of an encoder and what is behind it, but there is no spatial; leave it out")
        check_windows(self)
        if self.traits_per_row and not getattr(CLIP_MODEL_OPTIONS.get(model.name), "answers_rows", not model.is_ours()):
            raise ValueError(f"model {model.name} answers for a window, but task is per_row; choose another task")

    def _check_behind_encoder(self) -> None:
        """Refuse what a new model behind an encoder has no use for."""
        model = self.model
        assert model is not None
        if model.name in CLIP_MODEL_OPTIONS:
            raise ValueError(f"model {model.name} sees frames itself; leave spatial out")
        if model.keeps_positions:
            raise ValueError(f"model {model.name} reads stored maps or tokens, of train; choose one of pooled rows")
        self._refuse_given(("preprocess",), "that of the embed node that spatial names; set it there")
        self._refuse_given(("experts",), "of model cast; leave it out")
        check_windows(self)
        pools = model.is_ours() and (model.name == "mlp" or model.options().get("pool") is not None)
        if self.traits_per_row and pools:
            raise ValueError(
                f"task per_row answers for every row, which {'mlp' if model.name == 'mlp' else 'model.pool'} does not; "
                "use linear, gru, transformer, and leave pool out"
            )

    def _refuse_given(self, names: Sequence[str], why: str) -> None:
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True):
                raise ValueError(f"{name} is {why}")

    @property
    def traits_per_row(self) -> bool:
        """Whether every frame is answered for."""
        return TASKS[self.task].per_row

    @model_validator(mode="after")
    def _scene_fits(self) -> FinetuneConfig:
        if (scene := self.augment.scene) is None:
            return self
        problem = scene.problem(epochs=self.epochs, num_clips=self.batch_size // self.processes)
        if self.views is not None and (scene.reverse or scene.easy_key):
            problem = "augment.scene: views keep their times, and none is a key; set reverse: 0, easy_key: false"
        if self.model is not None and self.model.option("contexts", 1) > 1:
            problem = "augment.scene: frames and their contexts are no clip; set scene: null, or model.contexts: 1"
        if problem is not None:
            raise ValueError(problem)
        return self

    @property
    def base_state(self) -> str:
        """How the encoder in front of a model on views is trained: trained, frozen or frozen_norms."""
        assert self.model is not None
        return str(self.model.options().get("base", "frozen"))

    @property
    def frozen(self) -> tuple[str, ...]:
        """Parts and patterns of names that do not learn."""
        still = [part for part in PARTS if getattr(self, f"{part}_lr_scale") == 0]
        still += ["spatial"] if self.views is not None and self.base_state == "frozen" else []
        return tuple(dict.fromkeys((*self.freeze, *still)))

    @property
    def multipliers(self) -> dict[str, float]:
        """Start of a parameter's name -> factor on its learning rate."""
        return {} if self.is_whole else {f"{part}.": getattr(self, f"{part}_lr_scale") for part in PARTS}

    @property
    def seen_of_frames(self) -> tuple[str, str]:
        """Which output of the encoder the model sees, and what that is called by the model's option `source`."""
        assert self.model is not None
        if self.model_source == "rows":
            return "pooled", "rows"
        return f"layer{self.model.options().get('split', 3) or 4}.map", "maps"

    def window_rows(self) -> tuple[int, str] | None:
        """As of every stage."""
        return self.window.reach if self.learns_windows else None

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Refuse frames that are not stored (windows are read again and again), and encoders that see too much."""
        self.check_frames_stored(inputs, more="" if self.is_whole else "; its embeddings stay as they are.")
        for embed in inputs.get("spatial", ()):
            if isinstance(embed, EmbedConfig) and embed.sees_clips:
                self.check_clip_encoder(str(embed.encoder))
        if self.learns_windows:
            self.check_order(task=self.task, labels_of_window=self.labels_of_window)
        for run in inputs.get("temporal", ()):
            if hasattr(run, "task"):
                if (model := getattr(run, "model", None)) is not None:  # else that of a run before it
                    self.check_attention_weight(model)
                self.check_order(task=run.task, labels_of_window=getattr(run, "labels_of_window", "any"))
                if run.task == "heads" and isinstance(run, NetworkSettings):
                    self.check_smoothing([run.loss.label_smoothing])

    def check_order(self, *, task: str, labels_of_window: str) -> None:
        """Raise ConfigError where clips are played backwards whose targets depend on the order of their rows."""
        scene, is_sequence = self.augment.scene, task in TASKS and TASKS[task].is_sequence
        if scene is not None and scene.reverse and (is_sequence or labels_of_window == "net_change"):
            what = f"task {task}" if is_sequence else "labels_of_window: net_change"
            raise ConfigError(
                f"augment.scene.reverse is {scene.reverse:g}: clips are played backwards, but {what} "
                f"{f'of {self.temporal!r} ' if self.temporal else ''}depends on the order of rows. Leave reverse out."
            )

    def check_smoothing(self, of_heads: Sequence[float]) -> None:
        """Raise ConfigError for another smoothing of labels than the heads of the temporal run have, which counts."""
        if (own := self.loss.label_smoothing) and set(of_heads) - {own}:
            why = f"heads keep that of the run of {self.temporal!r} ({', '.join(map(str, of_heads))}); leave it out"
            raise ConfigError(f"loss.label_smoothing is {own:g}, but {why}")

    def check_clip_encoder(self, encoder: str) -> None:
        """Raise ConfigError where these settings do not go with an encoder that sees clips."""
        if not self.learns_windows:
            raise ConfigError(
                f"spatial: {encoder} sees clips, and of temporal runs and of views a row is a frame. Give model, task "
                "and window (of frames), which a clip of it takes as a whole"
            )
        if self.traits_per_row:
            given = f"task: per_row has an answer for every frame, but a window is one clip, so one row, of {encoder}"
            raise ConfigError(f"{given}. Choose video, last_row or majority")
