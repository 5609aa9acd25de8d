"""Locks in a bucket against a server that speaks S3: conditional writes decide between a holder and who takes over."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelwright.storage import heartbeat
from reelwright.storage.bucket import remote, working_copy
from reelwright.storage.errors import LostLockError, UnusableStoreError
from reelwright.storage.files import write_text
from reelwright.storage.lock_holder import Owner
from reelwright.storage.locks import places
from reelwright.storage.locks.locks import exclusive, holdings, uses, using
from reelwright.storage.store import Store
from tests.slow.buckets import BUCKET, Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def store(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REELWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(working_copy._Bucket, "look_seconds", 0.05)
    return Store.at(f"s3://{BUCKET}/{tmp_path.name}")


def ignore(message: str) -> None:
    del message


def test_only_who_saw_the_last_version_rewrites_an_object(store: Store) -> None:
    url = f"{store.url}/x"
    assert remote.rewrite_object(url, b"1", version="nothing") is None
    assert remote.create_object(url, b"1")
    assert not remote.create_object(url, b"2")
    first = remote.look(url).version
    second = remote.rewrite_object(url, b"2", version=first)
    assert second == remote.look(url).version
    assert remote.rewrite_object(url, b"3", version=first) is None
    assert remote.read_object(url) == b"2"
    assert remote.rewrite_object(url, b"2", version=first) == second  # an answer that was lost, and asked for again
    remote.remove_objects([url])
    assert remote.rewrite_object(url, b"3", version=second) is None
    assert remote.look(url) is None


def test_many_are_removed_and_a_bucket_that_is_not_there_is_told(store: Store) -> None:
    urls = [f"{store.url}/many/{number}" for number in range(5)]
    for url in urls:
        remote.write_object(url, b"x")
    remote.remove_objects([*urls, f"{store.url}/many/none"])
    assert remote.list_objects(f"{store.url}/many") == {}


def test_a_holder_that_was_silent_and_who_takes_over_never_both_go_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder gives a sign of life at the very moment it is passed over: its word counts, or the other's."""
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 3600.0)
    held = exclusive(store.lock("k"), report=ignore)
    held.__enter__()
    claim = next(iter(heartbeat._heart.claims.values()))
    pass_over, counted = places.Place.pass_over, []

    def at_that_moment(place: places.Place, name: str, version: str) -> bool:
        if not counted:
            claim.give_sign()
        counted.append(pass_over(place, name, version))
        return counted[-1]

    monkeypatch.setattr(places.Place, "pass_over", at_that_moment)
    taken = threading.Event()

    def take() -> None:
        with exclusive(store.lock("k"), report=ignore, stale_seconds=1.0):
            taken.set()

    thread = threading.Thread(target=take)
    # What a second process of another machine sees: its own words, and an owner that it cannot look for.
    (name,) = remote.list_objects(f"{store.url}/locks/k")
    content = json.loads(remote.read_object(f"{store.url}/locks/k/{name}"))
    monkeypatch.setattr(Owner, "is_dead", None)
    assert content["what"] == ""
    thread.start()
    thread.join(60)
    assert taken.is_set()
    assert counted == [False, True]  # it was passed over only after it had been silent once more
    claim.give_sign()
    assert claim.is_lost
    with pytest.raises(LostLockError, match="took this lock over"):
        write_text(store.report("r") / "metrics.json", "{}")
    with pytest.raises(LostLockError, match="took this lock over"):
        held.__exit__(None, None, None)


def test_a_server_that_is_gone_is_not_an_empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with serving() as own:
        for name, value in own.variables.items():
            monkeypatch.setenv(name, value)
        store = Store.at(f"s3://{BUCKET}/store")
        with using(store.locks, what="run") as note:
            note({"a" * 32})
            assert len(uses(store.locks)) == 1
            own.stop()
            for look in (lambda: uses(store.locks), lambda: holdings(store.locks)):
                with pytest.raises(UnusableStoreError, match="cannot be reached"):
                    look()
            with pytest.raises(UnusableStoreError, match="cannot be reached"):
                remote.check_bucket(str(store.url))
