"""Locks between processes: one waits for the other, and a dead owner holds nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reelwright.storage.locks import exclusive

HOLD = """
import sys, time
from pathlib import Path
from reelwright.storage.locks import exclusive
with exclusive(Path(sys.argv[1]), tell=print) as waited:
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_waits_and_is_told_for_whom(tmp_path: Path) -> None:
    told: list[str] = []
    with holder(tmp_path / "x.lock", 1.0) as first:
        started = time.monotonic()
        with exclusive(tmp_path / "x.lock", tell=told.append) as waited:
            assert time.monotonic() - started > 0.3
            assert waited
        assert told == [f"waits for process {first.pid} on {told[0].split()[5].rstrip(',')}, which works on the same"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_dead_owner_holds_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with holder(tmp_path / "x.lock", 60) as first:
        first.send_signal(number)
        first.wait(timeout=10)
    with exclusive(tmp_path / "x.lock", tell=pytest.fail) as waited:
        assert not waited
