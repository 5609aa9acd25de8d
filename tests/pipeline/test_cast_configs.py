"""The scripts of CAST and TSTL as pipeline files: read, planned, and as the table of their flags has them (1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reelwright.models.clip_options import CastOptions
from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.cast.model import Cast
from reelwright.pipeline.config.pipeline_file import PipelineFile, load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.stages.augment.transforms import clip_transforms
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.embed.config import ClipSettings, EmbedConfig
from reelwright.stages.embed.encoding.preprocess import override
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.fit.optim.build import build_lr_schedule, scaled_lr
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.train.experts import Experts

FOLDER = Path(__file__).parents[2] / "docs" / "cast"
GPUS = 16

# classes, batch of a GPU, update_freq, epochs, drop path, mixup_prob, views, save_ckpt_freq; rate by the public code
TABLE = {
    "epic_kitchens_100": ({"verb": 97, "noun": 300}, 6, 4, 50, 0.2, 0.9, 2, 25, 1.5e-3),
    "something_something_v2": (174, 6, 4, 50, 0.3, 0.9, 2, 25, 1.5e-3),
    "kinetics400": (400, 6, 6, 70, 0.2, 0.5, 5, 25, 2.25e-3),
    "ucf101": (101, 8, 6, 30, 0.2, 0.5, 5, 2, 3e-3),
}


@dataclass(frozen=True)
class Recipe:
    """A pipeline file and its nodes."""

    file: PipelineFile
    run: FinetuneConfig
    predict: PredictConfig
    scores: EvaluateConfig
    options: CastOptions


def recipe(name: str) -> Recipe:
    """The file, whose nodes fit together."""
    file = load_pipeline(FOLDER / f"{name}.yaml")
    assert set(build_graph(file).nodes) == set(file.nodes) == {"frames", "space", "time", "cast", "predict", "scores"}
    run, predict, scores = (file.nodes[node] for node in ("cast", "predict", "scores"))
    assert isinstance(run, FinetuneConfig)
    assert isinstance(predict, PredictConfig)
    assert isinstance(scores, EvaluateConfig)
    assert run.model is not None
    return Recipe(file, run, predict, scores, CastOptions(**run.model.options()))


def test_every_data_set_has_its_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_values_are_those_of_the_scripts(name: str) -> None:
    found = recipe(name)
    file, config, predict, options, optimizer = found.file, found.run, found.predict, found.options, found.run.optimizer
    assert config.mix is not None
    assert file.labels is not None
    per_gpu = config.batch_size / GPUS
    first = (per_gpu, optimizer.accumulate, config.epochs, options.drop_path, config.mix.probability)
    more = (predict.window.views, config.keep_every)
    lr, _ = scaled_lr(optimizer, batch_size=config.batch_size)
    assert (file.labels.classes, *first, *more, pytest.approx(lr)) == TABLE[name]
    assert predict.crops == 3
    # the same in all scripts
    assert (optimizer.name, optimizer.weight_decay, optimizer.weight_decay_end) == ("adamw", 0.05, None)
    assert (optimizer.layer_decay, optimizer.clip_norm, optimizer.options()) == (0.75, None, {"betas": [0.9, 0.999]})
    assert (config.loss.label_smoothing, config.augment.erasing, config.repeats, config.ema) == (0.1, None, 1, None)
    mix = config.mix
    assert (mix.mixup_alpha, mix.cutmix_alpha, mix.switch_probability, mix.mode) == (0.8, 1.0, 0, "batch")
    assert (options.bottleneck, options.init_scale, options.head_dropout, options.pixels) == (0.5, 1, 0, "imagenet")
    assert (config.precision, config.drop_last, config.seed) == ("fp16", True, 0)
    assert (config.preprocess.interpolation, config.preprocess.antialias) == ("bilinear", False)
    augment = config.augment
    assert (augment.rand_augment, augment.rand_augment_interpolation) == ("rand-m7-n4-mstd0.5-inc1", "bicubic")
    assert (augment.crop_scale, augment.crop_aspect) == ((0.08, 1), (0.75, pytest.approx(4 / 3)))
    assert len(clip_transforms(augment, Geometry(size=(16, 16)), seed=0)) == 2


@pytest.mark.parametrize("name", TABLE)
def test_its_experts_see_the_same_frames(name: str) -> None:
    """Of a short side of 224, as in the public code; timm's tag of OpenAI's CLIP alone would cut them from 248."""
    found = recipe(name)
    loaded: Any = {}
    for expert in found.run.experts:
        embed = found.file.nodes[expert]
        assert isinstance(embed, EmbedConfig)
        with torch.device("meta"):  # no weights
            encoder = build_encoder(str(embed.encoder), model_args=embed.model_args or None)
        loaded[expert] = SimpleNamespace(data_config=override(encoder.data_config, embed.preprocess, clip=embed.clip))
    seen = Experts(loaded, name).data_config(Cast.data_config, given=found.run.preprocess)
    seen = override(seen, found.run.preprocess, clip=ClipSettings())
    assert (seen.size, seen.resize, seen.crop, seen.antialias) == ((224, 224), 224, "center", False)


@pytest.mark.parametrize("name", TABLE)
def test_sampling_and_what_else_differs(name: str) -> None:
    found = recipe(name)
    file, config, predict, scores = found.file, found.run, found.predict, found.scores
    is_dense = name in {"kinetics400", "ucf101"}
    window = config.window
    assert (window.length, window.dilation) == ((16, 4) if is_dense else (16, 1))
    assert (window.sampling, window.segment_rule) == (("stretched", "even") if is_dense else ("segments", "whole"))
    assert predict.window.phase == ("centred" if is_dense else "first")
    assert config.augment.flip == (0 if name == "something_something_v2" else 0.5)
    is_epic = name == "epic_kitchens_100"
    assert config.task == ("heads" if is_epic else "video")
    assert file.labels is not None
    assert (list(file.labels.columns or {}), file.labels.column) == (
        (["verb", "noun"], None) if is_epic else ([], "label")
    )
    assert scores.joint == (("independent", "rank_paired") if is_epic else ())
    assert (scores.splits, predict.splits) == (("val",), ("val",))  # the reference tests on val.csv


def test_rates_begin_at_0_and_end_above_it() -> None:
    """warmup_epochs 5, lr 1e-3, min_lr 1e-6: the last step of the warm-up and the next have the whole rate."""
    rate = build_lr_schedule(recipe("ucf101").run.schedule, epochs=30, updates_per_epoch=10)
    assert [rate(0), rate(1), rate(49), rate(50)] == [0, pytest.approx(1 / 49), 1, 1]
    assert 1e-3 < rate(299) < 1.2e-3
