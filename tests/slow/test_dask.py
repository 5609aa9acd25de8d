"""On real dask workers: deaths by signal and by memory, a scheduler that is started again, and Ctrl-C."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.executors import dask_pool
from reelwright.pipeline.executors.dask_pool import DaskPool
from reelwright.pipeline.executors.unit_scheduler import DEATHS, Ended, Spreader
from reelwright.pipeline.plan.graph import NodePlan
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.stages.base.registry import STAGES
from reelwright.stages.base.unit import Unit
from reelwright.stages.base.work import SilentReporter
from reelwright.storage.errors import StageError
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store
from tests import forks
from tests.pipeline.cluster.stand_in import STAGE, begun, in_units, make_items, make_work
from tests.slow.ports import free_ports
from tests.slow.test_kills import outcome, verify_whole, write_project
from tests.small_project import write_rows, write_video

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("default"),  # of distributed, about loops and sockets of processes that are killed
]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "stand_in", STAGE)


class Noting(SilentReporter):
    """Keeps notes too."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Watching(SilentObserver):
    """Keeps the notes of all nodes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def making(self, num_videos: int) -> Noting:
        return self.started(None)

    def started(self, plan: NodePlan | None) -> Noting:
        reporter = Noting()
        reporter.notes = self.notes
        return reporter


@contextlib.contextmanager
def pool(tmp_path: Path, reporter: Noting, **settings: object) -> Iterator[DaskPool]:
    chosen = ClusterSettings(**{"executor": "dask", "workers": 2, "memory": "500MB", "unit_seconds": 5.0, **settings})
    opened = DaskPool(chosen, logs=tmp_path / "logs", report=reporter.note)
    try:
        yield opened
    finally:
        opened.close()


def rows_of(tmp_path: Path, items) -> dict[str, ItemRow]:
    names = {item.digest: item.video_id for item in items}
    return {names[digest]: row for digest, row in ItemLedger(Store.at(tmp_path).node("0" * 32)).load().items()}


def test_killers_are_given_up_the_innocent_are_done_and_nothing_is_left_running(tmp_path: Path) -> None:
    items, reporter = make_items(*["ok"] * 30, "kill", *["ok"] * 30, "memory"), Noting()
    with pool(tmp_path, reporter) as opened:
        Spreader(make_work(tmp_path, items), opened, reporter, in_units(5.0)).run()
        children = psutil.Process().children(recursive=True)
    rows = rows_of(tmp_path, items)
    bad = {name: (row.status, row.cause, row.attempts) for name, row in rows.items() if not row.is_done}
    assert bad == dict.fromkeys(("v30", "v61"), ("crashed", "killed_worker", DEATHS))
    assert len(rows) == 62
    assert len(begun(tmp_path)) <= 60 + 2  # on a busy machine dask gives up a worker that is only slow to start again
    assert any("dashboard http://" in note for note in reporter.notes)
    assert children
    _, alive = psutil.wait_procs(children, timeout=20)
    assert [child for child in alive if not is_tracker(child)] == []


def is_tracker(process: psutil.Process) -> bool:
    """multiprocessing's own or that of `tests.forks`, which end with this process; or gone by now."""
    try:
        return any(name in " ".join(process.cmdline()) for name in ("resource_tracker", "tests.forks"))
    except psutil.Error:
        return True


