"""Estimates for people: what is to be done, about how long, about how much."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from reelwright.cli.format import bytes_text
from reelwright.pipeline.run.estimate import MAKING, Estimate


def about_text(seconds: float) -> str:
    """1083 -> 'about 18 min': an estimate is not told to the second."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def estimate_lines(estimates: Mapping[str, Estimate]) -> list[str]:
    """One line a node that will run, and one for all together where anything is known."""
    lines = [f"{name}: {_line(estimate)}" for name, estimate in estimates.items()]
    known = [estimate for estimate in estimates.values() if estimate.seconds is not None]
    if known and len(estimates) > 1:
        rest = [name for name, estimate in estimates.items() if estimate.seconds is None]
        size = sum(estimate.bytes or 0 for estimate in known)
        left_out = f", without {', '.join(rest)}" if rest else ""
        lines.append(f"in all: {_cost(sum(estimate.seconds or 0.0 for estimate in known), size)}{left_out}")
    return lines


def estimate_json(estimate: Estimate | None) -> dict[str, Any] | None:
    """An estimate as plain data; null for a node that will not run."""
    return None if estimate is None else dataclasses.asdict(estimate)


def _line(estimate: Estimate) -> str:
    what = {
        MAKING: f"{estimate.num_todo:,} of {estimate.num_videos:,} videos to make",
        "items": f"{estimate.num_todo:,} of {estimate.num_videos:,} videos to {estimate.stage}",
        "run": f"to {estimate.stage} on {estimate.num_todo:,} videos",
        "table": f"to {estimate.stage}",
    }[estimate.kind]
    if estimate.num_unread and estimate.kind != "table":
        what += f" ({estimate.num_unread:,} not read yet)"
    if estimate.seconds is None:
        return f"{what}, no estimate: nothing like it has been run in this store"
    return f"{what}, {_cost(estimate.seconds, estimate.bytes)}"


def _cost(seconds: float, size: float | None) -> str:
    return about_text(seconds) + (f", {bytes_text(size)}" if size else "")
