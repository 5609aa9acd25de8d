"""Read folders of numbered images as if they were videos."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from reelwright.stages.decode.readers.base import Frame, FrameTimes, Shown, runs
from reelwright.storage.errors import ItemError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


class ImagesReader:
    """A `Reader`: frame i is the i-th image, on screen from i / fps to (i + 1) / fps seconds."""

    backend = "images"

    def __init__(self, paths: Sequence[Path], *, fps: float) -> None:
        self._paths = list(paths)
        self.times = FrameTimes(np.arange(len(self._paths)) / fps, len(self._paths) / fps)
        self.estimated_seconds = 0.0, self.times.end_seconds
        self.estimated_frames = len(self._paths)
        self.damage = ""
        self.notes: tuple[str, ...] = ()
        self._size: tuple[int, int] | None = None

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """See `Reader.read`."""
        for number, repeats in runs(source_frames):
            frame = self._image(number)
            for _ in range(repeats):
                yield number, frame

    def frames(self) -> Iterator[Shown]:
        """Never asked for: the times are known."""
        raise AssertionError(self._paths)

    def close(self) -> None:
        """See `Reader.close`."""

    def _image(self, number: int) -> Frame:
        path = self._paths[number]
        try:
            with Image.open(path) as image:
                frame = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            message = f"image {number} ({path.name}) cannot be read: {error}."
            raise ItemError("invalid_data", message, status="truncated") from None
        self._size = self._size or frame.shape[:2]
        if frame.shape[:2] != self._size:
            raise ItemError(
                "size_changes",
                f"image {number} ({path.name}) is {frame.shape[:2]}, the first one {self._size} (height, width). "
                "All images of a folder must have one size.",
            )
        return frame


def list_images(folder: Path, *, template: str | None, start: int | None) -> list[Path]:
    """The image files of a folder in order.

    template: as in `img_{:05d}.jpg`; the numbers run from ``start`` (None: 0 if that file is there, else 1) to the
    first gap. Without a template: every image file in natural order (2 before 10). Raises ItemError `no_frames`.
    """
    if template is None:
        paths = sorted(
            (path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")),
            key=lambda path: natural(path.name),
        )
        expected = f"with one of the endings {', '.join(sorted(EXTENSIONS))}"
    else:
        first = start if start is not None else 0 if (folder / template.format(0)).exists() else 1
        paths = []
        while (path := folder / template.format(first + len(paths))).exists():
            paths.append(path)
        expected = f"named {template!r} from number {first} on"
    if not paths:
        raise ItemError("no_frames", f"folder {folder} has no images {expected}. Correct image_tmpl or image_start.")
    return paths


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sort key in which numbers count as numbers: img2 comes before img10."""
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in re.split(r"(\d+)", name) if part]
