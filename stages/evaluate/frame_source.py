"""Where the pictures of a report come from: stored frames, else the video file, decoded in a killable process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.evaluate.thumbnails import HEIGHT_PIXELS, Thumbnail, encode
from reelwright.stages.work import InputRef
from reelwright.storage.errors import ItemError, StoreError
from reelwright.storage.frames import FrameStore
from reelwright.storage.store import Store

_SOURCE_SETTINGS = ("crop", "backend", "image_fps", "image_tmpl", "image_start")  # how a file is read, not which frames


@dataclass(frozen=True, kw_only=True)
class FrameSource:
    """Stored frames of one decode spec (when there are any) and the videos' files."""

    stored: FrameStore | None
    files: Mapping[str, str]  # video digest -> path
    settings: Mapping[str, Any]  # of decoding, for what is not stored

    @classmethod
    def of(cls, predictions: InputRef, *, store: Store, files: Mapping[str, str]) -> FrameSource:
        """The frames that the predictions were made from, found along their inputs."""
        reference = find_stage(predictions, "decode")
        path = store.frames(reference.key) if reference else None
        settings = (
            {name: reference.config[name] for name in _SOURCE_SETTINGS if name in reference.config} if reference else {}
        )
        return cls(stored=FrameStore(path) if path and path.is_dir() else None, files=files, settings=settings)

    def pictures(self, digest: str, times: Sequence[float]) -> tuple[tuple[Thumbnail, ...], str]:
        """Thumbnails of one video at ``times`` (seconds, ascending), and why there are none."""
        if not times:
            return (), ""
        try:
            if self.stored is not None and digest in self.stored:
                return _stored_pictures(self.stored, digest, times), ""
            return self._decoded_pictures(digest, times)
        except (ItemError, StoreError) as error:
            return (), f"No pictures: {error}"

    def _decoded_pictures(self, digest: str, times: Sequence[float]) -> tuple[tuple[Thumbnail, ...], str]:
        path = self.files.get(digest)
        if path is None or not Path(path).exists():
            return (), "No pictures: the frames are not stored and the video file is not there any more."
        from reelwright.stages.decode.source import stream_frames

        config = DecodeConfig(**self.settings, times=tuple(times), short_side=HEIGHT_PIXELS, materialize=False)
        raise NotImplementedError(stream_frames, config)


def find_stage(reference: InputRef, stage: str) -> InputRef | None:
    """The nearest input, at any depth, that ``stage`` made."""
    level = [reference]
    while level:
        level = [entry for ref in level for entries in ref.inputs.values() for entry in entries]
        found = next((entry for entry in level if entry.stage == stage), None)
        if found:
            return found
    return None


def _stored_pictures(stored: FrameStore, digest: str, times: Sequence[float]) -> tuple[Thumbnail, ...]:
    """The frame on screen at each time (the first one before its own time), each frame once."""
    rows = stored.rows(digest)
    pts_seconds = rows.pts_seconds
    chosen = np.unique(np.maximum(np.searchsorted(pts_seconds, np.asarray(times), side="right") - 1, 0)).tolist()
    return tuple(encode(rows.read(row, row + 1)[0], time_seconds=float(pts_seconds[row])) for row in chosen)
