"""A bucket that does not answer is an error everywhere, never "nothing there"; and one that came back empty is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reelwright.pipeline.upkeep.gc import keys_in_use
from reelwright.pipeline.upkeep.verify import Scope, copied
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.bucket import remote
from reelwright.storage.bucket.download_cache import exists, local_file, stamps
from reelwright.storage.errors import ConfigError, ReelwrightError, StoreError, UnusableStoreError
from reelwright.storage.files import write_json, write_text
from reelwright.storage.integrity.garbage import Listing, Roots, delete, find_garbage
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.ledger.records import read_record, read_records
from reelwright.storage.lock_holder import Owner
from reelwright.storage.locks import locks
from reelwright.storage.locks.locks import exclusive, holdings, using
from reelwright.storage.results.scores import read_scores
from reelwright.storage.store import Store
from tests.storage.dying import BUCKET, Service, service
from tests.storage.test_remote import write_item

__all__ = ["service"]
KEY, ONE, TWO = "a" * 32, "1" * 32, "2" * 32

REQUESTS: dict[str, Callable[[str], object]] = {
    "list_objects": remote.list_objects,
    "list_names": remote.list_names,
    "look": remote.look,
    "look_at one": lambda url: remote.look_at([url]),
    "look_at many": lambda url: remote.look_at([f"{url}/{name}" for name in "abcd"]),
    "read_object": remote.read_object,
    "read_objects one": lambda url: remote.read_objects([url]),
    "read_objects many": lambda url: remote.read_objects([f"{url}/{name}" for name in "abcd"]),
    "write_object": lambda url: remote.write_object(url, b"x"),
    "create_object": lambda url: remote.create_object(url, b"x"),
    "rewrite_object": lambda url: remote.rewrite_object(url, b"x", version="v"),
    "remove_objects one": lambda url: remote.remove_objects([url]),
    "remove_objects many": lambda url: remote.remove_objects([f"{url}/{name}" for name in "abcd"]),
    "check_bucket": remote.check_bucket,
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
def test_no_answer_is_an_error(service: Service, request_of: Callable[[str], object]) -> None:
    service.fall_silent()
    with pytest.raises(UnusableStoreError, match=r"dying://.* cannot be reached or failed: OSError: .*no answer about"):
        request_of(f"{service.url}/x")


READING = {name: act for name, act in REQUESTS.items() if name not in {"write_object", "create_object"}}


@pytest.mark.parametrize("request_of", READING.values(), ids=READING)
def test_nothing_there_is_no_error_and_no_bucket_is_one(service: Service, request_of: Callable[[str], object]) -> None:
    request_of(f"{service.url}/x")
    service.lose_the_bucket()
    with pytest.raises(ConfigError, match="no such bucket"):
        request_of(f"{service.url}/x")


def test_part_of_an_answer_is_no_answer(service: Service) -> None:
    """One object of many, or one folder among many, about which nothing is known."""
    for name in ("a/x", "b/c/x", "d/x"):
        remote.write_object(f"{service.url}/{name}", name.encode())
    service.fall_silent(about="store/b/c")
    with pytest.raises(UnusableStoreError, match="no answer about bucket/store/b/c"):
        remote.list_objects(service.url)
    with pytest.raises(UnusableStoreError, match="no answer about bucket/store/b/c/x"):
        remote.read_objects([f"{service.url}/{name}" for name in ("a/x", "b/c/x", "gone")])
    service.answer()
    assert set(remote.list_objects(service.url)) == {"a/x", "b/c/x", "d/x"}
    assert len(remote.read_objects([f"{service.url}/{name}" for name in ("a/x", "b/c/x", "gone")])) == 2


def filled(store: Store) -> Store:
    """With something of every kind that planning, `status` and gc look at."""
    for digest in (ONE, TWO):
        write_item(store, digest, key=KEY)
        ItemLedger(store.node(KEY)).commit(ItemRow(digest=digest, status="ok", rows=6))
    write_text(store.predictions(KEY) / f"{ONE}.parquet", "x")
    store.backend.create(store.claims(KEY) / "mark")
    return store


LOOKS: dict[str, Callable[[Store], object]] = {
    "holdings": lambda store: holdings(store.locks),
    "uses": lambda store: locks.uses(store.locks),
    "keys_in_use": keys_in_use,
    "pull": lambda store: store.backend.pull(store.node(KEY)),
    "ensure_local": lambda store: store.backend.ensure_local(store.embeddings(KEY) / "zarr.json"),
    "ensure_items": lambda store: store.backend.ensure_items(store.embeddings(KEY), [ONE, TWO]),
    "items": lambda store: store.backend.items(store.embeddings(KEY)),
    "names": lambda store: store.backend.names(store.embeddings(KEY)),
    "entries": lambda store: list(store.backend.entries(store.embeddings(KEY))),
    "has": lambda store: store.backend.has(store.run(KEY) / "model.safetensors"),
    "ledger": lambda store: ItemLedger(store.node(KEY)).load(),
    "pending": lambda store: ItemLedger(store.node(KEY)).pending(ONE),
    "record": lambda store: read_record(store, KEY),
    "records": read_records,
    "embeddings": lambda store: EmbeddingStore(store.embeddings(KEY)),
    "scores": lambda store: read_scores(store.predictions(KEY), ONE),
    "probes": lambda store: KnownProbes(store.videos).load(),
    "known files": lambda store: KnownFiles(store.files),
    "marks": lambda store: store.backend.names(store.claims(KEY)),
    "create": lambda store: store.backend.create(store.claims(KEY) / "mark"),
    "delete": lambda store: store.backend.delete([store.claims(KEY) / "mark"]),
    "garbage": lambda store: list(find_garbage(store, Roots())),
    "sizes": lambda store: Listing(store.backend, store.root).size(store.root),
    "copied": lambda store: copied(store, Scope({"nodes": {KEY: None}})).__enter__(),
    "check_writable": lambda store: store.backend.check_writable(),
    "video": lambda _: local_file(f"dying://{BUCKET}/clip.mp4"),
    "exists": lambda _: exists(f"dying://{BUCKET}/clip.mp4"),
    "stamps": lambda _: stamps([f"dying://{BUCKET}/clip.mp4"]),
}


@pytest.mark.parametrize("machine", ["one", "two"], ids=["with a copy", "without one"])
def test_who_looks_into_a_silent_store_is_told(service: Service, machine: str) -> None:
    """Neither an empty list nor what this machine has of it is an answer."""
    filled(service.use("one"))
    store = service.use(machine)
    service.fall_silent()
    answered = []
    for name, look in LOOKS.items():
        try:
            look(store)
        except UnusableStoreError:
            continue
        answered.append(name)
    assert answered == []


def test_who_cannot_say_what_it_uses_does_not_begin(service: Service) -> None:
    store = service.use("one")
    with using(store.locks, what="run") as note:
        service.fall_silent(about="locks/uses")
        with pytest.raises(UnusableStoreError, match="cannot be reached"):
            note({KEY})
        service.answer()
        note({KEY})  # what could not be said is said again
        assert [use.owner.keys for use in locks.uses(store.locks)] == [(KEY,)]


@pytest.mark.parametrize("content", ["", "{}", '{"process": 1'], ids=["empty", "nothing said", "cut off"])
def test_a_lock_that_cannot_be_read_is_held_by_someone(service: Service, tmp_path: Path, content: str) -> None:
    there = service.use("one")
    folder = Store.at(tmp_path / "folder")
    remote.write_object(f"{service.url}/locks/{KEY}/000001.json", content.encode())
    (folder.lock(KEY)).mkdir(parents=True)
    (folder.lock(KEY) / "000001.json").write_text(content)
    for store in (there, folder):
        assert [(held.key, held.owner.user) for held in holdings(store.locks)] == [(KEY, "somebody")]
        assert KEY in keys_in_use(store)


def test_a_note_that_cannot_be_read_ends_gc_and_one_of_an_older_release_is_read(
    service: Service, tmp_path: Path
) -> None:
    there = service.use("one")
    folder = Store.at(tmp_path / "folder")
    older = {"process": 1, "started": "1", "machine": "elsewhere", "keys": [KEY]}
    for content in (json.dumps(older), json.dumps({**older, "of a newer release": 1})):
        remote.write_object(f"{service.url}/locks/uses/x.json", content.encode())
        write_text(folder.locks / "uses" / "x.json", content)
        assert (keys_in_use(there), keys_in_use(folder)) == ({KEY}, {KEY})
    remote.write_object(f"{service.url}/locks/uses/x.json", b"{")
    write_text(folder.locks / "uses" / "x.json", "{")
    for store in (there, folder):
        with pytest.raises(StoreError, match=r"x\.json says that something in this store is used, and cannot be read"):
            keys_in_use(store)


def test_a_lock_whose_holder_is_known_is_held_though_only_its_owner_cannot_be_read(service: Service) -> None:
    """The fault that this is about: the names of locks were listed, and nobody answered when they were read."""
    store = service.use("one")
    owner = Owner(machine="elsewhere", what="embed")
    remote.write_object(f"{service.url}/locks/{KEY}/000001.json", json.dumps(owner.__dict__).encode())
    service.fall_silent(about="000001.json")
    with pytest.raises(UnusableStoreError):
        keys_in_use(store)
    service.answer()
    assert keys_in_use(store) == {KEY}


def test_what_is_removed_in_silence_is_not_gone(service: Service) -> None:
    store = filled(service.use("one"))
    before = service.names("embeddings/")
    garbage = list(find_garbage(store, Roots()))
    service.fall_silent(about="zarr.json")
    with pytest.raises(UnusableStoreError):
        delete(store, garbage)
    service.answer()
    assert service.names("embeddings/") == before


def test_a_bucket_that_dies_while_an_item_is_sent_leaves_nothing_that_looks_whole(service: Service) -> None:
    store = service.use("one")
    service.fall_silent(about="pooled/c")
    with pytest.raises(UnusableStoreError, match="cannot be reached"):
        write_item(store, ONE, key=KEY)
    service.answer()
    for machine in ("one", "two"):
        again = service.use(machine)
        assert again.backend.ensure_items(again.embeddings(KEY), [ONE]) == set()
        assert EmbeddingStore(again.embeddings(KEY)).digests() == []
    write_item(service.use("one"), ONE, key=KEY)
    assert EmbeddingStore(service.use("two").embeddings(KEY)).rows(ONE).output("pooled").tolist() == [[1.0] * 4] * 6


def test_a_bucket_that_came_back_empty_is_filled_again(service: Service) -> None:
    """What this machine has of it says nothing: neither the group nor items nor scores are taken for there."""
    store = filled(service.use("one"))
    whole = service.names("embeddings/")
    assert f"embeddings/{KEY}.zarr/zarr.json" in whole
    service.lose_everything()
    store = service.use("one")
    assert (store.embeddings(KEY) / ONE / "zarr.json").is_file()
    assert not store.backend.ensure_local(store.embeddings(KEY) / "zarr.json")
    assert store.backend.ensure_items(store.embeddings(KEY), [ONE, TWO]) == set()
    assert ItemLedger(store.node(KEY)).load() == {}
    with pytest.raises(StoreError, match="is not there"):
        EmbeddingStore(store.embeddings(KEY))
    with pytest.raises(StoreError, match="cannot be read"):
        read_scores(store.predictions(KEY), ONE)
    filled(store)
    assert service.names("embeddings/") == whole
    assert service.use("two").backend.ensure_items(service.use("two").embeddings(KEY), [ONE, TWO]) == {ONE, TWO}


def test_what_another_machine_made_anew_takes_the_place_of_what_is_here(service: Service) -> None:
    write_item(service.use("one"), ONE, key=KEY)
    two = service.use("two")
    assert two.backend.ensure_items(two.embeddings(KEY), [ONE]) == {ONE}
    shard = f"{BUCKET}/store/embeddings/{KEY}.zarr/{ONE}/pooled/c/0/0"
    marker = f"{BUCKET}/store/embeddings/{KEY}.zarr/{ONE}/zarr.json"
    service.objects[shard] += b"more"  # as if made by another release
    values = json.loads(service.objects[marker])
    values["attributes"]["reelwright"]["files"]["pooled/c/0/0"][0] += 4
    service.objects[marker] = json.dumps(values).encode()
    two = service.use("two")
    assert two.backend.ensure_items(two.embeddings(KEY), [ONE]) == {ONE}
    assert (two.embeddings(KEY) / ONE / "pooled" / "c" / "0" / "0").read_bytes().endswith(b"more")
    service.objects[marker] = b"{}"
    with pytest.raises(StoreError, match=r"zarr\.json is damaged .*verify --repair"):
        service.use("two").backend.ensure_items(service.use("two").embeddings(KEY), [ONE])


def test_what_was_sent_from_here_is_not_brought_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checksum says that it is the same."""
    store = filled(service.use("one"))
    brought: list[str] = []
    download = remote.download
    monkeypatch.setattr(remote, "download", lambda files: (brought.extend(files), download(files)))
    store = service.use("one")
    store.backend.pull(store.node(KEY))
    assert store.backend.ensure_local(store.embeddings(KEY) / "zarr.json", store.predictions(KEY) / f"{ONE}.parquet")
    assert store.backend.ensure_items(store.embeddings(KEY), [ONE, TWO]) == {ONE, TWO}
    assert brought == []


