"""Stores at URLs without a server, by fsspec's own `file://`; tests/slow/test_buckets.py has a real one."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from reelwright.cli.options import on_this_machine
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.bucket import download_cache, remote, working_copy
from reelwright.storage.bucket.download_cache import local_file
from reelwright.storage.bucket.transfer import replacing_at
from reelwright.storage.constants import TEMPORARY
from reelwright.storage.errors import ConfigError, InputError, StoreError
from reelwright.storage.files import remove, replacing_folder, write_json, write_text
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.ledger.records import read_records
from reelwright.storage.lock_holder import Owner
from reelwright.storage.locks import locks, places
from reelwright.storage.locks.locks import exclusive, holdings, using
from reelwright.storage.store import Store, _cache_folder, backend_of, cache_folder, is_url, join_url
from reelwright.storage.tables.manifest import read_manifest, scan_folder


class Machines:
    """Several machines, one after the other in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, monkeypatch
        self.bucket = folder / "bucket" / "store"
        self.url = f"file://{self.bucket}"

    def use(self, name: str) -> Store:
        """The store as machine ``name`` sees it, on which no process has run yet."""
        self._patch.setenv("REELWRIGHT_CACHE", str(self._folder / name))
        store = Store.at(self.url)
        store.backend.forget()
        return store


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    return Machines(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("s3://b/x", True), ("gs://b", True), ("/a/b", False), ("C:/x", False), ("videos.csv", False), ("s3:/b/x", False)],
)
def test_urls_are_told_from_paths(text: str, expected: bool) -> None:
    assert is_url(text) is expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [("a.mp4", "s3://b/v/a.mp4"), ("../x/a.mp4", "s3://b/x/a.mp4"), ("./a//c.mp4", "s3://b/v/a/c.mp4")],
)
def test_relative_names_are_joined_within_the_bucket(written: str, expected: str) -> None:
    assert join_url("s3://b/v/", written) == expected


