"""Digests: one canonical form for keys, content digests of files, and files that carry their own.

A key is the blake3 of a type-tagged JSON text, so that 1, 1.0, "1" and true never collide and neither the order of
mapping keys nor formatting matters. tests/storage/test_digests.py pins values: a change here renames every output.

A sealed file carries the digest of its own bytes, so that one flipped bit anywhere in it is noticed. It holds the text
`reelwright-seal:` and 32 hexadecimal digits, somewhere: a field of a JSON object, an entry of a Parquet file's or a
safetensors file's metadata. The digits are the blake3 of the whole file with 32 zeros in their place. Every program
reads such a file as before, and it is written in one step, which a second file of digests is not.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from reelwright.storage.errors import ReelwrightError, StoreError

if TYPE_CHECKING:
    import pyarrow as pa

KEY_HEX_DIGITS = 32  # 128 bits: no collision is to be expected below 2**60 outputs
_QUICK_PART_BYTES = 1 << 20
_MARK = "reelwright-seal:"
_DIGITS = 32
UNSEALED = _MARK + "0" * _DIGITS  # what is written before `seal` fills in the digits
SEAL = "seal"  # the usual name of the field
_TAILS = {".parquet": (b"PAR1",), ".json": (b"}", b"}\n")}  # how a file that is whole ends
_RAISED = (ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError)


def canonical(value: object) -> str:
    """The canonical JSON text of nested mappings, sequences, str, int, float, bool and None.

    Raises TypeError for any other type, ValueError for a float that is not finite.
    """
    return json.dumps(_tagged(value), ensure_ascii=False, separators=(",", ":"))


def digest(value: object) -> str:
    """The key of ``value``: 32 hexadecimal digits of the blake3 of its canonical text.

    Lone surrogates, as of file names that are not UTF-8, enter as they are.
    """
    return blake3(canonical(value).encode(errors="surrogatepass")).hexdigest()[:KEY_HEX_DIGITS]


def stage_key(stage: str, version: int, spec: Mapping[str, object], inputs: Mapping[str, object]) -> str:
    """The key of one output: the digest of stage name, stage version, spec and input digests."""
    return digest({"stage": stage, "version": version, "spec": dict(spec), "inputs": dict(inputs)})


def item_key(spec_key: str, video_digest: str) -> str:
    """The key of one video's output under a spec."""
    return digest({"spec": spec_key, "video": video_digest})


def set_digest(digests: Iterable[str]) -> str:
    """The digest of a set of digests, in whatever order; of 100,000 in a tenth of a second."""
    return digest("\n".join(sorted(digests)))


def file_digest(path: Path, *, quick: bool = False) -> str:
    """The content digest of a file; of a folder, the digest of its files' names and contents.

    ``quick`` reads only the size and 1 MiB of head, middle and tail of each file: for huge sets whose files are known
    not to change in between. Quick digests are marked and never equal full ones.
    """
    if path.is_dir():
        parts = {
            child.relative_to(path).as_posix(): file_digest(child, quick=quick)
            for child in sorted(path.rglob("*"))
            if child.is_file()
        }
        return digest({"folder": parts})
    if quick:
        return _quick_digest(path)
    hasher = blake3()
    hasher.update_mmap(path)
    return hasher.hexdigest()[:KEY_HEX_DIGITS]


def files_digest(paths: Sequence[Path]) -> str:
    """The digest of the contents of several files or folders together, whatever their names."""
    return digest([file_digest(path) for path in paths])


