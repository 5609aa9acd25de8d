"""Fine-tune a model of one of the systems from frames, on views of whole videos: CARL as it was published.

stored frames -> views -> augmentation -> encoder (its map of layer `split`) -> model, with the layers behind -> run

Only the encoder's base is `spatial`, so that a run of stored maps (train) and one of frames are the same model.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from reelwright.models.systems.carl import FrameModel
from reelwright.stages.augment.scene.augmentation import EpochSteps
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.labelled import KnownRows, distinct_videos
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.finetune.clips import FrameViewBatches
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.finetune.inputs import clip_reading, only_input, spatial_encoder, spatial_facts, stored_videos
from reelwright.stages.finetune.module import FinetuneModule
from reelwright.stages.finetune.preparing import ClipAugmentation
from reelwright.stages.fit.run_models import build_run_model
from reelwright.stages.fit.setup import Learning, TrainContext, learn
from reelwright.stages.fit.validation import chosen_metric
from reelwright.stages.train.view_learning import learn_views, start_resnet, view_labels, view_values
from reelwright.storage.errors import ConfigError


def tune_views(work: Work, config: FinetuneConfig, context: TrainContext) -> dict[str, Any] | None:
    """Train the run; as `work.run`."""
    model_settings = config.model
    assert model_settings is not None
    labels = view_labels(work, config)
    task = build_task("per_row", labels) if config.classifies_rows else None
    metric = chosen_metric(config, task, plugins=work.plugins)
    output, source = config.seen_of_frames
    loaded, shape = spatial_encoder(work, output)
    if len(shape) != len(("C", "H", "W") if source == "maps" else ("D",)):
        raise ConfigError(
            f"{work.node}: {loaded.name} gives {output} of shape {shape}; model.source: rows takes vectors"
        )
    values = view_values(config, model_settings, output=output, input_dim=shape[0], num_classes=len(labels.classes))
    values["model"]["options"]["source"] = source
    model = build_run_model(values["model"], plugins=work.plugins, seed=config.seed)
    if isinstance(model, FrameModel) and source == "maps":
        start_resnet(model, loaded, of=only_input(work, "spatial").node, where=work.node)
    module = FinetuneModule(
        loaded.encoder,
        model,
        data_config=loaded.data_config,
        frozen_norm=config.base_state == "frozen_norms",
        takes_maps=source == "maps",
    ).to(context.device)
    module.set_up(config, device=context.device, where=work.node)

    def load() -> Learning:
        videos, _ = stored_videos(work, config, context.reporter)
        place_of = {digest: position for position, digest in enumerate(videos.digests)}
        of_train, of_val = (
            {
                place_of[video.digest]
                for video in distinct_videos(work.payload, splits=splits)
                if video.digest in place_of
            }
            for splits in (config.train_splits, config.val_splits)
        )
        reading = clip_reading(work, config, videos, geometry_of(loaded.data_config), of_train=of_train, of_val=of_val)
        counts = [len(spans.start_seconds) for spans in videos.spans]
        learning = learn_views(
            work,
            config,
            KnownRows(videos.digests, videos.spans),
            labels,
            task=task,
            metric=metric,
            make=partial(FrameViewBatches, num_frames=counts, reading=reading),
            num_contexts=int(model_settings.option("contexts", 1)),
            context=context,
        )
        return replace(
            learning,
            prepare=ClipAugmentation(
                module,
                config.augment,
                seed=config.seed,
                steps=EpochSteps(
                    num_batches=learning.train.num_batches,
                    clips_per_batch=config.batch_size * learning.objective.num_views,
                ),
            ),
            multipliers=config.multipliers,
        )

    described = {**values, **spatial_facts(loaded)}
    return learn(module, load, work=work, config=config, context=context, labels=labels, values=described)
