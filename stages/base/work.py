"""Units of work as plain data, and how a stage tells its runner what it did. Stages know nothing of executors."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pydantic import TypeAdapter

from reelwright.storage.ledger.digest_cache import Stamp
from reelwright.storage.ledger.items import WORK_STEPS, ItemLedger, ItemRow
from reelwright.storage.store import Store


class VideoItem(NamedTuple):
    """One video to do: found by content, named for people."""

    digest: str
    path: str  # absolute: a file or a folder of frames
    video_id: str  # one of its names, for messages only
    duration_seconds: float | None = None  # as probed; None when unknown
    num_frames: int | None = None  # the same
    stamp: Stamp | None = None  # of the file that the digest was made of; None: not looked at


RUN_WEIGHTS = "of the run"  # no setting is called so


@dataclass(frozen=True, kw_only=True)
class InputRef:
    """One input of a node: where it lies in the store and how it was made."""

    node: str
    stage: str
    key: str  # spec key of frames/embeddings, key of a run or of predictions
    config: Mapping[str, Any] = field(default_factory=dict)  # the producing node's settings, plain data
    inputs: Mapping[str, tuple[InputRef, ...]] = field(default_factory=dict)  # the producing node's own inputs
    files: Mapping[str, str] = field(default_factory=dict)  # setting that names a file -> its digest in the node's key
    # and of a run, under RUN_WEIGHTS, the digest of its own weights, by which it stands in the keys of its users


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage needs to know to do one node, or a part of its items."""

    node: str
    stage: str
    key: str  # spec key for 'items' stages, node key otherwise
    config: Mapping[str, Any]  # the node's settings, plain data; sources are absolute paths
    spec: Mapping[str, Any]  # what stands in the key, for people who read the store
    store: str
    inputs: Mapping[str, tuple[InputRef, ...]]
    items: tuple[VideoItem, ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)  # stage-specific plain data (targets, splits, classes)
    plugins: Mapping[str, Any] = field(default_factory=dict)  # those that it may import, as `Plugin.plain`, by use
    is_part: bool = False  # other processes do other items of the same node at the same time


@dataclass(frozen=True, kw_only=True)
class Shards:
    """How far a video is that several processes write together."""

    count: int  # in all
    missing: tuple[int, ...]  # ascending


class SharedVideo(Protocol):
    """A video that several processes write together, each some of its shards.

    begin (one process) -> write (each shard by one process) -> publish (one process, when none is missing). Where a
    video turns out to be damaged, or to need a second backend, it cannot be shared: one process does it whole then.
    """

    def begin(self) -> Shards | None:
        """Make the arrays at their full size, or find them; None for a video that cannot be shared."""

    def look(self) -> Shards | None:
        """How far it is now; None where it was not begun."""

    def write(self, start: int, stop: int) -> bool:
        """Write shards [start, stop) after `begin` or `look`; whether all went well. If not it cannot be shared."""

    def publish(self) -> None:
        """Give it its name and commit it, after `look` has found nothing missing."""


def ledger_of(work: Work) -> ItemLedger:
    """The item ledger of a node with items."""
    return ItemLedger(Store.at(work.store).node(work.key), is_shared=work.is_part)


class Reporter(Protocol):
    """What a stage may say while it works."""

    def item(self, row: ItemRow) -> None:
        """One video is done, for good or ill; its row is committed already."""

    def advance(self, amount: int) -> None:
        """``amount`` more rows (frames, windows, steps) are done."""

    def total(self, amount: int, unit: str, done: int = 0) -> None:
        """``amount`` rows of ``unit`` are to be done in all; may be said again when more is known.

        ``done`` of them were done by an earlier run, which this one goes on with.
        """

    def note(self, text: str) -> None:
        """One line for the log."""


class SilentReporter:
    """Says nothing; keeps the item rows."""

    def __init__(self) -> None:
        self.rows: list[ItemRow] = []

    def item(self, row: ItemRow) -> None:
        """Keep the row."""
        self.rows.append(row)

    def advance(self, amount: int) -> None:
        """Ignore progress."""

    def total(self, amount: int, unit: str, done: int = 0) -> None:
        """Ignore totals."""

    def note(self, text: str) -> None:
        """Ignore notes."""


class FrameProgress:
    """Tells a reporter about frames. Videos not opened yet count with the frames a second of those that were."""

    def __init__(self, items: Sequence[VideoItem], reporter: Reporter) -> None:
        self._reporter = reporter
        self._waiting = {item.digest: item.duration_seconds or 0.0 for item in items}
        self._opened_seconds = 0.0
        self._opened_frames = 0

    def opened(self, digest: str, num_frames: int) -> None:
        """A video has ``num_frames`` to do."""
        self._opened_seconds += self._waiting.pop(digest, 0.0)
        self._opened_frames += num_frames
        rate = self._opened_frames / self._opened_seconds if self._opened_seconds else 0.0
        self._reporter.total(self._opened_frames + round(rate * sum(self._waiting.values())), "frames")

    def advance(self, num_frames: int) -> None:
        """``num_frames`` more are done."""
        self._reporter.advance(num_frames)


@functools.cache
def _adapter() -> TypeAdapter[Work]:
    """Made when work is handed over first: that takes longer than most commands may."""
    return TypeAdapter(Work)


def work_to_plain(work: Work) -> dict[str, Any]:
    """Dicts, lists, texts and numbers."""
    plain: dict[str, Any] = _adapter().dump_python(work, mode="json")
    return plain


def work_from_plain(values: Mapping[str, Any]) -> Work:
    """The work that `work_to_plain` wrote."""
    return _adapter().validate_python(values)


def headroom_line(work: Mapping[str, float]) -> str:
    """What share of its work each step of a node took, and how much faster it would be without it; "" if unknown."""
    spent = {name: work[f"{name}_seconds"] for name in WORK_STEPS if work.get(f"{name}_seconds")}
    total = sum(spent.values())
    shares = []
    for name, seconds in spent.items():
        gain = f" (without it at most {total / (total - seconds):.2f} times as fast)" if seconds < total else ""
        shares.append(f"{name} {100 * seconds / total:.0f} %{gain}")
    return f"work: {', '.join(shares)}" if shares else ""
