"""Settings of embed: which encoder turns frames into rows, or which run rows into rows, and how these are stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from reelwright.models.encoders.names import NO_FILE, check_encoder, check_weights, is_of_library, is_video_encoder
from reelwright.models.encoders.outputs import parse_outputs
from reelwright.stages.augment.config import ViewSettings
from reelwright.stages.base.config import Settings, StageConfig
from reelwright.stages.base.fields import execution, matters, node_input, ordered, setting, source_file
from reelwright.stages.base.plugins import PluginUse, is_plugin
from reelwright.stages.datasets.sampling.settings import GridSettings, Short
from reelwright.stages.embed.row_outputs import PieceSettings, check_encoder_of, check_row_outputs
from reelwright.storage.errors import ConfigError

_OF_FRAMES = (
    *("encoder", "weights", "seed", "prefix", "key_map", "ignore", "model_args", "embed_dim"),
    *("preprocess", "clip", "views"),
)
_COSTS = ("encoder", "precision", "clip", "outputs", "dtype", "model_args", "preprocess")
_OUTPUT = re.compile(r"[A-Za-z][\w.-]*")
_OF_ROWS = ("dtype", "outputs", "pieces", "precision")  # what counts where rows are made of rows


def encoder_plugin(encoder: str | None, model_args: Mapping[str, Any]) -> dict[str, PluginUse]:
    """What `StageConfig.plugins` says of an encoder and its arguments."""
    if encoder is None or is_of_library(encoder) or not is_plugin("encoders", encoder):
        return {}
    return {"encoder": PluginUse(group="encoders", name=encoder, options=model_args, num_given=1)}


class PreprocessSettings(Settings):
    """Overrides of the encoder's own preprocessing; null keeps the encoder's."""

    size: tuple[PositiveInt, PositiveInt] | None = None
    """(height, width) in pixels that the encoder sees."""
    resize: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Short side in pixels, or (height, width), before the crop."""
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] | None = None  # Of the resize.
    antialias: bool | None = None  # Of the resize, where it shrinks.
    resize_with: Literal["pillow", "torch"] | None = setting(None, when=lambda own: own.resize_with is not None)
    """pillow: as timm's own transform. torch: its kernels for bytes (bilinear, bicubic), four to five times as fast; 1
    in 200 values differs, by 1 of 255. null: pillow."""
    crop: Literal["center", "squash", "border"] | None = None
    """center: cut the middle; squash: resize to size, aspect not kept; border: keep all, fill with the mean."""
    mean: tuple[float, float, float] | None = None
    """Of RGB in [0, 1]."""
    std: tuple[float, float, float] | None = None
    """Of RGB in [0, 1]."""


class ClipSettings(GridSettings):
    """Clips of a video encoder, in rows of the frame store; image encoders take no clips."""

    length: PositiveInt | None = None
    """Frames in a clip; null: what the encoder was trained with."""
    hop: PositiveInt = 8
    """Frames from the start of one clip to the start of the next."""
    dilation: PositiveInt = 1
    """Frames from one frame of a clip to its next; 1: neighbours."""
    short: Short = "repeat"
    """A video shorter than a clip. repeat: one clip, the last frame repeated; pad: one clip, black frames behind the
    last one (which a run's own model of clips is told by a mask); leave_out: no row, listed as skipped."""


_USUAL_PIECES = PieceSettings()


