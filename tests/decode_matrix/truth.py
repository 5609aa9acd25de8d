"""What the ffmpeg command line says of a file: its pictures in display order, their times, and damage."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.decode_matrix.pictures import Picture, read_number

_OF_OUTPUT = re.compile(r"^\[(image2pipe|ppm) @|Last message repeated")  # of times that the pipe does not carry
RAW = (".h264", ".hevc", ".m1v", ".m2v", ".m4v")  # without times: those that FFmpeg makes up count for nothing
_HELD_BACK = 4  # pictures that come out of the decoder after the last packet, some without a time


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Of N pictures; ffprobe and ffmpeg agree on N, or `count_note` says how they do not."""

    numbers: tuple[int, ...]
    seconds: NDArray[np.float64]  # (N,) best-effort times; where there is none: the one before + a picture's time
    num_timed: int  # pictures before the first that ffprobe gives no time
    is_timed: bool  # times are there, and never go back
    last_seconds: tuple[float, ...]  # how long the last picture may stay: its duration, and each rate the file states
    size: tuple[int, int]  # (height, width) upright
    pixel_format: str
    errors: tuple[str, ...]  # what ffmpeg printed at level error
    count_note: str
    pixels: Path  # (N, h, w, 3), raw
    has_numbers: bool = True  # else `numbers` counts from 0

    def pictures(self) -> NDArray[np.uint8]:
        """(N, h, w, 3) RGB of ffmpeg's own conversion."""
        return np.memmap(self.pixels, np.uint8, "r").reshape(-1, *self.size, 3)


def find_truth(path: Path, pixels: Path, *, has_numbers: bool = True) -> Truth:
    """Decode ``path`` with ffmpeg and ffprobe; the pictures are kept in ``pixels``."""
    pictures, errors = decode_rgb(path)
    probed = _probe(path)
    frames = [frame for frame in probed.get("frames", []) if frame.get("media_type") == "video"]
    stream = (probed.get("streams") or [{}])[0]
    tick = Fraction(stream.get("time_base", "1/1000"))
    ticks = [frame.get("best_effort_timestamp") for frame in frames]
    seconds = np.asarray([float("nan") if value is None else float(value * tick) for value in ticks], np.float64)
    note = "" if len(frames) == len(pictures) else f"ffprobe sees {len(frames)} frames, ffmpeg {len(pictures)}"
    if note:
        seconds = seconds[: len(pictures)]
        seconds = np.append(seconds, np.full(len(pictures) - len(seconds), np.nan))
    is_timed = path.suffix not in RAW and not np.isnan(seconds[:-_HELD_BACK]).any()
    num_timed = next((place for place, time in enumerate(seconds) if np.isnan(time)), len(seconds))
    last = tuple(sorted(set(_last_seconds(frames, stream, tick))))
    _continue(seconds, last[-1] if last else float("nan"))
    size = pictures[0].shape[:2] if pictures else (0, 0)
    same = [picture for picture in pictures if picture.shape[:2] == size]
    pixels.write_bytes(b"".join(picture.tobytes() for picture in same))
    return Truth(
        numbers=tuple(map(read_number, same) if has_numbers else range(len(same))),
        seconds=seconds,
        num_timed=num_timed,
        is_timed=is_timed and bool(np.all(np.isfinite(seconds)) and np.all(np.diff(seconds) >= 0)),
        last_seconds=last,
        size=(int(size[0]), int(size[1])),
        pixel_format=stream.get("pix_fmt", ""),
        errors=tuple(errors),
        count_note=note,
        pixels=pixels,
        has_numbers=has_numbers,
    )


def decode_rgb(path: Path, options: str = "") -> tuple[list[Picture], list[str]]:
    """The pictures of ``path`` as the command line converts them with ``options``, and what it printed as errors."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-i", str(path), "-map", "0:v:0"]
    command += [*options.split(), "-vsync", "passthrough", "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = done.stderr.decode(errors="replace").splitlines()
    return list(_ppm_pictures(done.stdout)), [line for line in lines if line.strip() and not _OF_OUTPUT.search(line)]


def _ppm_pictures(data: bytes) -> Iterator[Picture]:
    place = 0
    while place < len(data):
        header = data[place : place + 40].split(b"\n", 3)
        width, height = map(int, header[1].split())
        place += sum(len(line) + 1 for line in header[:3])
        size = width * height * 3
        yield np.frombuffer(data, np.uint8, size, place).reshape(height, width, 3)
        place += size


def _probe(path: Path) -> dict[str, Any]:
    frame = "media_type,best_effort_timestamp,pkt_duration"
    stream = "time_base,avg_frame_rate,r_frame_rate,pix_fmt"
    command = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-show_frames", "-show_streams", "-of", "json"]
    command += ["-show_entries", f"frame={frame}:stream={stream}", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    return dict(json.loads(done.stdout or b"{}"))


def _last_seconds(frames: list[dict[str, Any]], stream: dict[str, Any], tick: Fraction) -> Iterator[float]:
    if frames and frames[-1].get("pkt_duration"):
        yield float(frames[-1]["pkt_duration"] * tick)
    for name in ("avg_frame_rate", "r_frame_rate"):
        rate = stream.get(name, "0/0")
        if rate and not rate.startswith("0/") and not rate.endswith("/0"):
            yield float(1 / Fraction(rate))


def _continue(seconds: NDArray[np.float64], picture_seconds: float) -> None:
    """Fill in times that are missing after one that is there, as those of the last pictures of AVI and MPEG-PS are."""
    for place in range(1, len(seconds)):
        if np.isnan(seconds[place]):
            seconds[place] = seconds[place - 1] + picture_seconds
