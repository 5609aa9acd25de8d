"""Synthetic videos: the chaos game against the published compiled one, and videos/s of every family to finished files.

The figures of the published generator (numba, warm, two cores of another machine of the same kind) are 0.55 to 0.9 s
for a fractal video of 20 frames at 256 x 256 with 128 points x 7,300 drawn jumps a frame, 18.7 million points; it was
not run here, so its better figure stands as a constant. Ours draws 18.8 million points in one process.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families.chaos import Game, count_points, splat
from reelwright.stages.synthesize.families.ifs import MovingMaps
from reelwright.stages.synthesize.families.perlin import labels
from reelwright.stages.synthesize.families.table import FAMILIES
from reelwright.stages.synthesize.family_settings import FractalConfig
from reelwright.stages.synthesize.make import make_sample
from reelwright.stages.synthesize.samples import SamplePlan
from tests.benchmarks.harness import Figures, Options, Row, Turns, usable_cores

NUMBA_SECONDS = 0.55  # the better of 0.55 and 0.9
NUM_FRAMES, NUM_MAPS, SIZE = 20, 5, 256
VARIATIONS = (0, 4, 14, 16, 17, 20, 27, 29)  # those of the default mix
VIDEOS = {"fractal": 8, "perlin": 32, "octopus": 16, "dead_leaves": 32}  # a round


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    number, turns = itertools.count(), Turns(options.repeats)
    for variation in VARIATIONS:
        turns.add(f"chaos game, variation {variation}", partial(_game_rate, variation))
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        for family in FAMILIES:
            count = 2 if options.quick else VIDEOS[family]
            places = (options.folder / f"synthesize-{index}" for index in number)
            turns.add(f"{family}, one process", partial(_rate, family, count, places, None))
            turns.add(f"{family}, {usable_cores()} processes", partial(_rate, family, count, places, pool))
        found = turns.measure()
    numba = Figures((1 / NUMBA_SECONDS,) * options.repeats, (1.0,) * options.repeats)
    rows = []
    for name, figures in found.items():
        if name.startswith("chaos"):
            against = {"reference": f"numba, {NUMBA_SECONDS} s as published", "against": numba, "aim": 1.0}
            rows.append(Row(what=f"{name}, 18.8 M points", unit="videos/s", figures=figures, **against))
        else:
            rows.append(_family_row(name, figures, alone=found[f"{name.split(',')[0]}, one process"]))
    return rows


def _family_row(name: str, figures: Figures, *, alone: Figures) -> Row:
    if figures is alone:
        return Row(what=name, unit="videos/s", figures=figures)
    # What processes use is known when they end: cores are not told of those that stay.
    reference, against = f"{name.split(',', 1)[0]}, one process", Figures(alone.values)
    return Row(what=name, unit="videos/s", figures=Figures(figures.values), reference=reference, against=against)


def _game_rate(variation: int) -> float:
    """One video of moving maps, counted and splatted at full size; always the same one."""
    defaults, rng = FractalConfig(), np.random.default_rng(variation)
    start = rng.uniform(0, 2 * np.pi, size=(NUM_MAPS, 2))
    maps = MovingMaps(
        profiles=np.repeat(np.linspace(0, 1, NUM_FRAMES)[:, None], NUM_MAPS, axis=1),
        angle=np.stack([start, start + 1]),
        sigma=np.tile([0.8, 0.4], (2, NUM_MAPS, 1)),
        delta=np.ones((2, NUM_MAPS, 2)),
        bias=rng.uniform(-1, 1, size=(2, NUM_MAPS, 2)),
        is_constant=False,
    )
    game = Game(
        num_points=defaults.num_points, num_iterations=defaults.num_iterations, num_skipped=defaults.num_skipped
    )
    started = time.perf_counter()
    borders = np.tile([-3.0, 3.0], (NUM_FRAMES, 2))
    counts = count_points(maps.weights(), borders=borders, size=SIZE, game=game, variation=variation, rng=rng)
    splat(counts)
    return 1 / (time.perf_counter() - started)


def _rate(family: str, count: int, places: itertools.count[Path], pool: Executor | None) -> float:
    """Whole samples: drawn, rendered, checked, encoded (H.264), in place. Processes were started before."""
    config, folder = SynthesizeConfig(family=family), next(places)
    plan = SamplePlan(config, tuple(labels()) if family == "perlin" else ())
    samples = [plan.sample(step) for step in range(1, count + 1)]
    started = time.perf_counter()
    made = list((pool.map if pool else map)(partial(_make, folder, config), samples))
    seconds = time.perf_counter() - started
    assert not any(each.problem for each in made)
    return count / seconds


def _make(folder: Path, config: SynthesizeConfig, sample: object) -> object:
    return make_sample(folder, config, sample, None)
