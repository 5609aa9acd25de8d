"""Progress on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

from reelwright.cli.format import plan_table, rate_text, seconds_text
from reelwright.pipeline.executors.progress_file import progress_of
from reelwright.pipeline.plan.graph import FRESH, NodePlan
from reelwright.pipeline.run.results import FAILED, RAN, NodeResult
from reelwright.stages.base.work import Reporter, VideoItem
from reelwright.storage.ledger.items import ItemRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_SECONDS_BETWEEN_LINES = 10.0


class Watcher:
    """Shows a run to a person; one progress display at a time."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._current: NodeReporter | None = None

    def __enter__(self) -> Self:
        """Show things as long as the block runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the progress display away."""
        self.close()

    @cached_property
    def _console(self) -> Console:
        """Made for the first thing that is shown: rich takes a third of the time of a run with nothing to do."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, quiet=self._quiet)

    def warned(self, texts: Sequence[str]) -> None:
        """Say what is most likely wrong, before anything runs."""
        for text in texts:
            self._console.print(f"warning: {text}", markup=False, style="yellow", soft_wrap=True)

    def planned(self, plans: Sequence[NodePlan]) -> None:
        """Say what will run and why, before it runs."""
        if any(plan.state != FRESH for plan in plans):
            self._console.print(plan_table(plans), markup=False, soft_wrap=True)

    def making(self, num_videos: int) -> Reporter:
        """Show the making of synthetic videos."""
        return self.working(f"videos: making {num_videos:,}")

    def indexing(self, num_videos: int) -> Reporter:
        """Show the reading of videos."""
        return self.working(f"videos: reading {num_videos:,}")

    def started(self, plan: NodePlan) -> Reporter:
        """Show a node at work. From here on objects in circles may hold frames: they are looked for more often."""
        gc.set_threshold(50_000, 20, 100)
        return self.working(plan.node.name, plan.todo if plan.node.config.kind == "items" else ())

    def finished(self, result: NodeResult) -> None:
        """Say how a node ended."""
        self.close()
        if result.state == RAN:
            self._console.print(f"{result.node}: done in {seconds_text(result.seconds)}", markup=False)
        elif result.state != FRESH:
            style = "red" if result.state == FAILED else "yellow"
            self._console.print(
                f"{result.node}: {result.state}: {result.message}", markup=False, style=style, soft_wrap=True
            )

    def close(self) -> None:
        """Take the progress display away."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def working(self, name: str, items: Sequence[VideoItem] = ()) -> Reporter:
        """Show work: on videos of a node, or such as is no node of a pipeline."""
        self.close()
        self._current = NodeReporter(name, self._console, items)
        return self._current


@contextlib.contextmanager
def counted(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show work that is no node: call what is yielded with how many are done, and of how many."""
    with Watcher() as watcher:
        reporter, shown = watcher.working(name), 0

        def report(num_done: int, num_all: int) -> None:
            nonlocal shown
            reporter.total(num_all, unit)
            reporter.advance(num_done - shown)
            shown = num_done
            if num_done == num_all:
                reporter.note(f"{num_all:,} made")

        yield report


class NodeReporter:
    """Progress of one node."""

    def __init__(self, name: str, console: Console, items: Sequence[VideoItem] = ()) -> None:
        self._name, self._console = name, console
        self._progress = progress_of(name, items)
        self._seconds = {item.digest: item.duration_seconds or 0.0 for item in items}
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal and sys.stderr.isatty():
            self._bar = _bar(console)
            self._bar.start()
            self._task = self._bar.add_task(name, total=None, rate="", left="")

    def item(self, row: ItemRow) -> None:
        """Tell of videos that did not go well at once."""
        self._progress.end(row, self._seconds.get(row.digest, 0.0))
        if row.status not in {"ok", "skipped"}:
            self.note(f"{row.status} ({row.cause}): {row.message}")

    def total(self, amount: int, unit: str, done: int = 0) -> None:
        """Set the whole."""
        if not self._progress.total:
            self._started = time.monotonic()  # what came before was loading
        self._progress.start(amount, unit, done)
        self._update()

    def advance(self, amount: int) -> None:
        """Go on by ``amount``."""
        self._progress.amount += amount
        self._update()

    def note(self, text: str) -> None:
        """Print one line."""
        self._console.print(f"{self._name}: {text}", markup=False, soft_wrap=True)

    def close(self) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _update(self) -> None:
        now, progress = time.monotonic(), self._progress
        progress.seconds = now - self._started
        rate = (progress.amount - progress.resumed) / max(progress.seconds, 1e-9)
        left = f"{seconds_text(progress.seconds_left)} left" if progress.seconds_left else ""
        if self._bar is not None:
            shown = f"{rate_text(rate)} {progress.unit}/s"
            self._bar.update(self._task, completed=progress.amount, total=progress.total or None, rate=shown, left=left)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            message = f"{progress.amount:,} of {progress.total:,} {progress.unit}, {rate_text(rate)}/s"
            self.note(f"{message}, {left}" if left else message)


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
    )
    return Progress(*columns, console=console, transient=True)
