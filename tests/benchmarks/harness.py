"""Measure functions in turns, put each beside its reference of the same run, and print medians with their spread.

Nothing here asserts a time: other work on the machine would make such a test fail at random.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import statistics
import time
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
    num_videos: int  # of the bench videos, at most
    folder: Path  # temporary, for stores; benchmarks take a folder of their own inside
    counts: tuple[int, ...] = ()  # numbers of items; none: those of the benchmark
    out: Path | None = None  # folder for pictures; None: none is drawn
    peers: Path | None = None  # where other tools are installed and stay; None: in ``folder``


@dataclass(frozen=True)
class Figures:
    """What one case gave, a figure a round, and how many cores it had for itself meanwhile.

    On a machine that is busy with other work a case gets fewer cores; `per_core` then tells more than `values`.
    """

    values: tuple[float, ...]  # units a second, or seconds
    cores: tuple[float, ...] = ()  # processor seconds, processes it started included, a second; empty: not measured

    @property
    def per_core(self) -> tuple[float, ...]:
        """Of figures that are rates: units a processor second; nothing where cores were not measured."""
        return (
            () if not self.cores else tuple(value / cores for value, cores in zip(self.values, self.cores, strict=True))
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: what was measured, in every round, and its reference in the same rounds."""

    what: str
    unit: str  # frames/s, windows/s: more is better; s: less is better
    figures: Figures
    reference: str = ""  # name of the row it is compared with
    against: Figures | None = None  # its figures
    aim: float | None = None  # ratio that is hoped for
    note: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Speed over the reference's speed, one a round."""
        return () if self.against is None else divided(self.figures.values, self.against.values)

    @property
    def core_ratios(self) -> tuple[float, ...]:
        """The same for work done in a processor second: steadier where others use the machine too."""
        return () if self.against is None else divided(self.figures.per_core, self.against.per_core)

    def plain(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "what": self.what,
            "unit": self.unit,
            "values": self.figures.values,
            "median": statistics.median(self.figures.values),
            "cores": self.figures.cores,
            "reference": self.reference,
            "ratios": self.ratios,
            "ratio": statistics.median(self.ratios) if self.ratios else None,
            "ratio_per_core": statistics.median(self.core_ratios) if self.core_ratios else None,
            "aim": self.aim,
            "note": self.note,
        }


@dataclass
class Turns:
    """Cases that take turns: a round runs each once, so that what else the machine does hits all alike."""

    repeats: int
    _cases: dict[str, Callable[[], float]] = field(default_factory=dict)
    _found: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, run: Callable[[], float]) -> None:
        """``run`` does its work once and returns its figure: seconds, or units a second."""
        self._cases[name] = run

    def measure(self, *, warm_up: bool = True) -> dict[str, Figures]:
        """Figures of every case, one a round. The order turns too: a case is not always first after a pause."""
        if warm_up:
            for run in self._cases.values():
                run()
        names = list(self._cases)
        for number in range(self.repeats):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                self._found.setdefault(name, []).append(_with_cores(self._cases[name]))
        return {name: Figures(*zip(*self._found[name], strict=True)) for name in names}


def _with_cores(run: Callable[[], float]) -> tuple[float, float]:
    wall, busy = time.perf_counter(), processor_seconds()
    value = run()
    return value, (processor_seconds() - busy) / (time.perf_counter() - wall)


def processor_seconds() -> float:
    """Used by this process and by those it started that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def divided(values: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    """Value over value, round by round."""
    return tuple(mine / other for mine, other in zip(values, others, strict=True))


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
        lines.append(
            f"WARNING: the machine is busy (load {load:.2f}): figures are low and spread; trust the ratios more"
        )
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
    width = max(len(text) for text in ("what", *(row.what for row in rows)))
    unit = max(len(text) for text in ("unit", *(row.unit for row in rows)))
    head = f"{'median':>9}  {'min - max':>19}  {'unit':<{unit}}  cores   ratio  a core  against"
    lines = [title, f"  {'what':<{width}}  {head}"]
    for row in rows:
        values = row.figures.values
        spread = f"{_figure(min(values))} - {_figure(max(values))}"
        cores = _median(row.figures.cores, width=5)
        line = (
            f"  {row.what:<{width}}  {_figure(statistics.median(values)):>9}  {spread:>19}  {row.unit:<{unit}}  {cores}"
        )
        lines.append(f"{line}  {_compared(row)}".rstrip())
    return lines


LEGEND = (
    "ratio: speed over that of the row named, median of the rounds (min - max). cores: processor seconds a second that "
    "the case got. a core: the same ratio for work done in a processor second, steadier on a busy machine."
)


def _compared(row: Row) -> str:
    note = f"  {row.note}" if row.note else ""
    if not row.ratios:
        return f"{'':>14}{note}"
    aim = f", aim {row.aim:g}" if row.aim is not None else ""
    spread = f"{min(row.ratios):.2f} - {max(row.ratios):.2f}"
    medians = f"{_median(row.ratios, width=6)}  {_median(row.core_ratios, width=6)}"
    return f"{medians}  {row.reference} ({spread}{aim}){note}"


def _median(values: Sequence[float], *, width: int) -> str:
    """Blank where there are none."""
    return f"{statistics.median(values):>{width}.2f}" if values else " " * width


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