def _quick_digest(path: Path) -> str:
    size = path.stat().st_size
    hasher = blake3(f"quick {size} ".encode())
    with path.open("rb") as file:
        for start in sorted({0, max(0, size // 2 - _QUICK_PART_BYTES // 2), max(0, size - _QUICK_PART_BYTES)}):
            file.seek(start)
            hasher.update(file.read(_QUICK_PART_BYTES))
    return hasher.hexdigest()[:KEY_HEX_DIGITS]


def _tagged(value: object) -> object:  # noqa: PLR0911 - one return a type
    match value:
        case None:
            return None
        case bool():
            return ["b", value]
        case int():
            return ["i", str(value)]
        case float():
            if not math.isfinite(value):
                raise ValueError(f"a key cannot hold {value!r}: only finite numbers")
            return ["f", repr(value)]
        case str():
            return ["s", value]
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise TypeError(f"a key's mapping must have text keys, not {list(value)!r}")
            return ["m", [[key, _tagged(value[key])] for key in sorted(value)]]
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return ["l", [_tagged(entry) for entry in value]]
        case _:
            raise TypeError(
                f"a key cannot hold {type(value).__name__}: only mapping, sequence, str, int, float, bool, None"
            )


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote, without its seal. Raises FileNotFoundError, or StoreError when damaged."""
    with readable(path):
        values: dict[str, Any] = json.loads(_intact(path))
        values.pop(SEAL)
        return values


def read_sealed_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table that `write_table` wrote, or some of its columns. Raises as `read_sealed`."""
    content = _intact(path)
    with readable(path):
        return read_table(content, columns).replace_schema_metadata(None)


def _intact(path: Path) -> bytes:
    content = path.read_bytes()
    if not is_sealed(content):
        raise damaged(path, "its bytes are not those that were written")
    return content


def read_table(path: Path | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, by its path or its bytes, or some of its columns.

    Raises StoreError for a damaged file; of bytes in memory, which people gave, what pyarrow raises.

    By the file reader: `pyarrow.parquet.read_table` imports pyarrow.dataset, and that pandas. pyarrow is imported
    here: `status` can do without it as long as everything is up to date.
    """
    import pyarrow.parquet as pq

    source, guard = (path, readable(path)) if isinstance(path, Path) else (in_arrow(path), contextlib.nullcontext())
    with guard, pq.ParquetFile(source) as file:
        return file.read(columns=None if columns is None else list(columns))


def in_arrow(content: bytes) -> pa.BufferReader:
    """A file of these bytes in memory of Arrow's own.

    Threads of Arrow let go of what they read when they come to it. Of memory of Python they need the interpreter for
    that, and where it has ended by then the process aborts: one `status` in fourteen did, on a machine with much to do.
    """
    import pyarrow as pa

    stream = pa.BufferOutputStream()
    stream.write(content)
    return pa.BufferReader(stream.getvalue())


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes its reader raise in the block into StoreError.

    Errors of the system (not there, no permission) and those that are meant for people pass.
    """
    try:
        yield
    except ReelwrightError:
        raise
    except _RAISED as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise damaged(path, str(error)) from error  # pyarrow's, of a Parquet file that it cannot decode


def damaged(path: Path, why: str) -> StoreError:
    """The error for a file that is not as it was written."""
    first = (why.strip().splitlines() or ["unknown"])[0]
    return StoreError(
        f"{path} is damaged ({first}). Run `reelwright verify --repair`, with --all where only another pipeline "
        "file reaches it"
    )


def seal(path: Path) -> None:
    """Fill in the digits of a file that holds UNSEALED. Raises ValueError when it does not."""
    found = _read(path)
    if found is None:
        raise ValueError(f"{path} holds no {UNSEALED!r} to fill in")
    start, _, digest = found
    with path.open("r+b") as file:
        file.seek(start)
        file.write(digest.encode())


def broken_seal(path: Path) -> str | None:
    """Why a file is not as it was sealed, as `Problem` kinds say it: missing, truncated, altered; None when it is."""
    if not path.is_file():
        return "missing"
    found = _read(path) if path.stat().st_size else None
    if found is not None and found[1] == found[2]:
        return None
    tails = _TAILS.get(path.suffix)
    return "truncated" if path.stat().st_size == 0 or (tails and not _tail(path).endswith(tails)) else "altered"


def is_sealed(content: bytes) -> bool:
    """Whether the bytes of a file are those that were sealed."""
    found = _read_bytes(content)
    return found is not None and found[1] == found[2]


def has_seal(path: Path) -> bool:
    """Whether the mark is there, whatever its digits."""
    return path.is_file() and path.stat().st_size > 0 and _read(path) is not None


def _read(path: Path) -> tuple[int, str, str] | None:
    """Where the digits begin, the digits, and what they should be; None without a mark."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _read_bytes(content)


def _read_bytes(content: bytes | mmap.mmap) -> tuple[int, str, str] | None:
    mark = content.rfind(_MARK.encode())
    start = mark + len(_MARK)
    if mark < 0 or start + _DIGITS > len(content):
        return None
    with memoryview(content) as view:
        hasher = blake3(view[:start])
        hasher.update(b"0" * _DIGITS)
        hasher.update(view[start + _DIGITS :])
    return start, content[start : start + _DIGITS].decode(errors="replace"), hasher.hexdigest()[:_DIGITS]


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(8, path.stat().st_size), 2)
        return file.read()
