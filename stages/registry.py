"""The table of stages, as text: nothing is imported until a node needs it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from reelwright.storage.errors import ConfigError, nearest

if TYPE_CHECKING:
    from reelwright.stages.config import StageConfig


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


STAGES: dict[str, Stage] = {
    "decode": Stage(
        "reelwright.stages.decode.config:DecodeConfig",
        "reelwright.stages.decode.work:run_items",
        "Decode frames into the frame store",
        spreads=True,
        share="reelwright.stages.decode.sharing:SharedDecode",
    ),
    "pretrain": Stage(
        "reelwright.stages.pretrain.config:PretrainConfig",
        "reelwright.stages.pretrain.work:run",
        "Pre-train an image encoder on key frames of states",
        trains=True,
    ),
    "embed": Stage(
        "reelwright.stages.embed.config:EmbedConfig",
        "reelwright.stages.embed.work:run_items",
        "Turn frames into embeddings",
        spreads=True,
        prepare="reelwright.stages.embed.work:prepare",
        share="reelwright.stages.embed.sharing:SharedEmbedding",
    ),
    "features": Stage(
        "reelwright.stages.features.config:FeaturesConfig",
        "reelwright.stages.features.work:run_items",
        "Import features that people already have",
    ),
    "import_predictions": Stage(
        "reelwright.stages.take_scores.config:TakeScoresConfig",
        "reelwright.stages.take_scores.work:run_items",
        "Take imported rows as predictions",
        publish="reelwright.stages.take_scores.work:publish",
    ),
    "train": Stage(
        "reelwright.stages.train.config:TrainConfig",
        "reelwright.stages.train.work:run",
        "Train a temporal model on stored embeddings",
        trains=True,
    ),
    "finetune": Stage(
        "reelwright.stages.finetune.config:FinetuneConfig",
        "reelwright.stages.finetune.work:run",
        "Fine-tune encoder and temporal model together",
        trains=True,
    ),
    "predict": Stage(
        "reelwright.stages.predict.config:PredictConfig",
        "reelwright.stages.predict.work:run_items",
        "Predict sliding windows to Parquet",
        publish="reelwright.stages.predict.work:publish",
        spreads=True,
        prepare="reelwright.stages.predict.work:prepare",
    ),
    "steps": Stage(
        "reelwright.stages.steps.config:StepsConfig",
        "reelwright.stages.steps.work:run",
        "Turn predictions and detections into completed steps",
    ),
    "evaluate": Stage(
        "reelwright.stages.evaluate.config:EvaluateConfig",
        "reelwright.stages.evaluate.work:run",
        "Score predictions and write a report",
    ),
}

RENAMED = {"take_scores": "import_predictions"}  # stages of earlier releases


def load(entry: str) -> Any:
    """The object that ``module:name`` names."""
    module, name = entry.split(":")
    return getattr(importlib.import_module(module), name)


def config_model(stage: str, *, where: str) -> type[StageConfig]:
    """The settings model of a stage. Raises ConfigError for an unknown name."""
    if stage not in STAGES:
        raise ConfigError(
            f"{where}: uses: {stage!r} is no stage.{nearest(stage, STAGES, RENAMED)} Known: {', '.join(STAGES)}"
        )
    model = load(STAGES[stage].config)
    return cast("type[StageConfig]", model)
