"""A toy world for train and predict: a pulse comes now and then, and a row's label says whether one came lately.

A row holds noise and, in its first feature, the pulse itself; only a model that looks back can know the label.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reelwright.stages.base.work import InputRef, SilentReporter, VideoItem, Work
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import Annotation

torch.set_num_threads(1)

LOOK_BACK = 8
CLASSES = ["quiet", "pulse"]


class Notes(SilentReporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.advanced = 0
        self.totals: list[int] = []
        self.unit = ""

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, amount: int) -> None:
        self.advanced += amount

    def total(self, amount: int, unit: str, done: int = 0) -> None:
        self.totals.append(amount)
        self.unit = unit


def even_spans(num_rows: int, *, seconds: float = 0.5, first: float = 0.0) -> Spans:
    """Rows of ``seconds`` each, one after the other."""
    starts = first + np.arange(num_rows) * seconds
    frames = np.arange(num_rows, dtype=np.int64)
    return Spans(starts, starts + seconds, frames, frames + 1)


@dataclass
class Toy:
    """A store with embeddings, and the work units that use it."""

    root: Path
    videos: list[dict[str, Any]] = field(default_factory=list)
    reporter: Notes = field(default_factory=Notes)

    @property
    def store(self) -> Store:
        return Store.at(self.root)

    def write(
        self, key: str, digest: str, rows: np.ndarray, *, spans: Spans | None = None, name: str = "pooled"
    ) -> None:
        """Store ``rows`` of one video under the spec ``key``."""
        layout = RowLayout(outputs={name: rows.shape[1:]}, dtype=str(rows.dtype))
        writer = EmbeddingWriter.create(self.store.embeddings(key), {"spec": key}, layout=layout)
        writer.begin(digest, num_rows=len(rows))
        writer.write_shard(digest, 0, arrays={name: rows}, spans=spans or even_spans(len(rows)))
        writer.finish(digest, num_rows=len(rows))

    def add(self, digest: str, split: str, annotation: Annotation, *, video_id: str | None = None) -> None:
        self.videos.append(
            {
                "video_id": video_id or f"name of {digest}",
                "digest": digest,
                "split": split,
                "annotation": annotation.plain(),
            }
        )

    def pulses(self, digest: str, split: str, *, num_rows: int = 120, seed: int = 0, key: str = "emb") -> None:
        """One video of the toy task."""
        generator = np.random.default_rng(seed)
        pulse = generator.random(num_rows) < 0.08
        rows = generator.normal(0, 0.3, (num_rows, 6)).astype(np.float32)
        rows[:, 0] += 2.0 * pulse
        lately = np.array([pulse[max(0, row - LOOK_BACK + 1) : row + 1].any() for row in range(num_rows)])
        times = tuple((0.5 * row, int(label)) for row, label in enumerate(lately))
        self.write(key, digest, rows)
        self.add(digest, split, Annotation(label=int(lately.mean() > 0.5), times=times))

    def payload(self, *, classes: list[str] | None = None, background: int = -1) -> dict[str, Any]:
        return {"classes": CLASSES if classes is None else classes, "background": background, "videos": self.videos}

    def train_work(self, *, key: str = "run", stores: tuple[str, ...] = ("emb",), **config: Any) -> Work:
        """A train node; ``config`` adds to small defaults."""
        settings = {
            "embeddings": list(stores),
            "window": {"length": 12},
            "model": {"name": "gru"},
            "epochs": 2,
            **config,
        }
        return Work(
            node="train",
            stage="train",
            key=key,
            config=settings,
            spec={"task": settings.get("task", "last_row")},
            store=str(self.root),
            inputs={"embeddings": tuple(InputRef(node=store, stage="embed", key=store) for store in stores)},
            payload=self.payload(),
        )

    def predict_work(
        self, *, key: str = "scores", run: str = "run", stores: tuple[str, ...] = ("emb",), **config: Any
    ) -> Work:
        """A predict node over all videos."""
        items = {entry["digest"]: entry["video_id"] for entry in self.videos}
        return Work(
            node="predict",
            stage="predict",
            key=key,
            config={"run": "train", "embeddings": list(stores), **config},
            spec={},
            store=str(self.root),
            inputs={
                "run": (InputRef(node="train", stage="train", key=run),),
                "embeddings": tuple(InputRef(node=store, stage="embed", key=store) for store in stores),
            },
            items=tuple(VideoItem(digest=digest, path="", video_id=name) for digest, name in items.items()),
            payload=self.payload(),
        )


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """An empty toy world."""
    return Toy(tmp_path / "store")


@pytest.fixture(scope="session")
def pulse_template(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Three videos to train on, one to validate on, one to test, of 120 rows; written once."""
    made = Toy(tmp_path_factory.mktemp("pulses") / "store")
    for number, split in enumerate(["train"] * 3 + ["val", "test"]):
        made.pulses(f"d{number}", split, seed=number)
    return made


@pytest.fixture
def pulse_toy(pulse_template: Toy, tmp_path: Path) -> Toy:
    """A copy of `pulse_template`, for one test."""
    shutil.copytree(pulse_template.root, tmp_path / "store")
    return Toy(tmp_path / "store", videos=list(pulse_template.videos))


@pytest.fixture
def spans_of():
    """`even_spans`, for tests."""
    return even_spans


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set the threads of torch; as before afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
