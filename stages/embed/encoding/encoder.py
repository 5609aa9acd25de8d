"""The encoder of an embed node with the weights it asks for, and the digest of what was really loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reelwright.models.blocks.weights import load_weights, remap_state_dict, state_digest
from reelwright.models.encoders.build import DataConfig, Encoder, build_encoder, output_shapes
from reelwright.models.systems.embedding_head import EmbeddingEncoder
from reelwright.models.testing import checked_encoder
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.inputs import unchanged_run, unchanged_sources
from reelwright.stages.base.plugins import PluginUse, checked_options, load_plugin
from reelwright.stages.base.work import InputRef, Work
from reelwright.stages.embed.config import ClipSettings, EmbedConfig
from reelwright.stages.embed.encoding.clip_models import ClipModelEncoder, clip_model_encoder
from reelwright.stages.embed.encoding.fetch import fetch
from reelwright.stages.embed.encoding.last_layers import LastLayers
from reelwright.stages.embed.encoding.preprocess import override
from reelwright.stages.embed.encoding.weight_files import read_weights
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store

RUN_PREFIX = "spatial."  # of the encoder's weights in a run of finetune or pretrain


@dataclass(frozen=True, kw_only=True)
class LoadedEncoder:
    """An encoder ready for use, in eval mode, on the CPU, in float32."""

    encoder: Encoder
    name: str
    weights_digest: str  # of the tensors in use, whatever file they came from
    data_config: DataConfig  # the preprocessing, overrides included
    config: EmbedConfig  # with the encoder's name filled in where it comes from a run


def encoder_of(
    work: Work, reference: InputRef | None = None, *, outputs: tuple[str, ...] | None = None
) -> LoadedEncoder:
    """The encoder that ``work`` (an embed node) asks for, or an embed node that it reads; with its outputs or others.

    Raises ConfigError for an encoder, output or model argument that does not exist, InputError for weights that are
    missing, damaged, do not fit, or are replaced while they are read.
    """
    node = work if reference is None else reference
    config = parse_config(EmbedConfig, dict(node.config), where=node.node)
    config = config if outputs is None else config.model_copy(update={"outputs": outputs})
    run = next(iter(node.inputs.get("run", ())), None)
    store = Store.at(work.store)
    with unchanged_sources(work, of=reference):
        return build_from_config(config, store=store, run=run, where=node.node, plugins=work.plugins)


def build_from_config(
    config: EmbedConfig, *, store: Store, run: InputRef | None, where: str, plugins: Mapping[str, Any]
) -> LoadedEncoder:
    """As `encoder_of`, from settings that are parsed; ``run`` is the run whose encoder is used.

    ``plugins`` are those that the unit of work names.
    """
    if config.embeddings:
        raise ConfigError(
            f"{where}: rows that {config.run} makes of {', '.join(config.embeddings)} have no encoder of frames. Name "
            "an embed node that reads frames, or give embeddings instead of frames"
        )
    with contextlib.nullcontext() if run is None else unchanged_run(store, run):
        return _built(config, store=store, run=run, where=where, plugins=plugins)


def _built(
    config: EmbedConfig, *, store: Store, run: InputRef | None, where: str, plugins: Mapping[str, Any]
) -> LoadedEncoder:
    outputs, behind = config.outputs, None
    if run is not None:
        whole = clip_model_encoder(store.run(run.key), outputs, run=run.node, plugins=plugins)
        if whole is not None:
            return _of_clip_model(config, *whole)
        config = _config_of_run(config, store.run(run.key), where=where)
        behind = LastLayers.of(store.run(run.key), outputs)
    if behind is not None:
        config = config.model_copy(update={"outputs": behind.base_outputs(outputs)})
    encoder = _build(config, where=where, plugins=plugins)
    try:
        _load(encoder, config, store, run)
        if behind is not None:
            encoder, config = behind.behind(encoder, outputs), config.model_copy(update={"outputs": outputs})
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    encoder.eval()
    return LoadedEncoder(
        encoder=encoder,
        name=str(config.encoder),
        weights_digest=state_digest(encoder.model.state_dict()),
        data_config=override(encoder.data_config, config.preprocess, clip=config.clip),
        config=config,
    )


def _of_clip_model(config: EmbedConfig, encoder: ClipModelEncoder, values: Mapping[str, Any]) -> LoadedEncoder:
    """A clip model of a run; clips are its windows, and frames are seen as it saw them, unless ``config`` says else."""
    clip = ClipSettings(**{**values["window"], **config.clip_given})
    return LoadedEncoder(
        encoder=encoder.eval(),
        name=str(values["model"]["name"]),
        weights_digest=state_digest(encoder.model.state_dict()),
        data_config=override(encoder.data_config, config.preprocess, clip=clip),
        config=config.model_copy(update={"clip": clip}),
    )


def _build(config: EmbedConfig, *, where: str, plugins: Mapping[str, Any]) -> Encoder:
    assert config.encoder is not None
    own = config.plugins().get("encoder")
    try:
        encoder = (
            build_encoder(
                config.encoder, outputs=config.outputs, seed=config.seed, model_args=config.model_args or None
            )
            if own is None
            else _build_own(own, config, plugins=plugins)
        )
        return encoder if config.embed_dim is None else with_embedding(encoder, config.embed_dim, seed=config.seed)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _build_own(own: PluginUse, config: EmbedConfig, *, plugins: Mapping[str, Any]) -> Encoder:
    """An encoder that is a plug-in, its random weights drawn from the seed."""
    thing = load_plugin(own.group, own.name, plugins)
    options = checked_options(thing, own.options, name=own.name, num_given=own.num_given)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return checked_encoder(thing(config.outputs, **options), outputs=config.outputs)


def with_embedding(encoder: Encoder, embed_dim: int, *, seed: int) -> EmbeddingEncoder:
    """``encoder`` with a random embedding head drawn from ``seed``. Raises ValueError where it takes none."""
    shape = output_shapes(encoder).get("pooled", (0,))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return EmbeddingEncoder(encoder, embed_dim, num_features=shape[0])


def _load(encoder: Encoder, config: EmbedConfig, store: Store, run: InputRef | None) -> None:
    if run is not None:
        state = read_weights(store.run(run.key) / "model.safetensors")
        load_weights(encoder, remap_state_dict(state, prefix=RUN_PREFIX, key_map=None), ignore=_spare(encoder))
    elif config.weights == "hub":
        state = read_weights(fetch(str(config.encoder), store))
        load_weights(encoder, encoder.public_names(state), ignore=(*_spare(encoder), *config.ignore))
    elif config.weights != "none":
        state = read_weights(Path(config.weights))
        renamed = remap_state_dict(state, prefix=config.prefix, key_map=config.key_map or None)
        load_weights(encoder, encoder.public_names(renamed), ignore=(*_spare(encoder), *config.ignore))


def _spare(encoder: Encoder) -> tuple[str, ...]:
    """Patterns of a classifier's weights that the encoder was built without: no slip of the user's."""
    own = encoder.model.state_dict()
    return tuple(f"{name}.*" for name in _classifier_names(encoder) if f"{name}.weight" not in own)


def _classifier_names(encoder: Encoder) -> tuple[str, ...]:
    """Names of the modules that map features to classes: timm says them, those of the others are few."""
    known = getattr(encoder.model, "pretrained_cfg", None)
    if known is None:
        return ("fc", "classifier", "head", "blocks.5.proj")
    names = known.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _config_of_run(config: EmbedConfig, folder: Path, *, where: str) -> EmbedConfig:
    """``config`` with encoder, model arguments, preprocessing and clips of the run's own spatial part.

    Of preprocessing and clips, what ``config`` gives counts (`EmbedConfig.plain` keeps it on its way).
    """
    spatial = spatial_config(folder)
    given = config.model_dump(exclude_unset=True)
    taken: dict[str, Any] = {
        "run": None,
        "encoder": spatial.encoder,
        "weights": "none",
        "model_args": spatial.model_args,
        "embed_dim": spatial.embed_dim,
        "preprocess": {**spatial.preprocess.model_dump(), **config.preprocess.model_dump(exclude_defaults=True)},
        "clip": {**spatial.clip.model_dump(), **config.clip_given},
        "frames": config.frames,
    }
    return parse_config(EmbedConfig, {**given, **taken}, where=where)


def spatial_config(folder: Path) -> EmbedConfig:
    """The embed settings of the encoder inside a run of finetune or pretrain, from its config.yaml.

    Raises StoreError when the folder holds no such run.
    """
    values, path = RunFolder(folder).config(), folder / "config.yaml"
    if "spatial" not in values:
        raise ConfigError(
            f"{path} is a run without an encoder of its own; name a finetune or pretrain node, not a train node. To "
            "embed rows with its model, give embeddings."
        )
    return parse_config(EmbedConfig, values["spatial"], where=str(path))
