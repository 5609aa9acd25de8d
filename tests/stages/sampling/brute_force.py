"""The rule of clips and windows told the simple way, frame by frame, apart from the product's arithmetic."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

GRIDS = st.fixed_dictionaries(
    {
        "length": st.integers(1, 6),
        "stride": st.integers(1, 12),
        "skip": st.integers(0, 3),
        "to_end": st.booleans(),
        "short": st.sampled_from(["pad", "repeat", "leave_out"]),
    }
)


def clips_of(num_frames: int, grid: dict[str, Any]) -> list[list[int]]:
    """The real frames of every clip, in order."""
    length, stride, skip = grid["length"], grid["stride"], grid["skip"]
    inner = [place * (skip + 1) for place in range(length)]
    whole = [
        [start + place for place in inner] for start in range(0, num_frames, stride) if start + inner[-1] < num_frames
    ]
    if not whole:
        inside = [place for place in inner if place < num_frames]
        if not inside or grid["short"] == "leave_out":
            return []
        if grid["short"] == "repeat" and inside[-1] != num_frames - 1:
            inside.append(num_frames - 1)
        return [inside]
    if grid["to_end"] and whole[-1][-1] != num_frames - 1:
        whole.append([num_frames - 1 - inner[-1] + place for place in inner])
    return whole


def reached(num_frames: int, grid: dict[str, Any]) -> set[int]:
    """Frames from the first to the last of any clip; a short one reaches over all its video."""
    found: set[int] = set()
    for clip in clips_of(num_frames, grid):
        found |= set(range(clip[0], clip[0] + (grid["length"] - 1) * (grid["skip"] + 1) + 1))
    return found & set(range(num_frames))
