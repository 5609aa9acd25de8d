"""Tables and numbers for people. Everything here returns text or prints; nothing decides."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from reelwright.pipeline.plan.graph import NodePlan
from reelwright.pipeline.run.results import Failure, NodeResult
from reelwright.pipeline.run.runner import RunResult

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_MAX_FAILURES_SHOWN = 20  # lines
_MAX_NAMES = 3  # of videos in a line


def bytes_text(count: float) -> str:
    """1536000 -> '1.5 MB'."""
    for unit in _BYTE_UNITS:
        if count < 1000 or unit == _BYTE_UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def seconds_text(seconds: float) -> str:
    """75.3 -> '1 min 15 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def table_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns padded with spaces, as wide as their content; numbers are right-aligned by their header's ``>``."""
    body = [list(row) for row in rows]
    names = [name.lstrip(">") for name in header]
    widths = [max(len(cells[column]) for cells in [names, *body]) for column in range(len(names))]
    lines = []
    for cells in [names, *body]:
        padded = [
            cell.rjust(width) if name.startswith(">") else cell.ljust(width)
            for cell, width, name in zip(cells, widths, header, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def plan_table(plans: Sequence[NodePlan]) -> str:
    """The state of every node and why."""
    return table_text(
        ("node", "stage", ">videos", ">to do", "state", "why"),
        [
            (
                plan.node.name,
                plan.node.stage,
                f"{len(plan.wanted):,}" if plan.node.config.kind == "items" else "",
                f"{len(plan.todo):,}" if plan.todo else "",
                plan.state if plan.node.config.stores else "streamed",
                "; ".join([*plan.reasons, *([f"truncated: {cut}"] if (cut := plan.num_truncated) else [])]),
            )
            for plan in plans
        ],
    )


def result_table(results: Sequence[NodeResult]) -> str:
    """What every node did."""
    return table_text(
        ("node", "stage", "state", ">videos", ">done", ">rows", ">size", ">time"),
        [
            (
                result.node,
                result.stage,
                result.state,
                f"{result.num_items:,}" if result.num_items else "",
                f"{result.num_done:,}" if result.num_done else "",
                f"{result.rows:,}" if result.rows else "",
                bytes_text(result.bytes) if result.bytes else "",
                seconds_text(result.seconds) if result.seconds else "",
            )
            for result in results
        ],
    )


def failure_table(failures: Sequence[Failure]) -> str:
    """Which videos failed where, why, and what was tried; those that failed in the same way are one line."""
    alike: dict[tuple[str, ...], list[Failure]] = {}
    for failure in failures:
        message = functools.reduce(_without, failure.video_ids, failure.row.message)
        alike.setdefault((failure.node, _status(failure), failure.row.cause, message), []).append(failure)
    rows = [
        (_videos(group), group[0].node, _status(group[0]), group[0].row.cause, group[0].row.message)
        for group in list(alike.values())[:_MAX_FAILURES_SHOWN]
    ]
    text = table_text(("video", "node", "status", "cause", "what happened"), rows)
    more = len(failures) - sum(len(group) for group in list(alike.values())[:_MAX_FAILURES_SHOWN])
    return f"{text}\n... and {more} more (--json shows all)" if more else text


def _without(message: str, video_id: str) -> str:
    """A message without the words that name its video, to tell whether others say the same."""
    name = video_id.rpartition("/")[2]
    return " ".join("" if _names(word, name) else word for word in message.split())


def _names(word: str, name: str) -> bool:
    """Whether a word has the name whole: 10 does not name the video 1, but /clips/1.mp4 does."""
    before, found, after = word.rpartition(name)
    return bool(found) and not before[-1:].isalnum() and not after[:1].isalnum()


def _videos(failures: Sequence[Failure]) -> str:
    names = [name for failure in failures for name in failure.video_ids]
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    return f"{', '.join(names[:_MAX_NAMES])}{more}"


def _status(failure: Failure) -> str:
    tries = f" after {failure.row.attempts} attempts" if failure.row.attempts > 1 else ""
    return f"quarantined{tries}" if failure.is_quarantined else failure.row.status


def plan_json(plan: NodePlan) -> dict[str, Any]:
    """A plan as plain data."""
    return {
        "node": plan.node.name,
        "stage": plan.node.stage,
        "state": plan.state,
        "reasons": list(plan.reasons),
        "key": plan.key,
        "videos": len(plan.wanted),
        "to_do": len(plan.todo),
        "failed": len(plan.failed),
        "quarantined": len(plan.quarantined),
        "truncated": plan.num_truncated,
    }


def run_json(result: RunResult) -> dict[str, Any]:
    """A run's result as plain data."""
    return {
        "exit_code": result.exit_code,
        "warnings": list(result.warnings),
        "nodes": [dataclasses.asdict(node) for node in result.nodes],
        "failures": [dataclasses.asdict(failure) for failure in result.failures],
    }


def print_json(value: object) -> None:
    """Indented JSON on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


def rate_text(rate: float) -> str:
    """Two digits, or all where there are more: 0.42, 4.2, 42, 4,200."""
    digits = max(0, 1 - math.floor(math.log10(rate))) if 0 < rate < 10 else 0
    return f"{rate:,.{min(digits, 4)}f}"
