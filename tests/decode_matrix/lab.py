"""Make the files of the matrix with the ffmpeg command line, each once, in one folder."""

from __future__ import annotations

import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.decode_matrix.pictures import HEIGHT, WIDTH, write_raw

NUM_PICTURES = 75
FPS = 25
NUM_THREADS = 2
_PIXELS = ("-pix_fmt", "yuv420p")  # where options say nothing else; ffmpeg takes the nearest that the codec has


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file: how it is made and what it stands for."""

    name: str  # of the file, too
    codec: str
    structure: str
    make: Callable[[Lab, Path], None]
    is_truncated: bool = False  # bytes are missing at its end
    is_part: bool = False  # only a piece of other files
    has_numbers: bool = True  # in its pictures

    @property
    def container(self) -> str:
        """The suffix of the file."""
        return Path(self.name).suffix[1:]


class Lab:
    """A folder in which files are made when they are first asked for; safe for several threads."""

    def __init__(self, folder: Path, cases: Mapping[str, Case]) -> None:
        self.folder, self._cases = folder, cases
        self._locks = {name: threading.Lock() for name in cases}
        self._source_lock = threading.Lock()
        (folder / "sources").mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """The file of a case. Raises RuntimeError with ffmpeg's message when it cannot be made."""
        path = self.folder / name
        with self._locks[name]:
            if not path.exists():
                half = path.with_name(f"making-{name}")
                self._cases[name].make(self, half)
                half.rename(path)
        return path

    def make(self, names: Sequence[str]) -> None:
        """Make all files of ``names``."""
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            list(threads.map(self.path, names))

    def source(self, first: int, count: int) -> Path:
        """Raw pictures ``first`` to ``first + count``."""
        path = self.folder / "sources" / f"{first}_{count}.rgb"
        with self._source_lock:
            if not path.exists():
                write_raw(path, first, count)
        return path


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg. Raises RuntimeError with its message."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip()[-800:]}")


def encoded(
    options: str, *, first: int = 0, count: int = NUM_PICTURES, before: str = "", fps: str = str(FPS)
) -> Callable[[Lab, Path], None]:
    """Encode pictures with ``options``; ``before`` are those of a further input, or of the pictures themselves."""

    def make(lab: Lab, path: Path) -> None:
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", fps]
        source = [*raw, "-i", lab.source(first, count)]
        ffmpeg(*source, *shlex.split(before), *_PIXELS, *shlex.split(options), path)

    return make


def copied(parent: str, options: str = "", *, before: str = "") -> Callable[[Lab, Path], None]:
    """Copy the packets of another case's file, with ``before`` as options of reading."""

    def make(lab: Lab, path: Path) -> None:
        copy = ["-map", "0:v:0", "-c", "copy"]
        ffmpeg(*shlex.split(before), "-i", lab.path(parent), *copy, *shlex.split(options), path)

    return make


def sliced(parent: str, start: float = 0.0, stop: float = 1.0, *, unit: int = 1) -> Callable[[Lab, Path], None]:
    """The bytes of another case's file between two parts of the whole, in whole packets of ``unit`` bytes."""

    def make(lab: Lab, path: Path) -> None:
        data = lab.path(parent).read_bytes()
        first, last = (int(len(data) * part) // unit * unit for part in (start, stop))
        path.write_bytes(data[first:last])

    return make


def joined(*parents: str) -> Callable[[Lab, Path], None]:
    """The bytes of several files one after the other, as `cat` does."""

    def make(lab: Lab, path: Path) -> None:
        path.write_bytes(b"".join(lab.path(parent).read_bytes() for parent in parents))

    return make


def concatenated(*parents: str) -> Callable[[Lab, Path], None]:
    """The packets of several cases' files one after the other, in time too."""

    def make(lab: Lab, path: Path) -> None:
        names = path.with_name(f"{path.name}.txt")
        names.write_text("".join(f"file '{lab.path(parent)}'\n" for parent in parents), encoding="utf-8")
        ffmpeg("-f", "concat", "-safe", "0", "-i", names, "-map", "0:v:0", "-c", "copy", path)

    return make
