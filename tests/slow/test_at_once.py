"""Runs and gc at once on one store in a folder, and a run that is suspended until others have taken its place."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project
from reelwright.pipeline.upkeep.verify import verify
from reelwright.storage.lock_holder import BEAT_SECONDS
from tests import forks
from tests.slow.buckets import LIMIT_SECONDS
from tests.slow.test_kills import write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def start(folder: Path, *arguments: str) -> forks.Forked:
    return forks.start(*arguments, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})


def ended(process: forks.Forked) -> tuple[int, str]:
    out, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert "Traceback" not in errors, errors
    return process.returncode, out + errors


@pytest.fixture
def started() -> Iterator[list[forks.Forked]]:
    """Processes that end with the test, however that ends."""
    processes: list[forks.Forked] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_runs_and_gc_at_once_lose_nothing(tmp_path: Path, started: list[forks.Forked]) -> None:
    """Two pipelines that share frames, one of them run twice, and a gc that gives both up as soon as it may."""
    folder = write_project(tmp_path, videos=None)
    text = (folder / "reelwright.yaml").read_text()
    (folder / "other.yaml").write_text(text.replace("epochs: 6", "epochs: 3"))
    (folder / "bare.yaml").write_text(text.partition("  embed:")[0].replace("fps: 10", "fps: 3"))
    running = [start(folder, "run"), start(folder, "run"), start(folder, "run", "-c", "other.yaml")]
    started.extend(running)
    sweeps, gone = 0, 0
    while any(process.poll() is None for process in running):
        code, message = ended(start(folder, "gc", "-c", "bare.yaml", "--now", "--only-these", "--delete", "--json"))
        assert code == 0, message
        sweeps, gone = (
            sweeps + 1,
            gone + len(json.loads(message[message.index("{") : message.rindex("}") + 1])["going"]),
        )
    for code, message in map(ended, running):
        assert code == 0, message
    print(f"{sweeps} times gc, which removed {gone} things")
    assert sweeps > 1
    for name in ("reelwright.yaml", "other.yaml"):
        project = Project.open(folder / name)
        assert project.run().exit_code == 0
        assert verify(project.file, whole=True).problems == ()
    assert not list((folder / ".reelwright" / "store" / "locks" / "uses").glob("*"))


def test_a_run_that_is_suspended_and_passed_over_writes_no_more(tmp_path: Path, started: list[forks.Forked]) -> None:
    """As a laptop that is closed: it wakes up while another one, on another machine, holds its lock."""
    folder = write_project(tmp_path, videos=None)
    process = start(folder, "run", "--until", "embed")
    started.append(process)
    store = folder / ".reelwright" / "store"
    until = time.monotonic() + LIMIT_SECONDS
    while not list(store.glob("embeddings/*.zarr/.partial-*/pooled/c/0/0")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGSTOP)
    (held,) = [path for path in store.glob("locks/*/*.json") if path.parent.name != "uses"]
    (held.parent / f"{int(held.stem) + 1:06d}.json").write_text("{}", encoding="utf-8")
    held.unlink()
    before = {path: path.stat().st_mtime_ns for path in store.glob("nodes/**/*") if path.is_file()}
    time.sleep(BEAT_SECONDS)  # so that the heartbeat looks as soon as it goes on
    os.killpg(process.pid, signal.SIGCONT)
    code, message = ended(process)
    assert code == 1, message
    assert "another process took this lock over" in message
    after = {path: path.stat().st_mtime_ns for path in store.glob("nodes/**/*") if path.is_file()}
    assert len(after.keys() - before.keys()) <= 1  # an item whose word was written as it woke up
    for path in held.parent.glob("*.json"):
        path.unlink()  # who took it over is done
    assert ended(start(folder, "run", "--until", "embed"))[0] == 0
    project = Project.open(folder / "reelwright.yaml")
    assert verify(project.file, whole=True).problems == ()
