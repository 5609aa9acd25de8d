"""A stage that does nothing, for tests and benchmarks of what surrounds work: what an item does stands in its path.

`ok` is done, `fail` fails, `kill` ends its process by SIGKILL, `slow` takes a fifth of a second, `raise` ends the
stage, `memory` takes more and more memory until it is stopped.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.stages.base.registry import Stage
from reelwright.stages.base.work import Reporter, VideoItem, Work, ledger_of
from reelwright.storage.digests import digest
from reelwright.storage.errors import StageError
from reelwright.storage.ledger.items import ItemRow

STAGE = Stage(
    "reelwright.stages.decode.config:DecodeConfig",
    "tests.pipeline.cluster.stand_in:run_items",
    "Nothing",
    spreads=True,
)
SLOW_SECONDS = 0.2


def run_items(work: Work, reporter: Reporter) -> None:
    """Each item becomes a row; what was begun is noted beside the ledger, a line an item."""
    ledger = ledger_of(work)
    for item in work.items:
        if item.path == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if item.path == "memory":
            _take_memory()
        if item.path == "raise":
            raise StageError("the stand-in was told to raise")
        if item.path == "slow":
            time.sleep(SLOW_SECONDS)
        if work.config.get("notes"):
            with Path(work.store, "begun.txt").open("a", encoding="utf-8") as file:
                file.write(f"{item.digest}\n")
        if item.path == "fail":
            row = ItemRow(digest=item.digest, status="failed", cause="stand_in", message="told to")
        else:
            row = ItemRow(digest=item.digest, status="ok", rows=1)
        ledger.commit(row)
        reporter.item(row)


def _take_memory() -> None:
    """A worker is ended when it has more than it may; 4 GB at most, so that no machine suffers."""
    held = []
    for _ in range(80):
        held.append(b"x" * 50_000_000)
        time.sleep(0.1)


def make_work(store: Path, items: Iterable[VideoItem], *, notes: bool = True) -> Work:
    """A node of the stand-in; its stage must be in the table under `stand_in`."""
    return Work(
        node="nothing",
        stage="stand_in",
        key="0" * 32,
        config={"device": "cpu", "notes": notes},
        spec={},
        store=str(store),
        inputs={},
        items=tuple(items),
    )


def make_items(*paths: str, seconds: float | None = 10.0) -> list[VideoItem]:
    """Items named by number, whose paths say what they do."""
    return [VideoItem(digest([number]), path, f"v{number}", seconds) for number, path in enumerate(paths)]


def begun(store: Path) -> Sequence[str]:
    """Digests in the order in which they were begun, as often as they were."""
    path = store / "begun.txt"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def in_units(seconds: float) -> ClusterSettings:
    """Settings by which units take so long, and no video is shared."""
    return ClusterSettings(unit_seconds=seconds, split_seconds=None)
