"""The training recipes of five systems as pipeline files: they are read, hang together, and give the papers' rates."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.models.temporal.build import check_options
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.stages.augment.transforms import clip_transforms
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.fit.optim.build import build_lr_schedule, scaled_lr
from reelwright.stages.train.config import TrainConfig

FOLDER = Path(__file__).parents[1] / "data" / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def node(recipe: str, name: str) -> TrainConfig | FinetuneConfig:
    config = load_pipeline(FOLDER / f"{recipe}.yaml").nodes[name]
    assert isinstance(config, TrainConfig | FinetuneConfig)
    return config


def rates(config: TrainConfig | FinetuneConfig, *, updates_per_epoch: int, at: list[int]) -> list[float]:
    """Learning rates at some updates."""
    lr, _ = scaled_lr(config.optimizer, batch_size=config.batch_size)
    schedule = build_lr_schedule(config.schedule, epochs=config.epochs, updates_per_epoch=updates_per_epoch)
    return [lr * schedule(update) for update in at]


def test_there_is_one_of_each_system() -> None:
    assert RECIPES == ["carl", "cast", "fractal_video", "st_abn", "storm_psr"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_are_read_and_their_nodes_fit_together(recipe: str) -> None:
    file = load_pipeline(FOLDER / f"{recipe}.yaml")
    assert set(build_graph(file).nodes) == set(file.nodes)
    for config in file.nodes.values():
        if isinstance(config, TrainConfig):
            check_options(config.model.name, config.model.options())
        if isinstance(config, FinetuneConfig):
            first = config.augment.model_copy(update={"rand_augment_last": False})
            clip_transforms(first, Geometry(size=(16, 16)), seed=0)


RATES = {
    # A3.9: 1e-4, 4e-4, 7e-4, 1e-3, 9.045e-4, ... by the epoch
    "storm_psr embeddings": ("storm_psr", "train", 1, [0, 1, 2, 3, 4, 8], [1e-4, 4e-4, 7e-4, 1e-3, 9.045e-4, 1e-3]),
    # ... and by the update, two of warm-up
    "storm_psr end to end": ("storm_psr", "tune", 100, [0, 2, 3, 7], [1e-5, 1e-4, 9.045e-5, 1e-4]),
    "carl": ("carl", "train", 10, [0, 10, 1505, 2999], [1e-4, 9.999728e-5, 5.02609e-5, 1.0895e-8]),
    # 24 of 256 windows; the peak comes twice, and the smallest, 9.375e-8, is never reached
    "cast": ("cast", "tune", 10, [0, 49, 50, 499], [0, 9.375e-5, 9.375e-5, 9.489e-8]),
    "st_abn": ("st_abn", "tune", 5, [0, 374, 375, 625], [1.25e-3, 1.25e-3, 1.25e-4, 1.25e-5]),
    # the first two updates share a rate
    "fractal_video": ("fractal_video", "tune", 10, [0, 1], [1e-6, 1e-6]),
}


@pytest.mark.parametrize(("recipe", "name", "updates", "at", "expected"), RATES.values(), ids=RATES)
def test_rates(recipe: str, name: str, updates: int, at: list[int], expected: list[float]) -> None:
    assert rates(node(recipe, name), updates_per_epoch=updates, at=at) == pytest.approx(expected, rel=5e-3)
