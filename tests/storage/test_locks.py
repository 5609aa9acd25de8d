"""Locks between processes: one waits for the other, a dead owner holds nothing, and nobody holds what another has."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reelwright.storage.errors import LostLockError
from reelwright.storage.lock_holder import Owner
from reelwright.storage.locks.locks import exclusive, holdings, uses, using

HOLD = """
import sys
from pathlib import Path
from reelwright.storage.locks.locks import exclusive
with exclusive(Path(sys.argv[1]), report=print, what="embed") as waited:
    print("held", flush=True)
    sys.stdin.readline()  # until it is let go
"""
COUNT = """
import sys
from pathlib import Path
from reelwright.storage.locks.locks import exclusive
counter, inside = Path(sys.argv[2]), Path(sys.argv[3])
for _ in range(int(sys.argv[4])):
    with exclusive(Path(sys.argv[1]), report=lambda message: None):
        inside.mkdir()  # fails where two are inside
        counter.write_text(str(int(counter.read_text()) + 1))
        inside.rmdir()
"""


def ignore(message: str) -> None:
    """Say nothing."""
    del message


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until it gets a line."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def make_elsewhere(folder: Path) -> Path:
    """The lock as if another machine held it."""
    (held,) = folder.glob("*.json")
    values = json.loads(held.read_text(encoding="utf-8"))
    held.write_text(json.dumps({**values, "machine": "another", "host": "node7"}), encoding="utf-8")
    return held


def test_the_second_waits_and_is_told_for_whom(tmp_path: Path) -> None:
    message: list[str] = []

    def let_go(text: str) -> None:
        message.append(text)
        first.communicate("\n")

    with holder(tmp_path / "key") as first:
        with exclusive(tmp_path / "key", report=let_go) as waited:
            assert waited
        assert len(message) == 1
        assert message[0].startswith(f"waits for process {first.pid} of ")
        assert message[0].endswith(", which works on the same")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_dead_owner_holds_nothing_even_before_its_parent_looks(tmp_path: Path, number: signal.Signals) -> None:
    with holder(tmp_path / "key") as first:
        first.send_signal(number)
        started = time.monotonic()
        with exclusive(tmp_path / "key", report=ignore):
            assert time.monotonic() - started < 10
        first.wait(timeout=10)
    assert holdings(tmp_path) == []


def test_a_process_number_that_is_used_again_is_not_the_owner(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    dead = dataclasses.asdict(Owner(started="long ago"))  # our own number, of an earlier process
    (tmp_path / "key" / "000003.json").write_text(json.dumps(dead), encoding="utf-8")
    with exclusive(tmp_path / "key", report=pytest.fail) as waited:
        assert not waited
        assert [path.name for path in (tmp_path / "key").iterdir()] == ["000004.json"]
    assert [path.name for path in (tmp_path / "key").iterdir()] == ["000004.free"]


def test_a_silent_owner_on_another_machine_is_passed_over_by_our_clock_alone(tmp_path: Path) -> None:
    with holder(tmp_path / "key") as first:
        first.kill()
        held = make_elsewhere(tmp_path / "key")
        os.utime(held, (4e9, 4e9))  # its clock runs a century ahead: says nothing
        started = time.monotonic()
        with exclusive(tmp_path / "key", report=ignore, stale_seconds=1.0) as waited:
            assert waited
            assert 0.9 < time.monotonic() - started < 20
        first.wait(timeout=10)


@pytest.mark.slow
def test_an_owner_on_another_machine_that_gives_signs_of_life_is_waited_for(tmp_path: Path) -> None:
    with holder(tmp_path / "key") as first:
        held = make_elsewhere(tmp_path / "key")
        script = "import os,sys,time\nfor n in range(20): os.utime(sys.argv[1], (n, n)); time.sleep(0.1)"
        with subprocess.Popen([sys.executable, "-c", script, str(held)]):
            started = time.monotonic()
            with exclusive(tmp_path / "key", report=ignore, stale_seconds=1.0):
                assert time.monotonic() - started > 1.5
        first.kill()


def test_an_owner_that_died_while_writing_its_name_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "000001.json").touch()
    message: list[str] = []
    with exclusive(tmp_path / "key", report=message.append, stale_seconds=0.5):
        assert message == ["waits for another process, which works on the same"]


def test_never_two_inside(tmp_path: Path) -> None:
    """Four processes take turns fast; each generation is one turn."""
    (tmp_path / "counter").write_text("0", encoding="utf-8")
    arguments = [str(tmp_path / name) for name in ("key", "counter", "inside")]
    racing = [subprocess.Popen([sys.executable, "-c", COUNT, *arguments, "15"]) for _ in range(4)]
    assert [process.wait(timeout=100) for process in racing] == [0, 0, 0, 0]
    assert (tmp_path / "counter").read_text(encoding="utf-8") == "60"


@pytest.mark.parametrize("seconds", [0.0, 4e9], ids=["a clock set forward", "a clock set back"])
def test_a_living_owner_holds_whatever_the_clock_says(tmp_path: Path, seconds: float) -> None:
    with holder(tmp_path / "key") as first:
        (held,) = (tmp_path / "key").glob("*.json")
        os.utime(held, (seconds, seconds))
        assert [found.is_dead for found in holdings(tmp_path)] == [False]
        first.kill()
        first.wait(timeout=10)
        os.utime(held, (4e9, 4e9))
        assert holdings(tmp_path) == []


def test_an_owner_elsewhere_is_forgotten_after_a_day(tmp_path: Path) -> None:
    with holder(tmp_path / "key") as first:
        held = make_elsewhere(tmp_path / "key")
        first.kill()
        for days, is_listed in ((0.5, True), (1.5, False)):
            then = time.time() - days * 86_400
            os.utime(held, (then, then))
            assert bool(holdings(tmp_path)) is is_listed


def test_an_error_inside_lets_the_lock_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="x"), exclusive(tmp_path / "key", report=print):
        raise KeyError("x")
    assert holdings(tmp_path) == []


def test_who_looked_long_ago_costs_nobody_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock was let go, cleared away and taken anew meanwhile, so that its numbers began again."""
    late = tmp_path / "lock" / "000008.json"
    with exclusive(tmp_path / "lock", report=ignore):
        late.write_text(json.dumps(dataclasses.asdict(Owner())))
        monkeypatch.setattr("reelwright.storage.locks.locks.time.sleep", lambda _: late.unlink(missing_ok=True))
    assert not late.exists()


def test_a_generation_beside_ours_that_stays_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it died before taking ours away."""
    monkeypatch.setattr("reelwright.storage.locks.locks.time.sleep", lambda _: None)
    with pytest.raises(LostLockError), exclusive(tmp_path / "lock", report=ignore):
        (tmp_path / "lock" / "000008.json").write_text("{}")


def test_holdings_and_uses_tell_who_and_what(tmp_path: Path) -> None:
    with holder(tmp_path / "abc") as first:
        (held,) = holdings(tmp_path)
        assert (held.key, held.owner.process, held.owner.what) == ("abc", first.pid, "embed")
        assert held.silent_seconds < 60
        first.kill()
    with using(tmp_path, what="reelwright.yaml") as note:
        assert uses(tmp_path) == []
        note({"k1", "k2"})
        note({"k3"})
        (used,) = uses(tmp_path)
        assert used.owner.keys == ("k1", "k2", "k3")
        assert not used.is_dead
    assert uses(tmp_path) == []
