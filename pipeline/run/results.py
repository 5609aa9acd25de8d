"""What becomes of a run: results, failures, options, who watches, and how a scheduler stops it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from reelwright.pipeline.plan.graph import FRESH, NodePlan
from reelwright.stages.base.work import Reporter
from reelwright.storage.errors import Interrupted
from reelwright.storage.ledger.items import ItemRow

RAN, FAILED, SKIPPED = "ran", "failed", "not run"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One video that a node could not do."""

    node: str
    video_ids: tuple[str, ...]
    row: ItemRow
    is_quarantined: bool = False  # it failed so often that it is left alone


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """What became of one node in a run."""

    node: str
    stage: str
    state: str  # RAN, FRESH, FAILED or SKIPPED
    reasons: tuple[str, ...] = ()
    num_items: int = 0  # in all
    num_done: int = 0  # items done in this run
    rows: int = 0  # of this run
    bytes: int = 0  # of this run
    seconds: float = 0.0
    outputs: dict[str, Any] = field(default_factory=dict)
    message: str = ""  # why it failed or was not run


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What became of a whole run."""

    nodes: tuple[NodeResult, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = ()  # what a person should know, though nothing is wrong
    warnings: tuple[str, ...] = ()  # what is most likely wrong with videos and labels

    @property
    def exit_code(self) -> int:
        """0 all done, 1 a node failed, 3 finished but some videos failed."""
        if any(node.state in {FAILED, SKIPPED} for node in self.nodes):
            return 1
        return 3 if self.failures else 0

    @property
    def nothing_to_do(self) -> bool:
        """Whether everything was up to date."""
        return all(node.state == FRESH for node in self.nodes)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Which part of a pipeline runs, and how."""

    only: tuple[str, ...] = ()  # just these nodes
    until: tuple[str, ...] = ()  # these and what they depend on
    force: tuple[str, ...] = ()  # as if never done
    keep_going: bool = False  # after a node failed, go on with those that do not depend on it
    limit: int | None = None  # at most so many videos a node; what depends on an incomplete node is not run
    jobs: int | None = None  # decoding processes
    frozen: bool = False  # refuse to differ from the lock file, and leave it as it is
    retries: int = 0  # within this run, times that a video is tried again after it failed
    retry_failed: bool = True  # try again what failed in earlier runs; false leaves those videos as they are
    retry_quarantined: bool = False  # also what failed so often that it is left alone otherwise
    cluster: Mapping[str, Any] = field(default_factory=dict)  # over the file's `cluster:` block, as executor, scheduler
    ask: Callable[[str], bool] | None = (
        None  # a question for a person, as whether to cancel a job; None: nobody is there
    )

    def __post_init__(self) -> None:
        """One name is a list of one: a text would be taken for its letters."""
        for name in ("only", "until", "force"):
            object.__setattr__(self, name, names_of(getattr(self, name)))


def names_of(given: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given)


class Observer(Protocol):
    """Who watches a run."""

    def warned(self, texts: Sequence[str]) -> None:
        """What is most likely wrong with videos and labels, before anything runs."""

    def planned(self, plans: Sequence[NodePlan]) -> None:
        """The plan, before anything runs."""

    def started(self, plan: NodePlan) -> Reporter:
        """A node starts; what it says goes to the reporter that is returned."""

    def finished(self, result: NodeResult) -> None:
        """A node is done, was up to date, failed, or was not run."""

    def making(self, num_videos: int) -> Reporter:
        """Synthetic videos are made."""

    def indexing(self, num_videos: int) -> Reporter:
        """Videos are read for the first time, or again after a change."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, the scheduler's signals end it as `Interrupted`."""
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    raise Interrupted(f"stopped by {signal.Signals(number).name}; what was done is kept, run again to go on")
