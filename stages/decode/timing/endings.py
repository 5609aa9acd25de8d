"""Whether a file ends before its end, by the container's own words: sizes, trailers, end marks. Nothing is decoded.

Only containers that say where they end are asked; what a cut-off file of another kind loses, only its maker knows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_EBML_SEGMENT = 0x18538067
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MXF_HEADER = bytes.fromhex("060e2b34020501010d01020101")
_OGG_TAIL_BYTES = 1 << 17  # a page has at most 65,307 bytes


def find_cut(path: Path, container: str) -> str:
    """How the file says that its end is missing; "" where it does not say so. ``container`` is FFmpeg's name."""
    check = next((check for name, check in _CHECKS.items() if name in container.split(",")), None)
    if check is None:
        return ""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            stated = check(file, size)
    except (struct.error, IndexError, ValueError):
        return ""  # a header that cannot be read says nothing
    return "" if stated is None else f"the file is cut off: {stated}"


def _beyond(end: int, size: int, what: str) -> str | None:
    return f"{what} ends at byte {end}, and the file has {size}" if end > size else None


def _mp4(file: BinaryIO, size: int) -> str | None:
    """Boxes follow each other to the end of the file (ISO 14496-12, 4.2)."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            header = 16
        if length == 0:  # to the end of the file
            return None
        if length < header or not name.isascii():
            return None
        if at + length > size:
            return _beyond(at + length, size, f"its box {name.decode('ascii')!r}")
        at += length
    return None


def _matroska(file: BinaryIO, size: int) -> str | None:
    """The segment says how long it is (RFC 8794, 6; RFC 9559, 4.5), unless it was written live."""
    at = 0
    for _ in range(4):
        file.seek(at)
        head = file.read(16)
        id_length = 9 - head[0].bit_length()
        length_size = 9 - head[id_length].bit_length()
        raw = int.from_bytes(head[id_length : id_length + length_size], "big")
        length = raw & ((1 << 7 * length_size) - 1)
        if int.from_bytes(head[:id_length], "big") == _EBML_SEGMENT:
            is_unknown = length == (1 << 7 * length_size) - 1
            return None if is_unknown else _beyond(at + id_length + length_size + length, size, "its segment")
        at += id_length + length_size + length
    return None


def _avi(file: BinaryIO, size: int) -> str | None:
    """Chunks RIFF follow each other to the end of the file; one that was never finished has no size."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF":
            return None
        if length in (0, 0xFFFFFFFF):
            return "its writer did not finish it (RIFF chunk without a size)"
        if at + 8 + length > size:
            return _beyond(at + 8 + length, size, "its RIFF chunk")
        at += 8 + length + (length & 1)
    return None


def _asf(file: BinaryIO, size: int) -> str | None:
    """The file properties object tells the size of the whole file (ASF specification, 3.2), unless broadcast."""
    head = file.read(1 << 16)
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0:
        return None
    (stated,) = struct.unpack_from("<Q", head, at + 40)
    (flags,) = struct.unpack_from("<I", head, at + 88)
    return None if flags & 1 else _beyond(stated, size, "by its header it")


def _flv(file: BinaryIO, size: int) -> str | None:
    """The last four bytes are the size of the last tag (Adobe FLV specification, E.3)."""
    file.seek(size - 4)
    (length,) = struct.unpack(">I", file.read(4))
    start = size - 4 - length
    if 9 <= start <= size - 15:
        file.seek(start)
        head = file.read(4)
        if head[0] & 31 in (8, 9, 18) and int.from_bytes(head[1:4], "big") == length - 11:
            return None
    return "it ends inside a tag"


def _gif(file: BinaryIO, size: int) -> str | None:
    """The last byte is the trailer (GIF89a, 27)."""
    file.seek(max(0, size - 64))
    return None if file.read().rstrip(b"\0\r\n")[-1:] == b";" else "its trailer is missing"


def _ogg(file: BinaryIO, size: int) -> str | None:
    """The last page of a stream is flagged so and is whole (RFC 3533, 6)."""
    file.seek(max(0, size - _OGG_TAIL_BYTES))
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return "it ends inside a page"
    count = tail[at + 26]
    lacing = tail[at + 27 : at + 27 + count]
    if len(lacing) < count or at + 27 + count + sum(lacing) > len(tail):
        return "it ends inside a page"
    return None if tail[at + 5] & 4 else "the page that ends its stream is missing"


def _mxf(file: BinaryIO, size: int) -> str | None:
    """A closed header partition tells where the footer is (SMPTE ST 377-1, 7.1)."""
    head = file.read(1 << 16)
    at = head.find(_MXF_HEADER)
    if at < 0:
        return None
    is_closed = head[at + 14] in (2, 4)
    body = at + 17 + (head[at + 16] & 0x7F if head[at + 16] & 0x80 else 0)
    (footer,) = struct.unpack_from(">Q", head, body + 24)
    return _beyond(footer + 1, size, "its body") if is_closed and footer else None


def _ts(file: BinaryIO, size: int) -> str | None:
    """Packets of 188 bytes (192 in M2TS, 204 with parity) follow each other (ISO 13818-1, 2.4.3)."""
    head = file.read(204 * 5)
    for length, offset in ((188, 0), (192, 4), (204, 0)):
        if all(head[offset + length * index : offset + length * index + 1] == b"\x47" for index in range(5)):
            left = size % length
            return f"its last packet has {left} of {length} bytes" if left else None
    return None


_CHECKS: dict[str, Callable[[BinaryIO, int], str | None]] = {
    "mp4": _mp4,
    "matroska": _matroska,
    "avi": _avi,
    "asf": _asf,
    "flv": _flv,
    "gif": _gif,
    "ogg": _ogg,
    "mxf": _mxf,
    "mpegts": _ts,
}
