"""Small real videos, and embed nodes over them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.stages.base.video_writer import VideoWriter
from reelwright.stages.base.work import InputRef, SilentReporter, VideoItem, Work
from reelwright.stages.embed.work import run_items
from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store

# test_resnet: timm's own model for tests, 160 pixels, 384 features; one layout, so that nothing is measured.
SMALL = {
    "encoder": "timm/test_resnet",
    "weights": "none",
    "preprocess": {"size": [32, 32]},
    "batch_size": 8,
    "channels_last": False,
    "device": "cpu",
    "dtype": "float32",
}


class Notes(SilentReporter):
    """Keeps what was said; may interrupt after so many frames."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.frames = 0
        self.totals: list[int] = []
        self._stop_after = stop_after

    def note(self, text: str) -> None:
        self.notes.append(text)

    def total(self, amount: int, unit: str, done: int = 0) -> None:
        self.totals.append(amount)

    def advance(self, amount: int) -> None:
        self.frames += amount
        if self._stop_after is not None and self.frames >= self._stop_after:
            raise KeyboardInterrupt


def write_video(path: Path, *, num_frames: int, seed: int = 0, fps: int = 10, size: tuple[int, int] = (48, 64)) -> None:
    """H.264 of a moving pattern of ``size`` (height, width), multiples of 8 pixels."""
    generator = np.random.default_rng(seed)
    base = generator.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with VideoWriter(path, size=size, fps=fps) as writer:
        for number in range(num_frames):
            writer.add(np.roll(base, 3 * number, axis=1))


@dataclass
class Project:
    """A store and some videos."""

    root: Path
    items: list[VideoItem] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store.at(self.root / "store")

    def add(self, digest: str, num_frames: int) -> VideoItem:
        path = self.root / f"{digest}.mp4"
        write_video(path, num_frames=num_frames, seed=len(self.items))
        return self.add_file(digest, path)

    def add_file(self, digest: str, path: Path) -> VideoItem:
        item = VideoItem(digest=digest, path=str(path), video_id=path.name, duration_seconds=1.0)
        self.items.append(item)
        return item

    def work(self, *, key: str = "emb", decode: dict[str, Any] | None = None, **config: Any) -> Work:
        frames = InputRef(
            node="frames", stage="decode", key="frames", config={"materialize": False, "workers": 1, **(decode or {})}
        )
        return Work(
            node="embed",
            stage="embed",
            key=key,
            config={"frames": "frames", **SMALL, **config},
            spec={"encoder": "x"},
            store=str(self.store.root),
            inputs={"frames": (frames,)},
            items=tuple(self.items),
        )

    def embed(self, *, reporter: Notes | None = None, **settings: Any) -> dict[str, ItemRow]:
        """Run an embed node; its ledger."""
        work = self.work(**settings)
        run_items(work, reporter or Notes())
        return ItemLedger(self.store.node(work.key)).load()

    def rows(self, digest: str, *, key: str = "emb") -> EmbeddingRows:
        return EmbeddingStore(self.store.embeddings(key)).rows(digest)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path)


@pytest.fixture
def three(project: Project) -> Project:
    """Three videos of 5, 20 and 11 frames."""
    for digest, num_frames in (("a", 5), ("b", 20), ("c", 11)):
        project.add(digest, num_frames)
    return project
