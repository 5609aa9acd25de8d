"""Pictures and films of rows: videos side by side, aligned by their rows; matrices, matches, retrieved frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import av
from PIL import Image

from reelwright.models.metrics.probes.embedded_videos import Integers
from reelwright.stages.render.scene import Scene
from reelwright.stages.show.frame_pictures import (
    TILE,
    Panel,
    film_frame,
    grid_of,
    matches_picture,
    panel_size,
    retrieved,
    times_of,
)
from reelwright.stages.show.row_frames import Floats, RowFrames, write_film
from reelwright.stages.show.row_pictures import (
    Alignment,
    principal_colours,
    similarity_picture,
    strip,
    strips_picture,
)

_FPS = (1.0, 30.0)  # of the film: the fewest and the most frames a second
_STRIP_PIXELS = (720, 8)
_QUALITY = 90  # of JPEG

Shown = Sequence[tuple[str, str, Floats]]  # title, video, its time at each row of the query


def write_pair(path: Path, scene: Scene, query: str, key: str) -> None:
    """The query beside the key, once for each kind of alignment. Raises NoFramesError."""
    own, other = scene.videos[query].times, scene.videos[key].times
    ways = [(f"{key}, {way}", key, other[scene.aligned(query, key, method=way)]) for way in scene.config.alignments]
    _write(path, scene, [(query, query, own), *ways])


def write_group(path: Path, scene: Scene, query: str, others: Sequence[str], *, method: str) -> None:
    """The query with others, all aligned in one way. Raises NoFramesError."""
    shown = [
        (f"{name}, {method}", name, scene.videos[name].times[scene.aligned(query, name, method=method)])
        for name in others
    ]
    _write(path, scene, [(query, query, scene.videos[query].times), *shown])


def poster(path: Path) -> Image.Image:
    """The frame in the middle of a film."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        middle = (stream.duration or 0) // 2
        container.seek(middle, stream=stream)  # to the key frame before
        shown = next(container.decode(stream))
        for frame in container.decode(stream):
            if frame.pts > middle:
                break
            shown = frame
        picture: Image.Image = shown.to_image()
    return picture


def film_fps(times: Floats, *, speed: float) -> float:
    """Frames a second at which a film shows a row for as long as rows last on average; within what players take.

    Times may stand still, where a rate above the video's own repeats frames.
    """
    seconds = float(times[-1] - times[0])
    return min(max(speed * (len(times) - 1) / seconds, _FPS[0]), _FPS[1]) if seconds > 0 else _FPS[0]


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
    others = [scene.videos[name] for name in scene.others(query)]
    config = scene.config
    found = retrieved(scene.videos[query], others, rows=config.rows, depth=config.depth, distance=config.distance)
    with scene.frames(times_of(found), height=TILE[1]) as frames:
        grid_of(found, frames, title=f"most alike to rows of {query}").save(path, "JPEG", quality=_QUALITY)


def write_strips(path: Path, scene: Scene) -> None:
    """Rows of videos as colours over time."""
    names = scene.drawn[: scene.config.strip_videos]
    title = "rows over time (principal components)"
    strips_picture([scene.videos[name] for name in names], title=title).save(path, "PNG")


def _write(path: Path, scene: Scene, shown: Shown) -> None:
    names = dict.fromkeys(name for _, name, _ in shown)
    wanted = {name: scene.videos[name].times for name in names}
    with scene.frames(wanted, height=scene.config.height) as frames:
        panels = _panels(scene, shown, frames)
        size = panel_size(panels[0].frames, height=scene.config.height)
        columns = len(panels) if len(panels) <= 3 else -(-len(panels) // 2) if len(panels) <= 8 else 4
        pictures = (film_frame(panels, step, size=size, columns=columns) for step in range(len(panels[0].seconds)))
        write_film(path, pictures, fps=film_fps(panels[0].seconds, speed=scene.config.speed))


def _panels(scene: Scene, shown: Shown, frames: Mapping[str, RowFrames]) -> list[Panel]:
    names = list(dict.fromkeys(name for _, name, _ in shown))
    colours = dict(zip(names, principal_colours([scene.videos[name] for name in names]), strict=True))
    width, height = _STRIP_PIXELS
    return [
        Panel(
            title=title,
            frames=frames[name],
            seconds=seconds,
            whole=(float(scene.videos[name].times[0]), float(scene.videos[name].times[-1])),
            colours=strip(colours[name], scene.videos[name].times, width=width, height=height),
        )
        for title, name, seconds in shown
    ]
