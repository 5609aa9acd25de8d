"""What `verify` reads of a bucket, and what `--repair` changes there and no more; by fsspec's own `file://`."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from reelwright.pipeline.run.execute import _files
from reelwright.pipeline.upkeep.repair import relist, take_out
from reelwright.pipeline.upkeep.verify import Scope, copied
from reelwright.storage.constants import TEMPORARY
from reelwright.storage.files import write_sealed
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store
from tests.storage.test_remote import Machines, machines, write_item

__all__ = ["machines"]
KEY, ONE, TWO = "a" * 32, "1" * 32, "2" * 32
SCOPE = Scope({"nodes": {KEY: None}, "embeddings": {KEY: frozenset({ONE, TWO})}})


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


def test_a_copy_has_the_bytes_of_the_bucket_and_changes_nothing(machines: Machines, store: Store) -> None:
    before = contents(machines.bucket)
    (store.node(KEY) / "record.json").write_text("what this machine has says nothing")
    with copied(store, SCOPE) as copy:
        assert contents(copy.root) == before
        shutil.rmtree(copy.embeddings(KEY))
    assert contents(machines.bucket) == before
    assert not copy.root.exists()


def test_a_record_lists_what_is_finished(store: Store) -> None:
    """What a process that was killed left of a file is in no bucket."""
    for name in ("model.safetensors", f"{TEMPORARY}0-metrics.jsonl", f"checkpoints/{TEMPORARY}0-gone/state.pt"):
        (store.run(KEY) / name).parent.mkdir(parents=True, exist_ok=True)
        (store.run(KEY) / name).write_text(name)
    plan = SimpleNamespace(node=SimpleNamespace(config=SimpleNamespace(produces="run")), key=KEY)
    assert set(_files(plan, store)) == {f"runs/{KEY}/model.safetensors"}
    assert {name for name, _ in store.backend.entries(store.run(KEY))} == {"model.safetensors"}


def test_what_is_taken_out_goes_from_the_bucket_too(machines: Machines, store: Store) -> None:
    before = contents(machines.bucket)
    broken = store.embeddings(KEY) / ONE / "pooled" / "c" / "0" / "0"
    assert take_out(store, [broken]) == [f"nodes/{KEY}: 1 videos removed"]
    gone = before.keys() - contents(machines.bucket).keys()
    item = f"embeddings/{KEY}.zarr/{ONE}/"
    assert {name for name in gone if not name.startswith("nodes/")} == {name for name in before if item in name}
    assert set(ItemLedger(machines.use("other").node(KEY)).load()) == {TWO}


def test_a_damaged_ledger_lists_again_what_is_whole_in_the_bucket(machines: Machines, store: Store) -> None:
    ItemLedger(store.node(KEY)).compact()
    table = machines.bucket / "nodes" / KEY / "items.parquet"
    table.write_bytes(table.read_bytes()[:-9] + b"x" * 9)
    shard = machines.bucket / "embeddings" / f"{KEY}.zarr" / TWO / "pooled" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert relist(machines.use("two"), KEY) == f"nodes/{KEY}/items.parquet: 1 videos listed again from their data"
    assert set(ItemLedger(machines.use("three").node(KEY)).load()) == {ONE}
    assert shard.exists()
