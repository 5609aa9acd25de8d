"""Index: what was read is kept now and then, so that a killed run loses seconds and not hours."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reelwright.stages.base.work import SilentReporter
from reelwright.stages.index import work
from reelwright.storage.digests import broken_seal
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes
from reelwright.storage.store import Store
from tests.small_project import write_video

KILLED = """
import os, signal, sys
from pathlib import Path
from reelwright.stages.index import work
from reelwright.stages.base.work import SilentReporter
from reelwright.storage.store import Store

class Killer(SilentReporter):
    done = 0
    def advance(self, amount):
        self.done += amount
        if self.done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

work.SAVE_SECONDS, work._SAVE_SHARE = 0.0, 1e9
paths = [Path(path) for path in sys.argv[2:]]
work.index_videos(paths, Store.at(sys.argv[1]), quick=False, workers=1, timeout_seconds=60, reporter=Killer())
"""


def index(paths: list[Path], store: Store) -> None:
    work.index_videos(paths, store, quick=False, workers=1, timeout_seconds=60, reporter=SilentReporter())


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{name}.mp4" for name in "abcd"]
    for seed, path in enumerate(found):
        write_video(path, seed=seed, num_frames=4)
    return found


def test_a_killed_index_keeps_what_was_read_before(paths: list[Path], tmp_path: Path) -> None:
    store = Store.at(tmp_path / "store")
    command = [sys.executable, "-c", KILLED, str(store.root), *map(str, paths)]
    assert subprocess.run(command, check=False, timeout=100).returncode == -signal.SIGKILL
    known = KnownFiles(store.files)
    kept = [path for path in paths if known.get(path) is not None]
    assert len(kept) == 2
    probes = KnownProbes(store.videos).load()
    assert {known.get(path) for path in kept} <= probes.keys()
    assert [broken_seal(path) for path in (store.files, store.videos)] == [None, None]


def test_what_was_read_is_kept_when_an_error_ends_it(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.at(tmp_path / "store")

    class Stopping(SilentReporter):
        def item(self, row: object) -> None:
            raise KeyboardInterrupt

    paths[3].write_text("no video")
    with pytest.raises(KeyboardInterrupt):
        work.index_videos(paths, store, quick=False, workers=1, timeout_seconds=60, reporter=Stopping())
    assert sum(KnownFiles(store.files).get(path) is not None for path in paths) == 3


def test_the_tables_are_not_written_for_every_video(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[int] = []
    save = KnownFiles.save

    def counted(known: KnownFiles) -> None:
        saves.append(1)
        save(known)

    monkeypatch.setattr(KnownFiles, "save", counted)
    index(paths, Store.at(tmp_path / "store"))
    assert len(saves) == 1


ADD = """
import sys
from pathlib import Path
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes, VideoProbe
root, name = Path(sys.argv[1]), sys.argv[2]
for number in range(15):
    known = KnownFiles(root / "files.json")
    known.add(Path(f"/{name}/{number}"), f"{name}{number}", (1, 2, 3))
    known.save()
    KnownProbes(root / "videos.json").add({f"{name}{number}": VideoProbe(f"{name}{number}")})
"""


def test_processes_that_save_at_once_lose_nothing(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    racing = [subprocess.Popen([sys.executable, "-c", ADD, str(tmp_path), name]) for name in names]
    assert [process.wait(timeout=100) for process in racing] == [0, 0, 0]
    wanted = {f"{name}{number}" for name in names for number in range(15)}
    assert {digest for _, _, digest in KnownFiles(tmp_path / "files.json").entries.values()} == wanted
    assert KnownProbes(tmp_path / "videos.json").load().keys() == wanted
    assert not list(tmp_path.glob(".tmp-*"))
    assert len(json.loads((tmp_path / "files.json").read_text())["columns"]["path"]) == len(wanted)
