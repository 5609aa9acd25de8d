"""Settings of decode: which frames of a video, at which size, and how they are stored."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import execution, setting

Backend = Literal["auto", "decord", "torchcodec", "torchcodec-cuda", "pyav"]


class DecodeConfig(StageConfig):
    """Frames of each video. Give at most one of fps, stride and times; with none of them every frame is taken."""

    stage: ClassVar[str] = "decode"
    version: ClassVar[int] = 2  # 2: frames and times are those that FFmpeg decodes, in every container
    kind: ClassVar[str] = "items"
    produces: ClassVar[str] = "frames"
    costs: ClassVar[tuple[str, ...] | None] = ("short_side", "size", "crop", "codec")
    rate_counts: ClassVar[Literal["", "size", "time and size"]] = "size"  # frames between are decoded all the same

    fps: PositiveFloat | None = None
    """Frames per second of presentation time: the frame on screen at first + k / fps, right for variable frame rate."""
    stride: PositiveInt | None = None
    """Every stride-th source frame."""
    times: tuple[float, ...] | None = None
    """Explicit presentation times in seconds, ascending: the frame on screen at each."""
    start: float | None = Field(None, ge=0)
    """Seconds of presentation time from which frames are taken; null: from the first frame."""
    stop: float | None = Field(None, gt=0)
    """Seconds of presentation time before which frames are taken (half-open); null: to the last frame."""
    square_pixels: bool = False
    """Widen (or narrow) frames whose pixels are not square, as `index` says of them, before anything else; false: as
    they are stored, as every other tool gives them."""
    short_side: PositiveInt | None = None
    """Resize so that the shorter side has this many pixels, keeping the aspect."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """Resize to (height, width) in pixels."""
    crop: tuple[int, int, PositiveInt, PositiveInt] | None = None
    """Cut out (top, left, height, width) in pixels of the upright source frame, before resizing."""
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = setting(
        "bilinear", when=lambda config: config.size is not None or config.short_side is not None
    )
    """Filter of the resize (Pillow's, with antialiasing)."""
    backend: Backend = "auto"
    """What decodes first: auto is pyav. decord and torchcodec are used only for kinds of files for which they were
    shown to give FFmpeg's frames: where they are named, and decord where pyav hangs or dies; pyav takes all others.
    torchcodec-cuda decodes these kinds on a GPU, whose colours differ a little from FFmpeg's: frames of its own."""
    codec: Literal["lossless", "jpeg"] = "lossless"
    """How stored frames are coded: lossless (zstd), or jpeg, about 10 times smaller."""
    quality: int = setting(92, when=lambda config: config.codec == "jpeg", ge=1, le=100)
    """Quality of jpeg."""
    image_fps: PositiveFloat = 25.0
    """Frames per second of videos that are folders of numbered images."""
    image_tmpl: str | None = None
    """File name pattern of such folders, as in img_{:05d}.jpg; null: every image file in natural order."""
    image_start: int | None = setting(None, when=lambda config: config.image_tmpl is not None, ge=0)
    """Number of the image at 0 s with image_tmpl; null: the lowest there is."""

    materialize: bool = execution(True)
    """Store the frames; false streams them into what needs them, and nothing is stored."""
    workers: int | None = execution(None, ge=1)
    """Decoding processes; null: one for each CPU core, at most 8."""
    timeout_seconds: PositiveFloat | None = execution(None)
    """Time limit for one video and one backend, waiting for others not counted; null: 60 s plus twice its duration."""

    @property
    def stores(self) -> bool:
        """As materialize says."""
        return self.materialize

    def packages(self, endings: Collection[str]) -> dict[str, str]:
        """As of every stage."""
        del endings
        package = self.backend.removesuffix("-cuda")
        return {} if package in {"auto", "pyav"} else {package: f"backend: {self.backend}; install it, or set auto"}

    @property
    def needs_gpu(self) -> str:
        """As of every stage."""
        return "" if self.backend != "torchcodec-cuda" else "backend: torchcodec-cuda decodes on a GPU; set auto"

    def rows_of_video(self, *, num_frames: int, duration_seconds: float, start_seconds: float) -> float | None:
        """As of every stage; folders of images have another duration with another rate."""
        is_cut = self.start is not None or self.stop is not None
        if (is_cut and start_seconds) or self.image_fps != type(self).model_fields["image_fps"].default:
            return None
        return self.expected_frames(num_frames=num_frames, duration_seconds=duration_seconds)

    def bytes_of_row(self, height: int, width: int) -> float | None:
        """As of every stage; jpeg takes about a tenth."""
        if self.crop is not None:
            height, width = self.crop[2:]
        if self.short_side is not None:
            scale = self.short_side / min(height, width)
            height, width = round(scale * height), round(scale * width)
        height, width = self.size or (height, width)
        return 3.0 * height * width / (10 if self.codec == "jpeg" else 1)

    def expected_frames(self, *, num_frames: int, duration_seconds: float) -> float:
        """About how many frames are taken of a video of so many frames and so long."""
        if self.times is not None:
            return len(self.times)
        stop = duration_seconds if self.stop is None else min(self.stop, duration_seconds)
        chosen_seconds = max(0.0, stop - (self.start or 0.0))
        if self.fps is not None:
            return chosen_seconds * self.fps
        return num_frames * chosen_seconds / duration_seconds / (self.stride or 1)

    @model_validator(mode="after")
    def _consistent(self) -> DecodeConfig:
        ways = [name for name in ("fps", "stride", "times") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"give at most one of fps, stride, times, not {' and '.join(ways)}")
        if self.short_side and self.size:
            raise ValueError("give short_side or size, not both")
        if self.start is not None and self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop ({self.stop}) must lie after start ({self.start})")
        if self.times is not None and list(self.times) != sorted(set(self.times)):
            raise ValueError("times must ascend without repeats")
        if self.codec == "jpeg" and not self.materialize:
            raise ValueError("codec jpeg is how frames are stored; with materialize: false nothing is. Remove codec")
        if self.crop and min(self.crop[:2]) < 0:
            raise ValueError("crop's top and left must not be negative")
        return self
