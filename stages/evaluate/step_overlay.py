"""Recordings as videos with the recognised and the true steps written below the picture as they happen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reelwright.stages.base.video_writer import VideoWriter
from reelwright.stages.base.work import VideoItem
from reelwright.stages.decode.source import Ended, FrameChunk, Restarted
from reelwright.stages.evaluate.pages.frame_source import decoded_frames
from reelwright.stages.evaluate.pages.thumbnails import Frame
from reelwright.stages.evaluate.step_scores import EARLY, EXTRA, RIGHT, UNCERTAIN, Event, StepVideo, events_of
from reelwright.storage.bucket.download_cache import exists
from reelwright.storage.ledger.items import DONE
from reelwright.storage.tables.feature_files import is_feature_file

FPS = 10
SHORT_SIDE_PIXELS = 360
SHOWN_SECONDS = 5.0  # how long a step stays written, as in the public code
NUM_LINES = 5
_LINE_PIXELS = 24
_MIN_WIDTH_PIXELS = 480
_GREEN, _RED = (76, 201, 160), (255, 122, 110)
_COLOURS = {RIGHT: _GREEN, UNCERTAIN: _GREEN, EARLY: _RED, EXTRA: _RED, "truth": (154, 168, 183)}
_GROUND = (17, 22, 28)

Line = tuple[float, str, str]  # seconds from which it is shown, text, kind


def overlay_lines(video: StepVideo, step_names: Sequence[str]) -> list[Line]:
    """What is written and from when: true steps when they are done, recognised ones with their delay or mistake."""
    lines: list[Line] = []
    for event in events_of(video):
        name = step_names[event.step]
        if event.true_seconds is not None:
            lines.append((event.true_seconds, f"done: {name}", "truth"))
        if event.seconds is not None:
            lines.append((event.seconds, f"recognised: {name}{_verdict(event)}", event.verdict))
    return sorted(lines, key=lambda line: line[0])


def _verdict(event: Event) -> str:
    if event.verdict == EXTRA:
        return ", but not done"
    if event.seconds is None or event.true_seconds is None:
        return ""
    delay = event.seconds - event.true_seconds
    return f" (+{delay:.1f} s)" if delay >= 0 else f" ({-delay:.1f} s too early)"


def drawn(frame: Frame, time_seconds: float, lines: Sequence[Line]) -> Frame:
    """A frame, uint8 (H, W, 3), above a band with the time and the lines of the last `SHOWN_SECONDS`; even sides."""
    height, width = frame.shape[0] // 2 * 2, max(frame.shape[1], _MIN_WIDTH_PIXELS) // 2 * 2
    canvas = Image.new("RGB", (width, height + (NUM_LINES + 1) * _LINE_PIXELS), _GROUND)
    canvas.paste(Image.fromarray(frame), ((width - frame.shape[1]) // 2, 0))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    pen.text((10, height + 3), f"{time_seconds:.1f} s", fill=_COLOURS["truth"], font=font)
    shown = [line for line in lines if line[0] <= time_seconds < line[0] + SHOWN_SECONDS][-NUM_LINES:]
    for place, (_, text, kind) in enumerate(reversed(shown), start=1):
        pen.text((10, height + place * _LINE_PIXELS + 3), text, fill=_COLOURS[kind], font=font)
    return np.asarray(canvas)


@dataclass
class _Film:
    """One video that is being written."""

    path: Path
    lines: Sequence[Line]
    note: str = ""
    writer: VideoWriter | None = field(default=None, repr=False)

    def add(self, frame: Frame, time_seconds: float) -> None:
        picture = drawn(frame, time_seconds, self.lines)
        if self.writer is None:
            self.writer = VideoWriter(self.path, size=(picture.shape[0], picture.shape[1]), fps=FPS)
        self.writer.add(picture)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def write_overlays(
    videos: Sequence[tuple[StepVideo, VideoItem, Path]], *, step_names: Sequence[str], source: Mapping[str, Any]
) -> dict[str, str]:
    """Write each recording's video to its path; returns, by video_id, why one could not be written whole.

    ``source`` are settings of decode that say how files are read. Files are decoded in processes that can be killed; a
    recording that fails leaves no file, one that is cut short ends early.
    """
    films = {item.video_id: _Film(path, overlay_lines(video, step_names)) for video, item, path in videos}
    there = [item for _, item, _ in videos if exists(item.path) and not is_feature_file(item.path)]
    for event in decoded_frames(there, source, height=SHORT_SIDE_PIXELS, fps=FPS) if there else ():
        film = films[event.item.video_id]
        match event:
            case Restarted():
                film.close()
            case FrameChunk():
                for frame, time_seconds in zip(event.frames, event.times.pts_seconds.tolist(), strict=True):
                    film.add(frame, time_seconds)
            case Ended():
                film.close()
                film.note = "" if event.status == "ok" else event.message
                if event.status not in DONE:
                    film.path.unlink(missing_ok=True)
    for _, item, _ in videos:
        if item not in there:
            films[item.video_id].note = "there is no video file, or it is not there any more"
    return {video_id: film.note for video_id, film in films.items() if film.note}
