"""The experts of CAST: the encoders of two embed nodes, with their weights.

Trained on the tokens that enter their last blocks, which these nodes have stored, CAST learns as it would from frames
(models/systems/cast); from frames (finetune) it begins with the whole encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reelwright.models.contracts import VideoModel
from reelwright.models.encoders.base import DataConfig
from reelwright.models.encoders.frames_of_clips import EVERY
from reelwright.models.encoders.outputs import parse_output
from reelwright.models.systems.cast.experts import EXPERTS
from reelwright.models.systems.cast.model import Cast
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.stored_rows import joined_shape, stored_shape
from reelwright.stages.embed.config import PreprocessSettings
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, encoder_of
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, InputError

# Of frames, before they are normalised.
_GEOMETRY = ("size", "resize", "interpolation", "antialias", "resize_with", "crop")
_OF_CLIPS = ("clip_length", "every")  # arguments of frames/NAME that are not of the image encoder


@dataclass(frozen=True)
class Experts:
    """The encoders of both embed nodes, by what they are to CAST."""

    loaded: Mapping[str, LoadedEncoder]
    where: str

    @classmethod
    def of(cls, work: Work, name: str) -> Experts:
        """Those of the embed nodes that the setting ``name`` names; raises as `encoder_of`.

        Raises ConfigError where frames are normalised otherwise than the encoder says, which CAST would not do.
        """
        found = {}
        for expert, reference in zip(EXPERTS, work.inputs[name], strict=True):
            loaded = encoder_of(work, reference)
            own, seen = loaded.encoder.data_config, loaded.data_config
            if (own.mean, own.std) != (seen.mean, seen.std):
                raise ConfigError(
                    f"{work.node}: {reference.node} sets preprocess.mean or std, which an expert of cast does not "
                    "take over. Leave them out; model.pixels: imagenet shows both experts frames as ImageNet's are."
                )
            found[expert] = loaded
        return cls(found, work.node)

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the model that are ``given``, with those that say what its experts are.

        Raises ConfigError where an expert on single frames sees others of them than ``given`` or the other one says.
        """
        own = dict(given)
        for name, loaded in self.loaded.items():
            library, _, model = loaded.name.partition("/")
            arguments = dict(loaded.config.model_args)
            if library == "frames":
                every = arguments.get("every", EVERY)
                if own.setdefault("every", every) != every:
                    raise ConfigError(
                        f"{self.where}: {loaded.name} sees the last of every {every} frames (model_args.every of its "
                        f"embed node), but model.every or the other expert says {own['every']}. Set one number"
                    )
                arguments = {key: value for key, value in arguments.items() if key not in _OF_CLIPS}
            own |= {name: f"timm/{model}" if library == "frames" else loaded.name, f"{name}_args": arguments}
        return own

    def clip_length(self) -> int:
        """Frames of a stored row. Raises ConfigError for encoders of single frames and clips of unequal length."""
        for loaded in self.loaded.values():
            library, _, model = loaded.name.partition("/")
            if library not in {"frames", "videomae"}:
                raise ConfigError(
                    f"{self.where}: embeddings of {loaded.name} have a row for every frame, but a row has to be a "
                    f"clip. Embed with encoder: frames/{model} (or videomae/NAME)."
                )
        lengths = [loaded.data_config.clip_length for loaded in self.loaded.values()]
        if len(set(lengths)) > 1:
            raise ConfigError(
                f"{self.where}: clips of the embed nodes have {' and '.join(map(str, lengths))} frames. Set "
                "clip.length of both to one number."
            )
        return lengths[0]

    def data_config(self, own: DataConfig, *, given: PreprocessSettings) -> DataConfig:
        """How frames are made ready: as the experts' are, but normalised as ``own`` says.

        Raises ConfigError where the experts want them made ready otherwise, in more than ``given`` says for both.
        """
        space, time = (self.loaded[name].data_config for name in EXPERTS)
        names = [name for name in _GEOMETRY if getattr(space, name) != getattr(time, name)]
        differing = [name for name in names if getattr(given, name) is None]
        if differing:
            wanted = "; ".join(f"{name}: {getattr(space, name)} and {getattr(time, name)}" for name in differing)
            raise ConfigError(
                f"{self.where}: the experts see the same frames, but want them made ready otherwise (space and time; "
                f"{wanted}). Set preprocess.{', preprocess.'.join(differing)} here, for both; for a run on "
                "stored tokens, in both embed nodes."
            )
        return replace(space, mean=own.mean, std=own.std, clip_length=own.clip_length)

    def give_weights(self, model: VideoModel) -> None:
        """Put the weights of both encoders into ``model``, a Cast. Raises ConfigError where they do not fit."""
        assert isinstance(model, Cast)
        try:
            model.take_weights({name: loaded.encoder for name, loaded in self.loaded.items()})
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{self.where}: the experts are not those of the embed nodes: {error}") from error

    def check_rows(self, stores: Sequence[EmbeddingStore]) -> None:
        """Raise InputError where stored rows are of other weights than the encoders have now."""
        for (name, loaded), store in zip(self.loaded.items(), stores, strict=True):
            stored = store.spec["weights_digest"]
            if stored != loaded.weights_digest:
                raise InputError(
                    f"{self.where}: the stored tokens of {name} are of weights {stored[:12]}, but its encoder has "
                    f"{loaded.weights_digest[:12]} now: a file of weights was replaced. Run again, so that it is "
                    "embedded anew."
                )

    def check_output(self, model: VideoModel, output: str) -> None:
        """Raise ConfigError where ``output`` is not what enters the last blocks of ``model``, a Cast."""
        assert isinstance(model, Cast)
        layer, depth = parse_output(output).layer, model.space.depth
        assert layer is not None
        if (layer + depth if layer < 0 else layer) != model.first:
            raise ConfigError(
                f"{self.where}: output {output} is not what enters the last {depth - model.first} of {depth} blocks; "
                f"set output: block{model.first}.input (in both embed nodes too), or model.top: {depth - layer}."
            )


def row_shape(stores: Sequence[EmbeddingStore], output: str) -> list[int]:
    """Of a row with positions, of one store or the tokens of several."""
    return list(joined_shape([stored_shape(store, output) for store in stores]))
