"""What happens to a file between two looks is seen, also where its size, times and place are put back."""

from __future__ import annotations

import os
import time

import pytest

from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ItemError
from reelwright.storage.ledger.digest_cache import Snapshot, stamp


@pytest.fixture
def path(tmp_path):
    (tmp_path / "other").write_text("twice")
    (tmp_path / "file").write_text("first")
    time.sleep(0.02)  # the clock of the file system ticks in milliseconds
    return tmp_path / "file"


def put_back_times(path):
    before = path.stat()
    path.write_text("again")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap_and_swap_back(path):
    other, spare = path.with_name("other"), path.with_name("spare")
    for _ in range(2):
        path.rename(spare)
        other.rename(path)
        spare.rename(other)


CHANGES = {
    "written": lambda path: path.write_text("longer than before"),
    "equal length and time": put_back_times,
    "replaced": lambda path: path.with_name("other").replace(path),
    "swapped and swapped back": swap_and_swap_back,
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(path, change):
    snapshot = Snapshot.of(path)
    snapshot.check()
    change(path)
    assert not snapshot.is_same()
    with pytest.raises(
        ItemError, match="file changed while it was read, so nothing of it was kept; run again"
    ) as error:
        snapshot.check()
    assert error.value.cause == "changed"


def test_a_file_of_a_folder_that_changes_is_seen(path):
    snapshot = Snapshot.of(path.parent)
    snapshot.check()
    path.write_text("again")
    assert not snapshot.is_same()


def test_the_digest_is_that_of_the_state(path):
    snapshot = Snapshot.of(path)
    assert snapshot.stamp == stamp(path)
    assert snapshot.digest() == file_digest(path)
    path.write_text("again")
    with pytest.raises(ItemError, match="changed"):
        snapshot.digest(quick=True)
    assert Snapshot.of(path).digest() == file_digest(path) != snapshot.digest()
