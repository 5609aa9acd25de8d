"""Kept outputs of windows (attention and others) for other programs: a .npz a video, and a manifest.

NAME.npz        each output by the model's name of it, (W, ...); row, row_seconds, row_source (W, T); start_seconds,
                stop_seconds (W,): storage/arrays/window_outputs.py
manifest.csv    video_id, path, split, label, windows
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reelwright.stages.export.embeddings import ExportedVideo
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.tables.texts import file_names


def export_npz(store: WindowOutputStore, videos: Sequence[ExportedVideo], folder: Path) -> int:
    """Write a .npz a video and a manifest; returns the number of videos. The same content gives the same bytes."""
    names = file_names(video.video_id for video in videos)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        manifest = csv.writer(file, lineterminator="\n")
        manifest.writerow(["video_id", "path", "split", "label", "windows"])
        for video in videos:
            found, name = store.rows(video.digest), f"{names[video.video_id]}.npz"
            spans = found.spans
            np.savez(
                folder / name,
                allow_pickle=False,
                **{output: found.output(output) for output in store.kept},
                **vars(found.places),
                start_seconds=spans.start_seconds,
                stop_seconds=spans.stop_seconds,
            )
            manifest.writerow([video.video_id, name, video.split, video.label, found.num_windows])
    return len(videos)
