"""Faults of the store under a run: full, read-only, removed, with wrong clocks. A clear message, and nothing is lost.

A full disk is a small tmpfs where the tests may mount one, else a limit on the size of files.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.results import NodeResult
from reelwright.pipeline.run.runner import RunResult
from reelwright.pipeline.upkeep.verify import verify
from reelwright.stages.base.work import Reporter, SilentReporter
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import UnusableStoreError
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.lock_holder import STALE_SECONDS
from reelwright.storage.locks.locks import holdings
from tests import forks
from tests.small_project import PIPELINE, read_rows, write_rows, write_video

DISK_BYTES = 24 << 20
FILE_BYTES = 1_000  # larger than a lock, smaller than what any node writes


@dataclass(frozen=True)
class Disk:
    """Where a store lies that can be made full or read-only."""

    path: Path
    is_mounted: bool

    @contextlib.contextmanager
    def full(self, *, free_bytes: int) -> Iterator[None]:
        """No more than ``free_bytes`` can be written in all; where nothing can be mounted, no file of FILE_BYTES."""
        if not self.is_mounted:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (min(free_bytes, FILE_BYTES), before[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            return
        ballast = self.path.parent / "ballast"
        size = shutil.disk_usage(self.path).free - free_bytes
        ballast.write_bytes(bytes(size))
        yield
        ballast.unlink()

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written."""
        if self.is_mounted:
            remount(self.path.parent, "ro")
            yield
            remount(self.path.parent, "rw")
            return
        folders = [self.path, *(path for path in self.path.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        yield
        for folder in folders:
            folder.chmod(0o755)


def remount(path: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    may = (
        os.geteuid() == 0
        and bool(shutil.which("mount"))
        and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    )
    try:
        yield Disk(place / "store", is_mounted=may)
    finally:
        if may:
            subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def project(disk: Disk, finished: Path, tmp_path: Path) -> Path:
    """The finished project with its store on the small disk."""
    shutil.copytree(finished / ".reelwright" / "store", disk.path)
    for name in ("videos.csv", "segments.csv"):
        shutil.copy(finished / name, tmp_path)
    text = PIPELINE.replace("manifest: videos.csv", f"manifest: videos.csv, root: {finished}")
    (tmp_path / "reelwright.yaml").write_text(f"store: {disk.path}\n{text}", encoding="utf-8")
    return tmp_path


def opened(folder: Path, *overrides: str) -> Project:
    return Project.open(folder / "reelwright.yaml", overrides=overrides)


def only(result: RunResult, state: str) -> NodeResult:
    (found,) = [node for node in result.nodes if node.state == state]
    return found


def contents(root: Path) -> dict[Path, str]:
    """Digests of all files but those that say who works now, and what is not finished."""
    return {
        path: file_digest(path)
        for path in root.rglob("*")
        if path.is_file() and "locks" not in path.parts and not {".partial", ".tmp"} & {path.name[:4], path.name[:8]}
    }


# Node that is to write -> a setting that makes it, and how much is left for it.
FULL = {
    "frames": ("frames.fps=2.5", 40_000),
    "embed": ("embed.dtype=float32", 30_000),
    "train": ("train.epochs=3", 24_000),
    "predict": ("predict.window.hop=3", 12_000),
    "scores": ("scores.topk=[1]", 12_000),
}


@pytest.mark.slow
# TensorBoard's own thread may be the first to meet the full disk; it tells so on stderr, and the next write raises.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("node", "setting", "free_bytes"), [(n, *v) for n, v in FULL.items()], ids=list(FULL))
def test_a_full_disk_ends_the_node_with_a_clear_message_and_loses_nothing(
    project: Path, disk: Disk, node: str, setting: str, free_bytes: int
) -> None:
    before = contents(disk.path)
    with disk.full(free_bytes=free_bytes):
        result = opened(project, setting).run(until=[node])
    assert result.exit_code == 1
    assert result.failures == ()  # no video is to blame
    message = only(result, "failed")
    assert message.node == node
    assert str(disk.path) in message.message
    assert ("MB are free there" in message.message) or (not disk.is_mounted and "ulimit" in message.message)
    assert {path: digest for path, digest in contents(disk.path).items() if path in before} == before
    assert verify(opened(project).file, whole=True).is_whole
    assert opened(project).run().nothing_to_do
    after = opened(project, setting).run(until=[node])
    assert after.exit_code == 0
    assert only(after, "ran").node == node
    assert verify(opened(project, setting).file, whole=True).is_whole
    assert holdings(disk.path / "locks") == []


def test_a_disk_that_is_full_when_the_record_is_written(project: Path, disk: Disk) -> None:
    file = opened(project).file
    record = file.store.node(opened(project).planner().plan("predict").key) / "record.json"
    record.unlink()
    with disk.full(free_bytes=0):
        result = opened(project).run(until=["predict"])
    assert only(result, "failed").node == "predict"
    assert not record.exists()
    again = opened(project).run()
    assert (again.exit_code, sum(node.num_done for node in again.nodes)) == (0, 0)
    assert record.exists()


def test_a_full_disk_while_videos_are_read(project: Path, disk: Disk) -> None:
    (disk.path / "files.json").unlink()
    (disk.path / "videos.json").unlink()
    with disk.full(free_bytes=0), pytest.raises(Exception, match=r"(MB are free there|ulimit)"):
        opened(project).run()
    assert opened(project).run().nothing_to_do


def test_a_read_only_store_can_be_used_and_says_at_once_when_there_is_work(project: Path, disk: Disk) -> None:
    if not disk.is_mounted and os.geteuid() == 0:
        return  # root in a container that may not mount: nothing can be made read-only for it
    started: list[str] = []

    class Watching(SilentObserver):
        def started(self, plan: object) -> Reporter:
            started.append(str(plan))
            return SilentReporter()

    with disk.read_only():
        assert opened(project).run().nothing_to_do
        (project / "segments.csv").touch()
        assert opened(project).run().nothing_to_do
        result = opened(project, "frames.fps=2.5").run(observer=Watching())
        assert result.exit_code == 1
        message = only(result, "failed")
        assert message.node == "frames"
        assert f"make {disk.path} writable or name another store" in message.message
        assert message.seconds < 2
        assert started == []  # nothing heavy was begun
        write_video(project / "new.mp4", seed=7)
        rows = read_rows(project / "videos.csv")
        write_rows(project / "videos.csv", [*rows, {**rows[0], "video_id": "new", "path": str(project / "new.mp4")}])
        with pytest.raises(UnusableStoreError, match=f"make {disk.path} writable or name another store"):
            opened(project).run()
    assert verify(opened(project).file, whole=True).is_whole


class Removing(SilentObserver):
    """Removes the store when the second video of a node is done."""

    def __init__(self, node: str, root: Path) -> None:
        self._node, self._root = node, root

    def started(self, plan: object) -> Reporter:
        observer = self

        class Remover(SilentReporter):
            def note(self, text: str) -> None:
                self.item(None)

            def item(self, row: object) -> None:
                if plan.node.name == observer._node and observer._root.exists():  # type: ignore[attr-defined]
                    shutil.rmtree(observer._root, ignore_errors=True)

        return Remover()


@pytest.mark.slow
# TensorBoard's own thread may be the first to miss its folder, as above.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("node", "setting"), [(node, setting) for node, (setting, _) in FULL.items() if node != "scores"]
)
def test_a_store_removed_while_running_ends_the_run_and_the_next_starts_anew(
    project: Path, disk: Disk, node: str, setting: str
) -> None:
    began = time.monotonic()
    result = opened(project, setting).run(until=[node], observer=Removing(node, disk.path))
    assert time.monotonic() - began < 60
    assert result.exit_code == 1
    message = only(result, "failed")
    assert message.node == node
    assert "the store was removed while this ran" in message.message
    again = opened(project, setting).run(until=[node])
    assert again.exit_code == 0
    assert verify(opened(project, setting).file, whole=True).is_whole


def test_nothing_depends_on_times(project: Path, disk: Disk) -> None:
    """Times of all files of the store as another clock would set them: none is done again, none is kept too long."""
    for seconds in (0, 4_000_000_000):
        for path in [*disk.path.rglob("*"), project / "segments.csv", project / "videos.csv"]:
            os.utime(path, (seconds, seconds))
        assert opened(project).run().nothing_to_do
        assert verify(opened(project).file, whole=True).is_whole
        again = opened(project, f"train.seed={1 + seconds}").run(until=["train"])
        assert {node.node: node.state for node in again.nodes}["train"] == "ran"
    assert holdings(disk.path / "locks") == []


RUN = """
import json, sys, time
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.stages.base.work import SilentReporter

class Holding(SilentReporter):
    def item(self, row):
        if sys.argv[3] == "hold":
            time.sleep(1000)  # it is killed meanwhile
    def note(self, text):
        if text.startswith("waits for"):
            print(text, flush=True)

class Watching(SilentObserver):
    def started(self, plan):
        return Holding()

result = Project.open(sys.argv[1]).run(until=[sys.argv[2]], observer=Watching())
print(json.dumps([result.exit_code, {node.node: node.num_done for node in result.nodes}]), flush=True)
"""


def start(pipeline: Path, until: str, *, hold: bool = False) -> forks.Forked:
    """A run; one that shall hold does not go on after its first video."""
    return forks.start(str(pipeline), until, "hold" if hold else "", cwd=pipeline.parent, code=RUN)


def message(process: forks.Forked) -> tuple[int, dict[str, int]]:
    exit_code, done = json.loads(process.communicate(timeout=120)[0].splitlines()[-1])
    return exit_code, done


def inodes(items: Iterable[Path]) -> dict[Path, int]:
    """Of all files of items: what is written again gets another one."""
    return {path: path.stat().st_ino for item in items for path in item.rglob("*")}


@pytest.mark.slow
def test_when_one_of_two_runs_is_killed_the_other_takes_over_at_once(folder: Path) -> None:
    assert opened(folder).run(until=["frames"]).exit_code == 0
    plan = opened(folder).planner().plan("embed")
    store = opened(folder).file.store
    first = start(folder / "reelwright.yaml", "embed", hold=True)
    ledger = ItemLedger(store.node(plan.spec_key))
    until = time.monotonic() + 60
    while not ledger.done() and time.monotonic() < until:
        time.sleep(0.02)
    with start(folder / "reelwright.yaml", "embed") as second:
        assert second.stdout is not None
        assert second.stdout.readline().startswith(f"waits for process {first.pid} of ")
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate(timeout=10)
        killed = time.monotonic()
        done = sorted(ledger.done())
        assert 0 < len(done) < 5
        before = inodes(store.embeddings(plan.spec_key) / digest for digest in done)
        assert message(second) == (0, {"frames": 0, "embed": 5 - len(done)})
    assert time.monotonic() - killed < STALE_SECONDS  # as an owner elsewhere would have been waited for
    assert inodes(store.embeddings(plan.spec_key) / digest for digest in done) == before
    assert holdings(store.locks) == []
    assert [problem for problem in verify(opened(folder).file, whole=True).problems if problem.is_wrong] == []


@pytest.mark.slow
def test_two_pipeline_files_at_once_share_what_is_the_same(folder: Path) -> None:
    text = (folder / "reelwright.yaml").read_text(encoding="utf-8")
    (folder / "second.yaml").write_text(text.replace("name: linear", "name: gru"), encoding="utf-8")
    both = [start(folder / name, "predict") for name in ("reelwright.yaml", "second.yaml")]
    (first_code, first), (second_code, second) = (message(process) for process in both)
    assert (first_code, second_code) == (0, 0)
    assert {node: first[node] + second[node] for node in first} == {"frames": 5, "embed": 5, "train": 0, "predict": 10}
    store = opened(folder).file.store
    assert len(list((store.root / "runs").iterdir())) == 2
    assert verify(opened(folder).file, whole=True).is_whole
    assert Project.open(folder / "second.yaml").run(until=["predict"]).nothing_to_do
