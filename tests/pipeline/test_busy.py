"""While another process works in a store: `status` tells of it, `gc` and `verify --repair` leave alone what it uses."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.upkeep import gc as pipeline_collect
from reelwright.pipeline.upkeep.gc import Limits, Sweep, collect, sweep
from reelwright.pipeline.upkeep.repair import repair
from reelwright.storage.errors import StoreError
from reelwright.storage.integrity import garbage
from reelwright.storage.integrity.garbage import Garbage
from reelwright.storage.locks.locks import exclusive, holdings, uses, using
from reelwright.storage.store import Store
from tests.cli.test_comparing import reelwright
from tests.small_project import put_back

WORK = """
import sys, time
from pathlib import Path
from reelwright.storage.locks.locks import exclusive, using
locks, kind, *keys = Path(sys.argv[1]), *sys.argv[2:]
with exclusive(locks / keys[0], report=print, what="embed of other.yaml") if kind == "holds" else using(
    locks, what="run of other.yaml"
) as note:
    if kind == "uses":
        note(keys)
    print("ready", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def project(restorable: Path) -> Project:
    return put_back(restorable)


@contextlib.contextmanager
def working(project: Project, kind: str, *keys: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that ``uses`` keys, or ``holds`` the lock of one."""
    command = [sys.executable, "-c", WORK, str(project.file.store.locks), kind, *keys]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def key_of(project: Project, node: str) -> str:
    return project.planner().plan(node).spec_key


def swept(project: Project) -> Sweep:
    return sweep([project.file], SilentObserver(), limits=Limits(guard_seconds=0.0))


def going(found: Sweep) -> set[str]:
    return {f"{garbage.kind}/{garbage.path.name.removesuffix('.zarr')}" for garbage in found.going}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uses", "holds"])
def test_gc_leaves_what_a_running_process_uses(project: Project, kind: str) -> None:
    """The project at another rate of frames reaches nothing that is there; the other process still does."""
    changed = Project.open(project.file.path, overrides=["frames.fps=2"])
    frames, embed = key_of(project, "frames"), key_of(project, "embed")
    assert {f"frames/{frames}", f"embeddings/{embed}"} <= going(swept(changed))
    with working(changed, kind, embed):
        found = going(swept(changed))
        assert f"frames/{frames}" in found
        assert f"embeddings/{embed}" not in found
    assert f"embeddings/{embed}" in going(swept(changed))  # it is dead: what it left says nothing


@pytest.mark.slow
def test_gc_looks_again_before_it_removes(project: Project) -> None:
    """A process may begin to use something between the list and the removal."""
    changed = Project.open(project.file.path, overrides=["frames.fps=2"])
    embed = key_of(project, "embed")
    found = swept(changed)
    with working(changed, "uses", embed):
        gone = collect([changed.file], SilentObserver(), limits=Limits(guard_seconds=0.0)).going
    assert 0 < len(gone) < len(found.going)
    assert changed.file.store.embeddings(embed).is_dir()
    assert not changed.file.store.frames(key_of(project, "frames")).exists()


def test_nobody_begins_to_use_anything_while_gc_removes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wants to waits until it is over, looks again, and finds it gone instead of half there."""
    changed = Project.open(project.file.path, overrides=["frames.fps=2"])
    embed, locks = key_of(project, "embed"), project.file.store.locks
    removing, message, order = threading.Event(), threading.Event(), []

    def use() -> None:
        removing.wait(60)
        with using(locks, what="run", report=lambda _: message.set()) as note:
            note({embed})
            order.append("used")
            assert not project.file.store.embeddings(embed).exists()

    def slowly(store: Store, going: Sequence[Garbage]) -> list[Garbage]:
        removing.set()
        assert message.wait(60)
        gone = garbage.delete(store, going)
        order.append("removed")
        return gone

    monkeypatch.setattr(pipeline_collect, "delete", slowly)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(use)
        collect([changed.file], SilentObserver(), limits=Limits(guard_seconds=0.0))
        other.result(60)
    assert order == ["removed", "used"]


def test_what_somebody_works_on_without_a_note_stays(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc waits for the lock, and then it is not garbage any more; what else it found goes."""
    changed = Project.open(project.file.path, overrides=["frames.fps=2"])
    store, embed, waits = project.file.store, key_of(project, "embed"), threading.Event()
    found = swept(changed).going
    monkeypatch.setattr(garbage, "_say_nothing", lambda _: waits.set())
    with ThreadPoolExecutor(1) as pool:
        with exclusive(store.lock(embed), report=pytest.fail, what="release"):
            removed = pool.submit(garbage.delete, store, found)
            assert waits.wait(60)
        gone = removed.result(60)
    assert {entry.key for entry in found} - {entry.key for entry in gone} == {embed}
    assert store.embeddings(embed).is_dir()
    assert store.node(embed).is_dir()
    assert not store.frames(key_of(project, "frames")).exists()
    assert holdings(store.locks) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uses", "holds"])
def test_repair_waits_for_a_person_while_what_is_broken_is_used(project: Project, kind: str) -> None:
    shard = min(project.file.store.root.glob("embeddings/*.zarr/*/pooled/c/0/0"))
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    with working(project, kind, key_of(project, "embed")) as other:
        with pytest.raises(StoreError, match=rf"process {other.pid} of .* works on this since .* wait for its end"):
            repair(project.file, SilentObserver())
        assert shard.read_bytes() == content
    with working(project, kind, "another"):  # works on something else
        mended = repair(project.file, SilentObserver())
    assert [(result.node, result.num_done) for result in mended.results] == [("embed", 1)]
    assert mended.problems == ()


@pytest.mark.slow
def test_repair_ignores_a_process_that_died(project: Project) -> None:
    with working(project, "uses", key_of(project, "embed")):
        pass
    assert [use.is_dead for use in uses(project.file.store.locks)] == [True]
    shard = min(project.file.store.root.glob("embeddings/*.zarr/*/pooled/c/0/0"))
    shard.unlink()
    mended = repair(project.file, SilentObserver())
    assert [(result.node, result.num_done) for result in mended.results] == [("embed", 1)]


def test_status_tells_who_works_on_a_node(project: Project) -> None:
    folder = project.file.folder
    assert "works on it" not in reelwright(folder, "status").stdout
    assert json.loads(reelwright(folder, "status", "--json").stdout)["held"] == []
    with working(project, "holds", key_of(project, "embed")) as other:
        (line,) = [line for line in reelwright(folder, "status").stdout.splitlines() if "works on it" in line]
        assert line.startswith(f"embed: process {other.pid} of ")
        assert "(embed of other.yaml), last sign of life " in line
        (held,) = json.loads(reelwright(folder, "status", "--json").stdout)["held"]
        assert (held["node"], held["process"], held["what"]) == ("embed", other.pid, "embed of other.yaml")
        assert held["silent_seconds"] < 60
    assert "works on it" not in reelwright(folder, "status").stdout
    assert holdings(project.file.store.locks) == []
