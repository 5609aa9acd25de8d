"""Kept outputs of windows (attention and others) for other programs: a .npz a video, and a manifest.

NAME.npz        each output by the model's name of it, (W, ...); row, row_seconds, row_source (W, T); start_seconds,
                stop_seconds (W,): storage/arrays/window_outputs.py
manifest.csv    video_id, path, split, label, windows
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reelwright.stages.export.embeddings import ExportedVideo, write_each
from reelwright.storage.arrays.window_outputs import WindowOutputStore


def export_npz(store: WindowOutputStore, videos: Sequence[ExportedVideo], folder: Path) -> int:
    """Write a .npz a video and a manifest; returns the number of videos. The same content gives the same bytes."""

    def write(path: Path, video: ExportedVideo) -> int:
        found = store.rows(video.digest)
        np.savez(
            path,
            allow_pickle=False,
            **{output: found.output(output) for output in store.kept},
            **vars(found.places),
            start_seconds=found.spans.start_seconds,
            stop_seconds=found.spans.stop_seconds,
        )
        return found.num_windows

    return write_each(videos, folder, ending=".npz", unit="windows", write=write)
