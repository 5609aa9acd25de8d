"""The files of the matrix: container x codec x groups of pictures x fields x start x truncation x colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.decode_matrix.lab import NUM_PICTURES, Case, concatenated, copied, encoded, joined, sliced
from tests.decode_matrix.paff import field_coded

_X264 = "-c:v libx264 -preset ultrafast -threads 1"
_X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=1:frame-threads=1"
_VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -threads 1 -b:v 400k"
_VP8 = "-c:v libvpx -deadline realtime -cpu-used 8 -threads 1 -b:v 400k"
_AV1 = "-c:v libaom-av1 -cpu-used 8 -usage realtime -threads 1 -g 25"
_MPEG1, _MPEG2, _MPEG4 = (f"-c:v {name} -q:v 3" for name in ("mpeg1video", "mpeg2video", "mpeg4"))

# codec -> structure -> options; g: distance of key frames, b: B-frames, open: groups that need the one before
STRUCTURES = {
    "h264": {
        "g25": f"{_X264} -bf 0 -g 25",
        "b2-g13": f"{_X264} -bf 2 -g 13",
        "b3-open-g13": f"{_X264} -bf 3 -g 13 -x264-params open-gop=1:b-pyramid=normal:bframes=3:b-adapt=0",
    },
    "hevc": {
        "g25": f"{_X265}:bframes=0:keyint=25",
        "b2-g13": f"{_X265}:bframes=2:keyint=13:open-gop=0",
        "b3-open-g13": f"{_X265}:bframes=3:keyint=13:open-gop=1:b-adapt=0",
    },
    "mpeg1": {"g12": f"{_MPEG1} -g 12", "b2-open-g12": f"{_MPEG1} -g 12 -bf 2"},
    "mpeg2": {
        "g12": f"{_MPEG2} -g 12",
        "b2-open-g12": f"{_MPEG2} -g 12 -bf 2",
        "b2-closed-g12": f"{_MPEG2} -g 12 -bf 2 -flags +cgop -sc_threshold 1000000000",
    },
    "mpeg4": {"g25": f"{_MPEG4} -g 25", "b2-g13": f"{_MPEG4} -g 13 -bf 2"},
    "h263": {"g12": "-c:v h263 -q:v 3 -g 12"},
    "msmpeg4v2": {"g12": "-c:v msmpeg4v2 -q:v 3 -g 12"},
    "msmpeg4v3": {"g12": "-c:v msmpeg4 -q:v 3 -g 12"},
    "wmv1": {"g12": "-c:v wmv1 -q:v 3 -g 12"},
    "wmv2": {"g25": "-c:v wmv2 -q:v 3 -g 25"},
    "flv1": {"g25": "-c:v flv -q:v 3 -g 25"},
    "rv20": {"g12": "-c:v rv20 -q:v 3 -g 12"},
    "vp8": {
        "g25": f"{_VP8} -g 25",
        "altref": "-c:v libvpx -cpu-used 8 -g 40 -auto-alt-ref 1 -lag-in-frames 16 -b:v 400k",
    },
    "vp9": {
        "g25": f"{_VP9} -g 25",
        "altref": "-c:v libvpx-vp9 -deadline good -cpu-used 8 -g 40 -auto-alt-ref 1 -lag-in-frames 16 -b:v 400k",
    },
    "av1": {"g25": _AV1, "altref": "-c:v libaom-av1 -cpu-used 8 -lag-in-frames 19 -g 40 -threads 1"},
    "theora": {"g16": "-c:v libtheora -q:v 8 -g 16"},
    "mjpeg": {"intra": "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p"},
    "prores": {"intra": "-c:v prores_ks -profile:v 2 -pix_fmt yuv422p10le"},
    "ffv1": {"g1": "-c:v ffv1 -g 1", "g12": "-c:v ffv1 -g 12 -context 1"},
    "huffyuv": {"intra": "-c:v huffyuv -pix_fmt yuv422p"},
    "ffvhuff": {"intra": "-c:v ffvhuff"},
    "utvideo": {"intra": "-c:v utvideo"},
    "magicyuv": {"intra": "-c:v magicyuv"},
    "dnxhd": {"intra": "-c:v dnxhd -profile:v dnxhr_lb -vf scale=256:192 -pix_fmt yuv422p"},
    "qtrle": {"g25": "-c:v qtrle -g 25 -pix_fmt rgb24"},
    "png": {"intra": "-c:v png -pix_fmt rgb24"},
    "rawvideo": {"intra": "-c:v rawvideo -pix_fmt yuv420p"},
    "y4m": {"intra": "-c:v wrapped_avframe -pix_fmt yuv420p"},
    "gif": {"intra": "-c:v gif -pix_fmt rgb8"},
    "cfhd": {"intra": "-c:v cfhd -quality film3+ -pix_fmt yuv422p10le"},
    "jpeg2000": {"intra": "-c:v jpeg2000 -q:v 2"},
    "svq1": {"g12": "-c:v svq1 -g 12 -q:v 3 -pix_fmt yuv410p"},
    "msvideo1": {"g12": "-c:v msvideo1 -pix_fmt rgb555le"},
    "zmbv": {"g25": "-c:v zmbv -g 25 -pix_fmt bgr0"},
    "snow": {"g12": "-c:v snow -strict -2 -qscale 2 -g 12"},
    "xvid": {"g25": "-c:v libxvid -q:v 3 -g 25", "packed-b2": "-c:v libxvid -bf 2 -q:v 3 -g 25"},
}
CONTAINERS = {
    "h264": "mp4 mov mkv avi ts m2ts flv wmv nut mxf 3gp vob h264",
    "hevc": "mp4 mov mkv ts m2ts avi hevc",
    "mpeg1": "mpg ts mkv avi mp4 m1v",
    "mpeg2": "mpg vob ts m2ts mkv avi mxf mp4 mov m2v",
    "mpeg4": "mp4 mov mkv avi ts 3gp nut asf m4v",
    "h263": "avi 3gp mkv",
    "msmpeg4v2": "avi wmv",
    "msmpeg4v3": "avi asf mkv",
    "wmv1": "wmv",
    "wmv2": "wmv avi mkv",
    "flv1": "flv",
    "rv20": "rm",
    "vp8": "webm mkv ivf ogg",
    "vp9": "webm mkv mp4 ivf",
    "av1": "mp4 webm mkv ivf",
    "theora": "ogv",
    "mjpeg": "avi mov mkv mp4",
    "prores": "mov mkv",
    "ffv1": "mkv avi nut",
    "huffyuv": "avi",
    "ffvhuff": "mkv",
    "utvideo": "avi",
    "magicyuv": "avi",
    "dnxhd": "mov mxf",
    "qtrle": "mov",
    "png": "mov avi",
    "rawvideo": "avi nut",
    "y4m": "y4m",
    "gif": "gif",
    "cfhd": "mov",
    "jpeg2000": "mxf",
    "svq1": "mov",
    "msvideo1": "avi",
    "zmbv": "avi",
    "snow": "avi",
    "xvid": "avi mkv mp4",
}
ONCE = {  # structures that are made in these containers only
    ("vp8", "altref"): "webm",
    ("vp9", "altref"): "webm mp4",
    ("av1", "altref"): "mkv mp4",
    ("xvid", "packed-b2"): "avi",
    ("mpeg2", "b2-closed-g12"): "mpg ts mkv mxf",
    ("ffv1", "g12"): "mkv",
}
CHANGES_SIZE = "changes its size"
_FORMATS = {"vob": "-f vob", "mpg": "-f mpeg", "m2ts": "-f mpegts -mpegts_m2ts_mode 1", "y4m": "-f yuv4mpegpipe"}
_H264, _OPEN = STRUCTURES["h264"], "b3-open-g13"


def all_cases() -> dict[str, Case]:
    """Every case by name, parts of others included."""
    cases: dict[str, Case] = {}
    for make in (
        _plain,
        _fields,
        _starts,
        _edits,
        _truncated,
        _joined,
        _variable,
        _colours,
        _geometry,
        _sizes,
        _others,
    ):
        for case in make():
            assert case.name not in cases, case.name
            cases[case.name] = case
    return cases


def _encoded(name: str, codec: str, structure: str, options: str, *, is_part: bool = False, **more: Any) -> Case:
    fixed = _FORMATS.get(name.rpartition(".")[2], "")
    make = encoded(f"{options} {fixed}", **more)
    return Case(name=name, codec=codec, structure=structure, make=make, is_part=is_part)


def _plain() -> Iterator[Case]:
    for codec, structures in STRUCTURES.items():
        for structure, options in structures.items():
            for container in ONCE.get((codec, structure), CONTAINERS[codec]).split():
                yield _encoded(f"{codec}-{structure}.{container}", codec, structure, options)


def _fields() -> Iterator[Case]:
    mbaff = f"{_X264} -bf 2 -g 13 -flags +ildct+ilme -x264-params tff=1:bframes=2"
    for container in ("ts", "m2ts", "mp4", "mkv"):
        yield _encoded(f"h264-mbaff.{container}", "h264", "mbaff", mbaff)
    yield _encoded("h264-mbaff-bff.ts", "h264", "mbaff", mbaff.replace("tff=1", "bff=1"))
    for container in ("ts", "m2ts", "mp4", "mov", "mkv", "h264"):
        options = {"mpegts_m2ts_mode": "1"} if container == "m2ts" else {}
        for label, together in (("frames", True), ("fields", False)):
            if container != "h264" or together:
                make = field_coded(together=together, options=options)
                yield Case(name=f"h264-paff-{label}.{container}", codec="h264", structure="field-coded", make=make)
    yield Case(name="h264-paff-remuxed.mp4", codec="h264", structure="field-coded", make=copied("h264-paff-frames.ts"))
    make = sliced("h264-paff-frames.ts", 0.07, unit=188)
    yield Case(name="h264-paff-between.ts", codec="h264", structure="begins between key frames", make=make)
    for container in ("mpg", "vob", "ts", "mxf", "mp4"):
        options = f"{_MPEG2} -g 12 -bf 2 -flags +ildct+ilme -top 1"
        yield _encoded(f"mpeg2-interlaced.{container}", "mpeg2", "interlaced", options)
    for container in ("avi", "mp4"):
        options = f"{_MPEG4} -g 12 -bf 2 -flags +ildct -top 1"  # +ilme: one picture differs between FFmpeg 5.1 and 8
        yield _encoded(f"mpeg4-interlaced.{container}", "mpeg4", "interlaced", options)
    for container in ("ts", "mp4"):
        options = f"{_X265}:bframes=2:keyint=26:interlace=tff"
        yield _encoded(f"hevc-fields.{container}", "hevc", "field-coded", options)
    pulldown = f"{_MPEG2} -g 12 -bf 2"
    yield _encoded("mpeg2-24p.vob", "mpeg2", "24p", pulldown, fps="24000/1001")
    dv = "-c:v dvvideo -vf scale=720:576 -pix_fmt yuv420p"
    yield _encoded("dv-interlaced.avi", "dvvideo", "interlaced", dv, count=40)
    yield _encoded("dv-interlaced.dv", "dvvideo", "interlaced", dv, count=40)
    yield _encoded(
        "prores-interlaced.mov", "prores", "interlaced", "-c:v prores_ks -flags +ildct -top 1 -pix_fmt yuv422p10le"
    )


def _starts() -> Iterator[Case]:
    def started(name: str, codec: str, options: str) -> Case:
        return _encoded(name, codec, "starts at 3600 s", f"{options} -output_ts_offset 3600")

    for container in ("ts", "m2ts", "mkv", "mp4", "flv", "asf", "nut"):
        yield started(f"h264-b2-from3600.{container}", "h264", _H264["b2-g13"])
    yield started("mpeg2-b2-from3600.mpg", "mpeg2", STRUCTURES["mpeg2"]["b2-open-g12"])
    yield started("vp9-from3600.webm", "vp9", STRUCTURES["vp9"]["g25"])
    wraps = f"{STRUCTURES['mpeg2']['b2-open-g12']} -muxdelay 0 -output_ts_offset 95442.2"  # 2 ** 33 / 90000 = 95443.7
    yield _encoded("mpeg2-b2-wraps.ts", "mpeg2", "time stamps wrap", wraps)
    between = "begins between key frames"
    for codec, structure, unit in (("h264", "g25", 188), ("h264", "b2-g13", 188), ("hevc", "b2-g13", 188)):
        parent = f"{codec}-{structure}.ts"
        make = sliced(parent, 0.2, unit=unit)
        yield Case(name=f"{codec}-{structure}-between.ts", codec=codec, structure=between, make=make)
    for name, unit in (
        ("mpeg2-b2-open-g12.ts", 188), ("mpeg4-b2-g13.ts", 188), ("h264-b2-g13.m2ts", 192),
        ("mpeg2-b2-open-g12.mpg", 2048), ("mpeg2-b2-open-g12.vob", 2048), ("mpeg1-b2-open-g12.mpg", 2048),
        ("h264-b2-g13.h264", 1), ("mpeg2-b2-open-g12.m2v", 1), ("mpeg4-b2-g13.m4v", 1),
    ):  # fmt: skip
        new = name.replace(".", "-between.")
        yield Case(name=new, codec=name.partition("-")[0], structure=between, make=sliced(name, 0.2, unit=unit))
    for parent in (
        "h264-g25.mkv", "h264-b2-g13.mkv", "h264-b3-open-g13.mkv", "hevc-b2-g13.mkv", "mpeg4-b2-g13.avi",
        "h264-g25.flv", "h264-g25.avi", "vp9-g25.webm", "h264-b2-g13.mp4", "mpeg2-b2-open-g12.mkv", "h264-g25.asf",
    ):  # fmt: skip
        source = parent.replace(".asf", ".wmv")
        make = copied(source, r"-bsf:v 'noise=drop=lt(n\,7)'")
        new = parent.replace(".", "-between.")
        yield Case(name=new, codec=parent.partition("-")[0], structure=between, make=make)
    for parent in ("h264-b3-open-g13.mkv", "mpeg2-b2-open-g12.mpg", "hevc-b3-open-g13.mp4", "mpeg2-b2-open-g12.mkv"):
        new = parent.replace(".", "-from1s.")
        codec = parent.partition("-")[0]
        fixed = _FORMATS.get(parent.rpartition(".")[2], "")
        yield Case(
            name=new, codec=codec, structure="begins with an open group", make=copied(parent, fixed, before="-ss 1.3")
        )


def _edits() -> Iterator[Case]:
    def case(name: str, codec: str, make: object) -> Case:
        return Case(name=name, codec=codec, structure="edit list", make=make)  # type: ignore[arg-type]

    for container in ("mp4", "mov"):
        for structure in ("g25", "b2-g13", _OPEN):
            parent = f"h264-{structure}.{container}"
            yield case(f"h264-{structure}-edited.{container}", "h264", copied(parent, before="-ss 0.8"))
    yield case("hevc-b2-edited.mp4", "hevc", copied("hevc-b2-g13.mp4", before="-ss 0.8"))
    yield case("mpeg4-b2-edited.mp4", "mpeg4", copied("mpeg4-b2-g13.mp4", before="-ss 0.8"))
    yield case("h264-b2-fromavi.mp4", "h264", copied("h264-b2-g13.avi"))
    yield case("mpeg4-b2-fromavi.mp4", "mpeg4", copied("mpeg4-b2-g13.avi"))
    yield case("mpeg4-b2-fromavi.mkv", "mpeg4", copied("mpeg4-b2-g13.avi", before="-fflags +genpts"))
    yield case("xvid-packed-fromavi.mkv", "xvid", copied("xvid-packed-b2.avi", before="-fflags +genpts"))
    yield case("xvid-packed-fromavi.mp4", "xvid", copied("xvid-packed-b2.avi"))
    yield case("xvid-unpacked.avi", "xvid", copied("xvid-packed-b2.avi", "-bsf:v mpeg4_unpack_bframes"))
    yield case("h264-b2-delayed.mp4", "h264", copied("h264-b2-g13.mp4", "-output_ts_offset 1.5"))
    yield case("h264-b2-noedits.mp4", "h264", copied("h264-b2-g13.mp4", "-use_editlist 0"))
    yield case("h264-b2-negative.mp4", "h264", copied("h264-b2-g13.mp4", "-movflags +negative_cts_offsets"))
    fragments = "-movflags +frag_keyframe+empty_moov+default_base_moof"
    yield case("h264-b2-fragments.mp4", "h264", copied("h264-b2-g13.mp4", fragments))
    yield case("h264-b2-shortened.mp4", "h264", copied("h264-b2-g13.mp4", "-t 2"))
    yield case("h264-b2-fromts.mp4", "h264", copied("h264-b2-g13.ts"))
    yield case("h264-b2-fromts.mkv", "h264", copied("h264-b2-g13.ts"))
    yield case("h264-b2-fromts.avi", "h264", copied("h264-b2-g13.ts"))


def _truncated() -> Iterator[Case]:
    yield _encoded("h264-b2-faststart.mp4", "h264", "b2", f"{_H264['b2-g13']} -movflags +faststart")
    yield _encoded("h264-b2-faststart.mov", "h264", "b2", f"{_H264['b2-g13']} -movflags +faststart")
    for parent in (
        "h264-b2-faststart.mp4", "h264-b2-faststart.mov", "h264-b2-fragments.mp4", "h264-b2-g13.mp4", "h264-g25.mkv",
        "h264-b2-g13.mkv", "vp8-g25.webm", "vp9-g25.webm", "av1-g25.webm", "h264-g25.avi", "mpeg4-b2-g13.avi",
        "xvid-packed-b2.avi", "h264-b2-g13.ts", "h264-b2-g13.m2ts", "mpeg2-b2-open-g12.ts", "hevc-b2-g13.ts",
        "mpeg2-b2-open-g12.mpg", "mpeg2-b2-open-g12.vob", "wmv2-g25.wmv", "h264-b2-g13.wmv", "mpeg4-b2-g13.asf",
        "h264-g25.flv", "flv1-g25.flv", "mpeg2-b2-open-g12.mxf", "h264-b2-g13.nut", "theora-g16.ogv", "gif-intra.gif",
        "h264-g25.3gp", "h264-paff-frames.ts", "h264-b2-g13.h264", "hevc-b2-g13.hevc", "mpeg4-b2-g13.m4v",
        "mpeg1-b2-open-g12.m1v", "mpeg2-b2-open-g12.m2v", "vp9-g25.ivf", "mjpeg-intra.avi", "rv20-g12.rm",
        "y4m-intra.y4m",
    ):  # fmt: skip
        new = parent.replace(".", "-half.")
        make = sliced(parent, 0.0, 0.537)
        codec = parent.partition("-")[0]
        yield Case(name=new, codec=codec, structure="truncated", make=make, is_truncated=True)


def _joined() -> Iterator[Case]:
    def parts(name: str, codec: str, options: str) -> Iterator[Case]:
        stem, _, container = name.rpartition(".")
        second = f"{stem}-second.{container}"
        later = f"{stem}-later.{container}"
        common = {"first": 100, "count": 50, "is_part": True}
        yield _encoded(f"{stem}-first.{container}", codec, "part", options, count=50, is_part=True)
        yield _encoded(second, codec, "part", options, **common)
        yield _encoded(later, codec, "part", f"{options} -output_ts_offset 3600", **common)

    for name, codec, structure in (
        ("h264-g25.ts", "h264", "g25"), ("h264-b2.ts", "h264", "b2-g13"), ("h264-b2.m2ts", "h264", "b2-g13"),
        ("hevc-b2.ts", "hevc", "b2-g13"), ("mpeg2-b2.ts", "mpeg2", "b2-open-g12"),
        ("mpeg2-b2.mpg", "mpeg2", "b2-open-g12"),
        ("mpeg2-b2.vob", "mpeg2", "b2-open-g12"), ("mpeg1-b2.mpg", "mpeg1", "b2-open-g12"),
    ):  # fmt: skip
        stem, _, container = name.rpartition(".")
        pieces = f"part-{stem}.{container}"
        yield from parts(pieces, codec, STRUCTURES[codec][structure])
        one, two, later = (f"part-{stem}-{part}.{container}" for part in ("first", "second", "later"))
        yield Case(name=f"{stem}-cat.{container}", codec=codec, structure="concatenated", make=joined(one, two))
        jump = "concatenated, an hour later"
        yield Case(name=f"{stem}-cat-hour.{container}", codec=codec, structure=jump, make=joined(one, later))
        if container == "ts":
            back = "concatenated, an hour earlier"
            yield Case(name=f"{stem}-cat-back.{container}", codec=codec, structure=back, make=joined(later, one))
    for codec, structure, container in (
        ("h264", "b2-g13", "h264"), ("mpeg2", "b2-open-g12", "m2v"), ("mpeg4", "b2-g13", "m4v"),
        ("hevc", "b2-g13", "hevc"),
    ):  # fmt: skip
        yield from list(parts(f"part-{codec}-raw.{container}", codec, STRUCTURES[codec][structure]))[:2]
        one, two = (f"part-{codec}-raw-{part}.{container}" for part in ("first", "second"))
        yield Case(name=f"{codec}-cat.{container}", codec=codec, structure="concatenated", make=joined(one, two))


def _variable() -> Iterator[Case]:
    vary = r"-vf settb=1/1000,setpts='N*40+mod(N*37\,29)+1700*gt(N\,50)' -enc_time_base 1:1000 -vsync passthrough"
    for codec, structure, containers in (
        ("h264", "g25", "mp4 mkv ts flv wmv mov"), ("h264", "b2-g13", "mp4 mkv ts nut"),
        ("vp9", "g25", "webm mp4"), ("mpeg4", "g25", "mp4 mkv"), ("hevc", "b2-g13", "mp4 mkv"),
    ):  # fmt: skip
        for container in containers.split():
            name = f"{codec}-{structure}-vfr.{container}"
            yield _encoded(name, codec, "variable rate", f"{STRUCTURES[codec][structure]} {vary}")
    shared = "frames share a time"
    same = r"-bsf:v 'setts=pts=if(eq(mod(N\,10)\,5)\,PTS+DURATION\,PTS):dts=DTS'"
    for parent in ("h264-g25.mp4", "h264-g25.mkv", "mpeg4-g25.mp4", "vp9-g25.webm", "h264-g25.ts", "h264-g25.mov"):
        new = parent.replace(".", "-shared.")
        yield Case(name=new, codec=parent.partition("-")[0], structure=shared, make=copied(parent, same))
    fast = encoded(f"{_H264['b2-g13']}", fps="2000")
    yield Case(name="h264-b2-2000fps.mkv", codec="h264", structure=shared, make=fast)
    yield _encoded("vp8-1500fps.webm", "vp8", shared, STRUCTURES["vp8"]["g25"], fps="1500")
    yield _encoded("h264-ntsc.mp4", "h264", "30000/1001", _H264["b2-g13"], fps="30000/1001")
    yield _encoded("h264-ntsc.mkv", "h264", "30000/1001", _H264["b2-g13"], fps="30000/1001")
    yield _encoded("mpeg4-ntsc.avi", "mpeg4", "30000/1001", STRUCTURES["mpeg4"]["g25"], fps="30000/1001")


def _colours() -> Iterator[Case]:
    def colour(name: str, codec: str, options: str) -> Case:
        return _encoded(name, codec, "colour", options)

    for label, matrix in (("bt709", "bt709"), ("bt601", "smpte170m"), ("bt2020", "bt2020nc")):
        primaries = {"bt2020nc": "bt2020"}.get(matrix, matrix)
        tags = f"-vf scale=out_color_matrix={primaries} -colorspace {matrix} -pix_fmt yuv420p"
        yield colour(f"h264-{label}.mp4", "h264", f"{_H264['g25']} {tags}")
    yield colour("h264-full.mp4", "h264", f"{_H264['g25']} -vf scale=out_range=full -color_range pc -pix_fmt yuvj420p")
    full = "-vf scale=out_range=full:out_color_matrix=bt709 -color_range pc -colorspace bt709 -pix_fmt yuv420p"
    yield colour("h264-full-bt709.mkv", "h264", f"{_H264['g25']} {full}")
    yield colour("vp9-full-bt709.webm", "vp9", f"{_VP9} -g 25 {full}")
    for pixels in ("yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "gray", "gray10le", "yuvj444p", "nv12"):
        yield colour(f"h264-{pixels}.mp4", "h264", f"{_H264['b2-g13']} -pix_fmt {pixels}")
    yield colour("h264-rgb.mp4", "h264", "-c:v libx264rgb -preset ultrafast -threads 1 -g 25 -crf 5 -pix_fmt rgb24")
    for pixels in ("yuv420p10le", "yuv420p12le", "yuv444p", "gbrp", "gray"):
        yield colour(f"hevc-{pixels}.mp4", "hevc", f"{_X265}:bframes=2:keyint=13 -pix_fmt {pixels}")
    for pixels in ("yuv422p", "yuv444p", "yuv420p10le", "gbrp"):
        yield colour(f"vp9-{pixels}.webm", "vp9", f"{_VP9} -g 25 -pix_fmt {pixels}")
    yield colour("vp9-alpha.webm", "vp9", f"{_VP9} -g 25 -pix_fmt yuva420p -auto-alt-ref 0")
    yield colour("mpeg2-422.ts", "mpeg2", f"{_MPEG2} -g 12 -bf 2 -pix_fmt yuv422p")
    for pixels in ("yuvj422p", "yuvj444p"):
        yield colour(f"mjpeg-{pixels}.avi", "mjpeg", f"-c:v mjpeg -q:v 3 -pix_fmt {pixels}")
    for pixels in ("gray", "gray16le", "bgra", "yuv444p16le", "gbrp10le"):
        yield colour(f"ffv1-{pixels}.mkv", "ffv1", f"-c:v ffv1 -pix_fmt {pixels}")
    yield colour("huffyuv-bgra.avi", "huffyuv", "-c:v huffyuv -pix_fmt bgra")
    yield colour("prores-4444.mov", "prores", "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le")
    yield colour("png-rgba64.mov", "png", "-c:v png -pix_fmt rgba64be")
    yield colour("qtrle-argb.mov", "qtrle", "-c:v qtrle -pix_fmt argb")
    yield colour("rawvideo-uyvy.mov", "rawvideo", "-c:v rawvideo -pix_fmt uyvy422")
    yield colour("rawvideo-bgr24.avi", "rawvideo", "-c:v rawvideo -pix_fmt bgr24")


def _geometry() -> Iterator[Case]:
    def sized(name: str, codec: str, options: str, width: int, height: int) -> Case:
        return _encoded(name, codec, f"{width}x{height}", f"{options} -vf scale={width}:{height} -pix_fmt yuv420p")

    for width, height in ((127, 96), (128, 95), (127, 95), (66, 50)):
        yield sized(f"vp9-{width}x{height}.webm", "vp9", f"{_VP9} -g 25", width, height)
    yield sized("mpeg4-127x95.avi", "mpeg4", f"{_MPEG4} -g 25", 127, 95)
    yield sized("mpeg2-127x95.mpg", "mpeg2", f"{_MPEG2} -g 12 -bf 2 -f mpeg", 127, 95)
    full = "-vf scale=127:95 -pix_fmt yuvj420p"
    yield _encoded("mjpeg-127x95.avi", "mjpeg", "127x95", f"-c:v mjpeg -q:v 3 {full}")
    yield sized("av1-127x95.mp4", "av1", _AV1, 127, 95)
    yield sized("ffv1-127x95.mkv", "ffv1", "-c:v ffv1", 127, 95)
    yield sized("h264-126x90.mp4", "h264", _H264["b2-g13"], 126, 90)
    yield sized("h264-130x98.ts", "h264", _H264["b2-g13"], 130, 98)
    yield sized("hevc-126x90.mp4", "hevc", STRUCTURES["hevc"]["b2-g13"], 126, 90)
    odd = "-vf scale=127:95 -pix_fmt yuv444p"
    yield _encoded("h264-127x95-444.mp4", "h264", "127x95", f"{_H264['g25']} {odd}")
    for degrees, upright in ((90, "transpose=1"), (180, "hflip,vflip"), (270, "transpose=2")):
        stem = f"h264-rotate{degrees}"
        yield _encoded(f"{stem}-part.mp4", "h264", "part", f"{_H264['b2-g13']} -vf {upright}", is_part=True)
        turn = copied(f"{stem}-part.mp4", f"-metadata:s:v:0 rotate={degrees}")
        for container in ("mp4", "mov"):
            yield Case(name=f"{stem}.{container}", codec="h264", structure="rotated", make=turn)
    for container in ("mp4", "mkv", "avi", "ts"):
        yield _encoded(f"h264-sar.{container}", "h264", "anamorphic", f"{_H264['g25']} -vf setsar=16/11")
    yield _encoded("mpeg2-sar.mpg", "mpeg2", "anamorphic", f"{_MPEG2} -g 12 -bf 2 -aspect 16:9")


def _sizes() -> Iterator[Case]:
    """Frames become smaller, or larger: all are to be as large as the first."""
    for container in ("ts", "mp4", "h264"):
        small = f"{_H264['b2-g13']} -vf scale=96:64"
        yield _encoded(f"part-h264-small.{container}", "h264", "part", small, first=100, count=50, is_part=True)
    one, two = "h264-b2-g13.ts", "part-h264-small.ts"
    yield Case(name="h264-sizes.ts", codec="h264", structure=CHANGES_SIZE, make=joined(one, two))
    raw = joined("h264-b2-g13.h264", "part-h264-small.h264")
    yield Case(name="h264-sizes.h264", codec="h264", structure=CHANGES_SIZE, make=raw)
    yield Case(name="h264-sizes.mp4", codec="h264", structure=CHANGES_SIZE, make=concatenated(one, two))
    yield Case(name="h264-grows.ts", codec="h264", structure=CHANGES_SIZE, make=concatenated(two, one))
    both = concatenated("h264-b2-g13.mp4", "part-h264-small.mp4")
    yield Case(name="h264-sizes.mkv", codec="h264", structure=CHANGES_SIZE, make=both)
    small = f"{_VP9} -g 25 -vf scale=96:64"
    yield _encoded("part-vp9-small.webm", "vp9", "part", small, first=100, count=50, is_part=True)
    both = concatenated("vp9-g25.webm", "part-vp9-small.webm")
    yield Case(name="vp9-sizes.webm", codec="vp9", structure=CHANGES_SIZE, make=both)


def _others() -> Iterator[Case]:
    tone = "-f lavfi -i sine=duration=3:sample_rate=44100"
    sound = {"mp4": "aac", "mkv": "aac", "ts": "mp2", "avi": "mp2", "mpg": "mp2", "flv": "aac", "wmv": "wmav2"}
    for container, audio in sound.items():
        codec = "mpeg2" if container == "mpg" else "h264"
        options = STRUCTURES[codec]["b2-open-g12" if codec == "mpeg2" else "g25" if container == "avi" else "b2-g13"]
        yield _encoded(f"{codec}-sound.{container}", codec, "with sound", f"{options} -c:a {audio}", before=tone)
    late = "-itsoffset -0.7 -f lavfi -i sine=duration=3:sample_rate=44100"
    for container in ("mp4", "mkv", "ts"):
        options = f"{_H264['b2-g13']} -c:a {sound[container]}"
        yield _encoded(f"h264-late.{container}", "h264", "sound begins earlier", options, before=late)
    cover = "-f lavfi -i color=red:s=640x480:r=1:d=1"
    options = f"-map 1:v -map 0:v -c:v:0 mjpeg -disposition:v:0 attached_pic {_H264['g25'].replace('-c:v', '-c:v:1')}"
    yield _encoded("h264-cover.mp4", "h264", "with a cover picture", options, before=cover)
    for gop, label in ((1, "intra"), (250, "one-key")):
        yield _encoded(f"h264-{label}.mp4", "h264", label, f"{_X264} -bf 0 -g {gop}")
        yield _encoded(f"h264-{label}.ts", "h264", label, f"{_X264} -bf 0 -g {gop}")
    yield _encoded("h264-refresh.ts", "h264", "intra refresh", f"{_X264} -bf 0 -g 25 -x264-params intra-refresh=1")
    yield _encoded("h264-refresh.mp4", "h264", "intra refresh", f"{_X264} -bf 0 -g 25 -x264-params intra-refresh=1")
    for count in (1, 2):
        yield _encoded(f"h264-{count}frames.mp4", "h264", f"{count} frames", _H264["b2-g13"], count=count)
        yield _encoded(f"h264-{count}frames.ts", "h264", f"{count} frames", _H264["b2-g13"], count=count)
    assert NUM_PICTURES > 2 * 25  # every group structure comes twice at least