class EmbedConfig(StageConfig):
    """Embeddings of each video: a row a frame (image encoders) or clip (video encoders), or of a run a row a row."""

    stage: ClassVar[str] = "embed"
    version: ClassVar[int] = 2
    kind: ClassVar[str] = "items"
    produces: ClassVar[str] = "embeddings"
    costs: ClassVar[tuple[str, ...] | None] = _COSTS
    rate_counts: ClassVar[Literal["", "size", "time and size"]] = "time and size"

    frames: str | None = node_input("frames", kinds=("frames",))
    """The decode node whose frames are embedded; none where embeddings are."""
    embeddings: tuple[str, ...] = node_input((), kinds=("embeddings",))
    """Embeddings that `run` makes rows of, whole videos at once: those that it was trained on, in the same order."""
    run: str | None = node_input(None, kinds=("run",))
    """A finetune or pretrain node whose encoder is used, a new generation; then encoder and weights are not given, and
    preprocess and clip are those of the run unless they are; of a model that sees clips itself the rows are its
    embeddings of clips, where it gives any. With embeddings, a train or finetune node whose temporal
    model is used."""
    encoder: str | None = None
    """timm/NAME, hf-hub:ORG/NAME; of clips torchvision/NAME (its video models), tsm/NAME (temporal shifts in timm's
    ResNets and MobileNetV2s), x3d/NAME, videomae/NAME or frames/NAME (timm's on frames of a clip); or a plug-in's: an
    entry point of reelwright.encoders, package.module:Encoder, or file.py:Encoder."""
    weights: str = source_file("hub")
    """hub: the encoder's pretrained weights; none: random ones drawn with seed; else a .safetensors/.pth/.pt file."""
    seed: int = setting(0, when=lambda config: config.weights == "none", ge=0)
    """Of random weights (weights: none)."""
    prefix: str | None = None
    """Only weights whose names start so are used, without it (module., backbone.)."""
    key_map: dict[str, str] = ordered()
    """Regular expression -> replacement for names of weights, applied in order."""
    ignore: tuple[str, ...] = matters((), when=lambda config: config.run is None and config.weights != "none")
    """Patterns (as of file names) of weights that may be missing, unexpected or of another shape."""
    model_args: dict[str, Any] = matters(default_factory=dict, when=lambda config: config.run is None)
    """Arguments of the model's constructor, such as pad_type: same."""
    embed_dim: PositiveInt | None = None
    """Size of an embedding head behind the pooled features, as pretrain makes it; its weights are in the file."""
    outputs: tuple[str, ...] = Field(("pooled",), min_length=1)
    """pooled (D,), tokens (N, D), map (C, H, W), logits (K,), or of a layer: layer9.tokens, layer-1.map; of
    transformers block9.input, the tokens that enter a block. With embeddings, pooled is the `embedding` of a row, and
    others are called as the run's model calls them (logits)."""
    pieces: PieceSettings = setting(_USUAL_PIECES, when=lambda config: bool(config.embeddings))
    preprocess: PreprocessSettings = PreprocessSettings()
    clip: ClipSettings = matters(ClipSettings(), when=lambda config: config.sees_clips is not False)
    views: ViewSettings | None = setting(None, when=lambda config: config.views is not None)
    """Augmented views of every frame, for what learns from stored maps (layer3.map) or rows; null: the frame alone."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Of the forward pass (autocast for bf16 and fp16). tf32: fp32 whose products GPUs may round to 10 bits, which is
    faster; on a CPU it is fp32."""
    dtype: Literal["float32", "float16"] = "float16"
    """Of the stored rows."""

    batch_size: PositiveInt | None = execution(None)
    """Frames (clips) a forward pass; null: measured, once for a model and device. Halved on out-of-memory."""
    device: str = execution("auto")
    """auto: the first GPU, else the CPU; or cpu, cuda, cuda:1."""
    channels_last: bool | None = execution(None)
    """Memory layout; null: chosen by measuring."""
    compile: bool = execution(False)
    """torch.compile the encoder."""
    runtime: Literal["auto", "eager", "folded", "onnx"] = execution("auto")
    """What computes fp32 on a CPU. eager: torch as it is; folded: batch norms folded into convolutions; onnx: ONNX
    Runtime (the extra onnx). auto: the one that is done first, by measuring once for a model and machine; small jobs
    stay eager. Rows equal those of eager to 1e-4 of their largest value, or a runtime is refused; which one made a
    video's rows is in their attributes."""
    deterministic: bool = execution(False)
    """The same bits wherever and in whichever pieces a video is embedded (on one kind of machine): batches stay inside
    a shard, what is null is not measured but fixed, runtime is eager, on a CPU one thread computes."""
    codec: Literal["none", "lz4", "zstd", "pcodec"] = execution("none")
    """Compression of stored rows (lossless; tests/benchmarks measures size and speed)."""
    chunk_bytes: PositiveInt = execution(1 << 18)
    """Size of a chunk, the smallest part that is read, before compression."""
    shard_rows: PositiveInt = execution(1024)
    """Rows of a shard file, the unit of writing and of resume."""

    @model_validator(mode="before")
    @classmethod
    def _rows_or_frames(cls, values: Any) -> Any:
        """Frames are not looked for by their usual name where there are embeddings."""
        return {"frames": None, **values} if isinstance(values, dict) and values.get("embeddings") else values

    @model_validator(mode="after")
    def _of_frames_or_rows(self) -> EmbedConfig:
        if not self.embeddings:
            if self.frames is None:
                raise ValueError("give frames, a decode node, or embeddings and a run that makes rows of them")
            if self.pieces != _USUAL_PIECES:
                raise ValueError("pieces are of whole videos that a run embeds (embeddings); remove pieces")
            return self
        if self.frames is not None:
            raise ValueError("embed frames or embeddings, not both; remove one")
        if self.run is None:
            raise ValueError("rows are embedded by a run; name a train or finetune node with run")
        defaults = type(self).model_fields
        given = [
            name for name in _OF_FRAMES if getattr(self, name) != defaults[name].get_default(call_default_factory=True)
        ]
        if given:
            raise ValueError(f"{', '.join(given)}: of encoders of frames, but rows are embedded; remove {given[0]}")
        unfit = [name for name in self.outputs if not _OUTPUT.fullmatch(name)]
        if unfit:
            raise ValueError(f"outputs: {unfit[0]!r} can be no output of a model")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> EmbedConfig:
        if (self.encoder is None) == (self.run is None):
            raise ValueError("give either encoder (timm/NAME, x3d/NAME, ...) or run (a finetune or pretrain node)")
        if self.run is not None and self.weights != "hub":
            raise ValueError("weights come with the run; remove weights")
        check_weights(self.weights, self.encoder, is_own=bool(self.plugins()), renames=self.prefix or self.key_map)
        if self.embed_dim is not None and (self.run is not None or self.weights == "hub"):
            raise ValueError("embed_dim is of encoders out of a file, or with weights: none; a run knows its own")
        if len(set(self.outputs)) != len(self.outputs):
            raise ValueError("outputs must not repeat")
        if self.views is not None and self.sees_clips:
            raise ValueError(f"views are of single frames, but {self.encoder} sees clips; leave views out")
        return self

    @model_validator(mode="after")
    def _runtime_fits(self) -> EmbedConfig:
        if self.runtime in {"auto", "eager"}:
            return self
        if self.embeddings:
            raise ValueError(f"runtime: {self.runtime} is of encoders of frames, but rows are embedded; remove runtime")
        if self.precision != "fp32":
            raise ValueError(f"runtime: {self.runtime} computes fp32; remove precision: {self.precision}, or runtime")
        for name in ("compile", "deterministic"):
            if getattr(self, name):
                raise ValueError(f"{name} fixes the runtime; remove {name}, or runtime: {self.runtime}")
        return self

    def spec(self) -> dict[str, Any]:
        """As in StageConfig; the embedding head counts only where there is one.

        That frames, and the padding of clips, are seen as the run saw them was not so in earlier releases, whose
        embeddings are others.
        """
        values = super().spec()
        if self.embeddings:
            return {name: values[name] for name in _OF_ROWS}
        if self.run is not None:
            values["seen"] = "as in the run, padding too"
            usual = sorted(name for name in self.clip_given if name not in self.clip.model_dump(exclude_defaults=True))
            values |= {"clip_given": usual} if usual else {}  # a run may have others
        if self.embed_dim is None:
            values.pop("embed_dim")
        return values

    @property
    def sees_clips(self) -> bool | None:
        """Whether the encoder sees clips; None where that is not known before (of a run, a plug-in)."""
        return None if self.encoder is None or self.plugins() else is_video_encoder(self.encoder)

    @property
    def clip_given(self) -> dict[str, Any]:
        """What of `clip` is given, the usual values too: a run's own clips may be others; null is as not given."""
        return {name: value for name, value in self.clip.model_dump(exclude_unset=True).items() if value is not None}

    def plain(self) -> dict[str, Any]:
        """As of every stage; with a run, `clip` is what is given of it."""
        return super().plain() | ({} if self.run is None else {"clip": self.clip_given})

    def check_names(self) -> None:
        """As of every stage: the encoder, its outputs and its arguments."""
        try:
            if self.encoder is not None and not self.plugins():
                check_encoder(self.encoder, outputs=self.outputs, model_args=self.model_args)
            elif not self.embeddings:  # whose outputs only the run knows
                parse_outputs(self.outputs)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Refuse a run that has no encoder of frames, or whose model gives no such rows of rows."""
        for run in inputs.get("run", ()):
            learnt = run.inputs().get("embeddings", [])
            if not self.embeddings:
                check_encoder_of(run, self.outputs, name=str(self.run))
            elif run.stage == "pretrain":
                raise ConfigError(
                    f"run: {self.run!r} is a pretrain node, whose encoder sees frames. Give frames instead"
                )
            elif learnt and len(learnt) != len(self.embeddings):
                raise ConfigError(
                    f"run: {self.run!r} learnt from the embeddings {', '.join(learnt)}, and embeddings names "
                    f"{', '.join(self.embeddings)}. Give as many, in the same order"
                )
            elif (known := getattr(run, "row_outputs", None)) is not None:
                check_row_outputs(self.outputs, known, run=str(self.run))

    @property
    def mirrors(self) -> str:
        """As of every stage: of stored views."""
        return "views.augment.flip" if self.views is not None and self.views.augment.flip else ""

    def most_rows(self, num_rows: float) -> float | None:
        """As of every stage: a row a frame, or a clip (of a run's encoder that is not known before)."""
        if self.embeddings:
            return num_rows
        sees_clips = self.sees_clips
        return None if sees_clips is None else num_rows / self.clip.hop + 1 if sees_clips else num_rows

    def packages(self, endings: Collection[str]) -> dict[str, str]:
        """As of every stage."""
        del endings
        pcodec = {"pcodec": "codec: pcodec; pip install 'numcodecs[pcodec]', or set lz4"}
        onnx = dict.fromkeys(("onnx", "onnxruntime"), "runtime: onnx; pip install 'reelwright[onnx]', or set auto")
        return (pcodec if self.codec == "pcodec" else {}) | (onnx if self.runtime == "onnx" else {})

    def plugins(self) -> dict[str, PluginUse]:
        """As of every stage."""
        return encoder_plugin(self.encoder, self.model_args)

    def hub_weights(self) -> str | None:
        """The encoder's name, when its own pretrained weights are used."""
        return self.encoder if self.weights == "hub" else None

    def sources(self) -> dict[str, str]:
        """The weights file, when it is one."""
        return {} if self.weights in NO_FILE else {"weights": self.weights}
