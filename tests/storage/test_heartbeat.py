"""One heartbeat a process; a lost lock stops the work that holds it, whoever called it; in a folder and in a bucket."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from reelwright.storage import heartbeat
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.bucket import remote
from reelwright.storage.errors import LostLockError, ReelwrightError, UnusableStoreError
from reelwright.storage.files import remove, replacing_folder, write_text
from reelwright.storage.heartbeat import check_held
from reelwright.storage.integrity.garbage import Garbage, delete
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.ledger.records import Record, write_record
from reelwright.storage.locks import locks
from reelwright.storage.locks.locks import exclusive, holdings, using
from reelwright.storage.store import Store
from tests.storage.test_remote import Machines, machines, write_item

__all__ = ["machines"]
KEY, DIGEST = "a" * 32, "1" * 32


def ignore(message: str) -> None:
    del message


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, machines: Machines, tmp_path: Path) -> Store:
    return machines.use("one") if request.param == "bucket" else Store.at(tmp_path / "store")


def take_over(store: Store, key: str = KEY) -> None:
    """As another machine that waited long enough."""
    root = Path(store.url.removeprefix("file://")) if store.url else store.root
    (root / "locks" / key / "000009.json").write_text("{}", encoding="utf-8")


def learn_of_it(store: Store) -> None:
    """Wait until the heartbeat has."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            check_held(store.root)
        except LostLockError:
            return
        time.sleep(0.02)
    pytest.fail("nobody learnt that the lock was lost")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is decided sooner who has a lock: here nobody who takes one over is about to give it up again."""
    monkeypatch.setattr(locks, "_DECIDING_SECONDS", (0.01, 0.01, 0.01))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)


def test_one_thread_keeps_all_claims_alive(store: Store, often: None) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        stack.enter_context(using(store.locks, what="run"))({KEY})
        for number in range(64):
            stack.enter_context(exclusive(store.claims(KEY) / str(number), report=ignore, is_kept=False))
        assert threading.active_count() == before + 1
        root = Path(store.url.removeprefix("file://")) if store.url else store.root
        files = list(root.glob(f"claims/{KEY}/*/*.json"))
        assert len(files) == 64
        times = {path: path.stat().st_mtime_ns for path in files}
        until = time.monotonic() + 30
        while any(path.stat().st_mtime_ns == then for path, then in times.items()):
            assert time.monotonic() < until
            time.sleep(0.05)
    until = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def write_shard(store: Store) -> None:
    writer = EmbeddingWriter.create(store.embeddings(KEY), {"spec": {}}, layout=RowLayout(outputs={"pooled": (4,)}))
    writer.begin(DIGEST, num_rows=6)
    times = np.arange(6)
    spans = Spans(times / 5, (times + 1) / 5, times, times + 1)
    writer.write_shard(DIGEST, 0, arrays={"pooled": np.ones((6, 4), np.float16)}, spans=spans)


def commit(store: Store) -> None:
    ItemLedger(store.node(KEY)).commit(ItemRow(digest=DIGEST, status="ok"))


def fold(store: Store) -> None:
    ItemLedger(store.node(KEY)).relist([])


def record(store: Store) -> None:
    write_record(
        store,
        Record(node="n", stage="s", key=KEY, spec_key=KEY, material={}),
        project=store.project(Path("x.yaml")),
    )


def tables(store: Store) -> None:
    with replacing_folder(store.report(KEY)) as folder:
        write_text(folder / "metrics.json", "{}")


def forget(store: Store) -> None:
    remove(store.run(KEY))


def collect(store: Store) -> None:
    write = store.root / "runs" / "b"
    write.mkdir(parents=True, exist_ok=True)
    delete(store, [Garbage(path=write, kind="runs", num_bytes=0, changed=0.0)])


COMMITS: list[Callable[[Store], None]] = [write_shard, commit, fold, record, tables, forget, collect]


@pytest.mark.parametrize("act", COMMITS, ids=lambda act: act.__name__)
def test_nothing_is_written_once_a_lock_was_lost(store: Store, act: Callable[[Store], None], often: None) -> None:
    """Without any handler of signals; and nothing is to be seen afterwards of what was about to be written."""
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    write_item(store, "2" * 32, key=KEY)
    root = Path(store.url.removeprefix("file://")) if store.url else store.root
    with (  # noqa: PT012 - the lock is lost inside
        pytest.raises(LostLockError, match=r"took this lock over.*run again"),
        exclusive(store.lock(KEY), report=ignore),
    ):
        take_over(store)
        learn_of_it(store)
        before = {path for path in root.rglob("*") if path.is_file() and ".partial-" not in str(path)}
        with pytest.raises(LostLockError, match="took this lock over"):
            act(store)
        after = {path for path in root.rglob("*") if path.is_file() and ".partial-" not in str(path)}
        assert after == before
        raise AssertionError  # what follows from it is not what is told
    commit(store)  # with the lock that was lost, its burden is gone
    assert [held.key for held in holdings(store.locks)] == [KEY]  # of who took it over


def test_a_lock_that_was_lost_is_told_at_the_end_even_if_nothing_was_written(store: Store) -> None:
    held = exclusive(store.lock(KEY), report=ignore)
    held.__enter__()
    take_over(store)
    if store.url is None:
        (store.lock(KEY) / "000001.json").unlink()  # as who takes over does
    with pytest.raises(LostLockError, match="took this lock over"):
        held.__exit__(None, None, None)


def test_a_process_that_was_stopped_looks_itself_before_it_writes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat's thread may wake up later than the work."""
    with pytest.raises(LostLockError), exclusive(store.lock(KEY), report=ignore):  # noqa: PT012
        take_over(store)
        commit(store)  # a second after a sign of life nobody takes over
        clock = heartbeat._now
        monkeypatch.setattr(heartbeat, "_now", lambda: clock() + 31.0)
        with pytest.raises(LostLockError):
            commit(store)


