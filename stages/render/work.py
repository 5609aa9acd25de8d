"""Render: rows or predictions, and frames -> pictures/<key>/, file by file; what an interrupted run made is kept.

pictures/<key>/
    alignment/*.mp4  correspondences/*.jpg  similarity/*.png  retrieval/*.jpg  strip/*.png      of rows
    attention/*.mp4  attention/*.jpg  changes/*.parquet                                         of predictions
    index.html       shows them all
    pictures.json    what there is, and what could not be made and why; written last
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.datasets.embedded import chosen_output, embedded_videos
from reelwright.stages.datasets.labelled import payload_videos
from reelwright.stages.evaluate.pages.markup import tag
from reelwright.stages.evaluate.pages.page import Page, Section, Table, render
from reelwright.stages.evaluate.pages.thumbnails import inline
from reelwright.stages.render.attention import PredictionScene, score_changes, write_attention, write_sheet
from reelwright.stages.render.config import RenderConfig
from reelwright.stages.render.rows import (
    poster,
    write_group,
    write_matches,
    write_pair,
    write_retrieval,
    write_similarity,
    write_strips,
)
from reelwright.stages.render.scene import NoFramesError, Scene
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.digests import digest, read_table
from reelwright.storage.errors import StageError
from reelwright.storage.files import remove, replacing, write_json, write_text
from reelwright.storage.kinds import KINDS
from reelwright.storage.results.predictions import PredictionSet
from reelwright.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One file that is to be made."""

    name: str  # without folder and ending
    title: str
    ending: str
    write: Callable[[Path], None]  # raises NoFramesError


Drawings = Callable[[Any], Iterator[Drawing]]  # of a Scene, or of a PredictionScene


def _of_pairs(write: Callable[..., None], ending: str, *, by_method: bool = False) -> Drawings:
    """A file for each pair of videos, or for each kind of alignment of it."""

    def drawings(scene: Scene) -> Iterator[Drawing]:
        for query, key in scene.pairs:
            for how in [{"method": method} for method in scene.config.alignments] if by_method else [{}]:
                yield Drawing(
                    name="-".join((_safe(query, key), *how.values())),
                    title=", ".join((f"{query} and {key}", *how.values())),
                    ending=ending,
                    write=partial(write, scene=scene, query=query, key=key, **how),
                )

    return drawings


def _alignments(scene: Scene) -> Iterator[Drawing]:
    yield from _of_pairs(write_pair, "mp4")(scene)
    for query in scene.queries:
        others = scene.others(query)[: scene.config.others]
        for method in scene.config.alignments if others else ():
            write = partial(write_group, scene=scene, query=query, others=others, method=method)
            name = f"{_safe(query, *others)}-{method}"
            yield Drawing(name=name, title=f"{query} with {len(others)} others, {method}", ending="mp4", write=write)


def _retrievals(scene: Scene) -> Iterator[Drawing]:
    for query in scene.queries:
        if scene.others(query):
            write = partial(write_retrieval, scene=scene, query=query)
            yield Drawing(name=_safe(query), title=query, ending="jpg", write=write)


def _strips(scene: Scene) -> Iterator[Drawing]:
    yield Drawing(name="videos", title="", ending="png", write=partial(write_strips, scene=scene))


def _attention(scene: PredictionScene) -> Iterator[Drawing]:
    for entry in scene.ranked:
        for write, ending in ((write_attention, "mp4"), (write_sheet, "jpg")):
            made = partial(write, scene=scene, entry=entry)
            yield Drawing(name=_safe(entry.name), title=entry.title, ending=ending, write=made)


def _changes(scene: PredictionScene) -> Iterator[Drawing]:
    def write(path: Path) -> None:
        (other,) = scene.work.inputs["against"]
        lines = score_changes(scene, PredictionSet(Store.at(scene.work.store).predictions(other.key)))
        pq.write_table(pa.Table.from_pylist([dict(line) for line in lines]), path)

    yield Drawing(name="videos", title="changes of scores", ending="parquet", write=write)


