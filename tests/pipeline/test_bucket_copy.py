"""What is changed in a fresh copy of a bucket is changed in the bucket, and no more; by fsspec's own `file://`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reelwright.pipeline.bucket_copy import editable, editable_tables
from reelwright.pipeline.verify import Scope
from reelwright.storage import remote
from reelwright.storage.files import write_sealed
from reelwright.storage.items import ItemLedger, ItemRow
from reelwright.storage.mending import mend_tables
from reelwright.storage.store import Store
from tests.storage.test_remote import Machines, machines, write_item

__all__ = ["machines"]
KEY, ONE, TWO = "a" * 32, "1" * 32, "2" * 32
SCOPE = Scope(nodes={KEY}, items={("embeddings", KEY): frozenset({ONE, TWO})})


@pytest.fixture
def store(machines: Machines) -> Store:
    made = machines.use("one")
    for digest in (ONE, TWO):
        write_item(made, digest, key=KEY)
        ItemLedger(made.node(KEY)).commit(ItemRow(digest=digest, status="ok", rows=6))
    write_sealed(made.node(KEY) / "record.json", {"key": KEY})
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "locks"
    }


def test_a_store_in_a_folder_is_changed_itself(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    with editable(store, Scope()) as copy, editable_tables(store) as tables:
        assert copy is store
        assert tables is store


def test_what_is_changed_in_the_copy_is_changed_in_the_bucket(
    machines: Machines, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, requests = contents(machines.bucket), []
    for name in ("upload", "remove_objects"):
        act = getattr(remote, name)
        monkeypatch.setattr(remote, name, lambda what, act=act, name=name: (requests.append((name, what)), act(what)))
    with editable(store, SCOPE) as copy:
        assert contents(copy.root) == before
        shutil.rmtree(copy.embeddings(KEY) / ONE)
        (copy.node(KEY) / "record.json").write_text("other")
        (copy.node(KEY) / "samples.json").write_text("new")
    after = contents(machines.bucket)
    item = f"embeddings/{KEY}.zarr/{ONE}/"
    assert {name for name in before if name not in after} == {name for name in before if name.startswith(item)}
    changed = {f"nodes/{KEY}/record.json": b"other", f"nodes/{KEY}/samples.json": b"new"}
    assert {name: after[name] for name in after if after[name] != before.get(name)} == changed
    told = [(name, [str(entry).rpartition("/")[2] for entry in what]) for name, what in requests if what]
    assert told[:3] == [("upload", ["samples.json"]), ("upload", ["record.json"]), ("remove_objects", ["zarr.json"])]
    assert not (store.embeddings(KEY) / ONE).exists()  # nor is this machine's copy of it used any more
    assert not (store.node(KEY) / "record.json").exists()
    assert (store.embeddings(KEY) / TWO / "zarr.json").exists()


def test_what_fails_changes_nothing(machines: Machines, store: Store) -> None:
    before = contents(machines.bucket)
    with pytest.raises(FileNotFoundError):
        _fail_in_a_copy(store)
    assert contents(machines.bucket) == before


def _fail_in_a_copy(store: Store) -> None:
    with editable(store, SCOPE) as copy:
        shutil.rmtree(copy.embeddings(KEY))
        (copy.embeddings(KEY) / "zarr.json").read_bytes()


def test_a_damaged_ledger_lists_again_what_is_whole_in_the_bucket(machines: Machines, store: Store) -> None:
    ItemLedger(store.node(KEY)).compact()
    table = machines.bucket / "nodes" / KEY / "items.parquet"
    table.write_bytes(table.read_bytes()[:-9] + b"x" * 9)
    shard = machines.bucket / "embeddings" / f"{KEY}.zarr" / TWO / "pooled" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    two = machines.use("two")
    with editable_tables(two) as copy:
        assert mend_tables(copy) == [f"nodes/{KEY}/items.parquet: 0 items kept, 1 listed again from their data"]
    assert set(ItemLedger(machines.use("three").node(KEY)).load()) == {ONE}
    assert shard.exists()
