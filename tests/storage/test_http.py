"""Videos on a web server, whose listings, if any, are pages of links: what changes there is seen."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reelwright.storage.bucket import download_cache
from reelwright.storage.bucket.download_cache import local_file, stamps
from reelwright.storage.errors import InputError
from reelwright.storage.ledger.digest_cache import KnownFiles

NAMES = ("a.mp4", "b.mp4", "c.mp4")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class WithoutTimes(Quiet):
    """Says nothing of what version a file is."""

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified":
            super().send_header(keyword, value)


class WithoutListing(Quiet):
    def list_directory(self, path: str | os.PathLike[str]) -> None:
        self.send_error(404)


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    monkeypatch.setenv("REELWRIGHT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "site"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"first {name}")
        os.utime(folder / name, (1e9, 1e9))
    handler = functools.partial(request.param, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("site", [Quiet, WithoutListing], indirect=True)
def test_a_file_that_changes_on_a_web_server_is_another_one(site: tuple[str, Path], tmp_path: Path) -> None:
    base, folder = site
    urls = [f"{base}/{name}" for name in NAMES]
    before = stamps([*urls, f"{base}/none.mp4"])
    assert before.pop(f"{base}/none.mp4") is None
    assert [found and found[0] for found in before.values()] == [11, 11, 11]
    assert local_file(urls[0]).read_text() == "first a.mp4"
    known = KnownFiles(tmp_path / "files.json")
    for url, found in before.items():
        assert found is not None
        known.add(url, f"digest of {url}", found)
    (folder / "a.mp4").write_text("other a.mp4")  # as long
    known.look(urls)
    assert known.get_all(urls) == [None, *(f"digest of {url}" for url in urls[1:])]
    assert local_file(urls[0]).read_text() == "other a.mp4"


@pytest.mark.parametrize("site", [WithoutTimes], indirect=True)
def test_what_a_server_tells_no_version_of_is_read_by_every_process(
    site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = site
    url = f"{base}/a.mp4"
    before = stamps([url])
    assert local_file(url).read_text() == "first a.mp4"
    (folder / "a.mp4").write_text("other a.mp4")
    assert stamps([url]) == before  # one process goes by what it saw first
    monkeypatch.setattr(download_cache, "own_start", lambda: "later")
    assert stamps([url]) != before
    assert local_file(url).read_text() == "other a.mp4"


@pytest.mark.parametrize("site", [Quiet], indirect=True)
def test_an_object_that_changes_while_it_is_fetched_is_kept_under_no_version(
    site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = site
    times = iter(range(10**9, 10**9 + 100))
    download = download_cache.remote.download

    def changing(files):
        os.utime(folder / "a.mp4", (next(times) + 1,) * 2)
        download(files)

    monkeypatch.setattr(download_cache.remote, "download", changing)
    with pytest.raises(InputError, match=r"a\.mp4 changed each time while it was fetched"):
        local_file(f"{base}/a.mp4")
    monkeypatch.undo()
