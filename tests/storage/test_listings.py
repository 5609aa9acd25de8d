"""What gc finds and removes: the same in a folder and in a bucket (fsspec's own `file://`), whatever is cut off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reelwright.storage.backend import Backend
from reelwright.storage.bucket import remote
from reelwright.storage.bucket.transfer import _incoming
from reelwright.storage.constants import INCOMING
from reelwright.storage.files import write_json, write_text
from reelwright.storage.integrity.garbage import Garbage, Listing, Roots, delete, find_garbage
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.locks.locks import holdings
from reelwright.storage.store import Store
from tests.storage.test_remote import Machines, machines, write_item

__all__ = ["machines"]
KEY, OLD = "a" * 32, "b" * 32
WANTED, GONE, HALF = "1" * 32, "2" * 32, "3" * 32


def fill(store: Store) -> None:
    """A key that is reached, with an item too many; and all sorts of what is not reached."""
    for key in (KEY, OLD):
        for digest in (WANTED, GONE):
            write_item(store, digest, key=key)
            ItemLedger(store.node(key)).commit(ItemRow(digest=digest, status="ok", rows=6))
            for ending in ("parquet", "rows.parquet"):
                write_text(store.predictions(key) / f"{digest}.{ending}", digest)
        write_json(store.node(key) / "record.json", {"key": key})
        write_text(store.run(key) / "checkpoints" / "last" / "state.pt", "state")
        write_text(store.run(key) / "model.safetensors", "weights")
        write_text(store.report(key) / "metrics.json", "{}")
    write_text(store.run("notes") / "mine.txt", "not ours")
    write_text(store.weights("timm/x"), "weights")


def roots() -> Roots:
    return Roots(keys={KEY}, items={KEY: {WANTED, HALF}})


def message(store: Store, found: list[Garbage]) -> set[tuple[str, str, int]]:
    return {
        (path.relative_to(store.root).as_posix(), garbage.kind, garbage.num_bytes)
        for garbage in found
        for path in garbage.paths
    }


def names(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "locks"
    }


def test_what_is_not_reached_is_the_same_in_a_folder_and_in_a_bucket(machines: Machines, tmp_path: Path) -> None:
    one, folder = machines.use("one"), Store.at(tmp_path / "folder")
    fill(one)
    fill(folder)
    two = machines.use("two")  # whose copy has nothing of it
    there, here = list(find_garbage(two, roots())), list(find_garbage(folder, roots()))
    assert message(two, there) == message(folder, here)
    assert {garbage.kind for garbage in here} == {"embeddings", "predictions", "runs", "reports", "nodes", "weights"}
    assert not [path for path in two.root.rglob("*") if path.is_file() and path.suffix in {"", ".safetensors"}]
    sums = [Listing(store.backend, store.root).size(store.root)[0] for store in (two, folder)]
    tables = sum(path.stat().st_size for path in folder.root.glob("locks/**/*") if path.is_file())
    assert sums[0] == sum(path.stat().st_size for path in machines.bucket.rglob("*") if path.is_file())
    assert sums[1] - tables == sum((machines.bucket / name).stat().st_size for name in names(machines.bucket))
    delete(two, there)
    delete(folder, here)
    assert names(machines.bucket) == names(folder.root)
    assert f"runs/{KEY}/model.safetensors" in names(folder.root)
    assert f"embeddings/{KEY}.zarr/{WANTED}/zarr.json" in names(folder.root)
    assert set(ItemLedger(machines.use("three").node(KEY)).load()) == {WANTED}
    assert list(find_garbage(machines.use("three"), roots())) == []


def test_a_store_behind_a_link_is_looked_through(tmp_path: Path) -> None:
    fill(Store.at(tmp_path / "folder"))
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    link, folder = Store.at(tmp_path / "link"), Store.at(tmp_path / "folder")
    assert message(link, list(find_garbage(link, roots()))) == message(folder, list(find_garbage(folder, roots())))
    (tmp_path / "places").mkdir()
    write_json(tmp_path / "places" / "k" / "000001.json", {})
    Store.at(tmp_path / "other").root.mkdir()
    Store.at(tmp_path / "other").locks.symlink_to(tmp_path / "places")
    assert [held.key for held in holdings(Store.at(tmp_path / "other").locks)] == ["k"]


def test_copies_on_this_machine_go_too(machines: Machines) -> None:
    one = machines.use("one")
    fill(one)
    assert one.run(OLD).is_dir()
    delete(one, find_garbage(one, roots()))
    assert not one.run(OLD).exists()
    assert one.run(KEY).is_dir()
    two = machines.use("two")
    fill(two)
    one = machines.use("one")
    delete(one, find_garbage(one, roots()))
    two = machines.use("two")
    assert list(find_garbage(two, roots())) == []
    left = list(find_garbage(two, roots(), Listing(Backend(), two.root)))
    assert {garbage.path.name for garbage in left} >= {OLD, GONE, f"{OLD}.zarr"}


def test_the_beginning_of_an_item_goes_when_nobody_finishes_it(machines: Machines) -> None:
    one = machines.use("one")
    fill(one)
    begun = machines.bucket / "embeddings" / f"{KEY}.zarr" / HALF / "pooled" / "c" / "0"
    begun.mkdir(parents=True)
    (begun / "0").write_bytes(b"half")
    then = time.time() - 7200
    os.utime(begun / "0", (then, then))
    two = machines.use("two")
    (found,) = [garbage for garbage in find_garbage(two, roots()) if garbage.path.name == HALF]
    assert (found.kind, found.num_bytes) == ("leftovers", 4)
    assert found.changed == pytest.approx(then)
    shutil.copy(begun.parents[3] / WANTED / "zarr.json", begun.parents[2])  # another machine has finished it meanwhile
    delete(two, [found])
    assert (begun / "0").exists()
    (begun.parents[2] / "zarr.json").unlink()
    delete(two, [found])
    assert not (begun / "0").exists()
    assert set(ItemLedger(two.node(KEY)).load()) == {WANTED, GONE}


@pytest.mark.parametrize("num_requests", range(1, 8))
def test_what_is_removed_never_looks_finished_wherever_it_is_cut_off(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, num_requests: int
) -> None:
    one = machines.use("one")
    fill(one)
    found = list(find_garbage(one, roots()))
    before = names(machines.bucket)
    remove_objects, left = remote.remove_objects, [num_requests]

    def dying(urls: list[str]) -> None:
        """Half of what the last request asks for is done."""
        left[0] -= bool(urls)
        remove_objects(urls if left[0] else urls[: len(urls) // 2])
        if urls and not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(remote, "remove_objects", dying)
    with pytest.raises(KeyboardInterrupt):
        delete(one, found)
    monkeypatch.setattr(remote, "remove_objects", remove_objects)
    after = names(machines.bucket)
    wholes = (("zarr.json", "pooled/c/0/0"), ("zarr.json", "pooled/zarr.json"))
    for mark, rest in (*wholes, ("model.safetensors", "checkpoints/last/state.pt")):
        items = {name.removesuffix(f"/{mark}") for name in before if name.endswith(mark) and name.count("/") in {2, 3}}
        for item in (item for item in items if f"{item}/{rest}" in before and f"{item}/{mark}" in after):
            assert f"{item}/{rest}" in after
    if f"nodes/{OLD}/record.json" in after:
        assert f"runs/{OLD}/model.safetensors" in after
    two = machines.use("two")
    done = ItemLedger(two.node(KEY)).load()
    for digest in (WANTED, GONE):
        assert digest not in done or f"embeddings/{KEY}.zarr/{digest}/zarr.json" in after
    delete(two, find_garbage(two, roots()))
    three = machines.use("three")
    assert list(find_garbage(three, roots())) == []
    assert not [name for name in names(machines.bucket) if OLD in name or GONE in name]


def test_what_a_running_process_brings_from_a_bucket_is_no_garbage(tmp_path: Path) -> None:
    """`gc --now` beside a `status`, which uses nothing and holds no lock; what a dead process left goes."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [tmp_path / INCOMING / name for name in (f"{ended.pid}-1-0123456789ab", "0123456789ab", "1-1-0123456789ab")]
    with _incoming(tmp_path) as place:
        for folder in (place, *left):
            folder.mkdir(exist_ok=True)
            (folder / "0-record.json").write_text("half")
        assert {garbage.path for garbage in find_garbage(Store.at(tmp_path), Roots())} == set(left)
    assert not place.exists()
