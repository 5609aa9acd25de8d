"""URLs of object stores as text: which texts are URLs, how they are joined, and where their local copies lie.

Nothing is imported for them here: fsspec comes with the first request (storage/bucket/remote.py).
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reelwright.storage.backend import Backend
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError

CACHE_VARIABLE = "REELWRIGHT_CACHE"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MARKER = "store.url"  # in a working copy: whose it is


def is_url(text: object) -> bool:
    """Whether ``text`` is a URL such as ``s3://bucket/videos``; a path is none."""
    return isinstance(text, str) and "://" in text and _URL.match(text) is not None


def join_url(base: str, written: str) -> str:
    """``written`` below ``base``; `..` and `.` are resolved within the bucket."""
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest.rstrip('/') or '/', written))}"


def url_name(url: str) -> str:
    """The last part of a URL."""
    return url.rstrip("/").rpartition("/")[2]


def cache_folder() -> Path:
    """Where local copies lie: $REELWRIGHT_CACHE, else the user's cache folder. Raises ConfigError."""
    return _cache_folder(os.environ.get(CACHE_VARIABLE) or "", os.environ.get("XDG_CACHE_HOME") or "")


@functools.lru_cache(maxsize=8)
def _cache_folder(given: str, base: str) -> Path:
    if given:
        folder = os.path.expanduser(given)  # noqa: PTH111 - Path's raises where nobody is at home
        if not os.path.isabs(folder):  # noqa: PTH117
            raise ConfigError(
                f"{CACHE_VARIABLE}={given}: give an absolute path; other processes start in other folders"
            )
        return Path(folder)
    places = (base, os.path.expanduser("~/.cache"), tempfile.gettempdir())  # noqa: PTH111
    return Path(next(place for place in places if os.path.isabs(place))) / "reelwright"  # noqa: PTH117


def working_copy(url: str) -> Path:
    """The local folder of the store at ``url``; made where it is not there, with a note whose it is."""
    folder = cache_folder() / "stores" / f"{_readable(url)}-{digest(url)[:12]}"
    marker = folder / _MARKER
    if not marker.is_file():
        Backend().write(marker, url.encode())
    return folder


def to_plain(path: Path) -> list[str]:
    """A path as plain data that `of_plain` understands on every machine: of a working copy its store and the rest."""
    owner = owner_of(path)
    return ["", str(path)] if owner is None else [owner[1], path.relative_to(owner[0]).as_posix()]


def of_plain(written: Sequence[str]) -> Path:
    """The path on this machine that `to_plain` told of on another."""
    url, name = written
    return working_copy(url) / name if url else Path(name)


def owner_of(path: Path) -> tuple[Path, str] | None:
    """The working copy that a path lies in, and the URL of its store; None for what lies in no working copy."""
    base = str(cache_folder() / "stores") + os.sep
    text = str(path)
    if not text.startswith(base):
        return None
    root = base + text[len(base) :].partition(os.sep)[0]
    url = _url_of(root)
    return None if url is None else (Path(root), url)


_urls: dict[str, str] = {}


def _url_of(root: str) -> str | None:
    if root not in _urls:
        try:
            _urls[root] = (Path(root) / _MARKER).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
    return _urls[root]


def _readable(url: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in url.partition("://")[2])[-40:]
