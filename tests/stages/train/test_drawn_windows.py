"""What train draws: each sampling from its own candidates, in the shares it promises, and exactly again on resume."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.stages.datasets.labelled import KnownRows, LabelledVideo
from reelwright.stages.datasets.sampling.densities import row_density
from reelwright.stages.datasets.sampling.settings import EventSettings
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.drawn_windows import WindowSampling, drawn_windows, event_rows
from reelwright.stages.train.work import run
from reelwright.storage.errors import ConfigError, InputError, Interrupted
from reelwright.storage.tables.annotations import Annotation

LABELS = LabelSpace(classes=("a", "b"))
NEAR = {"density": "gaussian", "sigma_rows": 2.0, "epsilon": 0.0}


def _known(spans_of, *num_rows):
    """Videos d0, d1, ... of rows of half a second: class 0 until half of a video, then class 1, as segments."""
    rows = KnownRows(tuple(f"d{at}" for at in range(len(num_rows))), tuple(spans_of(count) for count in num_rows))
    videos = [
        LabelledVideo(
            f"d{at}", f"d{at}", "train", Annotation(segments=((0.0, 0.25 * count, 0), (0.25 * count, 0.5 * count, 1)))
        )
        for at, count in enumerate(num_rows)
    ]
    return videos, rows


def _windows(videos, rows, config):
    return drawn_windows(videos, rows, sampling=WindowSampling.of(config), task=build_task(config.task, LABELS))


def _drawn(spans_of, *num_rows, **window):
    config = TrainConfig(embeddings=("e",), window={"length": 4, "hop": 2, **window})
    found, draws = _windows(*_known(spans_of, *num_rows), config)
    return found, found.windows.take(draws.order(len(found), 0)), draws


SIZES = {
    # settings; candidates, windows an epoch, different ones where that is fixed
    "grid": ({"sampling": "grid"}, 9 + 49, 58, 58),
    "some of the grid": ({"sampling": "grid", "per_epoch": 5}, 58, 5, 5),
    "all": ({"sampling": "all"}, 17 + 97, 114, 114),
    "random": ({"sampling": "random"}, 114, 58, 58),
    "random, many": ({"sampling": "random", "per_epoch": 300}, 114, 300, 114),
    "per video": ({"sampling": "per_video"}, 114, 58, None),
    "balanced": ({"sampling": "balanced", "per_epoch": 9}, 114, 9, None),
    "events": ({"sampling": "events"}, 114, 58, None),
}


@pytest.mark.parametrize(("window", "candidates", "length", "different"), SIZES.values(), ids=SIZES)
def test_what_an_epoch_takes(spans_of, window, candidates, length, different):
    found, taken, draws = _drawn(spans_of, 20, 100, **window)
    assert len(found) == candidates
    assert len(taken) == length == draws.num_drawn(len(found))
    if different is not None:
        assert len(set(zip(taken.video.tolist(), taken.start.tolist(), strict=True))) == different


def test_shares_of_videos_and_classes(spans_of):
    _, taken, _ = _drawn(spans_of, 20, 100, sampling="per_video", per_epoch=4000)
    assert (taken.video == 0).mean() == pytest.approx(0.5, abs=0.03)
    _, taken, _ = _drawn(spans_of, 20, 100, sampling="random", per_epoch=4000)
    assert (taken.video == 0).mean() == pytest.approx(17 / 114, abs=0.01)


def test_balanced_draws_every_class_alike(spans_of):
    _, rows = _known(spans_of, 100)
    few = LabelledVideo("d0", "d0", "train", Annotation(segments=((0.0, 45.0, 0), (45.0, 50.0, 1))))
    config = TrainConfig(embeddings=("e",), window={"length": 4, "sampling": "balanced", "per_epoch": 4000})
    found, draws = _windows([few], rows, config)
    order = draws.order(len(found), 0)
    assert (found.targets == 1).mean() < 0.12
    assert (found.targets[order] == 1).mean() == pytest.approx(0.5, abs=0.03)


def test_draws_follow_the_density_around_events(spans_of):
    """One event, at row 50 (half of 100 rows): last rows of the windows are drawn as the density says."""
    _, rows = _known(spans_of, 100)
    only = [LabelledVideo("d0", "d0", "train", Annotation(segments=((0.0, 50.0, 0),), steps=((25.0, 1),)))]
    config = TrainConfig(
        embeddings=("e",), window={"length": 4, "sampling": "events", "per_epoch": 20000, "events": NEAR}
    )
    found, draws = _windows(only, rows, config)
    last = found.windows.take(draws.order(len(found), 0)).start + 3
    expected = row_density([0, 50], 100, EventSettings(density="gaussian", sigma_rows=2.0, epsilon=0.0))
    near = np.bincount(last, minlength=100)[45:56] / len(last)
    assert near.tolist() == pytest.approx(expected[45:56].tolist(), abs=0.01)
    assert (last == 3).mean() == pytest.approx(expected[:4].sum(), abs=0.01)


def test_events_are_starts_of_segments_and_times_of_steps(spans_of):
    rows = KnownRows(("a", "b"), (spans_of(10), spans_of(4)))
    videos = [
        LabelledVideo("1", "a", "train", Annotation(segments=((1.0, 2.0, 0), (2.2, 3.0, 1)), steps=((0.0, 1),))),
        LabelledVideo("2", "a", "train", Annotation(steps=((4.6, 0),))),
        LabelledVideo("3", "elsewhere", "train", Annotation(steps=((1.0, 0),))),
    ]
    assert event_rows(videos, rows) == [[0.0, 2.0, 4.0, 9.0], []]
    with pytest.raises(InputError, match=r"no video to train on has a segment or a step\. Annotate some, or choose"):
        event_rows(videos[2:], rows)


def test_a_slip_in_a_density_is_told(pulse_toy):
    for window, message in (
        ({"sampling": "event"}, "window.sampling"),
        ({"events": {"density": "bimodel"}}, "window.events.density"),
        ({"events": {"sigma_rows": 0}}, "window.events.sigma_rows"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(pulse_toy.train_work(window={"length": 4, **window}), pulse_toy.reporter)


def _with_steps(toy):
    toy.videos = [
        {**entry, "annotation": {**entry["annotation"], "steps": [[20.0 + 5 * at, 1]]}}
        for at, entry in enumerate(toy.videos)
    ]
    return {"window": {"length": 12, "sampling": "events", "per_epoch": 80}, "batch_size": 16}


def test_a_run_around_events_is_interrupted_and_goes_on_with_the_same_numbers(pulse_toy):
    class Stop(type(pulse_toy.reporter)):
        def advance(self, amount):
            super().advance(amount)
            if self.advanced >= 112:  # within the second epoch
                os.kill(os.getpid(), signal.SIGTERM)

    settings = _with_steps(pulse_toy)
    run(pulse_toy.train_work(key="whole", **settings), pulse_toy.reporter)
    assert any("no more than separation_rows 80" in note for note in pulse_toy.reporter.notes)
    with pytest.raises(Interrupted, match="run again to go on"):
        run(pulse_toy.train_work(key="cut", **settings), Stop())
    run(pulse_toy.train_work(key="cut", **settings), pulse_toy.reporter)
    whole, cut = (load_file(pulse_toy.store.run(key) / "model.safetensors") for key in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_events_without_any_are_refused_before_training(pulse_toy):
    work = pulse_toy.train_work(window={"length": 12, "sampling": "events"})
    with pytest.raises(InputError, match=r"train: window\.sampling is events, but no video"):
        run(work, pulse_toy.reporter)
