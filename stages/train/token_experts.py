"""The experts of stored tokens: those of the embed nodes that the tokens are of, with their weights.

Trained on what enters their last blocks, CAST learns as it would from frames (models/systems/cast).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reelwright.models.encoders.outputs import parse_output
from reelwright.models.systems.cast.model import EXPERTS, Cast
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.stored_rows import joined_shape, stored_shape
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, build_from_config
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError
from reelwright.storage.store import Store

_OF_CLIPS = ("clip_length", "every")  # arguments of frames/NAME that are not of the image encoder


@dataclass(frozen=True)
class TokenExperts:
    """The encoders of both embed nodes, by what they are to CAST."""

    loaded: Mapping[str, LoadedEncoder]
    where: str

    @classmethod
    def of(cls, work: Work) -> TokenExperts:
        """Raises ConfigError for encoders of single frames and clips of unequal length, else as `build_from_config`."""
        store, found = Store.at(work.store), {}
        for name, reference in zip(EXPERTS, work.inputs["embeddings"], strict=True):
            run = next(iter(reference.inputs.get("run", ())), None)
            embed = parse_config(EmbedConfig, dict(reference.config), where=reference.node)
            loaded = build_from_config(embed, store=store, run=run, where=reference.node, plugins=work.plugins)
            if loaded.name.partition("/")[0] not in {"frames", "videomae"}:
                raise ConfigError(
                    f"{work.node}: {reference.node} has a row for every frame of {loaded.name}, but a row has to be a "
                    f"clip. Embed with encoder: frames/{loaded.name.partition('/')[2]} (or videomae/NAME)."
                )
            found[name] = loaded
        lengths = [loaded.data_config.clip_length for loaded in found.values()]
        if len(set(lengths)) > 1:
            raise ConfigError(
                f"{work.node}: clips of the embed nodes have {' and '.join(map(str, lengths))} frames. Set clip.length "
                "of both to one number."
            )
        return cls(found, work.node)

    def values(self, options: Mapping[str, Any], *, heads: Mapping[str, int]) -> dict[str, Any]:
        """What the `model` block of config.yaml says besides its sizes; ``heads`` is empty for a single one."""
        own = dict(options) | {"source": "tokens"}
        for name, loaded in self.loaded.items():
            library, _, model = loaded.name.partition("/")
            arguments = dict(loaded.config.model_args)
            if library == "frames":
                own["every"] = arguments.get("every", 2)
                arguments = {key: value for key, value in arguments.items() if key not in _OF_CLIPS}
            own |= {name: f"timm/{model}" if library == "frames" else loaded.name, f"{name}_args": arguments}
        length = next(iter(self.loaded.values())).data_config.clip_length
        return {"options": own, "clip_length": length, "heads": dict(heads)}

    def give_weights(self, model: Cast, *, output: str) -> None:
        """Put the weights of both encoders into the last blocks of ``model``.

        Raises ConfigError where ``output`` is not what enters these.
        """
        layer, depth = parse_output(output).layer, model.space.depth
        assert layer is not None
        if (layer + depth if layer < 0 else layer) != model.first:
            raise ConfigError(
                f"{self.where}: output {output} is not what enters the last {depth - model.first} of {depth} blocks; "
                f"set output: block{model.first}.input (in both embed nodes too), or model.top: {depth - layer}."
            )
        try:
            model.take_weights({name: loaded.encoder for name, loaded in self.loaded.items()})
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{self.where}: the experts are not those of the embed nodes: {error}") from error


def row_shape(stores: Sequence[EmbeddingStore], output: str) -> list[int]:
    """Of a row with positions, of one store or the tokens of several."""
    return list(joined_shape([stored_shape(store, output) for store in stores]))
