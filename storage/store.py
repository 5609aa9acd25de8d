"""The store: where every cached output lies, in a folder or below a URL, and nothing but the paths.

frames/<spec key>.zarr/<video digest>/      decoded frames
embeddings/<spec key>.zarr/<video digest>/  embeddings
attention/<spec key>.zarr/<video digest>/   what a model said of windows beside their scores, where it is kept
runs/<key>/                                 trained models
predictions/<spec key>/<video digest>.parquet, predictions/<key>/   scores by content; tables with names and targets
steps/<key>/                                completed steps: steps.parquet, truth.parquet, videos.parquet
reports/<key>/                              metrics.json, report.html
pictures/<key>/                             pictures and videos, index.html, pictures.json
nodes/<key>/                                record.json, items.parquet
loggers/<key>/                              what Weights & Biases keeps of a run; not checked by `verify`
synthetic/<key>/                            videos that the pipeline makes for itself, and files of their classes
weights/                                    pretrained weights fetched from a hub
locks/                                      who works on which key now
claims/<spec key>/                          which process writes which video now, while several work on a node
logs/<spec key>/                            what was said while videos failed, on workers of a cluster
jobs/<key>/                                 the job of a run that is trained on SLURM: script, work, events, log
progress/<key>.json                         how far a node is, while it is done
store.json                                  which layout the store has (storage/ledger/records.py)
files.json                                  content digests of files, by path and stat
urls.json                                   the same of objects in buckets, where the store is in one itself
frame_index/<aa>/<video digest>.npz         times and key frames of the frames of a video, read once; a cache
videos.json                                 probes of videos, by content digest
projects/<name>/                            the last record of every node of a pipeline file, for `explain`
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

from reelwright.storage.backend import Backend
from reelwright.storage.constants import VIDEOS
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError
from reelwright.storage.kinds import KINDS

CACHE_VARIABLE = "REELWRIGHT_CACHE"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BUCKET = "reelwright.storage.bucket.working_copy:open_bucket"
_MARKER = "store.url"  # in a working copy: whose it is


@dataclass(frozen=True)
class Store:
    """Paths below one root folder; shared by experiments, projects and people."""

    root: Path
    url: str | None = None  # of a store in a bucket; root is then this machine's working copy

    @classmethod
    def at(cls, place: str | Path) -> Store:
        """The store in a folder, which is made on first write, or at a URL such as ``s3://bucket/store``."""
        if isinstance(place, str) and is_url(place):
            url = place.rstrip("/")
            return cls(working_copy(url), url)
        return cls(Path(place).expanduser().absolute())

    @functools.cached_property
    def backend(self) -> Backend:
        """What it is kept in."""
        return backend_of(self.root)

    @property
    def place(self) -> str:
        """What `at` makes the same store of on every machine, and how it is called."""
        return self.url or str(self.root)

    def check_local(self, what: str) -> None:
        """Raise ConfigError for a store in a bucket, of which ``what`` would only see what is on this machine."""
        if self.url is not None:
            raise ConfigError(
                f"{what}: not for object stores yet, and the store is {self.url}. Copy it into a folder and name that "
                f"(store:), or use the service's own tools"
            )

    def output(self, produces: str, key: str) -> Path:
        """Where an output of one kind (`KINDS`) lies: by spec key what has rows of single videos, else by key."""
        kind = KINDS[produces]
        return self.root / kind.folder / f"{key}{kind.ending}"

    def frames(self, spec_key: str) -> Path:
        """The Zarr group of one decode spec."""
        return self.output("frames", spec_key)

    def embeddings(self, spec_key: str) -> Path:
        """The Zarr group of one embed spec."""
        return self.output("embeddings", spec_key)

    def run(self, key: str) -> Path:
        """The folder of one trained model."""
        return self.output("run", key)

    def predictions(self, key: str) -> Path:
        """The folder of one prediction: by spec key the cached scores, by node key the published tables."""
        return self.output("predictions", key)

    def attention(self, spec_key: str) -> Path:
        """The Zarr group of the outputs that are kept beside the scores of one predict spec."""
        return self.output("attention", spec_key)

    def report(self, key: str) -> Path:
        """The folder of one evaluation."""
        return self.output("scores", key)

    def node(self, key: str) -> Path:
        """The folder of one node's record and item table."""
        return self.root / "nodes" / key

    def weights(self, name: str) -> Path:
        """The file that holds pretrained weights fetched from a hub under ``name``."""
        readable = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)
        return self.root / "weights" / f"{readable}-{digest(name)[:8]}.safetensors"

    def lock(self, key: str) -> Path:
        """The lock of one spec or run, a folder."""
        return self.locks / key

    def claims(self, spec_key: str) -> Path:
        """Locks of single videos, and marks of units of work under way."""
        return self.root / "claims" / spec_key

    def logs(self, spec_key: str) -> Path:
        """What workers said while videos of one spec failed."""
        return self.root / "logs" / spec_key

    def job(self, key: str) -> Path:
        """The folder of the job that trains one run."""
        return self.root / "jobs" / key

    def progress(self, key: str) -> Path:
        """How far one node is, while it is done."""
        return self.root / "progress" / f"{key}.json"

    @property
    def locks(self) -> Path:
        """All locks, and who uses what."""
        return self.root / "locks"

    @property
    def videos(self) -> Path:
        """The table of video probes."""
        return self.root / VIDEOS

    @property
    def frame_index(self) -> Path:
        """The folder of frame indexes, by content digest."""
        return self.root / "frame_index"

    @property
    def files(self) -> Path:
        """The table of known file digests."""
        return self.root / "files.json"

    def project(self, pipeline_file: Path) -> Path:
        """The folder with the last records of one pipeline file."""
        return self.root / "projects" / f"{pipeline_file.stem}-{digest(str(pipeline_file.absolute()))[:8]}"


def backend_of(path: Path) -> Backend:
    """What the store is kept in that a path lies in; paths in no working copy cost nothing here.

    A working copy says itself whose it is, so that every process of this machine finds the same.
    """
    owner = owner_of(path)
    if owner is None:
        return _FOLDER
    if owner not in _buckets:
        opened = resolve_name(_BUCKET)(*owner)  # imported for the first bucket
        _buckets.setdefault(owner, opened)  # of two threads at once both get the same
    return _buckets[owner]


_FOLDER = Backend()
_buckets: dict[tuple[Path, str], Backend] = {}


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