def test_where_it_cannot_be_known_nothing_is_written(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machines.use("one")
    with exclusive(store.lock(KEY), report=ignore):
        clock, listed = heartbeat._now, remote.list_objects

        def silent(url: str) -> None:
            raise UnusableStoreError(f"{url} cannot be reached")

        monkeypatch.setattr(heartbeat, "_now", lambda: clock() + 31.0)
        monkeypatch.setattr(remote, "list_objects", silent)
        with pytest.raises(UnusableStoreError, match="cannot be reached"):
            write_text(store.report(KEY) / "metrics.json", "{}")
        monkeypatch.setattr(remote, "list_objects", listed)
        write_text(store.report(KEY) / "metrics.json", "{}")  # it answers again, and the lock is still ours


def test_work_in_other_threads_and_other_stores(store: Store, tmp_path: Path, often: None) -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            commit(store)
        except ReelwrightError as error:
            found.append(error)

    with pytest.raises(LostLockError), exclusive(store.lock(KEY), report=ignore):  # noqa: PT012
        take_over(store)
        learn_of_it(store)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        commit(Store.at(tmp_path / "another"))
    assert [type(error) for error in found] == [LostLockError]


def test_who_waits_for_a_second_lock_learns_that_the_first_one_was_lost(store: Store, often: None) -> None:
    other = store.root / "locks" / "other" if store.url is None else None
    root = Path(store.url.removeprefix("file://")) if store.url else store.root
    (root / "locks" / "other").mkdir(parents=True)
    (root / "locks" / "other" / "000001.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LostLockError, match=KEY), exclusive(store.lock(KEY), report=ignore):  # noqa: PT012
        take_over(store)
        with exclusive(other or store.lock("other"), report=ignore):
            pytest.fail("held by nobody known, it was taken")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_process_holds_nothing(tmp_path: Path) -> None:
    with exclusive(tmp_path / "locks" / KEY, report=ignore):
        child = os.fork()
        if child == 0:
            is_clean = not heartbeat._heart.claims
            with exclusive(tmp_path / "locks" / "child", report=ignore):
                is_alive = any(thread.name == "heartbeat of locks" for thread in threading.enumerate())
            os._exit(0 if is_clean and is_alive else 1)
        assert os.waitpid(child, 0)[1] == 0
