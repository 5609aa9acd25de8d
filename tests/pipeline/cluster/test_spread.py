"""Units of work over a pool that does them in this process, and dies where it is told to."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reelwright.pipeline.executors.executors import sized
from reelwright.pipeline.executors.parts import MOST_ITEMS, Part, Parts
from reelwright.pipeline.executors.unit_scheduler import DEATHS, Ended, Spreader
from reelwright.pipeline.inspect.logs import logs_of
from reelwright.stages.base.registry import STAGES
from reelwright.stages.base.unit import LEFT, STARTED, Unit, UnitDone, cached_model, do_unit, keep_models, leave
from reelwright.stages.base.work import InputRef, SilentReporter, VideoItem
from reelwright.storage.errors import StageError
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.locks.locks import exclusive
from reelwright.storage.store import Store
from tests.pipeline.cluster.stand_in import STAGE, begun, in_units, make_items, make_work


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(STAGES, "stand_in", STAGE)


@dataclass
class PoolHere:
    """Does units in this process. A unit with a video to kill marks its start, does what comes before it, and dies."""

    workers: int = 2
    leaves: int = 0  # so many units are left in peace by their workers
    breaks: int = 0  # so many units die before they are started
    lost: int = 0  # so many are lost with the scheduler
    units: list[tuple[str, ...]] = field(default_factory=list)
    _queue: deque[Ended] = field(default_factory=deque)

    def size(self) -> int:
        return self.workers

    def want(self, num_units: int) -> None:
        assert num_units >= 0

    def submit(self, name: str, unit: dict[str, Any], *, needs_gpu: bool) -> None:
        assert not needs_gpu
        paths = tuple(item[1] for item in unit["work"]["items"])
        self.units.append(tuple(item[2] for item in unit["work"]["items"]))
        if self.lost:
            self.lost -= 1
            self._queue.append(Ended(name=name, is_lost=True))
        elif self.leaves:
            self.leaves -= 1
            Unit.from_plain(unit).mark(LEFT).touch()
            self._queue.append(Ended(name=name, why="asked to go"))
        elif self.breaks:
            self.breaks -= 1
            self._queue.append(Ended(name=name, why="no memory"))
        elif "kill" in paths:
            items = unit["work"]["items"][: paths.index("kill")]
            if items:
                do_unit({**unit, "work": {**unit["work"], "items": items}})
            Unit.from_plain(unit).mark(STARTED).touch()
            self._queue.append(Ended(name=name, why="killed"))
        else:
            self._queue.append(Ended(name=name, done=do_unit(unit)))

    def ended(self, timeout_seconds: float) -> list[Ended]:
        return [self._queue.popleft()] if self._queue else []

    def cancel(self) -> None:
        self._queue.clear()


def spread(tmp_path: Path, pool: PoolHere, *paths: str) -> tuple[dict[str, ItemRow], SilentReporter]:
    reporter = SilentReporter()
    items = make_items(*paths)
    Spreader(make_work(tmp_path, items), pool, reporter, in_units(20.0)).run()
    names = {item.digest: item.video_id for item in items}
    rows = ItemLedger(Store.at(tmp_path).node("0" * 32)).load()
    return {names[digest]: row for digest, row in rows.items()}, reporter


def test_every_item_is_a_row_reported_once_and_marks_are_folded(tmp_path: Path) -> None:
    pool = PoolHere()
    rows, reporter = spread(tmp_path, pool, *["ok"] * 40, "fail")
    assert Counter(row.status for row in rows.values()) == {"ok": 40, "failed": 1}
    assert len(reporter.rows) == 41
    assert max(Counter(begun(tmp_path)).values()) == 1
    assert not list((Store.at(tmp_path).node("0" * 32) / "items").glob("*.json"))
    assert not list(Store.at(tmp_path).claims("0" * 32).iterdir())
    assert len(pool.units) < 41  # several to a unit


def test_what_kills_three_workers_is_given_up_and_the_innocent_are_done(tmp_path: Path) -> None:
    rows, reporter = spread(tmp_path, PoolHere(), *["ok"] * 9, "kill", *["ok"] * 10)
    (bad,) = [row for row in rows.values() if not row.is_done]
    assert (rows["v9"], bad.status, bad.cause, bad.attempts) == (bad, "crashed", "killed_worker", DEATHS)
    assert all(row.attempts == 1 for row in rows.values() if row.is_done)
    assert len(reporter.rows) == 20
    assert max(Counter(begun(tmp_path)).values()) == 1  # what was done before the death is not done again


def test_deaths_before_a_start_blame_nobody_and_end_the_node(tmp_path: Path) -> None:
    rows, _ = spread(tmp_path, PoolHere(breaks=3), "ok", "ok")
    assert all(row.status == "ok" for row in rows.values())
    with pytest.raises(StageError, match=r"4 workers in a row died before they started on a video \(no memory\)"):
        spread(tmp_path / "other", PoolHere(breaks=4), "ok", "ok")


def test_units_lost_with_the_scheduler_are_done_again_without_blame(tmp_path: Path) -> None:
    pool = PoolHere(lost=5)
    rows, _ = spread(tmp_path, pool, *["ok"] * 6)
    assert len(rows) == 6
    assert all(row.is_done for row in rows.values())


def test_workers_that_leave_in_peace_blame_nobody_however_often(tmp_path: Path) -> None:
    Store.at(tmp_path).claims("0" * 32).mkdir(parents=True)
    rows, reporter = spread(tmp_path, PoolHere(leaves=9), "ok", "ok")
    assert [row.attempts for row in rows.values()] == [1, 1]
    assert len(reporter.rows) == 2


def test_an_error_of_the_stage_ends_the_node_with_its_own_kind(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="the stand-in was told to raise"):
        spread(tmp_path, PoolHere(), "ok", "raise")


def test_a_unit_started_before_says_so_unless_its_worker_left_in_peace(tmp_path: Path) -> None:
    unit = Unit.of(make_work(tmp_path, make_items("ok")), name="u")
    unit.mark(STARTED).parent.mkdir(parents=True)
    unit.mark(STARTED).touch()
    assert UnitDone.from_plain(do_unit(unit.plain())).died
    assert begun(tmp_path) == []
    unit.mark(STARTED).rename(unit.mark(LEFT))
    assert len(UnitDone.from_plain(do_unit(unit.plain())).rows) == 1
    assert not leave()  # nothing is under way any more


def test_a_unit_waits_for_who_writes_its_videos_and_takes_what_that_one_did(tmp_path: Path) -> None:
    import threading

    items = make_items("ok", "ok")
    unit = Unit.of(make_work(tmp_path, items), name="u")
    claim = Store.at(tmp_path).claims("0" * 32) / items[0].digest
    found: list[UnitDone] = []
    with exclusive(claim, report=lambda _: None, is_kept=False):
        thread = threading.Thread(target=lambda: found.append(UnitDone.from_plain(do_unit(unit.plain()))))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        ItemLedger(Store.at(tmp_path).node("0" * 32)).commit(ItemRow(digest=items[0].digest, status="ok", rows=7))
    thread.join()
    assert sorted(row.rows for row in found[0].rows) == [1, 7]
    assert begun(tmp_path) == [items[1].digest]
    assert not claim.exists()


def test_the_log_of_a_failure_is_found_by_its_video_and_that_of_a_success_is_gone(tmp_path: Path) -> None:
    items = make_items("ok", "fail", "ok")
    for name, chosen in (("first", items[:2]), ("second", items[2:])):
        do_unit(Unit.of(make_work(tmp_path, chosen), name=name).plain())
    (log,) = logs_of(Store.at(tmp_path), "0" * 32, items[1].digest)
    assert "failed (stand_in): told to" in log.read_text()
    assert logs_of(Store.at(tmp_path), "0" * 32, items[2].digest) == ()


def test_models_are_made_once_where_they_are_kept_and_the_oldest_goes() -> None:
    made: list[str] = []
    for name in "aabcbaa":
        cached_model(name, lambda name=name: made.append(name))
    assert made == list("aabcbaa")
    keep_models(2)
    made.clear()
    for name in "aabcba":
        cached_model(name, lambda name=name: made.append(name))
    assert made == list("abca")


def test_workers_decode_with_their_own_cores_where_the_settings_leave_it_open(tmp_path: Path) -> None:
    frames = InputRef(node="frames", stage="decode", key="k", config={"workers": None, "fps": 5})
    work = replace(make_work(tmp_path, []), config={"workers": 3}, inputs={"frames": (frames,)})
    found = sized(work, cpus=4)
    assert found.config["workers"] == 3
    assert found.inputs["frames"][0].config == {"workers": 2, "fps": 5}  # beside the encoder
    assert sized(replace(work, config={"workers": None}), cpus=4).config["workers"] == 4


def waiting(folder: Path, items: list[VideoItem]) -> Parts:
    return Parts.of(items, make_work(folder, items), in_units(20.0))


def test_units_take_as_long_as_wished_once_the_rate_is_known_and_shrink_at_the_end(tmp_path: Path) -> None:
    parts = waiting(tmp_path, make_items(*["ok"] * 100, seconds=9.0))  # each costs 10
    first = parts.take(num_workers=2)
    assert len(first) == 2
    parts.done(first, seconds=1.0)  # 0.5 s an item
    assert len(parts.take(num_workers=2)) == 16  # a third of a worker's share of the 49 s left
    sizes = []
    while taken := parts.take(num_workers=2):
        sizes.append(len(taken))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert sum(sizes) == 82


def test_a_unit_never_holds_more_than_the_limit_and_long_videos_come_first(tmp_path: Path) -> None:
    items = [*make_items(*["ok"] * 5000, seconds=0.0), *make_items("ok", seconds=5.0)]
    parts = waiting(tmp_path, items)
    parts.done([Part(items[0])], seconds=1e-6)
    taken = parts.take(num_workers=1)
    assert taken[0].item.duration_seconds == 5.0
    assert len(taken) == MOST_ITEMS