def test_what_the_bucket_has_otherwise_is_sent_though_it_is_as_long(service: Service) -> None:
    """What a machine that was killed left of the same run."""
    store = service.use("one")
    store.run(KEY).mkdir(parents=True)
    (store.run(KEY) / "metrics.jsonl").write_text('{"epoch": 1}\n')
    remote.write_object(f"{service.url}/runs/{KEY}/metrics.jsonl", b'{"epoch": 7}\n')
    store.backend.push_changed(store.run(KEY))
    assert service.objects[f"{BUCKET}/store/runs/{KEY}/metrics.jsonl"] == b'{"epoch": 1}\n'


def test_a_file_is_in_the_bucket_before_it_has_its_name_here(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process of this machine removes what it finds here and not there."""
    store = service.use("one")
    upload = remote.upload

    def slow_upload(files: dict[Path, str]) -> None:
        service.use("one")
        store.backend.pull(store.node(KEY), anew=True)
        upload(files)

    monkeypatch.setattr(remote, "upload", slow_upload)
    write_json(store.node(KEY) / "record.json", {"key": KEY})
    assert (store.node(KEY) / "record.json").is_file()
    assert service.names() == {f"nodes/{KEY}/record.json"}


def test_a_lock_in_a_bucket_that_dies_is_not_let_go_and_not_lost(service: Service) -> None:
    store = service.use("one")
    with (  # noqa: PT012 - it dies inside
        pytest.raises(ReelwrightError, match="cannot be reached"),
        exclusive(store.lock(KEY), report=pytest.fail),
    ):
        service.fall_silent()
        write_text(store.report(KEY) / "metrics.json", "{}")
    service.answer()
    assert [held.key for held in holdings(store.locks)] == [KEY]
