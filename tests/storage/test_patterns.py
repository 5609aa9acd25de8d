"""Patterns over names of objects: `glob.glob` over the same files is the judge."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.tables.feature_files import is_feature_file
from reelwright.storage.tables.manifest import ManifestVideo, scan_folder, scan_glob
from reelwright.storage.tables.names import matching, split_pattern

NAMES = (
    "a.mp4",
    "a-b.mp4",
    "b.MP4",
    ".hidden.mp4",
    "a/1.mp4",
    "a/10.mp4",
    "a/2.mp4",
    "a/.x/y.mp4",
    "train/deep/er/1.mp4",
    "train/deep/notes.txt",
    "val/1.mp4",
    "val/[1].mp4",
    "val/x y.mp4",
)
PATTERNS = (
    "*.mp4",
    "**/*.mp4",
    "*/*.mp4",
    "train/**/*.mp4",
    "**/1*.mp4",
    "a/?.mp4",
    "a/[!1]*.mp4",
    "[ab]*.mp4",
    "val/[[]1].mp4",
    ".*.mp4",
    "a/.x/*.mp4",
    "**/deep/**/*.mp4",
    "**/.x/*",
    "a.mp4",
    "val/*",
    "nothing/*.mp4",
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_fits_is_what_fits_among_files_in_the_order_of_paths(files: Path, pattern: str) -> None:
    fitting = glob.glob(str(files / pattern), recursive=True)  # noqa: PTH207 - what folders of videos are read with
    found = sorted(path for path in map(Path, fitting) if path.is_file())
    assert matching(NAMES, pattern) == [path.relative_to(files).as_posix() for path in found]


@pytest.mark.parametrize("pattern", ["*.mp4", "**/*.mp4", "train/**/*.mp4", "[tv]*/**/*.mp4", "val/1.mp4"])
def test_objects_are_the_videos_that_files_would_be(files: Path, pattern: str) -> None:
    here = scan_glob(pattern, root=files, default_split="test")
    url = f"file://{files}"
    there = scan_glob(f"{url}/{pattern}", root="/elsewhere", default_split="test")
    assert [video._replace(path=f"file://{video.path}") for video in here] == there
    assert scan_glob(pattern, root=url, default_split="test") == there
    assert len(there) > 0


def test_a_folder_at_a_url_has_the_order_of_a_folder(files: Path) -> None:
    here = scan_folder(files, default_split="test")
    assert [video._replace(path=f"file://{video.path}") for video in here] == scan_folder(
        f"file://{files}", default_split="test"
    )
    assert [video.video_id for video in here].index("a/1") < [video.video_id for video in here].index("a-b")


def scan_features(folder: Path | str) -> list[ManifestVideo]:
    return scan_folder(folder, default_split="train", is_wanted=is_feature_file, what="features")


def test_features_at_a_url_are_those_of_a_folder(tmp_path: Path) -> None:
    for name in ("val/b.npy", "a.NPZ", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    here = scan_features(tmp_path)
    there = scan_features(f"file://{tmp_path}")
    assert [video._replace(path=f"file://{video.path}") for video in here] == there
    assert [video.split for video in there] == ["train", "val"]
    with pytest.raises(InputError, match="no features there"):
        scan_features(f"file://{tmp_path}/none")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://lab/videos/**/*.mp4", ("s3://lab/videos", "**/*.mp4")),
        ("s3://lab/*", ("s3://lab", "*")),
        ("s3://lab/a/b.mp4", ("s3://lab/a", "b.mp4")),
        ("s3://lab/a[1]/b.mp4", ("s3://lab", "a[1]/b.mp4")),
        ("file:///data/*.mp4", ("file:///data", "*.mp4")),
    ],
)
def test_only_what_lies_below_the_fixed_part_is_listed(url: str, expected: tuple[str, str]) -> None:
    assert split_pattern(url) == expected


@pytest.mark.parametrize("url", ["s3://lab*/a.mp4", "s3://*", "s3://lab"])
def test_a_bucket_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match="name the bucket"):
        split_pattern(url)


def test_what_fits_nothing_or_folders_is_told(files: Path) -> None:
    with pytest.raises(InputError, match=r"\*\.avi: no object fits\. Below file:///.* there are 13"):
        scan_glob(f"file://{files}/*.avi", root=files, default_split="test")
    with pytest.raises(InputError, match=r"fits folders too, such as a/"):
        scan_glob(f"file://{files}/*", root=files, default_split="test")
