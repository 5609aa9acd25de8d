"""Measure functions in turns, put each beside its reference of the same run, and print medians with their spread.

Nothing here asserts a time: other work on the machine would make such a test fail at random.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = ("torch", "torchvision", "timm", "decord", "av", "torchcodec", "zarr", "numpy")
BUSY_SHARE = 0.25  # of the cores, used by others before we start: figures are then lower and spread


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is measured."""

    repeats: int
    quick: bool  # a smoke test: little input, figures mean nothing
    folder: Path  # temporary, for stores; benchmarks take a folder of their own inside


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: what was measured, in every repeat, and its reference in the same repeats."""

    what: str
    unit: str  # frames/s, windows/s: more is better; s: less is better
    samples: tuple[float, ...]
    reference: str = ""  # name of the row it is compared with
    ratios: tuple[float, ...] = ()  # speed over the reference's speed, one a repeat
    aim: float | None = None  # ratio that is hoped for
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "what": self.what,
            "unit": self.unit,
            "median": statistics.median(self.samples),
            "min": min(self.samples),
            "max": max(self.samples),
            "repeats": len(self.samples),
            "reference": self.reference,
            "ratio": statistics.median(self.ratios) if self.ratios else None,
            "ratio_min": min(self.ratios, default=None),
            "ratio_max": max(self.ratios, default=None),
            "aim": self.aim,
            "note": self.note,
        }


@dataclass
class Turns:
    """Cases that take turns: a round runs each once, so that what else the machine does hits all alike."""

    repeats: int
    _cases: dict[str, Callable[[], float]] = field(default_factory=dict)
    _samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, run: Callable[[], float]) -> None:
        """``run`` does its work once and returns its figure: seconds, or units a second."""
        self._cases[name] = run

    def measure(self, *, warm_up: bool = True) -> dict[str, tuple[float, ...]]:
        """Figures of every case, one a round. The order turns too: a case is not always first after a pause."""
        if warm_up:
            for run in self._cases.values():
                run()
        names = list(self._cases)
        for number in range(self.repeats):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                self._samples.setdefault(name, []).append(self._cases[name]())
        return {name: tuple(self._samples[name]) for name in names}


def rate_ratios(samples: Sequence[float], reference: Sequence[float]) -> tuple[float, ...]:
    """Speed over speed for figures of which more is better, round by round."""
    return tuple(mine / other for mine, other in zip(samples, reference, strict=True))


def heading() -> list[str]:
    """Hardware, libraries, date and load, as lines."""
    load = os.getloadavg()[0]
    facts = machine()
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB"
        + (f", {facts['gpu']}" if facts["gpu"] else ""),
        f"Python {facts['python']}, " + ", ".join(f"{name} {version}" for name, version in facts["libraries"].items()),
        f"{facts['date']}, load average {load:.2f}, {facts['torch_threads']} torch threads",
    ]
    if load > BUSY_SHARE * facts["cores"]:
        lines.append(f"WARNING: the machine is busy (load {load:.2f}): figures are low and spread; trust the ratios more")
    return lines


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES if _is_installed(name)},
        "torch_threads": torch.get_num_threads(),
        "date": dt.datetime.now(tz=dt.UTC).isoformat(timespec="minutes"),
        "load_average": os.getloadavg(),
    }


def table(title: str, rows: Sequence[Row]) -> list[str]:
    """Rows of one benchmark as lines of text."""
    width = max([len(row.what) for row in rows] + [len("what")])
    unit = max([len(row.unit) for row in rows] + [len("unit")])
    lines = [title, f"  {'what':<{width}}  {'median':>9}  {'min - max':>19}  {'unit':<{unit}}  {'ratio':>6}  against"]
    for row in rows:
        spread = f"{_figure(min(row.samples))} - {_figure(max(row.samples))}"
        line = f"  {row.what:<{width}}  {_figure(statistics.median(row.samples)):>9}  {spread:>19}  {row.unit:<{unit}}"
        lines.append((line + "  " + _compared(row)).rstrip())
    return lines


def _compared(row: Row) -> str:
    note = f"  {row.note}" if row.note else ""
    if not row.ratios:
        return f"{'':>6}{note}"
    aim = f", aim {row.aim:g}" if row.aim is not None else ""
    spread = f"{min(row.ratios):.2f} - {max(row.ratios):.2f}"
    return f"{statistics.median(row.ratios):>6.2f}  {row.reference} ({spread}{aim}){note}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    facts: Mapping[str, str] = {}
    source = Path("/proc/cpuinfo")
    if source.exists():
        lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        facts = {key.strip(): value.strip() for key, value in pairs}
    return facts.get("model name") or platform.processor() or platform.machine()


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
