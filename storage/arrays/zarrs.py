"""What the frame store and the embedding store share: groups, sharded arrays and codecs of Zarr v3.

Everything written here opens with plain zarr-python: `zarr.open_group(path, mode="r")["<digest>/frame"][10:20]`.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from reelwright.storage.backend import remove_local
from reelwright.storage.constants import PARTIAL
from reelwright.storage.digests import SEAL, UNSEALED, file_digest, readable, seal
from reelwright.storage.errors import ConfigError, StoreError, nearest
from reelwright.storage.files import folder_bytes, remove
from reelwright.storage.heartbeat import check_held
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import backend_of

OWN = "reelwright"  # the attribute of groups that holds their seal and, of videos, the list of files
ZSTD_LEVEL = 1  # on real 480p frames: level 1 keeps 0.77 of the bytes at 150 MB/s, level 3 keeps 0.72 at 80 MB/s
PCODEC_LEVEL = 4
CODECS = ("none", "lz4", "zstd", "pcodec")


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """How one array lies on disk. The first axis is time (rows); the others are never split."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int  # rows that are read and coded together
    shard_rows: int  # rows of one file; a whole multiple of chunk_rows, one writer each
    codec: str = "none"  # one of CODECS
    level: int | None = None  # of zstd and pcodec; None: the default measured here


def codec_options(codec: str, *, level: int | None = None) -> dict[str, Any]:
    """Arguments of zarr's create_array for a codec by name; every chunk ends with a crc32c.

    Raises ConfigError for an unknown codec, or for pcodec where its package is not installed.
    """
    match codec:
        case "none":
            return {"filters": None, "compressors": [Crc32cCodec()]}
        case "lz4":
            return {"filters": None, "compressors": [BloscCodec(cname="lz4", shuffle="shuffle"), Crc32cCodec()]}
        case "zstd":
            return {"filters": None, "compressors": [ZstdCodec(level=level or ZSTD_LEVEL), Crc32cCodec()]}
        case "pcodec":
            return {"filters": None, "serializer": _pcodec(level), "compressors": [Crc32cCodec()]}
        case _:
            raise ConfigError(f"codec {codec!r} is not known.{nearest(codec, CODECS)} Allowed: {', '.join(CODECS)}.")


def create_group(path: Path, attributes: Mapping[str, object]) -> zarr.Group:
    """The group at ``path`` with ``attributes``, made in one step; one that is there already is opened for writing.

    Raises StoreError when a group is there whose attributes differ: a spec key names one spec only.
    """
    if not backend_of(path).ensure_local(path / "zarr.json"):
        _create_root(path, attributes)
    with readable(path / "zarr.json"):
        group = zarr.open_group(path, mode="r+", use_consolidated=False)
    found = {name: group.attrs.get(name) for name in attributes}
    if found != _plain(attributes):
        raise StoreError(
            f"{path} holds another spec: {found!r} instead of {dict(attributes)!r}. Move it away, or use another store."
        )
    return group


def open_group(path: Path) -> zarr.Group:
    """The group at ``path``, for reading. Raises StoreError when there is none."""
    if not backend_of(path).ensure_local(path / "zarr.json"):
        raise StoreError(f"{path} is not there, or no Zarr v3 group. Run the stage that makes it.")
    with readable(path / "zarr.json"):
        return zarr.open_group(path, mode="r", use_consolidated=False)


