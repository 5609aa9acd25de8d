"""Pictures of rows that stand still: matrices, matches, retrieved frames, colours over time."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from reelwright.models.metrics.probes.embedded_videos import Integers
from reelwright.models.metrics.probes.frame_retrieval import nearest_of_each, spread_rows
from reelwright.stages.render.scene import Scene
from reelwright.stages.show.frame_pictures import TILE, Tile, grid_of, matches_picture
from reelwright.stages.show.row_pictures import Alignment, similarity_picture, strips_picture

_QUALITY = 90  # of JPEG


def write_matches(path: Path, scene: Scene, query: str, key: str, *, method: str) -> None:
    """Lines between the frames of two videos; a video without frames is its time axis alone."""
    rows_Q = scene.aligned(query, key, method=method)
    with scene.frames(
        {name: scene.videos[name].times for name in (query, key)}, height=TILE[1], are_needed=False
    ) as frames:
        title = f"{query} and {key}, {method}"
        picture = matches_picture(
            scene.videos[query], scene.videos[key], rows_Q, (frames[query], frames[key]), title=title
        )
    picture.save(path, "JPEG", quality=_QUALITY)


def write_similarity(path: Path, scene: Scene, query: str, key: str) -> None:
    """How near each row of the query is to each of the key, with the alignments."""
    rows: dict[str, Integers] = {method: scene.aligned(query, key, method=method) for method in scene.config.alignments}
    alignment = Alignment(query=scene.videos[query], key=scene.videos[key], rows=rows)
    similarity_picture(alignment, distance=scene.config.distance, title=f"{query} and {key}").save(path, "PNG")


def write_retrieval(path: Path, scene: Scene, query: str) -> None:
    """Frames of the query, and the most alike of the other videos. Raises NoFramesError."""
    video, others = scene.videos[query], [scene.videos[name] for name in scene.others(query)]
    found = [
        (row, nearest_of_each(video, row, others, depth=scene.config.depth, distance=scene.config.distance))
        for row in spread_rows(len(video), scene.config.rows)
    ]
    times: dict[str, set[float]] = defaultdict(set)
    for row, entries in found:
        times[query].add(float(video.times[row]))
        for entry in entries:
            times[entry.video.name].add(float(entry.video.times[entry.row]))
    wanted = {name: np.array(sorted(seconds)) for name, seconds in times.items()}
    with scene.frames(wanted, height=TILE[1]) as frames:
        grid = [
            [Tile.of_row(video, row, frames), *(Tile.of_found(entry, frames) for entry in entries)]
            for row, entries in found
        ]
        grid_of(grid, title=f"most alike to rows of {query}").save(path, "JPEG", quality=_QUALITY)


def write_strips(path: Path, scene: Scene) -> None:
    """Rows of videos as colours over time."""
    names = scene.drawn[: scene.config.strip_videos]
    title = "rows over time (principal components)"
    strips_picture([scene.videos[name] for name in names], title=title).save(path, "PNG")
