"""Three little videos with embeddings and a run trained on them, and the predict nodes over their frames."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest

from reelwright.stages.base.video_writer import VideoWriter
from reelwright.stages.base.work import InputRef, VideoItem, Work
from reelwright.stages.embed.work import run_items as embed_items
from reelwright.stages.train.work import run
from reelwright.storage.tables.annotations import Annotation
from tests.stages.conftest import Toy

FRAMES = InputRef(node="frames", stage="decode", key="frames", config={"materialize": False, "workers": 1})
EMBED = {
    "frames": "frames",
    "encoder": "timm/test_resnet",
    "weights": "none",
    "seed": 3,
    "preprocess": {"size": [32, 32]},
    "batch_size": 8,
    "channels_last": False,
    "device": "cpu",
    "dtype": "float32",
}
LENGTHS = {"a": 9, "b": 14, "c": 3}


def write_video(path, *, num_frames, seed, size=(48, 64)):
    """Frames of coloured squares that move to the right, 10 a second."""
    height, width = size
    picture = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = picture.repeat(8, 0).repeat(8, 1)
    with VideoWriter(path, size=size, fps=10) as writer:
        for number in range(num_frames):
            writer.add(np.roll(picture, 3 * number, axis=1))


@pytest.fixture
def filmed(filmed_template, toy):
    """Three videos with embeddings and a run `run` trained on them; (toy, items). A copy, for one test."""
    made, items = filmed_template
    shutil.copytree(made.root, toy.root)
    toy.videos = copy.deepcopy(made.videos)
    return toy, items


@pytest.fixture(scope="session")
def filmed_template(tmp_path_factory):
    tmp_path, items = tmp_path_factory.mktemp("filmed"), []
    toy = Toy(tmp_path / "store")
    for seed, (digest, num_frames) in enumerate(LENGTHS.items()):
        write_video(tmp_path / f"{digest}.mp4", num_frames=num_frames, seed=seed)
        items.append(
            VideoItem(digest=digest, path=str(tmp_path / f"{digest}.mp4"), video_id=digest, duration_seconds=1.0)
        )
        toy.add(digest, "train", Annotation(times=((0.0, 0), (0.3, 1))), video_id=digest)
    work = Work(
        node="emb", stage="embed", key="emb", config=EMBED, spec={}, store=str(toy.root),
        inputs={"frames": (FRAMES,)}, items=tuple(items),
    )  # fmt: skip
    embed_items(work, toy.reporter)
    run(toy.train_work(window={"length": 4}, epochs=1), toy.reporter)
    return toy, tuple(items)


def over_frames(toy, items, **config):
    """The predict node over frames, of the run that was trained on `emb`."""
    embedding = InputRef(node="emb", stage="embed", key="emb", config=EMBED, inputs={"frames": (FRAMES,)})
    run_ref = InputRef(node="train", stage="train", key="run", inputs={"embeddings": (embedding,)})
    work = toy.predict_work(key="over frames")
    settings = {"run": "train", "frames": "frames", "device": "cpu", "frame_batch_size": 4, **config}
    return replace(work, config=settings, inputs={"run": (run_ref,), "frames": (FRAMES,)}, items=items)
