"""The network of a complete finetune run that sees clips of frames, with its best weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelwright.models.contracts import ClipModel
from reelwright.stages.base.inputs import unchanged_run
from reelwright.stages.base.work import InputRef
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.clip_models import frames_seen
from reelwright.stages.embed.encoding.encoder import build_from_config
from reelwright.stages.finetune.module import ClipNetwork, FinetuneModule, FrameNetwork
from reelwright.stages.fit.run_models import load_run_model
from reelwright.storage.errors import ConfigError
from reelwright.storage.store import Store


def load_network(run: InputRef, *, store: Store, plugins: Mapping[str, Any]) -> FrameNetwork:
    """The network of a run that sees clips (`frames_seen`), in eval mode on the CPU.

    Raises what `load_run_model` raises, ConfigError for a run that sees no clips.
    """
    with unchanged_run(store, run) as folder:
        model, values = load_run_model(folder, plugins=plugins)
    seen = frames_seen(values)
    if seen is None:
        raise ConfigError(f"run {run.node} sees no clips of frames, its model reads rows")
    if isinstance(model, ClipModel):
        return ClipNetwork(model, data_config=seen, heads=values["model"]["heads"]).eval()
    wanted = EmbedConfig(run=run.node, outputs=(str(values["output"]),))
    loaded = build_from_config(wanted, store=store, run=run, where=run.node, plugins=plugins)
    return FinetuneModule(loaded.encoder, model, data_config=seen, frozen_norm=True).eval()
