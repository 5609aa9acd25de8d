"""Attention over the frames of videos: films, sheets of frames, and how scores changed against other predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from reelwright.stages.base.work import InputRef, Work
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.evaluate.pages.frame_source import payload_items
from reelwright.stages.evaluate.scoring import main_unit
from reelwright.stages.evaluate.videos import Timeline, timelines
from reelwright.stages.render.config import RenderConfig
from reelwright.stages.render.rows import film_fps
from reelwright.stages.render.scene import NoFramesError
from reelwright.stages.show.attention_pictures import VideoAttention, jet, overlay, shown_frame
from reelwright.stages.show.frame_pictures import DIM, GROUND, LIGHT
from reelwright.stages.show.pictures import FAINT, PAPER, font, write
from reelwright.stages.show.row_frames import RowFrames, row_frames, write_film
from reelwright.stages.show.row_pictures import strip
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.errors import StageError
from reelwright.storage.results.predictions import PredictionInfo, PredictionSet
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import UNKNOWN

_CAPTION, _BAR, _EDGE, _GAP = 24, 25, 12, 8  # pixels
_TILE = 160  # height of a frame in a sheet
_COLUMNS = 8
_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A video, and how well it was answered."""

    name: str
    place: str  # as "worst 1 of 20"; empty where it was named
    timeline: Timeline

    @property
    def title(self) -> str:
        """Its name and place."""
        return f"{self.name}, {self.place}" if self.place else self.name


