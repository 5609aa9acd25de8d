"""Folders of images: one definition of pixels, the numbers in the names as time, what is left out, what is refused.

Expected pixels are computed by hand from the values that were written; where a file cannot be written with Pillow,
FFmpeg's command line writes it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.readers import open_reader
from reelwright.stages.decode.readers.images import ImagesReader, list_images, load_image
from reelwright.stages.decode.timing.numbering import by_names, by_template
from reelwright.stages.index.probe import probe_videos
from reelwright.storage.errors import ItemError

HEIGHT, WIDTH = 6, 8
GREY = np.random.default_rng(0).integers(0, 1 << 16, (HEIGHT, WIDTH), dtype=np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 1 << 16, (HEIGHT, WIDTH, 3), dtype=np.uint16)
# What a viewer shows of a stored picture, by EXIF orientation (EXIF 2.3, 4.6.4 A).
TURNED = {
    1: lambda picture: picture,
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: picture[::-1].swapaxes(0, 1),
    7: lambda picture: picture[::-1, ::-1].swapaxes(0, 1),
    8: lambda picture: picture[:, ::-1].swapaxes(0, 1),
}


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def ffmpeg(values: np.ndarray, pixels: str, path: Path, *options: str) -> Path:
    size = f"{values.shape[1]}x{values.shape[0]}"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", pixels, "-s", size, "-i", "-", *options]
    subprocess.run([*command, str(path)], input=values.tobytes(), check=True, timeout=60)
    return path


def write_images(folder: Path, names: list[str], *, size: tuple[int, int] = (8, 6)) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (10 * number,) * 3).save(folder / name)
    return folder


def reader_of(folder: Path, **config: object) -> ImagesReader:
    return open_reader(folder, DecodeConfig(**config), backend="images")


class TestPixels:
    def test_the_upper_eight_of_sixteen_bits_are_taken(self, tmp_path: Path) -> None:
        Image.fromarray(GREY).save(tmp_path / "grey.png")
        Image.fromarray(GREY).save(tmp_path / "grey.tif")
        Image.fromarray(GREY.astype(">u2")).save(tmp_path / "big.tif")
        Image.fromarray(GREY).save(tmp_path / "packed.tif", compression="tiff_lzw")
        for name in ("grey.png", "grey.tif", "big.tif", "packed.tif"):
            np.testing.assert_array_equal(load_image(tmp_path / name).frame, as_rgb((GREY >> 8).astype(np.uint8)), name)
        for name in ("colour.png", "colour.tif"):
            path = ffmpeg(COLOUR, "rgb48le", tmp_path / name)
            np.testing.assert_array_equal(load_image(path).frame, (COLOUR >> 8).astype(np.uint8), name)

    def test_sixteen_bits_are_what_ffmpeg_makes_of_them(self, tmp_path: Path) -> None:
        path = ffmpeg(COLOUR, "rgb48le", tmp_path / "colour.png")
        raw = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        theirs = np.frombuffer(subprocess.run(raw, capture_output=True, check=True, timeout=60).stdout, np.uint8)
        ours = load_image(path).frame
        assert np.abs(ours.astype(int) - theirs.reshape(ours.shape)).max() <= 1  # swscale rounds

    @pytest.mark.parametrize(("bits", "is_inverted"), [(12, False), (16, False), (16, True)])
    def test_a_tiff_says_how_many_bits_it_has_and_where_white_is(
        self, tmp_path: Path, *, bits: int, is_inverted: bool
    ) -> None:
        values = GREY >> (16 - bits)
        if bits == 12:  # two values in three bytes
            first, second = values.ravel()[::2].astype(int), values.ravel()[1::2].astype(int)
            packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8)
            content = packed.tobytes()
        else:
            content = values.astype("<u2").tobytes()
        path = tmp_path / "bits.tif"
        path.write_bytes(tiff(content, bits=bits, photometric=0 if is_inverted else 1))
        expected = (GREY >> 8).astype(np.uint8)
        np.testing.assert_array_equal(load_image(path).frame, as_rgb(255 - expected if is_inverted else expected))

    @pytest.mark.parametrize(
        ("mode", "name", "values", "expected"),
        [
            pytest.param("L", "a.png", [[0, 200]], [[[0, 0, 0], [200, 200, 200]]], id="grey"),
            pytest.param("1", "a.png", [[0, 1]], [[[0, 0, 0], [255, 255, 255]]], id="one-bit"),
            pytest.param("LA", "a.png", [[(90, 0), (7, 255)]], [[[90] * 3, [7] * 3]], id="grey-alpha"),
            pytest.param("RGBA", "a.png", [[(9, 8, 7, 0), (1, 2, 3, 128)]], [[[9, 8, 7], [1, 2, 3]]], id="alpha"),
            pytest.param("CMYK", "a.tif", [[(0, 255, 0, 0), (0, 0, 0, 255)]], [[[255, 0, 255], [0, 0, 0]]], id="cmyk"),
        ],
    )
    def test_other_kinds_of_pixels(
        self, tmp_path: Path, mode: str, name: str, values: list[list[object]], expected: list[list[list[int]]]
    ) -> None:
        image = Image.new(mode, (len(values[0]), 1))
        image.putdata([(255 * value if mode == "1" else value) for value in values[0]])
        image.save(tmp_path / name)
        assert load_image(tmp_path / name).frame.tolist() == expected

    def test_palettes_and_cmyk_jpeg(self, tmp_path: Path) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putdata([1, 0])
        image.save(tmp_path / "a.png")
        assert load_image(tmp_path / "a.png").frame.tolist() == [[[200, 100, 50], [10, 20, 30]]]
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
        assert np.abs(load_image(tmp_path / "a.jpg").frame.astype(int) - [255, 0, 0]).max() <= 3

    @pytest.mark.parametrize("kind", ["float32", "int32"])
    def test_pixels_without_black_and_white_are_refused(self, tmp_path: Path, kind: str) -> None:
        folder = tmp_path / "clip"
        folder.mkdir()
        Image.fromarray(np.full((4, 4), 3, kind)).save(folder / "1.tif")
        with pytest.raises(ItemError, match=r"1\.tif has pixels of mode [FI] .*Save the images with 8 or 16") as caught:
            reader_of(folder)
        assert (caught.value.cause, caught.value.status) == ("unsupported_pixels", "failed")

    @pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "lzw.tif"])
    @pytest.mark.parametrize("orientation", list(TURNED))
    def test_pictures_are_turned_as_exif_says(self, tmp_path: Path, orientation: int, ending: str) -> None:
        stored = np.zeros((32, 48, 3), np.uint8)  # four flat quarters, so that a lossy codec keeps them
        stored[:16, :16], stored[:16, 16:], stored[16:, :16] = (250, 10, 10), (10, 250, 10), (10, 10, 250)
        exif, path = Image.Exif(), tmp_path / f"a.{ending}"
        exif[274] = orientation
        options = {
            "lzw.tif": {"compression": "tiff_lzw"},
            "webp": {"lossless": True},
            "jpg": {"quality": 100, "subsampling": 0},
        }
        Image.fromarray(stored).save(path, exif=exif, **options.get(ending, {}))
        frame, expected = load_image(path).frame, TURNED[orientation](stored)
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).max() <= (0 if ending != "jpg" else 8)

    def test_sixteen_bits_are_turned_too(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 6
        for name in ("a.png", "a.tif"):
            Image.fromarray(GREY).save(tmp_path / name, exif=exif)
            expected = TURNED[6]((GREY >> 8).astype(np.uint8))
            np.testing.assert_array_equal(load_image(tmp_path / name).frame[:, :, 0], expected)

    def test_what_is_not_in_the_frame_is_said(self, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "clip", ["1.png"])
        Image.new("RGBA", (8, 6)).save(folder / "2.png")
        pages = [Image.new("RGB", (8, 6), (grey,) * 3) for grey in (50, 60)]
        pages[0].save(folder / "3.tif", save_all=True, append_images=pages[1:])
        pages[0].save(folder / "4.webp", save_all=True, append_images=pages[1:], lossless=True)
        reader = reader_of(folder)
        assert reader.notes == ()
        assert [int(frame[0, 0, 0]) for _, frame in reader.read([0, 1, 2, 3])] == [0, 0, 50, 50]
        assert [note.split(",")[0] for note in reader.notes] == [
            "Images have an alpha channel",
            "Images hold several pictures (animated or multi-page); the first of each is taken.",
        ]


def tiff(content: bytes, *, bits: int, photometric: int) -> bytes:
    """A minimal TIFF of one strip (TIFF 6.0, section 2)."""
    tags = [
        (256, 4, WIDTH), (257, 4, HEIGHT), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8), (277, 3, 1),
        (278, 4, HEIGHT), (279, 4, len(content)),
    ]  # fmt: skip
    fields = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, value in tags
    )
    head = b"II*\0" + (8 + len(content)).to_bytes(4, "little")
    return head + content + len(tags).to_bytes(2, "little") + fields + bytes(4)


class TestDamage:
    @pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp", "tif"])
    @pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
    def test_a_file_that_is_cut_off_ends_the_video_there(self, tmp_path: Path, ending: str, share: float) -> None:
        folder = write_images(tmp_path / "clip", ["1.png"], size=(64, 48))
        noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        path = folder / f"2.{ending}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        reader = reader_of(folder)
        with pytest.raises(ItemError, match=rf"image 1: 2\.{ending} cannot be read") as caught:
            list(reader.read([0, 1]))
        assert (caught.value.status, caught.value.cause) == ("truncated", "invalid_data")

    def test_a_first_image_that_is_damaged_fails_the_video(self, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "clip", ["1.png", "2.png"])
        (folder / "1.png").write_bytes(b"broken")
        with pytest.raises(ItemError, match=r"1\.png cannot be read") as caught:
            reader_of(folder)
        assert caught.value.status == "failed"

    def test_images_of_another_size_are_refused_whatever_is_read_first(self, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "clip", ["1.png", "2.png"])
        write_images(folder, ["3.png"], size=(4, 4))
        for frames in ([0, 2], [2]):
            with pytest.raises(ItemError, match=r"image 2 \(3\.png\) is \(4, 4\), the first \(6, 8\) .*one size"):
                list(reader_of(folder).read(frames))

    def test_sizes_are_compared_upright(self, tmp_path: Path) -> None:
        folder, exif = write_images(tmp_path / "clip", ["1.png"]), Image.Exif()
        exif[274] = 6
        Image.new("RGB", (6, 8)).save(folder / "2.png", exif=exif)
        assert [frame.shape for _, frame in reader_of(folder).read([0, 1])] == [(6, 8, 3), (6, 8, 3)]


GAP = "2 of 5 image numbers are missing (2-3): the image before stays on screen until the next one that is there."


class TestNumbers:
    @pytest.mark.parametrize(
        ("names", "expected", "numbers", "notes"),
        [
            pytest.param(
                ["i10.png", "i9.png", "i8.png"], "i8.png i9.png i10.png", [8, 9, 10], ["begin at 8"], id="nat"
            ),
            pytest.param(["0.png", "1.jpg", "4.JPG"], "0.png 1.jpg 4.JPG", [0, 1, 4], [GAP], id="gap"),
            pytest.param(
                ["cam1_frame00012.jpg", "cam1_frame00010.jpg"],
                "cam1_frame00010.jpg cam1_frame00012.jpg",
                [10, 12],
                ["1 of 3 image numbers are missing (11)", "begin at 10"],
                id="last-that-varies",
            ),
            pytest.param(
                ["f0001_x264.jpg", "f0002_x264.jpg"], "f0001_x264.jpg f0002_x264.jpg", [1, 2], [], id="a-number-for-all"
            ),
            pytest.param(
                ["s1_f0.jpg", "s1_f1.jpg", "s2_f2.jpg"], "s1_f0.jpg s1_f1.jpg s2_f2.jpg", [0, 1, 2], [], id="scenes"
            ),
            pytest.param(
                ["0_0.jpg", "1_40.jpg", "2_80.jpg"],
                "0_0.jpg 1_40.jpg 2_80.jpg",
                [0, 1, 2],
                ["no one number that counts up"],
                id="number-and-time",
            ),
            pytest.param(
                ["12-59.jpg", "13-00.jpg"], "12-59.jpg 13-00.jpg", [12, 13], ["begin at 12"], id="only-one-ascends"
            ),
            pytest.param(
                ["1-59.jpg", "1-58.jpg", "2-01.jpg"],
                "1-58.jpg 1-59.jpg 2-01.jpg",
                [0, 1, 2],
                ["no one number that counts up"],
                id="clock",
            ),
            pytest.param(
                ["b.jpg", "a.jpg", "c.jpg"], "a.jpg b.jpg c.jpg", [0, 1, 2], ["no one number"], id="no-numbers"
            ),
            pytest.param(
                ["f1.jpg", "f2.jpg", "cover.jpg", "thumb.jpg"],
                "f1.jpg f2.jpg",
                [1, 2],
                ["as thumbnails: thumb.jpg", "as unlike the names of the other 2: cover.jpg"],
                id="strays",
            ),
            pytest.param(["thumb1.jpg", "thumb2.jpg"], "thumb1.jpg thumb2.jpg", [1, 2], [], id="only-thumbnails"),
            pytest.param(["a1.jpg", "b2.jpg"], "a1.jpg b2.jpg", [0, 1], ["no one number"], id="no-common-pattern"),
            pytest.param(["poster.jpg"], "poster.jpg", [0], [], id="one"),
        ],
    )
    def test_names_say_the_order(self, names: list[str], expected: str, numbers: list[int], notes: list[str]) -> None:
        series = by_names(names)
        assert (" ".join(series.names), list(series.numbers), series.problem) == (expected, numbers, "")
        assert len(series.notes) == len(notes)
        assert all(part in note for part, note in zip(notes, series.notes, strict=True)), series.notes

    @pytest.mark.parametrize(
        ("names", "match"),
        [
            pytest.param(["1.jpg", "01.jpg", "2.jpg"], r"01\.jpg and 1\.jpg have the same number", id="padding"),
            pytest.param(["1.jpg", "1.png", "2.png"], r"1\.jpg and 1\.png have the same number", id="endings"),
            pytest.param(
                ["img_1.jpg", "img_2.jpg", "flow_x_1.jpg", "flow_x_2.jpg"],
                r"several series .* img_1\.jpg and|several series .* flow_x_1\.jpg and",
                id="colour-beside-flow",
            ),
        ],
    )
    def test_two_pictures_of_one_time_are_an_error(self, tmp_path: Path, names: list[str], match: str) -> None:
        folder = write_images(tmp_path / "clip", names)
        with pytest.raises(ItemError, match=rf"folder .*clip: ({match}).*image_tmpl") as caught:
            reader_of(folder)
        assert caught.value.cause == "ambiguous_images"
        assert len(list_images(folder, template=names[-1].replace("2", "{}"), start=None).names) < len(names)

    @pytest.mark.parametrize(
        ("names", "template", "start", "expected", "first"),
        [
            (["i_00.png", "i_01.png", "i_03.png"], "i_{:02d}.png", None, ["i_00.png", "i_01.png", "i_03.png"], 0),
            (["i_1.png", "i_2.png", "j.png"], "i_{}.png", None, ["i_1.png", "i_2.png"], 1),
            (["i_5.png", "i_6.png"], "i_{}.png", 5, ["i_5.png", "i_6.png"], 5),
            (["i_5.png", "i_6.png"], "i_{0:d}.png", None, ["i_5.png", "i_6.png"], 5),
            (["i_4.png", "i_6.png", "i_7.png"], "i_{}.png", 5, ["i_6.png", "i_7.png"], 5),
            (["i_100.png", "i_099.png"], "i_{:03d}.png", None, ["i_099.png", "i_100.png"], 99),
            (["rgb/1.png", "depth/1.png"], "rgb/{}.png", None, ["rgb/1.png"], 1),
        ],
        ids=["a-gap", "from-one", "from-five", "from-the-lowest", "first-is-missing", "more-digits", "in-a-folder"],
    )
    def test_a_template_chooses(
        self, tmp_path: Path, names: list[str], template: str, start: int | None, expected: list[str], first: int
    ) -> None:
        folder = write_images(tmp_path / "clip", names)
        series = list_images(folder, template=template, start=start)
        assert [Path(name).relative_to(folder).as_posix() for name in series.names] == expected
        assert series.first == first

    def test_padding_that_a_template_does_not_have_is_said(self) -> None:
        series = by_template(["i_01.png", "i_2.png", "i_03.png", "i_04.png", "x.png"], "i_{:02d}.png", start=None)
        assert series.names == ("i_01.png", "i_03.png", "i_04.png")
        assert series.notes == (
            "1 of 4 image numbers are missing (2): the image before stays on screen until the next one that is there.",
            "Left out, as not 'i_{:02d}.png': i_2.png.",
        )

    @pytest.mark.parametrize("template", ["img.jpg", "img_%05d.jpg", "{:05d}_{:05d}.jpg", "{:x}.jpg", "{name}.jpg"])
    def test_a_template_has_one_field(self, tmp_path: Path, template: str) -> None:
        folder = write_images(tmp_path / "clip", ["img.jpg"])
        with pytest.raises(ItemError, match="must hold one field for the number"):
            list_images(folder, template=template, start=None)

    def test_no_image_is_an_error(self, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "clip", ["1.png"])
        (folder / "._1.png").write_bytes(b"of macOS")
        (folder / "Thumbs.db").write_bytes(b"of Windows")
        assert len(list_images(folder, template=None, start=None).names) == 1
        with pytest.raises(ItemError, match=r"has no images named 'x_\{\}.png' from number 3 on"):
            list_images(folder, template="x_{}.png", start=3)
        (folder / "1.png").unlink()
        with pytest.raises(ItemError, match="has no images with one of the endings"):
            list_images(folder, template=None, start=None)

    @pytest.mark.parametrize("config", [{}, {"image_tmpl": "f{}.png"}], ids=["names", "template"])
    def test_a_picture_stays_until_the_next_one_that_is_there(self, tmp_path: Path, config: dict[str, str]) -> None:
        folder = write_images(tmp_path / "clip", ["f1.png", "f2.png", "f5.png", "f6.png"])
        reader = reader_of(folder, image_fps=4, **config)
        assert reader.times.pts_seconds.tolist() == [0.0, 0.25, 1.0, 1.25]
        assert (reader.times.end_seconds, reader.estimated_frames) == (1.5, 4)
        assert [(number, int(frame[0, 0, 0])) for number, frame in reader.read([0, 1, 1, 2])] == [
            (0, 0), (1, 10), (1, 10), (2, 20),
        ]  # fmt: skip
        assert reader.notes == (GAP.replace("5", "6").replace("2-3", "3-4"),)

    def test_a_folder_that_cannot_be_read_is_not_an_empty_one(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            list_images(tmp_path / "gone", template=None, start=None)

    def test_many_gaps_are_named_shortly(self) -> None:
        series = by_names([f"{number}.jpg" for number in range(0, 300, 30)])
        (note,) = series.notes
        assert note.startswith(
            "261 of 271 image numbers are missing (1-29, 31-59, 61-89, 91-119, 121-149 and 4 more gaps): "
        )
        assert note.endswith("If the numbers count something else than frames (milliseconds), number the images anew.")


class TestIndex:
    def probe(self, folder: Path):
        ((_, probe),) = probe_videos([folder], workers=1)
        return probe

    def test_a_gap_counts_as_time_and_is_said(self, tmp_path: Path) -> None:
        folder, exif = tmp_path / "clip", Image.Exif()
        folder.mkdir()
        exif[274] = 8
        for number in (1, 2, 5):
            Image.new("RGB", (8, 6)).save(folder / f"{number}.jpg", exif=exif)
        probe = self.probe(folder)
        assert (probe.status, probe.num_frames, probe.fps, probe.duration_seconds) == ("ok", 3, 25.0, 0.2)
        assert (probe.height, probe.width, probe.codec, probe.variable_frame_rate) == (8, 6, "jpeg", True)
        assert probe.message.startswith("2 of 5 image numbers are missing (3-4)")

    def test_a_choice_that_decode_may_make_is_no_failure(self, tmp_path: Path) -> None:
        probe = self.probe(write_images(tmp_path / "clip", ["1.png", "01.png", "2.png"]))
        assert probe.status == "ok"
        assert "01.png and 1.png have the same number" in probe.message

    def test_pixels_that_nobody_reads_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "clip").mkdir()
        Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "clip" / "1.tif")
        assert self.probe(tmp_path / "clip").cause == "unsupported_pixels"
