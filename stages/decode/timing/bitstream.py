"""What a few bits of codecs' headers say that containers do not: fields, hidden frames, where decoding may begin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_IDR = 5  # H.264, table 7-1
_IRAP = range(16, 22)  # H.265, table 7-1: BLA, IDR, CRA
_SPS = 7
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


def is_random_access(codec: str, extradata: bytes, packet: Any) -> bool:
    """Whether a packet flagged as key frame really lets decoding begin: not so for H.264's recovery points."""
    if codec == "h264":
        return _IDR in {nal[0] & 31 for nal in _units(bytes(packet), _length_size(extradata, 4))}
    if codec == "hevc":
        return any(nal[0] >> 1 & 63 in _IRAP for nal in _units(bytes(packet), _length_size(extradata, 21)))
    return True


def is_shown(codec: str, packet: Any) -> bool:
    """Whether a VP8 or VP9 packet holds a frame that is shown (RFC 6386, 9.1; VP9 bitstream, 6.2 and annex B)."""
    data = bytes(packet)
    if codec == "vp8":
        return bool(data[0] >> 4 & 1)
    if data[-1] & 0xE0 == 0xC0:  # a superframe: its last frame is shown
        return True
    profile = (data[0] >> 5 & 1) | (data[0] >> 4 & 1) << 1
    at = 2 if profile == 3 else 3  # the bit of show_existing_frame, counted from the lowest
    if data[0] >> at & 1:
        return True
    return bool(data[0] >> (at - 2) & 1)


def may_have_fields(extradata: bytes) -> bool:
    """Whether H.264 may code single fields (frame_mbs_only_flag 0, 7.3.2.1.1); so too where nothing is known."""
    units = list(_parameter_sets(extradata))
    return not units or not all(_is_frames_only(unit) for unit in units)


def _parameter_sets(extradata: bytes) -> Iterator[bytes]:
    if extradata[:1] != b"\x01":
        yield from (unit for unit in _units(extradata, 0) if unit[0] & 31 == _SPS)
        return
    at = 6
    for _ in range(extradata[5] & 31 if len(extradata) > 6 else 0):
        length = int.from_bytes(extradata[at : at + 2], "big")
        yield extradata[at + 2 : at + 2 + length]
        at += 2 + length


def _length_size(extradata: bytes, at: int) -> int:
    """Bytes of a unit's length before it (avcC, hvcC); 0: units are parted by start codes."""
    return (extradata[at] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > at else 0


def _units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The first bytes of each NAL unit."""
    if length_size:
        at = 0
        while at + length_size < len(data):
            length = int.from_bytes(data[at : at + length_size], "big")
            at += length_size
            yield data[at : at + min(length, 256)]
            at += length
        return
    at = data.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(data):
        yield data[at + 3 : at + 259]
        at = data.find(b"\0\0\1", at + 3)


class _Bits:
    """Reads bits of a unit's payload, emulation prevention bytes removed."""

    def __init__(self, unit: bytes) -> None:
        data = unit.replace(b"\0\0\3", b"\0\0")
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("the unit ends early")
        return self._bits >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        value = self.golomb()
        return (value + 1) // 2 if value & 1 else -(value // 2)


def _is_frames_only(unit: bytes) -> bool:
    bits = _Bits(unit[1:])
    try:
        profile = bits.take(8)
        bits.take(16)
        bits.golomb()  # seq_parameter_set_id
        if profile in _HIGH_PROFILES:
            _skip_high(bits)
        bits.golomb()  # log2_max_frame_num_minus4
        order = bits.golomb()
        if order == 0:
            bits.golomb()
        elif order == 1:
            bits.take(1)
            bits.signed()
            bits.signed()
            for _ in range(bits.golomb()):
                bits.signed()
        bits.golomb()  # max_num_ref_frames
        bits.take(1)
        bits.golomb()  # pic_width_in_mbs_minus1
        bits.golomb()
        return bool(bits.take(1))
    except ValueError:
        return False


def _skip_high(bits: _Bits) -> None:
    chroma = bits.golomb()
    if chroma == 3:
        bits.take(1)
    bits.golomb()
    bits.golomb()
    bits.take(1)
    if bits.take(1):  # seq_scaling_matrix_present_flag
        for index in range(8 if chroma != 3 else 12):
            if bits.take(1):
                _skip_scaling_list(bits, 16 if index < 6 else 64)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed() + 256) % 256
        last = following or last
