"""The table of stages, as text: nothing is imported until a node needs it.

All that is to be known of a stage outside its folder stands here or is declared by its settings (stages/base).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from reelwright.stages.base.plugin_source import Source
from reelwright.stages.base.plugins import Plugin, identity_of, importing, offered
from reelwright.storage.errors import ConfigError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from reelwright.stages.base.config import StageConfig
    from reelwright.storage.store import Store


@dataclass(frozen=True)
class Stage:
    """Where a stage's settings and work are found, as ``module:name``, and one line for `--help`."""

    config: str
    work: str
    summary: str
    publish: str | None = None  # of stages with items: what is made of all items together
    spreads: bool = False  # its items are worth sharing out over the workers of a cluster
    trains: bool = False  # it makes a run, in one process or several
    prepare: str | None = None  # of those: what a worker loads once, before its first items
    share: str | None = None  # of those that spread: a `SharedVideo` of (work, reporter), for long videos
    fetch: str | None = None  # of those with weights from a hub: (name, store), brings them into the store
    node: str | None = None  # usual name of its node, where a command makes the pipeline; None: it has no such command
    reads: Mapping[str, str | list[str]] = field(default_factory=dict)  # inputs of that node, by usual names
    streams: bool = False  # it can take the rows of what it reads as they are made
    streamed: Mapping[str, Any] = field(default_factory=dict)  # settings of its node where all that reads it can
    summarizes: str = ""  # the kind of outputs of which it makes one; its input is called as they are


STAGES: dict[str, Stage] = {
    "decode": Stage(
        "reelwright.stages.decode.config:DecodeConfig",
        "reelwright.stages.decode.work:run_items",
        "Decode frames into the frame store",
        spreads=True,
        share="reelwright.stages.decode.shared_videos:SharedDecode",
        node="frames",
        streamed={"materialize": False},
    ),
    "pretrain": Stage(
        "reelwright.stages.pretrain.config:PretrainConfig",
        "reelwright.stages.pretrain.work:run",
        "Pre-train an encoder on key frames of states, or on clips",
        trains=True,
        fetch="reelwright.stages.embed.encoding.fetch:fetch",
        node="pretrain",
        reads={"frames": "frames"},
    ),
    "embed": Stage(
        "reelwright.stages.embed.config:EmbedConfig",
        "reelwright.stages.embed_rows.work:run_items",
        "Turn frames, or embeddings with a run, into embeddings",
        spreads=True,
        prepare="reelwright.stages.embed_rows.work:prepare",
        share="reelwright.stages.embed.shared_videos:SharedEmbedding",
        fetch="reelwright.stages.embed.encoding.fetch:fetch",
        node="embed",
        reads={"frames": "frames"},
        streams=True,
    ),
    "features": Stage(
        "reelwright.stages.features.config:FeaturesConfig",
        "reelwright.stages.features.work:run_items",
        "Import features that people already have",
    ),
    "import_predictions": Stage(
        "reelwright.stages.import_predictions.config:ImportPredictionsConfig",
        "reelwright.stages.import_predictions.work:run_items",
        "Take imported rows as predictions",
        publish="reelwright.stages.import_predictions.work:publish",
    ),
    "import_model": Stage(
        "reelwright.stages.import_model.config:ImportModelConfig",
        "reelwright.stages.import_model.work:run",
        "Take a model that was trained elsewhere as a run",
    ),
    "train": Stage(
        "reelwright.stages.train.config:TrainConfig",
        "reelwright.stages.train.work:run",
        "Train a temporal model on stored embeddings",
        trains=True,
        node="train",
        reads={"embeddings": ["embed"]},
    ),
    "finetune": Stage(
        "reelwright.stages.finetune.config:FinetuneConfig",
        "reelwright.stages.finetune.work:run",
        "Fine-tune encoder and temporal model together",
        trains=True,
        node="tune",
        reads={"frames": "frames", "spatial": "embed", "temporal": "train"},
    ),
    "predict": Stage(
        "reelwright.stages.predict.config:PredictConfig",
        "reelwright.stages.predict.work:run_items",
        "Predict sliding windows to Parquet",
        publish="reelwright.stages.predict.work:publish",
        spreads=True,
        prepare="reelwright.stages.predict.work:prepare",
        node="predict",
        reads={"run": "train"},
    ),
    "steps": Stage(
        "reelwright.stages.steps.config:StepsConfig",
        "reelwright.stages.steps.work:run",
        "Turn predictions and detections into completed steps",
        node="steps",
        reads={"predictions": ["predict"]},
    ),
    "evaluate": Stage(
        "reelwright.stages.evaluate.config:EvaluateConfig",
        "reelwright.stages.evaluate.work:run",
        "Score predictions and write a report",
        node="scores",
        reads={"predictions": "predict"},
    ),
    "summary": Stage(
        "reelwright.stages.summary.config:SummaryConfig",
        "reelwright.stages.summary.work:run",
        "Mean and standard deviation of the scores of several nodes",
        summarizes="scores",
    ),
    "probe": Stage(
        "reelwright.stages.probe.config:ProbeConfig",
        "reelwright.stages.probe.work:run",
        "Measure rows: phases, alignment, retrieval",
        node="probe",
        reads={"embeddings": "embed"},
    ),
    "render": Stage(
        "reelwright.stages.render.config:RenderConfig",
        "reelwright.stages.render.work:run",
        "Make pictures and videos of rows, aligned side by side",
        node="pictures",
        reads={"embeddings": "embed"},
    ),
}