DRAWN: dict[str, Drawings] = {
    "alignment": _alignments,
    "correspondences": _of_pairs(write_matches, "jpg", by_method=True),
    "similarity": _of_pairs(write_similarity, "png"),
    "retrieval": _retrievals,
    "strip": _strips,
    "attention": _attention,
    "changes": _changes,
}
_ABOUT = {
    "alignment": "The first video plays; the others show what belongs to it. Below each: its rows as colours.",
    "correspondences": "Lines join rows of the video above with those that they match in the one below.",
    "similarity": "Bright rows are near each other; white: dynamic time warping, dots: the nearest rows.",
    "retrieval": "Rows of one video (left), and the nearest row of each other video, the nearest videos first. A green "
    "frame: of the same phase, a red one: of another.",
    "strip": "The first three principal components of the rows as red, green and blue: rows of like colour are alike.",
    "attention": "Attention in space as a heat map over what the model sees of a frame, attention in time as the bar "
    "above it: blue is low, red is high.",
    "changes": "Scores of whole videos in both predictions, those that changed most first: of the true class, and the "
    "largest change of any class.",
}
_SHOWN_CHANGES = 100  # on the page; all are in the table


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Write `Store.output("pictures", key)`. Returns `num_pictures`, `num_films` and `num_left_out`.

    Raises StageError where no video has rows, a named one has none, rows cannot be drawn, or nothing could be made.
    """
    config = parse_config(RenderConfig, dict(work.config), where=work.node)
    folder = Store.at(work.store).output("pictures", work.key)
    if (folder / KINDS["pictures"].marker).exists():
        remove(folder)  # whole already: it is asked for anew
    made: list[tuple[str, Drawing, Path]] = []
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        scene = _prediction_scene(work, config) if config.predictions else _scene(work, config, stack)
        try:
            drawings = [(what, drawing) for what in config.what for drawing in DRAWN[what](scene)]
            reporter.total(len(drawings), "pictures")
            for what, drawing in drawings:
                path = folder / what / f"{drawing.name}.{drawing.ending}"
                reason = "" if path.exists() else _write(path, drawing)
                if reason:
                    left_out[f"{what}: {drawing.title}"] = reason
                else:
                    made.append((what, drawing, path))
                reporter.advance(1)
        except ValueError as error:
            hint = "" if config.predictions else " Set stride to take every so many rows only."
            raise StageError(f"{work.node}: {error}{hint}") from error
    left_out |= {what: "it takes two videos" for what in config.what if what not in dict(drawings)}
    for name, reason in left_out.items():
        reporter.note(f"{name} is left out: {reason}")
    if not made:
        raise StageError(f"{work.node}: nothing can be drawn. {'; '.join(left_out.values())}")
    write_text(folder / KINDS["pictures"].page, _page(work, scene, made, left_out, folder=folder))
    places = [path.relative_to(folder).as_posix() for _, _, path in made]
    write_json(folder / KINDS["pictures"].marker, {"key": work.key, "files": places, "left_out": left_out})
    num_films = sum(place.endswith(".mp4") for place in places)
    return {"num_pictures": len(places) - num_films, "num_films": num_films, "num_left_out": len(left_out)}


def _write(path: Path, drawing: Drawing) -> str:
    """Why it could not be made; empty where it was."""
    try:
        with replacing(path) as temporary:
            drawing.write(temporary)
    except NoFramesError as error:
        return str(error)
    return ""


def _scene(work: Work, config: RenderConfig, stack: contextlib.ExitStack) -> Scene:
    store = EmbeddingStore(Store.at(work.store).embeddings(work.inputs["embeddings"][0].key))
    output = chosen_output(store, config.output, node=work.node)
    listed = sorted(payload_videos(work.payload), key=lambda video: video.video_id)
    try:
        found = embedded_videos(store, listed, work.payload, output=output, normalize=config.normalize)
    except ValueError as error:
        raise StageError(f"{work.node}: {error}") from error
    videos = {video.name: video.every(config.stride) for video in found}
    for setting, names in config.named_videos().items():
        missing = [name for name in names if name not in videos]
        if missing:
            raise StageError(f"{work.node}: {setting}: {missing[0]!r} has no rows; look at the embed node")
    scene = Scene(config=config, work=work, videos=videos, stack=stack)
    if not scene.drawn:
        raise StageError(f"{work.node}: no video of the splits {', '.join(config.splits)} has rows")
    return scene


def _prediction_scene(work: Work, config: RenderConfig) -> PredictionScene:
    scene = PredictionScene(config=config, work=work, reference=work.inputs["predictions"][0])
    if not scene.drawn:
        raise StageError(f"{work.node}: no video of the splits {', '.join(config.splits)} has scores")
    return scene


def _safe(*names: str) -> str:
    """A part of a file name that every system takes; a digest keeps names apart that look alike then."""
    plain = "-".join("".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:40] for name in names[:2])
    return f"{plain}-{digest(list(names))[:8]}"


def _page(
    work: Work,
    scene: Scene | PredictionScene,
    made: Sequence[tuple[str, Drawing, Path]],
    left_out: Mapping[str, str],
    *,
    folder: Path,
) -> str:
    sections = []
    for what in dict.fromkeys(kind for kind, _, _ in made):
        parts: list[Any] = [_ABOUT[what]]
        for kind, drawing, path in made:
            if kind == what:
                parts += _shown(drawing, path, place=path.relative_to(folder).as_posix(), num_videos=len(scene.drawn))
        sections.append(Section(what.capitalize(), parts))
    if left_out:
        lines = [tag("li", f"{name}: {reason}") for name, reason in left_out.items()]
        sections.append(Section("Left out", [tag("ul", *lines)]))
    (reference,) = work.inputs.get("embeddings") or work.inputs["predictions"]
    facts = {"videos": f"{len(scene.drawn)}", reference.node: reference.key[:12]}
    facts |= {f"before: {other.node}": other.key[:12] for other in work.inputs.get("against", ())}
    return render(Page(title=work.node, facts=facts, sections=sections, articles=[]))


def _shown(drawing: Drawing, path: Path, *, place: str, num_videos: int) -> list[Any]:
    """The picture itself; of a film a picture of its middle, as a link: a page without requests cannot hold more."""
    if drawing.ending == "parquet":
        lines = read_table(path).to_pylist()
        compared = f"{len(lines)} of {num_videos} videos have scores in both; the table shows {_SHOWN_CHANGES} at most."
        return [compared, _changes_table(lines), tag("p", tag("a", place, href=place))]
    if drawing.ending == "mp4":
        picture = inline(poster(path), alt=drawing.title, has_frames=True)
        return [tag("p", tag("a", picture, f"{drawing.title} ({place})", href=place))]
    with Image.open(path) as image:
        picture = inline(image.convert("RGB"), alt=drawing.title or place, has_frames=drawing.ending == "jpg")
    return [tag("p", picture)]


def _changes_table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """The answers about each video before and now, and how the scores changed."""
    names = (
        *("video", "true class", "answer before", "answer now"),
        *("score of the true class before", "score of the true class now", "largest change of any class"),
    )
    numbers = ("score_of_target_before", "score_of_target", "largest_change")
    rows = [
        [str(line[name] or "") for name in ("video_id", "target", "label_before", "label")]
        + ["" if line[name] is None else f"{line[name]:.3f}" for name in numbers]
        for line in lines[:_SHOWN_CHANGES]
    ]
    return Table(columns=[(name, "number" if place > 3 else "") for place, name in enumerate(names)], rows=rows)
