"""Read folders of numbered images as if they were videos; one definition of their pixels.

8 bits a channel, RGB, turned upright by the EXIF orientation. Of 16 bits the upper 8 are taken (v >> 8; fewer bits in
16 are shifted by as many as they have above 8). Greys, palettes and single bits become RGB, CMYK by (1 - c)(1 - k).
Colours are taken as stored: an alpha channel, colour profiles (ICC) and gamma are not applied, as FFmpeg and OpenCV do.
Of a file with several pictures (animated, multi-page) the first is taken. Alpha and further pictures are said in the
notes; floats and integers of 32 bits, which have no black and white, are refused.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from reelwright.stages.decode.reader import Frame, FrameTimes, ReadByNumber, runs
from reelwright.stages.decode.timing import numbering
from reelwright.stages.decode.timing.numbering import Series
from reelwright.storage.errors import ItemError
from reelwright.storage.store_errors import why_broken

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

_EIGHT_BITS = frozenset({"1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}
_WITH_ALPHA = frozenset({"LA", "PA", "RGBA", "RGBa", "La"})
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF 6.0
_CUT_OFF = "invalid_data"
# What Pillow raises for content that is cut off or damaged, and the system for files that are gone (OSError).
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
_ALPHA_NOTE = "Images have an alpha channel, which is not applied: colours are taken as stored."
_PAGES_NOTE = "Images hold several pictures (animated or multi-page); the first of each is taken."


class ImagesReader(ReadByNumber):
    """A `Reader`: frame i is the i-th image; its number says when it is on screen, see `numbering`."""

    backend = "images"

    def __init__(self, series: Series, *, fps: float) -> None:
        self._paths = [Path(name) for name in series.names]
        offsets = np.asarray([number - series.first for number in series.numbers], np.float64)
        self.times = FrameTimes(offsets / fps, float(offsets[-1] + 1) / fps)
        self.estimated_seconds = float(offsets[0]) / fps, self.times.end_seconds
        self.estimated_frames = len(self._paths)
        self.damage = ""
        self.notes = series.notes
        self.format = ""  # of the image that was read last, as Pillow names it
        self._latest = (0, self._load(0))
        self._size = self._latest[1].shape[:2]

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """See `Reader.read`."""
        for number, repeats in runs(source_frames):
            frame = self._image(number)
            for _ in range(repeats):
                yield number, frame

    def _image(self, number: int) -> Frame:
        if number != self._latest[0]:
            try:
                self._latest = (number, self._load(number))
            except ItemError as error:
                status = "truncated" if error.cause == _CUT_OFF else error.status
                raise ItemError(error.cause, f"image {number}: {error}", status=status) from None
        frame = self._latest[1]
        if frame.shape[:2] != self._size:
            raise ItemError(
                "size_changes",
                f"image {number} ({self._paths[number].name}) is {frame.shape[:2]}, the first {self._size} (height, "
                "width, upright). All images of a folder must have one size.",
            )
        return frame

    def _load(self, number: int) -> Frame:
        image = load_image(self._paths[number])
        self.notes += tuple(note for note in image.notes if note not in self.notes)
        self.format = image.format
        return image.frame


class LoadedImage(NamedTuple):
    """The pixels of an image file."""

    frame: Frame
    format: str  # as Pillow names it: JPEG, PNG, ...
    notes: tuple[str, ...]  # what of the file is not in the frame


def load_image(path: Path) -> LoadedImage:
    """Read an image file. Raises ItemError: `invalid_data` when it is damaged, `unsupported_pixels`."""
    try:
        # Not by its name: Pillow would map the file and garble an uncompressed TIFF with orientation 5 to 8.
        with path.open("rb") as file, Image.open(file) as image:
            num_pages = getattr(image, "n_frames", 1)
            image.load()
            has_alpha = image.mode in _WITH_ALPHA or "transparency" in image.info
            frame = _rgb(image, path)
            kind = image.format or ""
    except _DAMAGED as error:
        if isinstance(error, OSError) and why_broken(error):
            raise
        raise ItemError(_CUT_OFF, f"{path.name} cannot be read: {error}. Replace it.") from None
    return LoadedImage(frame, kind, (_ALPHA_NOTE,) * has_alpha + (_PAGES_NOTE,) * (num_pages > 1))


def image_series(folder: Path, *, template: str | None, start: int | None) -> Series:
    """The image files of a folder in the order of time, as paths; hidden files are left out, ``problem`` may be set.

    template: as in `img_{:05d}.jpg`, with ``start`` the number of the frame at 0 s (None: the lowest there is). Without
    a template the names say it, see `numbering.by_names`. Raises ItemError: `no_frames`, `image_template`.
    """
    try:
        if template is None:
            series = numbering.by_names(_files(folder, EXTENSIONS))
            expected = f"with one of the endings {', '.join(sorted(EXTENSIONS))}"
        else:
            names = _files(folder, EXTENSIONS | {PurePath(template).suffix.lower()}, is_deep="/" in template)
            series = numbering.by_template(names, template, start=start)
            expected = f"named {template!r}" + (f" from number {start} on" if start else "")
    except ValueError as error:
        raise ItemError("image_template", f"{error}.") from None
    if not series.names:
        raise ItemError("no_frames", f"folder {folder} has no images {expected}. Correct image_tmpl or image_start.")
    return replace(series, names=tuple(str(folder / name) for name in series.names))


def list_images(folder: Path, *, template: str | None, start: int | None) -> Series:
    """As `image_series`; raises ItemError `ambiguous_images` too, when it cannot be said which images are meant."""
    series = image_series(folder, template=template, start=start)
    if series.problem:
        raise ItemError("ambiguous_images", f"folder {folder}: {series.problem}.")
    return series


def _files(folder: Path, endings: Collection[str], *, is_deep: bool = False) -> list[str]:
    """Names of the files with one of these endings, relative to the folder; no hidden ones (`._1.jpg` of macOS)."""
    found: list[str] = []
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if is_deep and not name.startswith(".")]
        relative = Path(place).relative_to(folder)
        shown = [name for name in names if not name.startswith(".") and PurePath(name).suffix.lower() in endings]
        found += [(relative / name).as_posix() for name in shown]
    return found


def _raise(error: OSError) -> None:
    raise error


def _rgb(image: Image.Image, path: Path) -> Frame:
    """(H, W, 3) uint8, upright. Raises ItemError `unsupported_pixels`."""
    upright = ImageOps.exif_transpose(image)
    if image.mode in _PREMULTIPLIED:
        upright = upright.convert(_PREMULTIPLIED[image.mode])
    if image.mode in _EIGHT_BITS or image.mode in _PREMULTIPLIED:
        return np.asarray(upright.convert("RGB"))
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PNG"):
        grey = _upper_bits(np.asarray(upright), getattr(image, "tag_v2", {}))
        return np.repeat(grey[:, :, None], 3, axis=2)
    raise ItemError(
        "unsupported_pixels",
        f"{path.name} has pixels of mode {image.mode} (F: floats, I: integers of 32 bits), of which nobody can say "
        "what is black and what is white. Save the images with 8 or 16 bits a channel.",
    )


def _upper_bits(values: NDArray[Any], tags: Mapping[int, Any]) -> NDArray[np.uint8]:
    """(H, W) integers of 16 bits, or of as many as the tags of a TIFF say, to 8 bits."""
    (num_bits, *_) = tags.get(_BITS_PER_SAMPLE, (16,))
    grey: NDArray[np.uint8] = (values >> (num_bits - 8)).astype(np.uint8)
    return np.invert(grey) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey
