"""Repair, gc and runs of real processes on one store at once: nothing is lost, and no shard has a second writer."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project
from reelwright.pipeline.upkeep.verify import verify
from reelwright.storage.digests import file_digest
from tests import forks
from tests.cli.test_comparing import reelwright
from tests.small_project import put_back

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LIMIT_SECONDS = 300

# Writes down when it begins and ends to write a shard; before each it waits until the file `go` is there.
HELD = """
import os, sys, time
from pathlib import Path
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.upkeep.repair import repair
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter

action, file, events = sys.argv[1], *map(Path, sys.argv[2:])
write = EmbeddingWriter.write_shard

def note(text):
    with (events / "log").open("a") as log:
        log.write(f"{text} {os.getpid()}\\n")

def watched(self, digest, index, **rows):
    note(f"begin {digest} {index}")
    while not (events / "go").exists():
        time.sleep(0.02)
    write(self, digest, index, **rows)
    note(f"end {digest} {index}")

EmbeddingWriter.write_shard = watched
project = Project.open(file)
if action == "run":
    assert project.run(force=["embed"], until=["embed"]).exit_code == 0
else:
    assert repair(project.file, SilentObserver()).problems == ()
"""


@pytest.fixture
def project(restorable: Path) -> Project:
    return put_back(restorable)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return tmp_path


@contextlib.contextmanager
def held(action: str, project: Project, events: Path) -> Iterator[forks.Forked]:
    """A process that has begun to write a shard, and ends well once `go` is there."""
    with forks.start(action, str(project.file.path), str(events), cwd=events, code=HELD) as process:
        try:
            until = time.monotonic() + LIMIT_SECONDS
            while not (events / "log").exists():
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < until
                time.sleep(0.05)
            yield process
            (events / "go").touch()
            errors = process.communicate(timeout=LIMIT_SECONDS)[1]
            assert process.returncode == 0, errors
        finally:
            process.kill()


@contextlib.contextmanager
def running(project: Project, *arguments: str) -> Iterator[forks.Forked]:
    """A command in a process of its own."""
    with forks.start(*arguments, cwd=project.file.folder) as process:
        try:
            yield process
        finally:
            process.kill()


def written(events: Path) -> list[str]:
    """Digest and number of the shards in the order in which they were written; asserts that no two writers overlap."""
    lines = [line.split() for line in (events / "log").read_text().splitlines()]
    open_by: dict[tuple[str, str], str] = {}
    for word, digest, index, process in lines:
        if word == "begin":
            assert (digest, index) not in open_by, f"{process} and {open_by[digest, index]} write {digest} at once"
            open_by[digest, index] = process
        else:
            assert open_by.pop((digest, index)) == process
    assert not open_by
    return [f"{digest} {index}" for word, digest, index, _ in lines if word == "end"]


def rows(project: Project) -> dict[Path, str]:
    root = project.file.store.root
    return {path: file_digest(path) for path in root.glob("embeddings/*/*/*/c/**/*") if path.is_file()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_repair_and_gc_leave_a_run_alone(project: Project, events: Path) -> None:
    before = rows(project)
    shard = min(path for path in before if "pooled" in path.parts)
    with held("run", project, events) as other:
        flip(shard)
        damaged = shard.read_bytes()
        refused = reelwright(project.file.folder, "verify", "--repair")
        assert refused.returncode == 1
        assert re.search(rf"process {other.pid} of .* works on this since .* wait for its end", refused.stderr)
        assert shard.read_bytes() == damaged
        message = reelwright(project.file.folder, "gc", "--now", "--only-these", "--delete")
        assert "nothing to remove" in message.stdout
    assert len(written(events)) == len(project.planner().plan("embed").wanted)  # each once
    assert verify(project.file, whole=True).problems == ()
    assert rows(project) == before
    assert project.run().nothing_to_do


def test_a_run_waits_for_the_run_of_a_repair_and_another_repair_finds_nothing_to_take_out(
    project: Project, events: Path
) -> None:
    before = rows(project)
    shard = min(path for path in before if "pooled" in path.parts)
    flip(shard)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(held("repair", project, events))
        run = stack.enter_context(running(project, "run"))
        assert run.stderr is not None
        assert any(f"waits for process {other.pid}" in line for line in run.stderr)  # read until it says so
        second = reelwright(project.file.folder, "verify", "--repair")
        assert "nothing is wrong" in second.stdout
        reelwright(project.file.folder, "gc", "--now", "--only-these", "--delete")
        (events / "go").touch()
        errors = run.communicate(timeout=LIMIT_SECONDS)[1]
        assert run.returncode == 0, errors
    assert written(events) == [f"{shard.parents[3].name} 0"]  # once, and just what was broken
    assert verify(project.file, whole=True).problems == ()
    assert rows(project) == before
    assert project.run().nothing_to_do
