"""Settings of pretrain: an image encoder learns states from the frames in which they begin, a video encoder from clips.

Clips (`clips`) are of whole videos, with their labels (objective ce) or without (simclr, moco, byol).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from reelwright.models.encoders.names import NO_FILE, check_encoder, check_weights, is_video_encoder
from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import (
    execution,
    matters,
    node_input,
    of_names,
    ordered,
    setting,
    source_file,
    training,
)
from reelwright.stages.base.plugins import PluginUse
from reelwright.stages.embed.config import PreprocessSettings, encoder_plugin
from reelwright.stages.fit.config import LearningSettings
from reelwright.stages.fit.optim.config import OptimizerSettings
from reelwright.stages.objectives.config import (
    SELF_SUPERVISED,
    ComparisonSettings,
    SelfSupervisedSettings,
)
from reelwright.stages.pretrain.examples_config import (
    CLIP_METRICS,
    CLIP_OBJECTIVES,
    BatchSettings,
    ClipPretrainSettings,
    ImageAugmentSettings,
    KeyFrameSettings,
)
from reelwright.storage.errors import ConfigError

METRICS = (
    "precision_at_1",
    "precision_at_1_class_mean",
    "mean_average_precision_at_r",
    "mean_average_precision_at_r_states",
    "f1_at_1",
)


OF_ENCODER = ("encoder", "weights", "prefix", "key_map", "ignore", "model_args", "preprocess", "seed")
_OF_FRAMES = (
    "embed_dim",
    "projection",
    "states",
    "others",
    "ignored",
    "sampling",
    "key_frames",
    "batch",
    "augment",
    "synthetic_splits",
)
_OF_COMPARISON = {name: field for name, field in ComparisonSettings.model_fields.items() if name != "name"}


class PretrainObjectiveSettings(ComparisonSettings):
    """The loss, and what it counts as alike."""

    name: Literal["supcon", "simclr", "moco", "byol", "batch_all", "batch_hard", "ce"] = "supcon"
    """supcon: all frames of a state are alike; simclr: two changed copies of a frame, states are not looked at;
    batch_all, batch_hard: triplets; ce: a linear classifier on the embedding. Of clips: ce, the labels of videos; or
    simclr, moco, byol: two clips of a video are alike."""
    temperature: PositiveFloat = of_names(0.07, names=("supcon", "simclr", "moco"))
    """Of supcon, simclr and moco. (fractal_video has 0.1 with simclr.)"""
    margin: PositiveFloat = of_names(0.01, names=("batch_all", "batch_hard"))
    """Of triplets."""
    exclude_background: bool = of_names(False, names=("supcon", "batch_all", "batch_hard"))
    """supcon and triplets: background is never an anchor and like nothing, but everything is unlike it."""

    @model_validator(mode="after")
    def _consistent(self) -> PretrainObjectiveSettings:
        if self.exclude_background and self.name in {"ce", *SELF_SUPERVISED}:
            raise ValueError(f"exclude_background is of supcon and triplets, not of {self.name}")
        return self

    def of_views(self) -> SelfSupervisedSettings:
        """Those of simclr, moco or byol, which compare two clips."""
        shared = {name: getattr(self, name) for name in ComparisonSettings.model_fields}
        return SelfSupervisedSettings(**shared, temperature=None if self.name == "byol" else self.temperature)


class PretrainOptimizerSettings(OptimizerSettings):
    """As in train, with the rates of STORM-PSR."""

    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)


class PretrainConfig(LearningSettings):
    """An image encoder trained on key frames of states, or a video encoder on clips of whole videos.

    Labels are states: rows or segments of them; of clips (objective ce) the videos' own.
    """

    stage: ClassVar[str] = "pretrain"
    renamed: ClassVar[Mapping[str, str]] = {"contrast": "objective"}
    version: ClassVar[int] = 2  # 2: crops are of the stored frame, not of the middle that the encoder sees
    kind: ClassVar[str] = "run"
    produces: ClassVar[str] = "run"
    costs: ClassVar[tuple[str, ...] | None] = ("encoder", "precision", "model_args", "preprocess", "batch", "clips")
    time_grows_with: ClassVar[str] = "epochs"

    frames: str = node_input("frames", kinds=("frames",), used="training")
    """The decode node, with materialize: true."""
    encoder: str = Field(min_length=1)
    """timm/NAME or hf-hub:ORG/NAME, of clips tsm/NAME, x3d/NAME or torchvision/NAME; or a plug-in's: an entry point,
    package.module:Encoder, or file.py:Encoder."""
    weights: str = source_file("hub", used="training")
    """What it starts from. hub: its pretrained weights; none: random ones; else a .safetensors/.pth/.pt file."""
    prefix: str | None = training(None)
    """Only weights of the file whose names start so are used, without it."""
    key_map: dict[str, str] = ordered(role="training")
    """Regular expression -> replacement for names of weights, applied in order."""
    ignore: tuple[str, ...] = matters((), when=lambda config: config.weights != "none", role="training")
    """Patterns of weights that may be missing, unexpected or of another shape."""
    model_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the model's constructor."""
    preprocess: PreprocessSettings = PreprocessSettings()
    clips: ClipPretrainSettings | None = setting(None, when=lambda config: config.clips is not None)
    """Learn from clips of whole videos, with a video encoder; what follows down to synthetic_splits, but objective, is
    then of no use. null: from single frames."""
    embed_dim: PositiveInt | None = 128
    """Size of the embedding; a linear layer, batch norm, ReLU and unit length make it. null: the pooled features."""
    projection: bool = matters(default=True, when=lambda config: config.objective.name != "ce", role="training")
    """A further head between the embedding and the loss (not for ce), thrown away afterwards."""
    states: tuple[str, ...] | None = training(None)
    """Labels that are learned; null: all but those of others and ignored."""
    others: tuple[str, ...] = training(("other",))
    """Labels that are no state; background before them is taken all the same."""
    ignored: tuple[str, ...] = training(("error",))
    """Labels from which nothing is taken, not even background."""
    sampling: Literal["key_frames", "all"] = training("key_frames")
    """all: every frame is of the label that holds then, and those without one are background."""
    key_frames: KeyFrameSettings = matters(
        KeyFrameSettings(), when=lambda config: config.sampling == "key_frames", role="training"
    )
    batch: BatchSettings = training(BatchSettings())
    objective: PretrainObjectiveSettings = training(PretrainObjectiveSettings())
    augment: ImageAugmentSettings = training(ImageAugmentSettings())
    synthetic_splits: tuple[str, ...] = matters(
        ("synthetic",), when=lambda config: config.batch.synthetic_per_class > 0, role="training"
    )
    """Splits of pictures made by programs, each frame with its label; see batch.synthetic_per_class."""

    epochs: PositiveInt = training(100)
    batch_size: PositiveInt = execution(64)
    """Frames a forward pass of the evaluation on val; of clips see clips.batch_size."""
    optimizer: PretrainOptimizerSettings = training(PretrainOptimizerSettings())
    metric: Literal[(*METRICS, *CLIP_METRICS)] | None = training(None)  # type: ignore[valid-type]
    """Retrieval of val among train that chooses the best weights; null: precision_at_1. Of clips with objective ce a
    measure of classes, null: top1; without labels none chooses, and the last weights count."""
    channels_last: bool | None = execution(None)
    """Layout of pictures in memory; null: where it is faster (convolutions on GPUs). Of small networks of depthwise
    convolutions (MobileNetV2) also on CPUs."""
    memory_bytes: PositiveInt = execution(4 << 30)
    """Frames, as the encoder sees them (and as they are stored, where crops are cut), are held in memory up to this
    size; beyond, they are read for every batch."""

    @model_validator(mode="after")
    def _consistent(self) -> PretrainConfig:
        check_weights(self.weights, self.encoder, is_own=bool(self.plugins()), renames=self.prefix or self.key_map)
        if self.init_from is not None and self.weights != "none":
            raise ValueError(
                f"weights: {self.weights} and init_from: {self.init_from} are two starting points; set weights: none, "
                "or leave init_from out"
            )
        is_scaled = self.clips is None and self.optimizer.lr_base_batch is not None
        if self.loss != type(self.loss)() or is_scaled:
            raise ValueError("loss.* and optimizer.lr_base_batch are of windows; the loss here is `objective`")
        if self.clips is not None:
            self._check_clips(self.clips)
        elif self.objective.name in {"moco", "byol"}:
            raise ValueError(
                f"objective {self.objective.name} compares two clips of a video; give clips: {{length: 8}}"
            )
        elif any(getattr(self.objective, name) != field.default for name, field in _OF_COMPARISON.items()):
            raise ValueError(f"objective: {', '.join(_OF_COMPARISON)} are of clips; leave them out, or give clips")
        elif self.mix is not None:
            raise ValueError("mix is of windows with labels, not of key frames; set mix: null")
        elif self.metric in CLIP_METRICS:
            raise ValueError(f"metric {self.metric} is of clips; of frames there are {', '.join(METRICS)}")
        return self

    def _check_clips(self, clips: ClipPretrainSettings) -> None:
        objective = self.objective
        for name in _OF_FRAMES:
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) not in (default, *((None,) if name == "embed_dim" else ())):
                instead = "; clips have clips.augment" if name == "augment" else ""
                raise ValueError(f"{name} is of single frames, but clips are learned from; leave it out{instead}")
        if objective.name not in CLIP_OBJECTIVES:
            raise ValueError(f"objective {objective.name} is of single frames; of clips: {', '.join(CLIP_OBJECTIVES)}")
        self._check_metric_of_clips(is_supervised=objective.name == "ce")
        for name in ("val_clips", "val_step") if objective.name != "ce" else ():
            if getattr(clips, name) != type(clips).model_fields[name].default:
                raise ValueError(f"clips.{name} is of validation with labels (objective ce); leave it out")
        if objective.name == "simclr" and clips.batch_size < 2:
            raise ValueError("objective simclr compares the videos of a batch; set clips.batch_size to at least 2")
        if objective.name == "moco" and objective.queue < clips.batch_size:
            raise ValueError(f"objective.queue is {objective.queue}, but a batch has {clips.batch_size} keys; raise it")
        if self.mix is not None:
            raise ValueError("mix is of windows with labels, not of clips in pretrain; set mix: null")
        scene = clips.augment.scene
        num_clips = clips.batch_size // self.processes
        problem = None if scene is None else scene.problem(epochs=self.epochs, num_clips=num_clips)
        if problem is not None:
            raise ValueError(f"clips.{problem}")

    def _check_metric_of_clips(self, *, is_supervised: bool) -> None:
        if self.metric is not None and not (is_supervised and self.metric in CLIP_METRICS):
            allowed = (
                f"with objective ce {', '.join(CLIP_METRICS)}" if is_supervised else "none: the last weights count"
            )
            raise ValueError(f"metric is {self.metric}; of clips there is {allowed}")
        if self.early_stop is not None and not is_supervised:
            raise ValueError("early_stop waits for a metric, and without labels none is measured; leave it out")

    @property
    def learns_labels(self) -> bool:
        """As of every stage; of clips that are compared no label is needed."""
        return self.clips is None or self.objective.name == "ce"

    @property
    def mirrors(self) -> str:
        """As of every stage; clips have settings of their own."""
        if self.clips is None:
            return super().mirrors
        name = self.clips.augment.mirrors
        return f"clips.augment.{name}" if name else ""

    def spec(self) -> dict[str, Any]:
        """As in StageConfig; what is of windows is left out."""
        values = super().spec()
        values.pop("loss")
        return values

    def wanted_splits(self) -> tuple[str, ...] | None:
        """Those that are learned from and validated on, and the synthetic ones where they are used."""
        synthetic = self.synthetic_splits if self.batch.synthetic_per_class else ()
        return (*self.train_splits, *self.val_splits, *synthetic)

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of all that learns, with the synthetic ones where they are used."""
        synthetic = self.batch.synthetic_per_class > 0
        return {**super().named_splits(), **({"synthetic_splits": (self.synthetic_splits, True)} if synthetic else {})}

    def check_names(self) -> None:
        """As of every stage: the encoder and its arguments."""
        if self.plugins():
            return
        try:
            check_encoder(self.encoder, outputs=("pooled",), model_args=self.model_args)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if is_video_encoder(self.encoder) and self.clips is None:
            raise ConfigError(
                f"encoder: {self.encoder!r} reads clips, key frames are images; use timm/NAME, or give clips: "
                "{length: 8} to learn from clips of whole videos"
            )
        if self.clips is not None and not is_video_encoder(self.encoder):
            raise ConfigError(
                f"encoder: {self.encoder!r} reads images, but clips are given; use tsm/NAME, x3d/NAME or "
                "torchvision/NAME, or leave clips out"
            )

    def plugins(self) -> dict[str, PluginUse]:
        """As of every stage."""
        return encoder_plugin(self.encoder, self.model_args)

    def hub_weights(self) -> str | None:
        """The encoder's name, when its own pretrained weights are used."""
        return self.encoder if self.weights == "hub" else None

    def sources(self) -> dict[str, str]:
        """The weights file, when it is one."""
        found = super().sources()
        return {name: path for name, path in found.items() if name != "weights" or path not in NO_FILE}

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Refuse frames that are not stored: they are read again and again, in random order."""
        self.check_frames_stored(inputs)
