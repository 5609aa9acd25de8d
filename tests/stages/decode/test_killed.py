"""Decoding processes that are killed are tried again, with the rows that an undisturbed run has; crashes are not."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reelwright.stages.decode import source, work
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.processes.attempts import Attempt, DecodeResult, Plan, attempt_all
from reelwright.stages.decode.readers import backend_order
from reelwright.stages.decode.source import Opened, Restarted, stream_frames
from reelwright.stages.decode.work import run_items
from reelwright.stages.index import probe
from reelwright.stages.index.probe import probe_videos
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.store import Store
from tests.stages.decode.test_source import Progress, collect, greys, item
from tests.stages.decode.test_source import work as work_of

Kill = Callable[..., Path]
AGAIN = "the decoding process died: it was killed from outside (SIGKILL), as when memory is short; it was tried again"


@pytest.fixture
def kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kill:
    """Let the first processes that decode, stream or probe be killed; returns the file of the calls, a line each."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def prepare(*, times: int, after: int, number: int = signal.SIGKILL, only: str = "") -> Path:
        def named(function: str) -> str:
            plan = {
                "calls": str(tmp_path / "calls"),
                "function": function,
                "times": times,
                "after": after,
                "only": only,
            }
            monkeypatch.setenv("KILLED", json.dumps({**plan, "signal": int(number)}))
            return "worker_tasks:killed"

        def wrapped(made: Callable[..., Plan], *arguments: object, **named_arguments: object) -> Plan:
            plan = made(*arguments, **named_arguments)
            return replace(plan, function=named(plan.function))

        for module, name in ((work, "decode_plan"), (source, "decode_plan")):
            monkeypatch.setattr(module, name, functools.partial(wrapped, getattr(module, name)))
        monkeypatch.setattr(probe, "_FUNCTION", named(probe._FUNCTION))
        return tmp_path / "calls"

    return prepare


ORDER = backend_order("pyav")
ONCE, TWICE, ALWAYS = (
    (1, ["pyav", "pyav"], "ok"),
    (2, ["pyav", "pyav", *ORDER[1:2]], "ok" if len(ORDER) > 1 else "crashed"),
    (99, [backend for backend in ORDER for _ in range(2)], "crashed"),
)
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("times", "calls", "status", "after"),
    [
        pytest.param(*ONCE, 3, id="once-with-rows-under-way"),
        pytest.param(*ONCE, 0, id="once-at-once", marks=SLOW),
        pytest.param(*TWICE, 3, id="twice-with-rows-under-way", marks=SLOW),
        pytest.param(*TWICE, 0, id="twice-at-once", marks=SLOW),
        pytest.param(*ALWAYS, 3, id="always-with-rows-under-way", marks=SLOW),
        pytest.param(*ALWAYS, 0, id="always-at-once", marks=SLOW),
    ],
)
def test_stored_frames(
    tmp_path: Path, grey_video: Path, kill: Kill, times: int, calls: list[str], status: str, after: int
) -> None:
    made, reporter = kill(times=times, after=after), Progress()
    run_items(work_of(tmp_path / "store", [item(grey_video)], DecodeConfig(backend="pyav", workers=1)), reporter)
    row = ItemLedger(Store.at(tmp_path / "store").node("k" * 32)).load()["grey"]
    assert made.read_text().split() == calls
    assert (row.status, row.attempts, row.backend) == (status, len(calls), calls[-1])
    assert row.message.startswith(f"pyav: {AGAIN}")
    frames = FrameStore(Store.at(tmp_path / "store").frames("k" * 32))
    if status == "ok":
        assert [round(float(frame.mean()) / 4) for frame in frames.rows("grey").read(0, 40)] == list(range(40))
        assert reporter.done == reporter.planned == row.rows == 40
    else:
        assert (row.cause, row.rows, frames.digests()) == ("SIGKILL", 0, [])