def create_array(group: zarr.Group, name: str, layout: ArrayLayout, *, axes: Sequence[str] = ()) -> zarr.Array[Any]:
    """A sharded array at its full size, filled with zeros. ``axes`` names the dimensions for readers."""
    chunk_rows = max(1, min(layout.chunk_rows, layout.shape[0]))
    shard_rows = max(chunk_rows, -(-min(layout.shard_rows, layout.shape[0]) // chunk_rows) * chunk_rows)
    inner = tuple(max(1, extent) for extent in layout.shape[1:])
    with quiet():
        array: zarr.Array[Any] = group.create_array(
            name,
            shape=layout.shape,
            dtype=layout.dtype,
            chunks=(chunk_rows, *inner),
            shards=(shard_rows, *inner),
            fill_value=0,
            dimension_names=list(axes) or None,
            **codec_options(layout.codec, level=layout.level),
        )
    return array


def every_chunk_written() -> Any:
    """Of arrays made or opened in the block, chunks of nothing but zeros are written too: a shard done has a file."""
    return zarr.config.set({"array.write_empty_chunks": True})


def small_array(group: zarr.Group, name: str, values: np.ndarray[Any, Any], *, axes: Sequence[str] = ()) -> None:
    """Write a small array (times, frame numbers) whole, in one zstd chunk."""
    layout = ArrayLayout(
        shape=values.shape, dtype=values.dtype, chunk_rows=1 << 20, shard_rows=1 << 20, codec="zstd", level=3
    )
    create_array(group, name, layout, axes=axes)[:] = values


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group on this machine. Raises StoreError where its zarr.json is damaged or gone."""
    with readable(_description(group, name)), quiet():
        found: zarr.Array[Any] = group[name]
    return found


def has_array(group: zarr.Group, name: str) -> bool:
    """Whether a group on this machine has an array; it is not read."""
    return _description(group, name).is_file()


def _description(group: zarr.Group, name: str) -> Path:
    return Path(str(group.store_path).removeprefix("file://")) / name / "zarr.json"


def attributes_of(group: zarr.Group) -> dict[str, Any]:
    """The attributes of a group, without what `verify` keeps there."""
    return {name: value for name, value in group.attrs.asdict().items() if name != OWN}


def partial_group(path: Path, name: str) -> Path:
    """The path under which group ``name`` is written until it is complete (`publish` gives it its name)."""
    return path / f"{PARTIAL}{name}"


def publish(temporary: Path, path: Path) -> int:
    """Seal a finished group and give it its name in one step; what had the name before is removed.

    Returns its bytes on disk.
    """
    check_held(path)
    for leftover in [*temporary.rglob("*.partial")]:  # half a chunk's file, from when zarr was killed
        remove(leftover)
    _seal_group(temporary, {"files": _files_of(temporary)})
    if path.exists():
        old = path.with_name(f"{PARTIAL}old-{uuid.uuid4().hex[:8]}")
        os.replace(path, old)  # noqa: PTH105 - the one atomic step, named as the system call it is
        os.replace(temporary, path)  # noqa: PTH105
        remove(old)
    else:
        os.replace(temporary, path)  # noqa: PTH105
    backend_of(path).push_item(path, functools.partial(_withdraw, path))
    return folder_bytes(path)


def has_item(path: Path, name: str) -> bool:
    """Whether the group ``name`` is finished; brings it from the bucket of a store that is in one."""
    return bool(backend_of(path).ensure_items(path, [name]))


class quiet(warnings.catch_warnings):  # noqa: N801 - reads as a verb in `with quiet():`
    """Silence zarr's warning that pcodec is an extension of the Zarr v3 specification, which we know."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3 specification")


def _pcodec(level: int | None) -> Any:
    if find_spec("pcodec") is None:
        raise ConfigError("codec 'pcodec' needs a package: pip install 'numcodecs[pcodec]', or use lz4.")
    from zarr.codecs import numcodecs as extensions

    with quiet():
        return extensions.PCodec(level=level or PCODEC_LEVEL)


def _create_root(path: Path, attributes: Mapping[str, object]) -> None:
    """Make the group under another name first, so that no reader and no second writer sees it without attributes."""
    temporary = path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:12]}-{path.name}")
    zarr.create_group(temporary, attributes=_plain(attributes))
    _seal_group(temporary, {})
    try:
        os.rename(temporary, path)  # noqa: PTH104 - refuses to replace a group that another process made meanwhile
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY} or not path.is_dir():
            raise
        if not (path / "zarr.json").exists():  # `verify --repair` removed it
            os.replace(temporary / "zarr.json", path / "zarr.json")  # noqa: PTH105
    finally:
        remove_local(temporary)
    backend_of(path).push(path / "zarr.json")


def _withdraw(path: Path) -> None:
    """Take an item out of its ledger before another takes its place: a run that dies meanwhile leaves it to be done."""
    ItemLedger(path.parents[2] / "nodes" / path.parent.name.removesuffix(".zarr")).commit(
        ItemRow(digest=path.name, status="failed", cause="replaced", message="its rows were being replaced")
    )


def _files_of(group: Path) -> dict[str, list[Any]]:
    """[bytes, digest] of all files below a group but its own zarr.json; shards have their crc32c and no digest."""
    paths = {path.relative_to(group).as_posix(): path for path in sorted(group.rglob("*")) if path.is_file()}
    return {
        name: [path.stat().st_size, file_digest(path) if path.name == "zarr.json" else ""]
        for name, path in paths.items()
        if name != "zarr.json"
    }


def _seal_group(group: Path, values: Mapping[str, Any]) -> None:
    path = group / "zarr.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["attributes"] = {**content.get("attributes", {}), OWN: {**values, SEAL: UNSEALED}}
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    seal(path)


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
