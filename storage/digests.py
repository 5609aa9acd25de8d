"""Digests: one canonical form for keys, and content digests of files.

A key is the blake3 of a type-tagged JSON text, so that 1, 1.0, "1" and true never collide and neither the order of
mapping keys nor formatting matters. tests/storage/test_digests.py pins values: a change here renames every output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from blake3 import blake3

KEY_HEX_DIGITS = 32  # 128 bits: no collision is to be expected below 2**60 outputs
_QUICK_PART_BYTES = 1 << 20


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