@pytest.mark.parametrize(
    ("times", "calls", "status", "after"),
    [
        pytest.param(*ONCE, 3, id="once-with-rows-under-way"),
        pytest.param(*ONCE, 0, id="once-at-once", marks=SLOW),
        pytest.param(*TWICE, 3, id="twice-with-rows-under-way"),
        pytest.param(*TWICE, 0, id="twice-at-once", marks=SLOW),
        pytest.param(*ALWAYS, 3, id="always-with-rows-under-way", marks=SLOW),
        pytest.param(*ALWAYS, 0, id="always-at-once"),
    ],
)
def test_streamed_frames(grey_video: Path, kill: Kill, times: int, calls: list[str], status: str, after: int) -> None:
    made = kill(times=times, after=after)
    events = stream_frames(
        [item(grey_video)], decode=DecodeConfig(backend="pyav"), frames_store=None, geometry=None, workers=1,
        chunk_rows=8, start_rows={"grey": 16},
    )  # fmt: skip
    chunks, ends, others = collect(events)
    assert made.read_text().split() == calls
    assert (ends["grey"].status, ends["grey"].attempts) == (status, len(calls))
    assert AGAIN in ends["grey"].message
    if after:  # what came before is thrown away, and all rows come from the first on
        assert [type(event) for event in others] == [Opened] + [Restarted] * (len(calls) - 1)
    if status == "ok":
        assert greys(chunks["grey"]) == list(range(0 if after else 16, 40))
        assert ends["grey"].num_rows == 40


@pytest.mark.parametrize(("times", "status"), [(1, "ok"), (99, "crashed")], ids=["once", "always"])
@pytest.mark.parametrize("after", [0, 1])
def test_probes(grey_video: Path, kill: Kill, times: int, status: str, after: int) -> None:
    made = kill(times=times, after=after)
    ((_, found),) = probe_videos([grey_video], workers=1)
    assert len(made.read_text().splitlines()) == 2
    assert (found.status, found.num_frames) == (status, 40 if status == "ok" else 0)
    assert found.cause == ("" if status == "ok" else "SIGKILL")
    assert found.message.endswith("" if status == "ok" else "as when memory is short, twice")


def test_the_others_go_on(grey_video: Path, uneven_video: Path, kill: Kill) -> None:
    kill(times=99, after=0, only="grey")
    items = [item(grey_video), item(uneven_video)]
    events = stream_frames(items, decode=DecodeConfig(backend="pyav"), frames_store=None, geometry=None, workers=1)
    _, ends, _ = collect(events)
    assert {name: end.status for name, end in ends.items()} == {"grey": "crashed", "uneven": "ok"}


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT], ids=lambda number: number.name)
def test_what_crashes_by_itself_is_not_tried_again_with_the_same_backend(
    grey_video: Path, kill: Kill, number: signal.Signals
) -> None:
    made = kill(times=99, after=2, number=number)
    events = stream_frames(
        [item(grey_video)], decode=DecodeConfig(backend="pyav"), frames_store=None, geometry=None, workers=1
    )
    _, ends, _ = collect(events)
    assert made.read_text().split() == ORDER
    assert (ends["grey"].status, ends["grey"].cause) == ("crashed", number.name)


def plan_of(function: str, *, timeout_seconds: float | None = 30.0, **arguments: object) -> Plan:
    return Plan(
        function=f"worker_tasks:{function}",
        arguments=lambda _item, _backend, _broken: arguments,
        backends=lambda _item: ["one", "other"],
        workers=1,
        timeout_seconds=timeout_seconds,
    )


def test_a_person_who_kills_every_process(grey_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    tried, ended = [], None
    for event in attempt_all([item(grey_video)], plan_of("wait_to_be_killed")):
        if isinstance(event, Attempt):
            tried.append((event.number, event.backend))
            os.kill(event.body["pid"], signal.SIGTERM if event.number % 2 else signal.SIGKILL)
        else:
            ended = event
    assert tried == [(0, "one"), (1, "one"), (2, "other"), (3, "other")]
    assert isinstance(ended, DecodeResult)
    assert (ended.status, ended.cause, ended.attempts) == ("crashed", "SIGTERM", 4)


def test_a_stall_is_not_tried_again_with_the_same_backend(grey_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    events = list(attempt_all([item(grey_video)], plan_of("sleep", seconds=60, timeout_seconds=0.2)))
    assert [(event.status, event.attempts) for event in events] == [("timeout", 2)]