@dataclass(frozen=True, kw_only=True)
class PredictionScene:
    """All that pictures of predictions are made of."""

    config: RenderConfig
    work: Work
    reference: InputRef  # of the predict node

    @cached_property
    def predictions(self) -> PredictionSet:
        """Its tables."""
        return PredictionSet(Store.at(self.work.store).predictions(self.reference.key))

    @cached_property
    def info(self) -> PredictionInfo:
        """Its task and classes."""
        return self.predictions.info

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digests of the videos that are drawn, by name: those of the splits, or those that are named."""
        table = self.predictions.videos(columns=["video_id", "video_digest", "split"]).to_pylist()
        named, splits = set(self.config.videos), self.config.splits
        return {
            str(row["video_id"]): str(row["video_digest"])
            for row in table
            if (row["video_id"] in named if named else row["split"] in splits)
        }

    @property
    def drawn(self) -> list[str]:
        """Their names."""
        return sorted(self.digests)

    @cached_property
    def ranked(self) -> list[Ranked]:
        """Those whose attention is drawn: named, or the worst and then the best. Raises StageError where one is not."""
        places = dict.fromkeys(self.config.videos, "") or self._places()
        lines = dict(timelines(self.predictions, unit=main_unit(self.info), video_ids=set(places)))
        missing = [name for name in places if name not in lines]
        if missing:
            raise StageError(f"{self.work.node}: videos: {missing[0]!r} has no scores; look at {self.reference.node}")
        return [Ranked(name=name, place=place, timeline=lines[name]) for name, place in places.items()]

    def _places(self) -> dict[str, str]:
        """Names of the worst and the best videos, and their places."""
        known, answers = {}, {}
        for name, line in timelines(self.predictions, unit=main_unit(self.info), video_ids=set(self.digests)):
            answers[name], score = float(line.scores.max(axis=1).mean()), true_score(line)
            if score is not None:
                known[name] = score
        scores = known or answers
        order = sorted(scores, key=lambda name: (scores[name], name))
        found: dict[str, str] = {}
        for word, names, count in (("worst", order, self.config.worst), ("best", order[::-1], self.config.best)):
            for number, name in enumerate(names[:count], start=1):
                found.setdefault(name, f"{word} {number} of {len(order)}")
        return found

    def attention(self, name: str) -> VideoAttention:
        """What is kept of a video. Raises StageError for outputs that are no attention to frames."""
        store = Store.at(self.work.store)
        kept = WindowOutputStore(store.root / str(self.info.extra["kept"]))
        try:
            return VideoAttention.of(kept.rows(self.digests[name]), display=self.config.display)
        except ValueError as error:
            raise StageError(f"{self.work.node}: {error}") from error

    @contextmanager
    def frames(self, name: str, attention: VideoAttention, *, height: int) -> Iterator[RowFrames]:
        """The frames of its rows, as long as the block lasts. Raises NoFramesError where there are none."""
        item = payload_items(self.work.payload)[name]
        wanted = {item: np.unique(attention.seconds)}
        with row_frames(wanted, behind=self.reference, store=Store.at(self.work.store), height=height) as found:
            if not found[name].times:
                raise NoFramesError(f"{name}: {found[name].note or 'no frames'}")
            yield found[name]


def true_score(line: Timeline) -> float | None:
    """Mean score of what is true, over the cells of a video of which that is known; None where it is of none.

    Of several labels at once: of each class, its probability where it is present, else that of its absence.
    """
    if line.targets is not None:
        known = line.targets.any(axis=1)
        right = np.where(line.targets, line.scores, 1 - line.scores)[known]
        return float(right.mean()) if len(right) else None
    known = line.target_ids != UNKNOWN
    right = line.scores[known, line.target_ids[known]]
    return float(right.mean()) if len(right) else None


def write_attention(path: Path, scene: PredictionScene, entry: Ranked) -> None:
    """The video and the same with attention over it, side by side; above, attention in time. Raises NoFramesError."""
    attention, height = scene.attention(entry.name), scene.config.height // 2 * 2
    with scene.frames(entry.name, attention, height=height) as frames:
        rows = range(len(attention))
        pictures = (_film_frame(scene, entry, attention, frames, row, height=height) for row in rows)
        write_film(path, pictures, fps=film_fps(attention.seconds, speed=scene.config.speed))


def _film_frame(
    scene: PredictionScene, entry: Ranked, attention: VideoAttention, frames: RowFrames, row: int, *, height: int
) -> Image.Image:
    seconds = float(attention.seconds[row])
    plain = shown_frame(frames.at(seconds), attention.seen, height=height)
    panels = [plain] if attention.space is None else [plain, overlay(plain, attention.space[row])]
    width = max(320, len(panels) * (plain.width + _GAP) - _GAP)
    bar = 0 if attention.time is None else _BAR
    image = Image.new("RGB", (width + width % 2, height + (3 * _CAPTION + bar) // 2 * 2), GROUND)
    draw = ImageDraw.Draw(image)
    write(draw, (6, 3), entry.title, width=width - 12, fill=LIGHT, size=15)
    if attention.time is not None:
        image.paste(strip(jet(attention.time), attention.seconds, width=width, height=bar), (0, _CAPTION))
        first, last = attention.seconds[[0, -1]]
        mark = round((width - 3) * float((seconds - first) / (last - first if last > first else 1)))
        draw.rectangle((mark, _CAPTION - 3, mark + 2, _CAPTION + bar + 2), fill=LIGHT)
    for number, panel in enumerate(panels):
        image.paste(panel, (number * (panel.width + _GAP), _CAPTION + bar))
    below = _CAPTION + bar + height + 3
    write(draw, (6, below), _answer(scene.info, entry, seconds), width=width - 12, fill=LIGHT, size=15)
    draw.text((6, below + _CAPTION - 4), _place(scene, attention, row), DIM, font=font(13))
    return image


def write_sheet(path: Path, scene: PredictionScene, entry: Ranked) -> None:
    """Frames spread over the video with attention over them, each below a bar coloured by attention in time.

    Raises NoFramesError.
    """
    attention = scene.attention(entry.name)
    rows = np.unique(np.linspace(0, len(attention) - 1, scene.config.sheet).round().astype(int)).tolist()
    with scene.frames(entry.name, attention, height=_TILE) as frames:
        tiles = [shown_frame(frames.at(float(attention.seconds[row])), attention.seen, height=_TILE) for row in rows]
    width, bar = tiles[0].width, 0 if attention.time is None else _BAR
    columns = min(_COLUMNS, len(rows))
    step_x, step_y, top = width + _GAP, bar + _TILE + 42, 68
    size = max(480, 2 * _EDGE + columns * step_x - _GAP), top + -(-len(rows) // columns) * step_y
    image = Image.new("RGB", size, PAPER)
    draw, room = ImageDraw.Draw(image), size[0] - 2 * _EDGE
    write(draw, (_EDGE, 10), entry.title, width=room, size=15)
    middle = float(attention.seconds[len(attention) // 2])
    answer = _answer(scene.info, entry, middle)
    is_of_video = len(entry.timeline.label_ids) == 1
    write(draw, (_EDGE, 34), answer if is_of_video else f"at {middle:.2f} s: {answer}", width=room)
    for number, (row, tile) in enumerate(zip(rows, tiles, strict=True)):
        x, y = _EDGE + number % columns * step_x, top + number // columns * step_y
        if attention.time is not None:
            colour = tuple(jet(attention.time[row]).tolist())
            draw.rectangle((x, y, x + width - 1, y + bar - 1), fill=colour)
        image.paste(tile if attention.space is None else overlay(tile, attention.space[row]), (x, y + bar))
        for line, text in enumerate(_place(scene, attention, row).split("  ")):
            write(draw, (x, y + bar + _TILE + 3 + 14 * line), text, width=width, fill=FAINT, size=11)
    image.save(path, "JPEG", quality=_QUALITY)


def _place(scene: PredictionScene, attention: VideoAttention, row: int) -> str:
    """Which frame it is, and attention in time there, as it is shown."""
    text = f"frame {attention.source[row]}, {attention.seconds[row]:.2f} s"
    shown = "" if scene.config.display == "raw" else f" ({scene.config.display})"
    return text if attention.time is None else f"{text}  M {attention.time[row]:.2f}{shown}"


def _answer(info: PredictionInfo, entry: Ranked, seconds: float) -> str:
    """What is predicted at a time, with its score, and what is true."""
    line = entry.timeline
    cell = int(np.clip(np.searchsorted(line.edges_seconds, seconds, side="right") - 1, 0, len(line.label_ids) - 1))
    scores = line.scores[cell]
    if line.targets is not None:
        best = np.argsort(-scores)[:3]
        answers = ", ".join(f"{info.classes[index]} {scores[index]:.2f}" for index in best)
        true = ", ".join(info.classes[index] for index in np.flatnonzero(line.targets[cell]))
        return f"{answers}; true: {true or 'none known'}"
    label, target = int(line.label_ids[cell]), int(line.target_ids[cell])
    answer = f"{info.classes[label]} {scores[label]:.2f}"
    if target == UNKNOWN:
        return answer
    return f"{answer}, right" if label == target else f"{answer}; true: {info.classes[target]} {scores[target]:.2f}"


def score_changes(scene: PredictionScene, before: PredictionSet) -> list[Mapping[str, Any]]:
    """Scores of each drawn video's classes before and here, the one that changed most first.

    Raises StageError for other classes, another task, or no video that both have.
    """
    other, own = before.info, scene.info
    if (other.classes, other.task, other.heads) != (own.classes, own.task, own.heads):
        raise StageError(f"{scene.work.node}: against: the predictions compared are of other classes or another task")
    columns = ["video_id", "split", "label", "scores", "target_id", "target"]
    tables = [
        {row["video_id"]: row for row in each.videos(columns=columns).to_pylist()}
        for each in (before, scene.predictions)
    ]
    is_multi_label = TASKS[own.task].of_sets
    found: list[Mapping[str, Any]] = []
    for name in scene.drawn:
        if name not in tables[0]:
            continue
        was, now = tables[0][name], tables[1][name]
        scores = [np.array(row["scores"], np.float64) for row in (was, now)]
        true = None if is_multi_label else now["target_id"]
        found.append(
            {
                "video_id": name,
                "split": now["split"],
                "target": now["target"],
                "label_before": was["label"],
                "label": now["label"],
                "score_of_target_before": None if true is None else float(scores[0][true]),
                "score_of_target": None if true is None else float(scores[1][true]),
                "largest_change": float(np.abs(scores[1] - scores[0]).max()),
                "scores_before": scores[0].tolist(),
                "scores": scores[1].tolist(),
            }
        )
    if not found:
        raise StageError(f"{scene.work.node}: against: no video has scores in both predictions")
    return sorted(found, key=lambda row: (-row["largest_change"], row["video_id"]))
