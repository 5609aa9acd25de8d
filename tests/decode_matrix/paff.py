"""Field-coded H.264 (PAFF), which no encoder of ffmpeg writes: every macroblock raw (I_PCM), every field a picture.

ITU-T H.264, 7.3: two fields of a frame are two access units, as AVCHD cameras write them. Groups of 13 frames, closed,
in the order I0 P3 B1 B2 P6 B4 B5 ...; the second field of an IDR picture is a P field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.decode_matrix.lab import FPS, NUM_PICTURES, Lab
from tests.decode_matrix.pictures import HEIGHT, WIDTH, Picture, draw

GROUP_FRAMES = 13
_I, _P, _B = 2, 0, 1  # slice_type
_PCM = {_I: 25, _P: 5 + 25, _B: 23 + 25}  # mb_type of I_PCM in each, tables 7-11, 7-13, 7-14
_DELIMITER = b"\x00\x00\x00\x01\x09\xf0"


def field_coded(*, together: bool, options: dict[str, str] | None = None) -> Callable[[Lab, Path], None]:
    """Make a file whose packets are frames (``together``) or single fields; ``options`` are those of the muxer."""

    def make(lab: Lab, path: Path) -> None:
        raw = path.with_name(f"{path.name}-raw.h264")
        raw.write_bytes(b"".join(first + second for _, _, first, second in _frames()))
        if path.suffix == ".h264":
            raw.rename(path)
            return
        with av.open(str(raw)) as source, av.open(str(path), "w", options=options or {}) as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            for position, (shown, is_key, *fields) in enumerate(_frames()):
                parts = [b"".join(fields)] if together else fields
                for number, data in enumerate(parts):
                    _write(out, stream, data, 2 * shown + 2 + number, 2 * position + number, is_key and not number)
        raw.unlink()

    return make


def _write(
    out: av.container.OutputContainer, stream: av.VideoStream, data: bytes, pts: int, dts: int, is_key: bool
) -> None:
    packet = av.Packet(data)
    packet.stream, packet.is_keyframe = stream, is_key
    packet.time_base = Fraction(1, 2 * FPS)
    packet.pts, packet.dts = pts, dts
    out.mux(packet)


@lru_cache
def _frames() -> list[tuple[int, bool, bytes, bytes]]:
    return list(_coded())


def _coded() -> Iterator[tuple[int, bool, bytes, bytes]]:
    """In coding order: number of the frame as shown, whether decoding may begin there, its two fields."""
    for start in range(0, NUM_PICTURES, GROUP_FRAMES):
        frame_num = 0
        for place, kind in _group_order(min(GROUP_FRAMES, NUM_PICTURES - start)):
            head = _DELIMITER + (_parameter_sets() if kind == _I else b"")
            fields = [
                _field(draw(start + place), kind, frame_num, 2 * place + parity, parity, start // GROUP_FRAMES)
                for parity in (0, 1)
            ]
            yield start + place, kind == _I, head + fields[0], _DELIMITER + fields[1]
            frame_num += kind != _B


def _group_order(count: int) -> Iterator[tuple[int, int]]:
    yield 0, _I
    for place in range(3, count + 2, 3):
        reference = min(place, count - 1)
        if reference > place - 3:
            yield reference, _P
        yield from ((between, _B) for between in range(place - 2, reference))


def _field(picture: Picture, kind: int, frame_num: int, order: int, parity: int, idr_id: int) -> bytes:
    is_idr, is_reference = kind == _I and parity == 0, kind != _B
    slice_type = _P if kind == _I and parity else kind
    bits = _Bits()
    bits.ue(0, slice_type, 0)  # first_mb_in_slice, slice_type, pic_parameter_set_id
    bits.u(8, frame_num)
    bits.u(1, 1)  # field_pic_flag
    bits.u(1, parity)
    if is_idr:
        bits.ue(idr_id % 2)
    bits.u(8, order)
    if slice_type == _B:
        bits.u(1, 1)  # direct_spatial_mv_pred_flag
    if slice_type != _I:
        bits.u(1, 0)  # num_ref_idx_active_override_flag
        bits.u(2 if slice_type == _B else 1, 0)  # ref_pic_list_modification_flag of each list
    if is_reference:
        bits.u(2 if is_idr else 1, 0)  # of an IDR picture two flags; else adaptive_ref_pic_marking_mode_flag
    bits.se(0)  # slice_qp_delta
    bits.ue(1)  # disable_deblocking_filter_idc
    for macroblock in _macroblocks(picture[parity::2]):
        if slice_type != _I:
            bits.ue(0)  # mb_skip_run
        bits.ue(_PCM[slice_type])
        bits.align()
        bits.data += macroblock
    bits.trail()
    return _unit((2 if is_reference else 0) << 5 | (5 if is_idr else 1), bits.data)


def _macroblocks(field: Picture) -> Iterator[bytes]:
    """Luma and chroma of each macroblock of a field in 4:2:0, BT.601, limited range."""
    rgb = field.astype(np.float64) @ np.asarray(
        [[0.257, -0.148, 0.439], [0.504, -0.291, -0.368], [0.098, 0.439, -0.071]], np.float64
    )
    planes = np.clip(np.rint(rgb + np.asarray([16, 128, 128])), 1, 254).astype(np.uint8)
    small = planes[:, :, 1:].reshape(len(field) // 2, 2, WIDTH // 2, 2, 2).mean((1, 3)).astype(np.uint8)
    for top in range(0, len(field), 16):
        for left in range(0, WIDTH, 16):
            chroma = small[top // 2 : top // 2 + 8, left // 2 : left // 2 + 8]
            yield planes[top : top + 16, left : left + 16, 0].tobytes() + _plane(chroma, 0) + _plane(chroma, 1)


def _plane(chroma: NDArray[np.uint8], which: int) -> bytes:
    return chroma[:, :, which].tobytes()


def _parameter_sets() -> bytes:
    sequence = _Bits()
    sequence.u(8, 77)  # profile_idc: Main
    sequence.u(8, 0)
    sequence.u(8, 30)  # level_idc
    sequence.ue(0, 4, 0, 4, 2)  # id, log2_max_frame_num - 4, poc type, log2_max_poc_lsb - 4, max_num_ref_frames
    sequence.u(1, 0)
    sequence.ue(WIDTH // 16 - 1, HEIGHT // 32 - 1)
    sequence.u(1, 0)  # frame_mbs_only_flag
    sequence.u(1, 0)  # mb_adaptive_frame_field_flag
    sequence.u(1, 1)  # direct_8x8_inference_flag
    sequence.u(1, 0)  # frame_cropping_flag
    sequence.u(1, 1)  # vui_parameters_present_flag
    sequence.u(4, 0)  # aspect ratio, overscan, video signal, chroma location: not said
    sequence.u(1, 1)  # timing_info_present_flag
    sequence.u(32, 1)
    sequence.u(32, 2 * FPS)
    sequence.u(1, 1)  # fixed_frame_rate_flag
    sequence.u(3, 0)  # no HRD, no pic_struct
    sequence.u(1, 1)  # bitstream_restriction_flag
    sequence.u(1, 1)
    sequence.ue(0, 0, 10, 10, 1, 2)  # ..., max_num_reorder_frames, max_dec_frame_buffering
    sequence.trail()
    picture = _Bits()
    picture.ue(0, 0)
    picture.u(2, 0)  # CAVLC, bottom_field_pic_order_in_frame_present_flag
    picture.ue(0, 0, 0)
    picture.u(3, 0)  # no weighted prediction
    picture.ue(0, 0, 0)
    picture.u(3, 0b100)  # deblocking_filter_control_present_flag
    picture.trail()
    return _unit(0x67, sequence.data) + _unit(0x68, picture.data)


def _unit(header: int, payload: bytes) -> bytes:
    """A NAL unit with emulation prevention (7.4.1)."""
    out, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\x00\x00\x00\x01" + bytes([header]) + bytes(out)


class _Bits:
    """Bits from the most significant on; whole bytes go to ``data``."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._pending = ""

    def u(self, count: int, value: int) -> None:
        """``value`` in ``count`` bits."""
        self._pending += f"{value:0{count}b}"
        while len(self._pending) >= 8:
            self.data.append(int(self._pending[:8], 2))
            self._pending = self._pending[8:]

    def ue(self, *values: int) -> None:
        """Each as unsigned Exp-Golomb code."""
        for value in values:
            length = (value + 1).bit_length()
            self.u(2 * length - 1, value + 1)

    def se(self, value: int) -> None:
        """As signed Exp-Golomb code."""
        self.ue(2 * value - 1 if value > 0 else -2 * value)

    def align(self) -> None:
        """Fill the byte with zeros."""
        while self._pending:
            self.u(1, 0)

    def trail(self) -> None:
        """rbsp_trailing_bits."""
        self.u(1, 1)
        self.align()
