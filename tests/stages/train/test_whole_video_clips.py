"""Train and predict on clips that stand for their video: drawn anew each epoch, resumed exactly, views averaged."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reelwright.stages.predict.work import publish, run_items
from reelwright.stages.train.work import run
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, Interrupted
from reelwright.storage.results.predictions import PredictionSet, scores_matrix
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import Annotation
from tests.stages.conftest import Toy

SOME = ("dense", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("segments", "multi_start")))


@pytest.fixture(scope="module")
def clip_toy(tmp_path_factory):
    """Videos of many lengths, whose label is whether the first feature is above 0; runs have keys of their own."""
    toy = Toy(tmp_path_factory.mktemp("clips") / "store")
    generator = np.random.default_rng(0)
    for number in range(24):
        split = ["train", "train", "val", "test"][number % 4]
        length, label = int(generator.integers(2, 40)), number // 4 % 2
        rows = generator.normal(0, 1, (length, 6)).astype(np.float32)
        rows[:, 0] += 6 * label - 3
        toy.write("emb", f"d{number}", rows)
        toy.add(f"d{number}", split, Annotation(label=label))
    return toy


def work(toy, *, key="run", kind="segments", epochs=3, **config):
    window = {"length": 8, "sampling": kind, **config.pop("window", {})}
    return toy.train_work(key=key, task="video", window=window, epochs=epochs, batch_size=4, **config)


@pytest.mark.parametrize("kind", SOME)
def test_a_run_on_clips_learns_and_its_views_are_averaged(clip_toy, kind):
    settings = {"optimizer": {"lr": 0.1}, "schedule": {"warmup_epochs": 0}}
    outputs = run(
        work(clip_toy, key=kind, kind=kind, epochs=15, model={"name": "linear"}, **settings), clip_toy.reporter
    )
    assert outputs["metrics"]["val_top1"] >= 5 / 6
    predict = clip_toy.predict_work(key=f"scores {kind}", run=kind, window={"views": 3, "hop": 4})
    run_items(predict, clip_toy.reporter)
    folder = clip_toy.store.root / f"published {kind}"
    publish(predict, folder)
    found = PredictionSet(folder)
    windows, videos = found.windows().to_pandas(), found.videos().to_pandas()
    lengths = {entry: len(part) for entry, part in windows.groupby("video_digest")}
    rows = {digest: EmbeddingStore(clip_toy.store.embeddings("emb")).rows(digest).num_rows for digest in lengths}
    if kind == "multi_start":
        assert set(lengths.values()) == {1, 3}  # the shorter videos have no room for more than one
    elif kind == "dense":  # places 0, int(room / 2), room: those that are the same count once
        assert lengths == {digest: min(max(num - 8, 0), 2) + 1 for digest, num in rows.items()}
    else:  # 24 different rows for three views of eight segments
        assert all(lengths[digest] == 3 for digest, num in rows.items() if num >= 24)
        assert min(lengths.values()) < 3
    scores, of_videos = scores_matrix(found.windows()), scores_matrix(found.videos())
    for position, digest in enumerate(videos.video_digest):
        mine = (windows.video_digest == digest).to_numpy()
        np.testing.assert_allclose(of_videos[position], scores[mine].mean(axis=0), rtol=1e-5)
    is_test = (videos.split == "test").to_numpy()
    assert (of_videos[is_test].argmax(1) == videos.target_id[is_test]).mean() >= 5 / 6


def _lines(toy, key):
    return [(line["train_loss"], line["gradient_norm"]) for line in RunFolder(toy.store.run(key)).metrics()]


@pytest.mark.parametrize("kind", SOME)
def test_clips_are_drawn_anew_and_a_resume_sees_the_same(clip_toy, kind):
    class Stop(type(clip_toy.reporter)):
        def advance(self, amount):
            super().advance(amount)
            if self.advanced >= 16:
                os.kill(os.getpid(), signal.SIGTERM)

    keys = f"whole {kind}", f"cut {kind}"
    run(work(clip_toy, key=f"whole {kind}", kind=kind), clip_toy.reporter)
    with pytest.raises(Interrupted, match="epoch 2"):
        run(work(clip_toy, key=f"cut {kind}", kind=kind), Stop())
    run(work(clip_toy, key=f"cut {kind}", kind=kind), clip_toy.reporter)
    whole, cut = (load_file(clip_toy.store.run(key) / "model.safetensors") for key in keys)
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert _lines(clip_toy, keys[0]) == _lines(clip_toy, keys[1])


REFUSED = {
    "task": ({"task": "last_row"}, {}, r"clips that stand for their video, but task is last_row; set task: video"),
    "segments": ({}, {"segments": 3}, "length 8 is no multiple of window.segments 3"),
    "of segments": ({}, {"segments": 2, "sampling": "dense"}, "of sampling: segments, not of dense"),
    "left out": ({}, {"short": "leave_out"}, "leaves out no video where sampling is segments"),
}


@pytest.mark.parametrize(("config", "window", "match"), REFUSED.values(), ids=REFUSED)
def test_what_means_nothing_is_refused(clip_toy, config, window, match):
    settings = {"task": "video", "window": {"length": 8, "sampling": "segments", **window}, **config}
    with pytest.raises(ConfigError, match=match):
        run(clip_toy.train_work(**settings), clip_toy.reporter)


def test_views_are_of_runs_on_clips(clip_toy):
    run(clip_toy.train_work(task="video", window={"length": 4}, epochs=1), clip_toy.reporter)
    with pytest.raises(ConfigError, match=r"window.views is 2, but the run was trained on windows \(sampling grid\)"):
        run_items(clip_toy.predict_work(window={"views": 2}), clip_toy.reporter)
