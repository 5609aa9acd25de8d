"""The rule of clips and windows told the simple way, frame by frame, apart from the product's arithmetic."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

GRIDS = st.fixed_dictionaries(
    {
        "length": st.integers(1, 6),
        "hop": st.integers(1, 12),
        "dilation": st.integers(1, 4),
        "to_end": st.booleans(),
        "short": st.sampled_from(["pad", "repeat", "leave_out"]),
    }
)


def clips_of(num_frames: int, grid: dict[str, Any]) -> list[list[int]]:
    """The real frames of every clip, in order."""
    length, hop, dilation = grid["length"], grid["hop"], grid["dilation"]
    inner = [place * dilation for place in range(length)]
    whole = [
        [start + place for place in inner] for start in range(0, num_frames, hop) if start + inner[-1] < num_frames
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
        found |= set(range(clip[0], clip[0] + (grid["length"] - 1) * grid["dilation"] + 1))
    return found & set(range(num_frames))