def test_a_cache_must_be_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWRIGHT_CACHE", "here")
    with pytest.raises(ConfigError, match="REELWRIGHT_CACHE=here: give an absolute path"):
        cache_folder()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"REELWRIGHT_CACHE": "~/here", "HOME": "/home/me"}, "/home/me/here"),
        ({"XDG_CACHE_HOME": "/big/cache", "HOME": "/home/me"}, "/big/cache/reelwright"),
        ({"HOME": "/home/me"}, "/home/me/.cache/reelwright"),
        ({"HOME": "nowhere"}, f"{tempfile.gettempdir()}/reelwright"),
    ],
    ids=["ours", "the system's", "neither", "nobody at home"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_where_copies_lie(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name in ("REELWRIGHT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _cache_folder.cache_clear()
    assert str(cache_folder()) == expected
    _cache_folder.cache_clear()


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("no")

    monkeypatch.setattr("fsspec.filesystem", missing)
    with pytest.raises(ConfigError, match=r"gs:// needs a package .*pip install 'reelwright\[gcs\]'"):
        remote.look("gs://bucket/x")


def test_a_server_that_overwrites_what_is_to_be_created_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "create_object", lambda *_: True)
    with pytest.raises(ConfigError, match="takes no conditional writes"):
        remote.check_creates_once(f"file://{tmp_path}/store")


def test_who_only_reads_writes_nothing(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machines.use("one")
    machines.bucket.mkdir(parents=True)
    monkeypatch.setattr(remote, "create_object", lambda *_: pytest.fail("written"))
    store.backend.check_readable()
    assert read_records(store) == []
    assert ItemLedger(store.node("k")).load() == {}
    assert not list(machines.bucket.iterdir())
    monkeypatch.setattr(remote, "create_object", lambda *_: True)
    with pytest.raises(ConfigError, match="takes no conditional writes"):
        store.backend.check_writable()


def test_a_file_system_that_looks_before_it_writes_holds_no_store() -> None:
    with pytest.raises(ConfigError, match="cannot create objects exclusively there"):
        remote.check_creates_once("memory://careless/store")


def test_only_one_creates_an_object(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/lock"
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(remote.create_object(url, b"x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    remote.check_creates_once(f"file://{tmp_path}")
    assert not list((tmp_path / "locks").glob("*"))


def test_what_is_written_is_shared_and_what_is_unfinished_is_not(machines: Machines) -> None:
    store = machines.use("one")
    write_json(store.node("k") / "record.json", {"a": 1})
    write_json(store.root / "tuning" / "x.json", {})  # of this machine only
    write_json(store.run("k") / ".partial-x" / "a.json", {})
    with replacing_folder(store.report("r")) as folder:
        write_text(folder / "metrics.json", "{}")
        assert not (machines.bucket / "reports").exists()
    there = sorted(
        path.relative_to(machines.bucket).as_posix() for path in machines.bucket.rglob("*") if path.is_file()
    )
    assert there == ["nodes/k/record.json", "reports/r/metrics.json"]
    remove(store.report("r"))
    assert not list(machines.bucket.rglob("metrics.json"))


def test_a_folder_in_no_working_copy_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "asking", lambda _url: pytest.fail("a request"))
    write_text(tmp_path / "nodes" / "k" / "record.json", "{}")
    backend = backend_of(tmp_path)
    backend.pull(tmp_path / "nodes")
    assert backend.url is None
    assert backend.ensure_local(tmp_path / "nodes" / "k" / "record.json")
    assert backend.names(tmp_path / "nodes") == {"k"}


def test_changes_and_removals_of_another_machine_are_seen(machines: Machines) -> None:
    one = machines.use("one")
    for name, text in (("a.json", "1"), ("b.json", "2")):
        write_text(one.node("k") / name, text)
    two = machines.use("two")
    two.backend.pull(two.node("k"))
    assert {path.name: path.read_text() for path in two.node("k").iterdir()} == {"a.json": "1", "b.json": "2"}
    write_text(two.node("k") / "a.json", "3")
    remove(two.node("k") / "b.json")
    one = machines.use("one")
    one.backend.pull(one.node("k"))
    assert {path.name: path.read_text() for path in one.node("k").iterdir()} == {"a.json": "3"}


def test_what_another_machine_put_back_is_seen(machines: Machines) -> None:
    """The object has the version again that this machine pulled, but not the file that was written here since."""
    one = machines.use("one")
    path, before = one.node("k") / "a.json", machines.bucket / "nodes" / "k" / "a.json"
    write_text(path, "1")
    status = before.stat()
    two = machines.use("two")
    for pulled in (lambda: two.backend.pull(two.node("k")), lambda: two.backend.pull_file(two.node("k") / "a.json")):
        machines.use("two")
        pulled()
        write_text(two.node("k") / "a.json", "2")
        before.write_text("1")
        os.utime(before, ns=(status.st_atime_ns, status.st_mtime_ns))  # a version here
        machines.use("two")
        pulled()
        assert (two.node("k") / "a.json").read_text() == "1"


def rows(count: int) -> tuple[np.ndarray, Spans]:
    times = np.arange(count)
    return np.ones((count, 4), np.float16), Spans(times / 5, (times + 1) / 5, times, times + 1)


def write_item(store: Store, digest: str = "d" * 32, *, key: str = "k") -> None:
    writer = EmbeddingWriter.create(store.embeddings(key), {"spec": {}}, layout=RowLayout(outputs={"pooled": (4,)}))
    values, spans = rows(6)
    writer.begin(digest, num_rows=6)
    writer.write_shard(digest, 0, arrays={"pooled": values}, spans=spans)
    writer.finish(digest, num_rows=6)


def test_rows_are_brought_when_they_are_read(machines: Machines) -> None:
    write_item(machines.use("one"))
    two = machines.use("two")
    store = EmbeddingStore(two.embeddings("k"))
    assert store.digests() == ["d" * 32]
    assert not (two.embeddings("k") / ("d" * 32)).exists()
    assert store.rows("d" * 32).output("pooled").tolist() == [[1.0] * 4] * 6
    with pytest.raises(StoreError, match="has no embeddings"):
        store.rows("e" * 32)


def test_an_item_is_complete_when_its_own_file_is_there_and_that_comes_last(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[str]] = []
    upload = remote.upload
    monkeypatch.setattr(remote, "upload", lambda files: (sent.append(sorted(files.values())), upload(files))[1])
    write_item(machines.use("one"))
    item = f"{machines.url}/embeddings/k.zarr/{'d' * 32}"
    assert sent[-1] == [f"{item}/zarr.json"]
    assert f"{item}/pooled/c/0/0" in sent[-2]
    (machines.bucket / "embeddings" / "k.zarr" / ("d" * 32) / "zarr.json").unlink()
    two = machines.use("two")
    two.backend.ensure_items(two.embeddings("k"), ["d" * 32])
    assert not (two.embeddings("k") / ("d" * 32)).exists()


def test_an_item_that_is_cut_off_is_not_taken(machines: Machines) -> None:
    write_item(machines.use("one"))
    shard = machines.bucket / "embeddings" / "k.zarr" / ("d" * 32) / "pooled" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    two = machines.use("two")
    with pytest.raises(StoreError, match=r"pooled/c/0/0 has .* bytes, not the"):
        two.backend.ensure_items(two.embeddings("k"), ["d" * 32])
    assert not (two.embeddings("k") / ("d" * 32)).exists()


def test_an_item_is_withdrawn_before_another_takes_its_place(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = machines.use("one")
    write_item(one)
    ItemLedger(one.node("k")).commit(ItemRow(digest="d" * 32, status="ok", rows=6))
    upload = remote.upload
    calls = {"killed": False}

    def dying(files: dict[Path, str]) -> None:
        if any(url.endswith("/pooled/c/0/0") for url in files.values()):
            calls["killed"] = True
            raise KeyboardInterrupt
        upload(files)

    monkeypatch.setattr(remote, "upload", dying)
    with pytest.raises(KeyboardInterrupt):
        write_item(one)
    monkeypatch.setattr(remote, "upload", upload)
    two = machines.use("two")
    row = ItemLedger(two.node("k")).load()["d" * 32]
    assert calls["killed"]
    assert (row.status, row.cause) == ("failed", "replaced")
    assert not (machines.bucket / "embeddings" / "k.zarr" / ("d" * 32) / "zarr.json").exists()


def test_ledgers_of_several_machines_are_one(machines: Machines) -> None:
    one = machines.use("one")
    for name in "abc":
        ItemLedger(one.node("k")).commit(ItemRow(digest=name, status="ok"))
    two = machines.use("two")
    assert ItemLedger(two.node("k")).pending("a") is not None
    assert ItemLedger(two.node("k")).pending("x") is None
    ItemLedger(two.node("k")).load()
    ItemLedger(two.node("k")).compact()
    assert [path.name for path in (machines.bucket / "nodes" / "k").rglob("*") if path.is_file()] == ["items.parquet"]
    one = machines.use("one")
    assert set(ItemLedger(one.node("k")).load()) == {"a", "b", "c"}


def test_a_lock_is_held_by_one_and_then_by_the_other(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working_copy._Bucket, "look_seconds", 0.02)
    store = machines.use("one")
    message: list[str] = []
    order: list[str] = []

    def second() -> None:
        with exclusive(store.lock("k"), report=message.append, what="second") as waited:
            order.append(f"second, waited {waited}")

    with exclusive(store.lock("k"), report=message.append, what="first") as waited:
        assert not waited
        assert [(held.key, held.owner.what) for held in holdings(store.locks)] == [("k", "first")]
        thread = threading.Thread(target=second)
        thread.start()
        while not message:
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second, waited True"]
    assert "waits for process" in message[0]
    assert holdings(store.locks) == []
    assert [path.name for path in (machines.bucket / "locks" / "k").iterdir()] == ["000002.free"]


@pytest.mark.parametrize("machine", ["here", "elsewhere"])
def test_a_lock_of_the_dead_is_passed_over(machines: Machines, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working_copy._Bucket, "look_seconds", 0.02)
    store = machines.use("one")
    dead = Owner(started="long ago") if machine == "here" else Owner(machine="elsewhere")
    (machines.bucket / "locks" / "k").mkdir(parents=True)
    content = json.dumps({**dead.__dict__, "beat": 1, "at": time.time()})
    (machines.bucket / "locks" / "k" / "000007.json").write_text(content)
    with exclusive(store.lock("k"), report=lambda _: None, stale_seconds=0.3):
        assert [path.name for path in (machines.bucket / "locks" / "k").iterdir()] == ["000008.json"]


@pytest.mark.parametrize("kind", ["folder", "bucket"])
@pytest.mark.parametrize("there", ["000001.free", "000004.json"])
def test_who_looked_long_ago_does_not_get_a_lock(machines: Machines, tmp_path: Path, kind: str, there: str) -> None:
    """Others took this very number meanwhile, and let it go or went on from it."""
    store = machines.use("one") if kind == "bucket" else Store.at(tmp_path / "folder")
    folder = (machines.bucket if kind == "bucket" else store.root) / "locks" / "k"
    write_text(folder / there, "")
    place = places.Place(store.lock("k"))
    assert locks._claim(place, None, Owner(), 60.0) is None
    assert [path.name for path in folder.iterdir()] == [there]


def test_what_is_used_is_told_to_others(machines: Machines) -> None:
    store = machines.use("one")
    with using(store.locks, what="run") as note:
        note({"abc"})
        two = machines.use("two")
        assert [use.owner.keys for use in locks.uses(two.locks)] == [("abc",)]
    assert locks.uses(two.locks) == []


def test_a_note_that_cannot_be_read_is_forgotten_after_a_day_in_folders_and_buckets(
    machines: Machines, tmp_path: Path
) -> None:
    there, folder = machines.use("one"), Store.at(tmp_path / "folder")
    for store, root in ((there, machines.bucket), (folder, folder.root)):
        note = root / "locks" / "uses" / "x.json"
        write_text(note, "{")
        with pytest.raises(StoreError, match="cannot be read"):
            locks.uses(store.locks)
        long_ago = time.time() - 2 * 86_400
        os.utime(note, (long_ago, long_ago))
        assert [use.is_dead for use in locks.uses(store.locks)] == [True]


def test_a_note_that_has_not_got_its_name_yet_says_nothing(tmp_path: Path) -> None:
    store = Store.at(tmp_path / "folder")
    write_text(store.locks / "uses" / "x.json", "{}")
    (store.locks / "uses" / "x.json").rename(store.locks / "uses" / f"{TEMPORARY}0-x.json")
    assert locks.uses(store.locks) == []


def test_marks_are_set_once_and_seen_elsewhere(machines: Machines) -> None:
    one = machines.use("one")
    assert one.backend.create(one.claims("k") / "u.started")
    two = machines.use("two")
    marks = [two.claims("k") / "u.started", two.claims("k") / "u.left"]
    assert not two.backend.create(marks[0])
    two.backend.move(*marks)
    assert two.backend.names(two.claims("k")) == {"u.left"}
    assert [two.backend.has(mark) for mark in marks] == [False, True]
    two.backend.delete(marks)
    assert two.backend.names(two.claims("k")) == set()


def test_a_file_is_fetched_once_a_version(tmp_path: Path, machines: Machines) -> None:
    machines.use("one")
    source = tmp_path / "clip.mp4"
    source.write_bytes(b"one")
    first = local_file(f"file://{source}")
    inode = first.stat().st_ino
    assert first.read_bytes() == b"one"
    assert local_file(f"file://{source}").stat().st_ino == inode
    source.write_bytes(b"other")
    assert local_file(f"file://{source}").read_bytes() == b"other"
    assert local_file(str(source)) == source
    with pytest.raises(InputError, match="no such object"):
        local_file(f"file://{tmp_path}/none.mp4")


def test_copies_used_longest_ago_make_room(tmp_path: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.use("one")
    monkeypatch.setenv("REELWRIGHT_CACHE_GB", "0.000025")
    copies = {}
    for number in range(3):
        source = tmp_path / f"{number}.mp4"
        source.write_bytes(b"x" * 10_000)
        copies[number] = local_file(f"file://{source}")
        age = download_cache.IN_USE_SECONDS + 100 - number
        if number < 2:
            os.utime(copies[number], (time.time() - age, time.time() - age))
    assert {number: path.exists() for number, path in copies.items()} == {0: False, 1: True, 2: True}


def test_a_copy_that_is_being_read_stays_however_long_that_takes(
    tmp_path: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video that is decoded for longer than copies are kept after they were asked for."""
    machines.use("one")
    monkeypatch.setenv("REELWRIGHT_CACHE_GB", "0.000025")
    sources = [tmp_path / f"{number}.mp4" for number in range(4)]
    for source in sources:
        source.write_bytes(b"x" * 10_000)
    read, idle = (local_file(f"file://{source}") for source in sources[:2])
    old = time.time() - download_cache.IN_USE_SECONDS - 100
    os.utime(read, (old - 50, old - 50))
    os.utime(idle, (old, old))
    script = "import sys,time; file = open(sys.argv[1], 'rb'); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, str(read)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        local_file(f"file://{sources[2]}")
        assert (read.exists(), idle.exists()) == (True, False)
        assert time.time() - read.stat().st_mtime < 60  # it may be opened once more
        reader.kill()
    os.utime(read, (old, old))
    local_file(f"file://{sources[3]}")
    assert not read.exists()


@pytest.mark.parametrize("is_taken", [True, False], ids=["fetched by another", "not writable"])
def test_a_copy_that_cannot_get_its_name_is_told(
    tmp_path: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    machines.use("one")
    source = tmp_path / "clip.mp4"
    source.write_bytes(b"one")
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if not is_taken:
            raise OSError(errno.EIO, "input/output error", str(target))
        Path(target).mkdir()
        (Path(target) / "clip.mp4").write_bytes(b"one")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    if is_taken:
        assert local_file(f"file://{source}").read_bytes() == b"one"
    else:
        with pytest.raises(OSError, match="input/output error"):
            local_file(f"file://{source}")


def test_digests_of_objects_are_known_to_other_machines(tmp_path: Path, machines: Machines) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(b"one")
    url = f"file://{source}"
    known = KnownFiles(machines.use("one").files)
    known.look([url])
    known.add(url, "d" * 32, known._looked[url])
    known.add(source, "e" * 32, (1, 2, 3))
    known.save()
    other = KnownFiles(machines.use("two").files)
    other.look([url, f"{url}.gone"])
    assert other.get(url) == "d" * 32
    assert other.is_missing(f"{url}.gone")
    assert str(source) not in other.entries  # a path says nothing elsewhere
    source.write_bytes(b"other")
    other.look([url])
    assert other.get(url) is None


def test_manifests_may_name_urls(tmp_path: Path) -> None:
    table = tmp_path / "videos.csv"
    table.write_text("path\na.mp4\ns3://other/b.mp4\n/data/c.mp4\n")
    below = [video.path for video in read_manifest(table, root="s3://bucket/v", default_split="train")]
    assert below == ["s3://bucket/v/a.mp4", "s3://other/b.mp4", "/data/c.mp4"]
    local = read_manifest(table, root=Path("/here"), default_split="train")
    assert [video.path for video in local] == ["/here/a.mp4", "s3://other/b.mp4", "/data/c.mp4"]
    assert [video.video_id for video in local] == ["a", "other/b", "/data/c"]


def test_a_folder_of_videos_may_be_a_url(tmp_path: Path) -> None:
    for name in ("val/b.mp4", "train/a.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = scan_folder(f"file://{tmp_path}", default_split="test")
    assert [(video.video_id, video.split) for video in found] == [("train/a", "train"), ("val/b", "val")]
    with pytest.raises(InputError, match="no videos there"):
        scan_folder(f"file://{tmp_path}/none", default_split="test")


def test_an_export_takes_the_place_of_the_one_before_its_note_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/out"
    (tmp_path / "out").mkdir()
    for name in ("old.txt", "export.json"):
        (tmp_path / "out" / name).write_text("old")
    sent: list[list[str]] = []
    upload = remote.upload
    monkeypatch.setattr(remote, "upload", lambda files: (sent.append(sorted(files.values())), upload(files))[1])
    with replacing_at(url, last="export.json") as folder:
        for name in ("a.txt", "b/c.txt", "export.json"):
            write_text(folder / name, "new")
        assert (tmp_path / "out" / "old.txt").exists()
    assert sent == [[f"{url}/a.txt", f"{url}/b/c.txt"], [f"{url}/export.json"]]
    there = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert there == ["a.txt", "c.txt", "export.json"]


def test_a_url_is_no_folder_on_this_machine() -> None:
    assert on_this_machine(Path("tables/x.csv")) == Path("tables/x.csv")
    with pytest.raises(ConfigError, match=r"s3://bucket/x\.csv: give a path on this machine"):
        on_this_machine(Path("s3://bucket/x.csv"))


def test_what_would_see_only_this_machine_is_refused(machines: Machines) -> None:
    with pytest.raises(ConfigError, match=r"videos\.synthesize: not for object stores yet"):
        machines.use("one").check_local("videos.synthesize")


@pytest.mark.parametrize("num_times", [1, 100], ids=["once", "for ever"])
def test_what_goes_while_it_is_brought_is_looked_for_again(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, num_times: int
) -> None:
    one = machines.use("one")
    write_json(one.node("k") / "stays.json", {"a": 1})
    write_json(one.node("k") / "goes.json", {"a": 2})
    two = machines.use("two")
    download, left = remote.download, [num_times]

    def slow_download(files):
        """Another machine is quicker: it removes a file that was listed."""
        if left[0]:
            left[0] -= 1
            (machines.bucket / "nodes" / "k" / "goes.json").unlink(missing_ok=True)
            raise FileNotFoundError("goes.json")
        download(files)

    monkeypatch.setattr(remote, "download", slow_download)
    if num_times == 100:
        with pytest.raises(
            StoreError, match=r"goes\.json was there and is gone: another machine replaces it\. Run again"
        ):
            two.backend.pull(two.node("k"))
        return
    two.backend.pull(two.node("k"))
    assert [path.name for path in two.node("k").iterdir()] == ["stays.json"]


def test_what_was_left_out_is_brought_when_it_is_asked_for(machines: Machines) -> None:
    one = machines.use("one")
    for name in ("summary.json", "model.safetensors"):
        write_text(one.run("k") / name, name)
    two = machines.use("two")
    two.backend.pull(two.run("k"), skip=_is_no_summary)
    assert [path.name for path in two.run("k").iterdir()] == ["summary.json"]
    two.backend.pull(two.run("k"))
    assert {path.name for path in two.run("k").iterdir()} == {"summary.json", "model.safetensors"}


def _is_no_summary(name: str) -> bool:
    return name != "summary.json"


def test_items_that_are_not_complete_are_not_listed(machines: Machines) -> None:
    one = machines.use("one")
    for digest in ("a" * 32, "b" * 32):
        write_item(one, digest)
    (machines.bucket / "embeddings" / "k.zarr" / ("b" * 32) / "zarr.json").unlink()
    two = machines.use("two")
    assert EmbeddingStore(two.embeddings("k")).digests() == ["a" * 32]
