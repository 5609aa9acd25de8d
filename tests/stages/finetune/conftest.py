"""A small filmed world: dark and bright scenes, stored frames, embeddings and a temporal run over them."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.stages.base.video_writer import VideoWriter
from reelwright.stages.base.work import InputRef, SilentReporter, VideoItem, Work
from reelwright.stages.decode.work import run_items as decode_items
from reelwright.stages.embed.work import run_items as embed_items
from reelwright.stages.finetune.work import run as finetune
from reelwright.stages.train.work import run as train
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import Annotation

DECODE = {"workers": 1, "fps": 10.0}
EMBED = {
    "frames": "frames",
    "encoder": "timm/test_resnet",
    "weights": "none",
    "preprocess": {"size": [32, 32]},
    "batch_size": 16,
    "channels_last": False,
    "device": "cpu",
    "dtype": "float32",
}
TRAIN = {"embeddings": ["embed"], "task": "per_row", "window": {"length": 6, "hop": 3}, "model": {"name": "gru"}}
TUNE = {"frames": "frames", "spatial": "embed", "temporal": "train", "epochs": 2, "device": "cpu"}


class Notes(SilentReporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def write_scene(path: Path, *, levels: list[int], seed: int) -> None:
    """Frames of one brightness each, with noise; 48 x 64 pixels, 10 a second."""
    generator = np.random.default_rng(seed)
    with VideoWriter(path, size=(48, 64), fps=10) as writer:
        for level in levels:
            writer.add(np.clip(generator.normal(level, 12, (48, 64, 3)), 0, 255).astype(np.uint8))


@dataclass
class Film:
    """A store with frames, embeddings and a temporal run; and the finetune nodes over them."""

    root: Path
    items: tuple[VideoItem, ...]
    payload: dict[str, Any]

    @property
    def store(self) -> Store:
        return Store.at(self.root / "store")

    def work(self, stage: str, key: str, config: dict[str, Any], **inputs: InputRef) -> Work:
        return Work(
            node=key,
            stage=stage,
            key=key,
            config=config,
            spec={},
            store=str(self.store.root),
            inputs={name: (reference,) for name, reference in inputs.items()},
            items=self.items,
            payload=self.payload,
        )

    @property
    def frames(self) -> InputRef:
        return InputRef(node="frames", stage="decode", key="frames", config=DECODE)

    @property
    def embedding(self) -> InputRef:
        return InputRef(node="embed", stage="embed", key="embed", config=EMBED, inputs={"frames": (self.frames,)})

    @property
    def temporal(self) -> InputRef:
        return InputRef(
            node="train", stage="train", key="train", config=TRAIN, inputs={"embeddings": (self.embedding,)}
        )

    def tune_work(self, *, key: str = "tune", frames: InputRef | None = None, **config: Any) -> Work:
        inputs = {"frames": frames or self.frames, "spatial": self.embedding, "temporal": self.temporal}
        return self.work("finetune", key, {**TUNE, **config}, **inputs)

    def tune(self, *, reporter: Notes | None = None, **config: Any) -> RunFolder:
        work = self.tune_work(**config)
        finetune(work, reporter or Notes())
        return RunFolder(self.store.run(work.key))


@pytest.fixture(scope="session")
def footage_template(tmp_path_factory: pytest.TempPathFactory) -> Film:
    """Four videos to train on and two to validate on, as stored frames; made once."""
    root = tmp_path_factory.mktemp("film")
    items, videos = [], []
    for number in range(6):
        digest, path = f"d{number}", root / f"{number}.mp4"
        change = 6 + number
        write_scene(path, levels=[60] * change + [180] * (18 - change), seed=number)
        items.append(VideoItem(digest=digest, path=str(path), video_id=path.name, duration_seconds=1.8))
        annotation = Annotation(times=((0.0, 0), (change / 10, 1)))
        split = "train" if number < 4 else "val"
        videos.append({"video_id": path.name, "digest": digest, "split": split, "annotation": annotation.plain()})
    payload = {"classes": ["dark", "bright"], "background": -1, "videos": videos}
    film = Film(root, tuple(items), payload)
    decode_items(film.work("decode", "frames", DECODE), Notes())
    return film


@pytest.fixture(scope="session")
def film_template(footage_template: Film, tmp_path_factory: pytest.TempPathFactory) -> Film:
    """The same with embeddings, and a temporal run over them; made once."""
    film = _copied(footage_template, tmp_path_factory)
    embed_items(film.work("embed", "embed", EMBED, frames=film.frames), Notes())
    settings = {**TRAIN, "epochs": 3, "device": "cpu"}
    train(film.work("train", "train", settings, embeddings=film.embedding), Notes())
    return film


@pytest.fixture(scope="module")
def footage(footage_template: Film, tmp_path_factory: pytest.TempPathFactory) -> Film:
    """A copy of the stored frames, for the tests of one file."""
    return _copied(footage_template, tmp_path_factory)


@pytest.fixture(scope="module")
def film(film_template: Film, tmp_path_factory: pytest.TempPathFactory) -> Film:
    """A copy of the whole, for the tests of one file."""
    return _copied(film_template, tmp_path_factory)


def _copied(film: Film, tmp_path_factory: pytest.TempPathFactory) -> Film:
    root = tmp_path_factory.mktemp("film")
    shutil.copytree(film.root / "store", root / "store")
    return Film(root, film.items, copy.deepcopy(film.payload))