def dask_process(*arguments: str, variables: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **(variables or {}), "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )


def dask_commands(port: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of a scheduler and of a worker with one thread."""
    return (
        ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"),
        ("distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-dashboard"),
    )


@contextlib.contextmanager
def ending(*processes: subprocess.Popen[bytes] | forks.Forked) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def wait_until(true, *, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_scheduler_that_is_there_kills_and_comes_back_and_work_goes_on(tmp_path: Path) -> None:
    (port,), items = free_ports(1), make_items(*["slow"] * 40, "kill")
    scheduler_command, worker_command = dask_commands(port)
    reporter = Noting()
    with contextlib.ExitStack() as stack, pool(tmp_path, reporter, scheduler=f"tcp://127.0.0.1:{port}") as opened:
        first = dask_process(*scheduler_command)
        stack.enter_context(ending(first, dask_process(*worker_command)))
        spreader = Spreader(make_work(tmp_path, items), opened, reporter, in_units(1.0))
        thread = threading.Thread(target=spreader.run)
        thread.start()
        wait_until(lambda: len(begun(tmp_path)) >= 5)
        first.kill()
        stack.enter_context(ending(dask_process(*scheduler_command), dask_process(*worker_command)))
        thread.join(200)
        assert not thread.is_alive()
    rows = rows_of(tmp_path, items)
    assert len(rows) == 41
    assert {name for name, row in rows.items() if not row.is_done} == {"v40"}
    assert sum(Counter(begun(tmp_path)).values()) <= 40 + 6  # a unit or two were in flight


def test_a_result_that_is_lost_with_the_scheduler_is_made_again(tmp_path: Path) -> None:
    """The unit has ended, and its result is with the worker when the scheduler and the worker are killed."""
    (port,), (item,) = free_ports(1), make_items("ok")
    scheduler_command, worker_command = dask_commands(port)
    reporter = Noting()
    with contextlib.ExitStack() as stack, pool(tmp_path, reporter, scheduler=f"tcp://127.0.0.1:{port}") as opened:
        first = [dask_process(*scheduler_command), dask_process(*worker_command)]
        stack.enter_context(ending(*first))
        opened.want(1)
        unit = Unit.of(make_work(tmp_path, [item]), name="first")
        opened.submit("first", unit.plain(), needs_gpu=False)
        wait_until(lambda: opened._futures["first"].status == "finished")
        for process in first:
            process.kill()
        stack.enter_context(ending(dask_process(*scheduler_command), dask_process(*worker_command)))
        assert opened.ended(60) == [Ended(name="first", is_lost=True)]
        opened.submit("again", replace(unit, name="again").plain(), needs_gpu=False)
        (ended,) = opened.ended(60)
    assert ended.name == "again"
    assert ended.done is not None


def test_a_scheduler_that_does_not_come_back_ends_the_stage_and_what_was_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_CONNECT_SECONDS", "_RECONNECT_SECONDS"):
        monkeypatch.setattr(dask_pool, name, 10.0)
    (port,), items = free_ports(1), make_items(*["slow"] * 40)
    scheduler_command, worker_command = dask_commands(port)
    reporter, found = Noting(), []

    def run() -> None:
        try:
            spreader.run()
        except StageError as error:
            found.append(str(error))

    with contextlib.ExitStack() as stack, pool(tmp_path, reporter, scheduler=f"tcp://127.0.0.1:{port}") as opened:
        first = dask_process(*scheduler_command)
        stack.enter_context(ending(first, dask_process(*worker_command)))
        spreader = Spreader(make_work(tmp_path, items), opened, reporter, in_units(1.0))
        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: len(begun(tmp_path)) >= 5)
        first.kill()
        thread.join(100)
        assert not thread.is_alive()
    assert [re.sub(r":\d+", "", text) for text in found] == [
        "tcp://127.0.0.1 is gone and did not come back. What was done is kept: run again to go on"
    ]
    assert sum(row.is_done for row in rows_of(tmp_path, items).values()) >= 1


def test_that_no_worker_has_a_gpu_is_told_and_one_that_comes_is_taken(tmp_path: Path) -> None:
    (port,), (item,) = free_ports(1), make_items("ok")
    scheduler_command, worker_command = dask_commands(port)
    reporter, address = Noting(), f"tcp://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack, pool(tmp_path, reporter, scheduler=address, gpus=1) as opened:
        stack.enter_context(ending(dask_process(*scheduler_command), dask_process(*worker_command)))
        opened.want(1)
        wait_until(lambda: opened.size() == 1)
        opened.submit("unit", Unit.of(make_work(tmp_path, [item]), name="unit").plain(), needs_gpu=True)
        assert ["Start workers with" in note for note in reporter.notes if "no worker has said" in note] == [True]
        assert opened.ended(2) == []
        stack.enter_context(ending(dask_process(*worker_command, "--resources", "GPU=1")))
        (ended,) = opened.ended(60)
    assert ended.done is not None


@pytest.mark.parametrize(("name", "place"), [(3, "3"), ("SLURMCluster-1", None)])
def test_workers_of_this_machine_know_their_place_on_it(monkeypatch, name, place):
    from reelwright.pipeline.executors.dask_worker import LeavePlugin

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("LOCAL_RANK", "to be restored")
    monkeypatch.delenv("LOCAL_RANK")
    LeavePlugin().setup(SimpleNamespace(name=name, memory_manager=SimpleNamespace(memory_limit=None)))
    assert os.environ.get("LOCAL_RANK") == place


def test_a_scheduler_that_is_not_there_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_pool, "_CONNECT_SECONDS", 1.0)
    reporter = Noting()
    with pool(tmp_path, reporter, scheduler=f"tcp://127.0.0.1:{free_ports(1)[0]}") as opened:
        spreader = Spreader(
            make_work(tmp_path, make_items("ok")),
            opened,
            reporter,
            in_units(5.0),
        )
        with pytest.raises(StageError, match="no dask scheduler answers at tcp://127"):
            spreader.run()


def test_the_whole_pipeline_equals_that_of_one_process_and_ctrl_c_is_clean(tmp_path: Path) -> None:
    reference = write_project(make(tmp_path / "local"), videos=None)
    assert Project.open(reference / "reelwright.yaml").run().exit_code == 0
    folder = write_project(make(tmp_path / "dask"), videos=reference)
    # Where pytest was started in the background, its children ignore Ctrl-C unless they ask for it.
    command = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from reelwright.cli.main import main; sys.argv[0] = 'reelwright'; main()"
    )
    run = [sys.executable, "-c", command, "run", "--executor", "dask"]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(run, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        wait_until(lambda: list(folder.glob(".reelwright/store/embeddings/*/*/zarr.json")), seconds=200)
        environments = [environment_of(p) for p in psutil.process_iter() if group_of(p) == process.pid]
        assert any("OMP_NUM_THREADS" in found for found in environments)
        assert not any("MALLOC_TRIM_THRESHOLD_" in found for found in environments)  # dask's doubles a forward pass
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, (folder / "log.txt").read_text()
    wait_until(lambda: not [p for p in psutil.process_iter() if group_of(p) == process.pid], seconds=30)
    assert "Traceback" not in (folder / "log.txt").read_text()
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert outcome(folder) == outcome(reference)
    assert list(verify_whole(folder)) == []


LONG = """
videos: {manifest: videos.csv, workers: 1}
stages:
  frames: {uses: decode, fps: 10, materialize: false, workers: 1}
  embed:
    {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none, batch_size: 4, channels_last: false,
     deterministic: true, shard_rows: 64}
cluster: {workers: 2, unit_seconds: 1, split_seconds: 5, frames_per_second: 64}
"""


def test_a_long_video_is_shared_and_a_killed_worker_costs_its_shard(tmp_path: Path) -> None:
    """512 frames are 8 seconds of work as declared, and 8 shards, one to a unit."""
    write_video(tmp_path / "long.mp4", seed=0, num_frames=512)
    write_video(tmp_path / "short.mp4", seed=1, num_frames=20)
    write_rows(tmp_path / "videos.csv", [{"video_id": name, "path": f"{name}.mp4"} for name in ("long", "short")])
    (tmp_path / "reelwright.yaml").write_text(LONG)
    local = Project.open(tmp_path / "reelwright.yaml", overrides=["store=local"])
    assert local.run().exit_code == 0
    project = Project.open(tmp_path / "reelwright.yaml")
    store, observer = project.file.store.root, Watching()
    before: dict[str, int] = {}
    is_over = threading.Event()

    def kill_a_writer() -> None:
        """One that has written a shard and writes another: then at least two have a share in the end."""
        writers: dict[str, int] = {}
        while not before and not is_over.is_set():
            claimed = claims(store)
            writers.update(claimed)
            done = written(store).keys() - claimed.keys()
            victims = {writers[shard] for shard in done if shard in writers} & set(claimed.values())
            if len(done) >= 3 and victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victims.pop(), signal.SIGKILL)
                    before.update(written(store))
            time.sleep(0.02)

    thread = threading.Thread(target=kill_a_writer)
    thread.start()
    result = project.run(observer=observer, cluster={"executor": "dask"})
    is_over.set()
    thread.join()
    assert result.exit_code == 0
    assert len(before) >= 3
    after = written(store)
    assert len(after) == 9
    assert {name: after.get(name) for name in before} == before  # no shard is written again
    assert any("its shards of long are done again" in note for note in observer.notes)
    assert [note for note in observer.notes if re.fullmatch(r"long: 512 rows by [23] processes", note)]
    assert contents(store) == contents(local.file.store.root)
    assert list(verify_whole(tmp_path)) == []


MADE = """
videos:
  synthesize: {family: dead_leaves, size: 64, seed: 3, samples: 12, num_classes: 2, num_test: 1}
  workers: 1
labels: {column: label}
stages:
  frames: {uses: decode, fps: 6, workers: 1}
cluster: {workers: 2, unit_seconds: 0.5}
"""


def test_videos_made_by_workers_are_those_made_here(tmp_path: Path) -> None:
    made: dict[str, dict[str, bytes]] = {}
    for executor in ("local", "dask"):
        folder = make(tmp_path / executor)
        (folder / "reelwright.yaml").write_text(MADE)
        project, observer = Project.open(folder / "reelwright.yaml"), Watching()
        assert project.run(observer=observer, cluster={"executor": executor}).exit_code == 0
        assert any("dask: scheduler tcp://" in note for note in observer.notes) == (executor == "dask")
        store = project.file.store.root
        made[executor] = {
            path.relative_to(store).as_posix(): path.read_bytes()
            for path in (*store.glob("synthetic/**/*.mp4"), *store.glob("synthetic/**/*.npz"))
        }
        assert len(project.status()[0].wanted) == 12
    assert len(made["local"]) == 14
    assert made["dask"] == made["local"]


def there_now(store: Path, pattern: str) -> list[Path]:
    """Files of a store that others write to meanwhile; pathlib's own fails where a folder goes."""
    return [store / name for name in glob.glob(pattern, root_dir=store, include_hidden=True)]  # noqa: PTH207


def claims(store: Path) -> dict[str, int]:
    """Shards of embeddings that are being written, by video and number, and the process that does: a claim says so."""
    found = {}
    for group in store.glob("embeddings/*.zarr"):
        for path in there_now(store, f"claims/{group.stem}/*.[0-9]*/*.json"):
            with contextlib.suppress(OSError, ValueError):
                digest, _, number = path.parent.name.partition(".")
                found[f"{digest} {number}"] = json.loads(path.read_text())["process"]
    return found


def written(store: Path) -> dict[str, int]:
    """Shards that are there, by video and number, and the inodes of their files."""
    found = {}
    for path in there_now(store, "embeddings/*/*/pooled/c/*/0"):
        with contextlib.suppress(OSError):
            video = path.parents[3].name.removeprefix(".partial-")
            found[f"{video} {path.parent.name}"] = path.stat().st_ino
    return found


def contents(store: Path) -> dict[str, bytes]:
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for area in ("frames", "embeddings")
        for path in store.glob(f"{area}/**/*")
        if path.is_file()
    }


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def environment_of(process: psutil.Process) -> dict[str, str]:
    with contextlib.suppress(psutil.Error):
        return process.environ()
    return {}


def group_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid) if process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, ProcessLookupError):
        return None
