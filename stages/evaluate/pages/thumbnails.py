"""Small pictures of a video as JPEG data URIs, and the times at which they are taken; pictures as parts of a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

HEIGHT_PIXELS = 96
QUALITY = 72

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """One picture."""

    time_seconds: float  # of the frame shown
    source: str  # data:image/jpeg;base64,...


def slice_times(start_seconds: float, stop_seconds: float, *, number: int) -> list[float]:
    """The middles of ``number`` equal slices of a time span; none of 0."""
    width = (stop_seconds - start_seconds) / max(number, 1)
    return [start_seconds + (index + 0.5) * width for index in range(number)]


def encode(frame: Frame, *, time_seconds: float) -> Thumbnail:
    """A frame, uint8 (H, W, 3), as a JPEG of HEIGHT_PIXELS."""
    image = Image.fromarray(frame)
    width = max(1, round(image.width * HEIGHT_PIXELS / image.height))
    file = io.BytesIO()
    image.resize((width, HEIGHT_PIXELS), Image.Resampling.BILINEAR).save(file, "JPEG", quality=QUALITY)
    content = base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnail(time_seconds=time_seconds, source=f"data:image/jpeg;base64,{content}")


def inline(image: Image.Image, *, alt: str, has_frames: bool = False) -> Markup:
    """A picture as a part of a page; ``has_frames``: as a JPEG, else as a PNG."""
    file = io.BytesIO()
    kind = "jpeg" if has_frames else "png"
    image.save(file, kind, **({"quality": 85} if has_frames else {}))
    content = base64.b64encode(file.getvalue()).decode("ascii")
    template = Markup('<img class="picture" src="data:image/{};base64,{}" width="{}" height="{}" alt="{}">')
    return template.format(kind, content, image.width, image.height, alt)
