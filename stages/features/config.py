"""Settings of features: how files of features are read, and when each of their rows was."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import execution, source_file

_HDF5 = {".h5", ".hdf5", ".mat"}


class FeaturesConfig(StageConfig):
    """Features that people already have, as an embedding store: one file a video (.npy .npz .pt .h5 .mat).

    The file of features is the video: `videos: {features: FOLDER}`, or a manifest whose `path` names such files. Each
    is keyed by its content, so that only new and changed files are imported. Nothing in a file is executed.

    Shapes, time first (with `transposed` last), and the rows that are made of them:

        (T, D)                              (D,)        a vector a row
        (T, 1, D)  (T, 1, 1, D)             (D,)        axes of length 1 are dropped, unless output is tokens or map
        (T, D, 1, 1)  (T, D, 1, 1, 1)       (D,)        the same, as pooling layers leave them
        (T, N, D)                           (N, D)      tokens
        (T, C, H, W)                        (C, H, W)   a map
        (T, H, W, C) with channels_last     (C, H, W)   a map; H = W < C is refused unless `channels_last` is set
        (T,) with one_hot                   (one_hot,)  class ids

    All others are refused, (1, T, D) and (1, T, N, D) too: the first axis may be a batch. One row of tokens or of a map
    is one where output says so.
    """

    stage: ClassVar[str] = "features"
    renamed: ClassVar[Mapping[str, str]] = {"stride": "hop"}
    version: ClassVar[int] = 2
    kind: ClassVar[str] = "items"
    produces: ClassVar[str] = "embeddings"
    costs: ClassVar[tuple[str, ...] | None] = ()

    fps: PositiveFloat | None = None
    """Frames per second of the video that the features were taken from; one of fps, times and times_key is needed."""
    hop: PositiveInt = 1
    """Frames from the start of one row to the start of the next."""
    length: PositiveInt | None = None
    """Frames that a row saw, as of a clip encoder; null: hop."""
    start_seconds: NonNegativeFloat = 0.0
    """Time of the first row (with fps)."""
    times: str | None = source_file(None)
    """A table video_id, start_seconds and, if wanted, stop_seconds: a line a row of the features, in their order."""
    times_key: str | None = None
    """Array in the same file with start_seconds (T,), or start_seconds and stop_seconds (T, 2)."""
    key: str | None = None
    """Which array of a file that holds several (a/b in .h5); null: the only one."""
    transposed: bool = False
    """Files hold time last, as (D, T); false: time first, as in the table above."""
    channels_last: bool | None = None
    """Maps are (T, H, W, C); false: (T, C, H, W). null: the latter, but a map that looks like the former fails."""
    one_hot: PositiveInt | None = None
    """Files hold a class id a row (T,): store rows of so many zeros with a one; null: files hold the rows."""
    dim: PositiveInt | None = None
    """Features of a row; files with another number fail. null: as in most of the first files."""
    output: str = Field("pooled", pattern=r"^[a-z0-9_.-]+$")
    """Name of the stored output: pooled for (D,), tokens for (N, D), map for (C, H, W)."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the stored rows."""

    codec: Literal["none", "lz4", "zstd", "pcodec"] = execution("none")
    """Compression of stored rows (lossless)."""
    chunk_bytes: PositiveInt = execution(1 << 18)
    """Size of a chunk, the smallest part that is read, before compression."""
    shard_rows: PositiveInt = execution(1024)
    """Rows of a shard file."""

    def packages(self, endings: Collection[str]) -> dict[str, str]:
        """As of every stage: of .h5 files and those of MATLAB."""
        rest = "pip install 'reelwright[features]'"
        needed = {"h5py": f"files of {', '.join(sorted(_HDF5 & set(endings)))}; {rest}"} if _HDF5 & set(endings) else {}
        return {**needed, "scipy": f"files of .mat; {rest}"} if ".mat" in endings else needed

    def num_frames(self, num_rows: int) -> tuple[int, int]:
        """The fewest and the most frames of a video of which there are so many rows.

        hop 4, length 8, 3 rows: [0, 8) [4, 12) [8, 16); of 9 frames, with rows that reach over the end, to 19.
        """
        length = self.length or self.hop
        return (num_rows - 1) * self.hop + 1, num_rows * self.hop + length - 1

    @model_validator(mode="after")
    def _consistent(self) -> FeaturesConfig:
        given = [name for name in ("fps", "times", "times_key") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of fps, times and times_key, not {' and '.join(given) or 'none'}")
        if self.start_seconds and self.fps is None:
            raise ValueError("start_seconds goes with fps; times say themselves when they start")
        if self.times_key is not None and self.times_key == self.key:
            raise ValueError(f"key and times_key are both {self.key!r}: features and times are two arrays")
        return self