SOURCES: dict[str, Stage] = {  # what makes the videos themselves: of the block `videos`, no node uses it
    "synthesize": Stage(
        "reelwright.stages.synthesize.config:SourceConfig",
        "reelwright.stages.synthesize.items:run_items",
        "Make videos by programs",
        spreads=True,
    ),
}

IMPORTS_RUN, PREDICTS = "import_model", "predict"  # what a trained model on its own is made of
EMBEDS = "embed"  # whose rows its command also writes into files
_GROUP = "stages"  # of plug-ins
RENAMED = {"take_scores": "import_predictions"}  # stages of earlier releases


def load(entry: str) -> Any:
    """The object that ``module:name`` names; of a stage that runs from a folder, as its source is now."""
    module, name = entry.split(":")
    if module.startswith("reelwright."):
        return getattr(importlib.import_module(module), name)
    tops = {offer.module.partition(".")[0] for offer in offered(_GROUP).values()}
    source = Source.of_module(module) if module.partition(".")[0] in tops else None
    return getattr(importlib.import_module(module) if source is None else source.load(), name)


def all_stages() -> Mapping[str, Stage]:
    """All stages, by name: ours, and those that installed packages offer (`reelwright.stages`).

    Raises ConfigError for one of these that cannot be imported.
    """
    return {**offered_stages(), **STAGES}


def offered_stages() -> dict[str, Stage]:
    """Those of installed packages. Raises ConfigError for one that cannot be imported."""
    return {name: _offered_stage(entry) for name, entry in offered(_GROUP).items()}


def _offered_stage(entry: EntryPoint) -> Stage:
    message = f"the package {entry.dist.name if entry.dist else entry.name} offers a stage {entry.name} ({entry.value})"
    with importing(f"{message}, which"):
        source = Source.of_module(entry.module)
        stage = entry.load() if source is None else getattr(source.load(), entry.attr)
    if not isinstance(stage, Stage):
        raise ConfigError(f"{message}, which is {type(stage).__name__}, not a reelwright.stages.base.registry.Stage")
    return stage


def stage_plugin(name: str) -> Plugin | None:
    """What enters the keys of the nodes of a stage that a package offers; None for one of ours."""
    if name in STAGES:
        return None
    entry, stage = offered(_GROUP)[name], stage_of(name)
    texts = (stage.config, stage.work, stage.publish, stage.prepare, stage.share, stage.fetch)
    modules = [entry.module, *(text.partition(":")[0] for text in texts if text is not None)]
    identity = identity_of(*(module for module in modules if module.partition(".")[0] != "reelwright"))
    return Plugin(name=name, target=entry.value, identity=identity)


def stage_of(name: str) -> Stage:
    """The entry of a stage that is known to be one."""
    return SOURCES.get(name) or STAGES.get(name) or offered_stages()[name]


def check_stage(name: str, made_of: Mapping[str, Any]) -> None:
    """Raise ConfigError where the stage of a package is not what the key of its node was ``made_of``."""
    planned = made_of.get("plugins", {}).get("stage")
    if planned is None:
        return
    if name not in offered(_GROUP):
        raise ConfigError(f"stage {name} is of a package that is not here: install it as where it was planned")
    own = stage_plugin(name)
    if own is None or own.material() != planned:
        raise ConfigError(
            f"stage {name} ({'ours' if own is None else own.target}) is not what the plan was made of, it has changed "
            "since; run again"
        )


def config_model(stage: str, *, where: str) -> type[StageConfig]:
    """The settings model of a stage. Raises ConfigError for an unknown name."""
    known = STAGES if stage in STAGES else all_stages()
    if stage not in known:
        raise ConfigError(
            f"{where}: uses: {stage!r} is no stage.{nearest(stage, known, RENAMED)} Known: {', '.join(known)}"
        )
    model = load(known[stage].config)
    if model.stage != stage:
        raise ConfigError(f"{where}: uses: {stage!r} has settings that say they are of {model.stage!r}")
    return cast("type[StageConfig]", model)


def fetch_weights(config: StageConfig, store: Store) -> None:
    """Bring the pretrained weights of a node from their hub into the store. Raises InputError when that cannot be."""
    fetch = stage_of(config.stage).fetch
    assert fetch is not None, f"{config.stage} names weights of a hub, but not how they are fetched"
    load(fetch)(config.hub_weights(), store)


def produced_by(stage: str) -> str:
    """What a stage makes, as in `StageConfig.produces`; empty for one that is not known here, as in older records."""
    return config_model(stage, where="a record").produces if stage in STAGES or stage in offered_stages() else ""


def summary_stage(produces: str) -> str | None:
    """The stage that makes one of several outputs of a kind, as of several seeds; None where there is none."""
    return next((name for name, stage in STAGES.items() if produces and stage.summarizes == produces), None)


def usual_nodes(stage: str) -> dict[str, dict[str, Any]]:
    """Nodes by their usual names: those that one of a stage needs, in order, and it; nothing is stored needlessly."""
    nodes: dict[str, str] = {}
    _add_usual(stage, nodes)
    blocks: dict[str, dict[str, Any]] = {}
    for name, used in nodes.items():
        readers = [stage_of(other) for other in nodes.values() if name in _read_by(other)]
        streamed = stage_of(used).streamed if readers and all(reader.streams for reader in readers) else {}
        blocks[name] = {"uses": used, **stage_of(used).reads, **streamed}
    return blocks


def _add_usual(stage: str, nodes: dict[str, str]) -> None:
    for name in _read_by(stage):
        _add_usual(next(other for other, entry in all_stages().items() if entry.node == name), nodes)
    nodes[str(stage_of(stage).node)] = stage


def _read_by(stage: str) -> Iterator[str]:
    for names in stage_of(stage).reads.values():
        yield from [names] if isinstance(names, str) else names
