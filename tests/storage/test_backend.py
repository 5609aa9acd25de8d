"""What a store is kept in does the same by every verb, whether it is a folder or a bucket (fsspec's own `file://`)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from reelwright.storage.errors import LostLockError
from reelwright.storage.files import remove, remove_files, replacing_folder, write_text
from reelwright.storage.heartbeat import Claim, alive
from reelwright.storage.store import Store, backend_of
from tests.storage.test_remote import Machines, machines, write_item

__all__ = ["machines"]
KEY, ONE = "a" * 32, "1" * 32


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, machines: Machines, tmp_path: Path) -> Store:
    return Store.at(tmp_path / "folder") if request.param == "folder" else machines.use("one")


def test_one_backend_serves_all_paths_of_a_store(store: Store) -> None:
    assert store.backend is backend_of(store.node(KEY) / "record.json")
    assert store.backend.name_of(store.node(KEY)) == f"{store.url or store.root}/nodes/{KEY}"


def test_what_is_created_is_created_once(store: Store) -> None:
    made: list[bool] = []
    mark, lock = store.claims(KEY) / "u.started", store.lock(KEY) / "000001.json"
    threads = [threading.Thread(target=lambda: made.append(store.backend.create(mark))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    assert store.backend.create(lock, b"one")
    assert not store.backend.create(lock, b"other")
    assert store.backend.read([lock, mark, lock.with_name("none")]) == {lock: b"one", mark: b""}


def test_a_sign_of_life_is_another_version_and_none_of_what_is_gone(store: Store) -> None:
    folder = store.lock(KEY)
    path = folder / "000001.json"
    store.backend.write(path, b"one")
    before = dict(store.backend.entries(folder, signs=".json"))
    assert before.keys() == {"000001.json"}
    assert store.backend.touch(path, b"two", before["000001.json"].version) is not None
    after = dict(store.backend.entries(folder, signs=".json"))
    assert after["000001.json"].version != before["000001.json"].version
    store.backend.delete([path])
    assert store.backend.touch(path, b"three", after["000001.json"].version) is None
    assert not store.backend.has(path)


def test_a_mark_is_moved_and_taken_away(store: Store) -> None:
    started, left = store.claims(KEY) / "u.started", store.claims(KEY) / "u.left"
    store.backend.create(started)
    assert store.backend.move(started, left)
    assert store.backend.names(store.claims(KEY)) == {"u.left"}
    assert [store.backend.has(mark) for mark in (started, left)] == [False, True]
    store.backend.delete([started, left])
    assert store.backend.names(store.claims(KEY)) == set()


def test_what_is_written_is_there_and_what_is_removed_is_not(store: Store) -> None:
    record, table = store.node(ONE) / "record.json", store.node(ONE) / "items.parquet"
    for path in (record, table):
        write_text(path, path.name)
    with replacing_folder(store.report(KEY)) as folder:
        write_text(folder / "metrics.json", "{}")
    store.backend.forget()
    store.backend.pull(store.root / "nodes")
    assert store.backend.ensure_local(record, store.report(KEY) / "metrics.json")
    files = {name for name, found in store.backend.entries(store.root) if found.size and not name.startswith(".seen")}
    assert files == {f"nodes/{ONE}/record.json", f"nodes/{ONE}/items.parquet", f"reports/{KEY}/metrics.json"}
    remove_files([table])
    remove(store.report(KEY))
    remove(store.report(KEY))  # what is not there is none the worse
    assert [store.backend.has(path) for path in (record, table, store.report(KEY) / "metrics.json")] == [
        True,
        False,
        False,
    ]
    assert not table.exists()
    assert not store.report(KEY).exists()


def test_items_are_listed_when_they_are_complete(store: Store) -> None:
    group = store.embeddings(KEY)
    write_item(store, ONE, key=KEY)
    assert store.backend.items(group) == [ONE]
    assert store.backend.ensure_items(group, [ONE, "2" * 32]) == {ONE}
    store.backend.delete_trees([group / ONE, group / ("2" * 32)])
    store.backend.forget()
    assert store.backend.items(group) == []
    assert store.backend.ensure_items(group, [ONE]) == set()


def test_nothing_is_removed_by_who_lost_a_lock(store: Store) -> None:
    record = store.node(KEY) / "record.json"
    write_text(record, "{}")
    claim = Claim(beat=lambda: True, lost=lambda: LostLockError("lost"), stale_seconds=60.0, root=store.root)
    with alive(claim):
        claim.is_lost = True
        for act in (lambda: remove(store.node(KEY)), lambda: remove_files([record]), lambda: write_text(record, "x")):
            with pytest.raises(LostLockError, match="lost"):
                act()
    assert store.backend.read([record]) == {record: b"{}"}
