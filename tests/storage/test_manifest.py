"""Manifests and label tables: what is read, and that every problem is told at once with its row."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reelwright.storage.errors import InputError
from reelwright.storage.tables.annotations import Annotation, labels_from_column, labels_from_columns, labels_from_table
from reelwright.storage.tables.manifest import (
    ManifestVideo,
    check_videos,
    read_manifest,
    scan_folder,
    scan_glob,
)

SPLITS = ("train", "val", "test")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def videos(*names: str, label: str = "") -> list[ManifestVideo]:
    return [
        ManifestVideo(video_id=name, path=Path(f"/{name}"), split="train", label=label, row=row)
        for row, name in enumerate(names, 2)
    ]


def test_a_table_keeps_ids_as_written_and_further_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "\ufeffvideo_id, path ,split,label,subject\n007,a.mp4,val,run,S1\n,sub/b.mp4,,,\n")
    first, second = read_manifest(path, root=tmp_path, default_split="train")
    assert (first.video_id, first.split, first.label, first.extra) == ("007", "val", "run", {"subject": "S1"})
    assert first.path == str(tmp_path / "a.mp4")
    assert (second.video_id, second.split, second.row) == ("sub/b", "train", 3)


def test_parquet_is_read_as_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"video_id": ["x"], "path": ["x.mp4"], "take": [3]}), tmp_path / "m.parquet")
    (video,) = read_manifest(tmp_path / "m.parquet", root=tmp_path, default_split="train")
    assert video.extra == {"take": "3"}


def test_a_folder_with_splits_on_top(tmp_path: Path) -> None:
    for name in ("train/a.mp4", "test/deep/b.MKV", "test/notes.txt", "c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {video.video_id: video.split for video in scan_folder(tmp_path, default_split="val")}
    assert found == {"train/a": "train", "test/deep/b": "test", "c": "val"}


def test_linked_folders_are_looked_into_once_on_a_way(tmp_path: Path) -> None:
    clips, other = tmp_path / "clips", tmp_path / "other"
    for name in (clips / "a.mp4", other / "b.mp4", other / "deep" / "c.mp4"):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.touch()
    (clips / "train").symlink_to(other)
    (clips / "val").symlink_to(Path("../other/deep"))
    for number, target in enumerate((clips, tmp_path, other)):
        (other / f"up{number}").symlink_to(target)
    found = {video.video_id: video.split for video in scan_folder(clips, default_split="test")}
    assert found == {"a": "test", "train/b": "train", "train/deep/c": "train", "val/c": "val"}
    (tmp_path / "link").symlink_to(clips)
    assert {video.video_id for video in scan_folder(tmp_path / "link", default_split="test")} == set(found)


def test_a_pattern_may_name_folders_of_frames(tmp_path: Path) -> None:
    for name in ("jump/0001", "run/0002"):
        (tmp_path / name).mkdir(parents=True)
    assert [video.video_id for video in scan_glob("*/*", root=tmp_path, default_split="train")] == [
        "jump/0001",
        "run/0002",
    ]


NOT_UTF8 = os.fsdecode(b"caf\xe9.mp4")
BESIDE = (".DS_Store", "Thumbs.db", "._clip.mp4", ".old/gone.mp4", "a.mp4.part", "b.webm.crdownload", NOT_UTF8)


def write_beside(folder: Path) -> None:
    for name in ("clip.mp4", "part.mp4", "sub/clip.mp4", *BESIDE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("pattern", ["folder", "**/*", "**/*.mp4"])
def test_what_lies_beside_videos_is_left_out_with_a_note(tmp_path: Path, pattern: str) -> None:
    write_beside(tmp_path)
    left_out: list[str] = []
    if pattern == "folder":
        found = scan_folder(tmp_path, default_split="train", left_out=left_out)
    else:
        found = scan_glob(pattern, root=tmp_path, default_split="train", left_out=left_out)
        found = [video for video in found if Path(video.path).is_file()]
    assert [video.video_id for video in found] == ["clip", "part", "sub/clip"]
    notes = "\n".join(left_out)
    assert r"left out: caf\xe9.mp4: not UTF-8, so no table can hold the name. Rename" in notes
    if pattern != "**/*.mp4":
        assert "left out: a.mp4.part, b.webm.crdownload: named as a download that has not ended" in notes
    if pattern == "folder":
        assert "left out: ._clip.mp4, .old/gone.mp4: hidden, as what macOS writes" in notes
    assert ("left out: Thumbs.db: written by the system" in notes) is (pattern == "**/*")


def test_objects_that_are_no_videos_are_left_out_with_a_note(tmp_path: Path) -> None:
    write_beside(tmp_path)
    (tmp_path / NOT_UTF8).unlink()
    left_out: list[str] = []
    found = scan_folder(f"file://{tmp_path}", default_split="train", left_out=left_out)
    assert [video.video_id for video in found] == ["clip", "part", "sub/clip"]
    assert left_out[0].startswith("left out: ._clip.mp4, .old/gone.mp4: hidden")


def test_when_nothing_is_left_it_says_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.mp4.part").touch()
    left_out: list[str] = []
    videos = scan_folder(tmp_path, default_split="train", left_out=left_out)
    with pytest.raises(InputError, match=r"not a single video\n  left out: a\.mp4\.part: named as a download"):
        check_videos(videos, source="x", splits=SPLITS, left_out=left_out)


def test_a_folder_whose_own_name_is_not_utf8_is_told(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xe9")
    write_beside(folder)
    left_out: list[str] = []
    assert scan_folder(folder, default_split="train", left_out=left_out) == []
    assert r"d\xe9/._clip.mp4" in left_out[0]
    table = write(tmp_path / "m.csv", "path\nclip.mp4\n")
    rows = read_manifest(table, root=folder, default_split="train")
    with pytest.raises(InputError, match=r"row 2: .*d\\xe9/clip\.mp4: not UTF-8"):
        check_videos(rows, source="m.csv", splits=SPLITS)


def test_two_files_of_one_stem_are_told_with_the_way_out(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.webm"):
        (tmp_path / name).touch()
    videos = scan_folder(tmp_path, default_split="train")
    message = r"/clip\.mp4 and /.*/clip\.webm would both have the id 'clip'.*videos\.glob.*columns video_id and path"
    with pytest.raises(InputError, match=message):
        check_videos(videos, source="x", splits=SPLITS)
    rows = read_manifest(write(tmp_path / "m.csv", "path\nclip.mp4\nclip.webm\n"), root="/x", default_split="train")
    with pytest.raises(InputError, match=r"/x/clip\.mp4 and /x/clip\.webm would both have the id 'clip'"):
        check_videos(rows, source="x", splits=SPLITS)


def test_numbers_behind_a_dot_are_no_ending(tmp_path: Path) -> None:
    for name in ("P01.1", "P01.2"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        (tmp_path / f"{name}.mp4").touch()
    folders = scan_glob("folders/*", root=tmp_path, default_split="train")
    files = scan_folder(tmp_path, default_split="train")
    table = write(tmp_path / "m.csv", "path\nP01.1\nP01.2\ns3://b/P01.1.mp4\n")
    rows = read_manifest(table, root=tmp_path, default_split="train")
    assert [video.video_id for video in (*folders, *files)] == ["P01.1", "P01.2"] * 2
    assert [video.video_id for video in rows] == ["P01.1", "P01.2", "b/P01.1"]


def test_all_problems_of_a_manifest_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    path = write(tmp_path / "m.csv", "video_id,path,split\na,a.mp4,train\na,a.mp4,trian\nb,gone.mp4,test\n")
    found = read_manifest(path, root=tmp_path, default_split="train")
    with pytest.raises(InputError, match=r"3 problem\(s\)") as error:
        check_videos(found, source="m.csv", splits=SPLITS, missing=found[2:])
    message = "\n".join(error.value.problems)
    assert "row 3: video_id 'a' stands in row 2 already" in message
    assert "row 3: split 'trian' is unknown. Did you mean 'train'? Known: train, val, test" in message
    assert "row 4: no such file" in message


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("m.csv", "video_id,pth\na,b\n", r"column 'path' is missing. Did you mean 'pth'\?"),
        ("m.csv", "path\na.mp4,b\n", r"row 2: 2 cells under 1 columns"),
        ("m.json", "{}", r"tables are .csv, .tsv or .parquet, not .json"),
    ],
    ids=["missing column", "ragged row", "other format"],
)
def test_wrong_tables_are_refused(tmp_path: Path, name: str, text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_manifest(write(tmp_path / name, text), root=tmp_path, default_split="train")


def test_no_videos_is_a_problem() -> None:
    with pytest.raises(InputError, match="not a single video"):
        check_videos([], source="x", splits=SPLITS)


def test_segments_get_ids_in_sorted_or_given_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.csv", "video_id,start_seconds,stop_seconds,label\na,0,1.5,walk\na,1.5,3,fall\nother,0,1,walk\n"
    )
    labels = labels_from_table(path, kind="segments", videos=videos("a"), classes=None)
    assert labels.classes == ("fall", "walk")
    assert labels.of("a").segments == ((0.0, 1.5, 1), (1.5, 3.0, 0))
    assert (labels.unmatched, labels.num_named) == (("other",), 2)
    given = labels_from_table(path, kind="segments", videos=videos("a"), classes=["walk", "fall", "run"])
    assert given.of("a").segments[0][2] == 0


def test_all_problems_of_segments_are_told_at_once(tmp_path: Path) -> None:
    text = "video_id,start_seconds,stop_seconds,label\na,2,1,walk\na,x,1,walk\na,0,1,wlak\na,-1,1,walk\na,0,1_5,walk\n"
    with pytest.raises(InputError, match=r"5 problem\(s\)") as error:
        labels_from_table(write(tmp_path / "s.csv", text), kind="segments", videos=videos("a"), classes=["walk"])
    message = "\n".join(error.value.problems)
    for part in (
        "row 2: stop_seconds 1.0 must lie after",
        "row 3: start_seconds 'x' is not a number",
        "row 4: label 'wlak'",
        "row 5: start_seconds '-1'",
        "row 6: stop_seconds '1_5' is not a number",  # which is 15 to Python alone
    ):
        assert part in message


def test_labels_of_other_videos_only_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "video_id,time_seconds,step\nvid_1,2,mount\n")
    with pytest.raises(InputError, match=r"none of its 1 rows names a video.*Did you mean 'vid_01'\?"):
        labels_from_table(path, kind="steps", videos=videos("vid_01"), classes=None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("video_id,frame,label\na,4,x\na,2,y\n", {"frames": ((2, 1), (4, 0))}),
        ("video_id,time_seconds,label\na,.5,x\n", {"times": ((0.5, 0),)}),
    ],
    ids=["by frame", "by time"],
)
def test_labels_of_single_rows(tmp_path: Path, text: str, expected: dict) -> None:
    labels = labels_from_table(write(tmp_path / "r.csv", text), kind="rows", videos=videos("a"), classes=["x", "y"])
    for name, value in expected.items():
        assert getattr(labels.of("a"), name) == value


def test_labels_from_the_manifest() -> None:
    labels = labels_from_column([*videos("a", label="run"), *videos("b")], column="label", classes=["jump", "run"])
    assert (labels.of("a").label, labels.of("b").label) == (1, -1)
    with pytest.raises(InputError, match=r"row 2: label 'run' is not in the class list. Did you mean 'runs'\?"):
        labels_from_column(videos("a", label="run"), column="label", classes=["runs"])
    with pytest.raises(InputError, match="no column 'kind'"):
        labels_from_column(videos("a"), column="kind", classes=None)


def test_columns_of_heads_lie_side_by_side(tmp_path: Path) -> None:
    text = "video_id,path,verb_class,noun\na,a.mp4,open,lid\nb,b.mp4,close,\nc,c.mp4,,\nd,d.mp4,close,door\n"
    found = read_manifest(write(tmp_path / "m.csv", text), root=tmp_path, default_split="train")
    labels = labels_from_columns(found, columns={"verb": "verb_class", "noun": "noun"})
    assert labels.classes == ("verb: close", "verb: open", "noun: door", "noun: lid")
    assert labels.heads == (("verb", 2), ("noun", 2))
    assert {name: annotation.labels for name, annotation in labels.by_video.items()} == {
        "a": (1, 3),
        "b": (0, -1),
        "d": (0, 2),
    }
    assert Annotation.from_plain(labels.of("b").plain()) == labels.of("b")
    assert "labels" not in Annotation(label=3).plain()  # keys of what has no heads stay what they were


def test_columns_of_heads_with_classes_that_do_not_all_occur(tmp_path: Path) -> None:
    text = "video_id,path,verb,noun\na,a.mp4,2,lid\nb,b.mp4,10,\n"
    found = read_manifest(write(tmp_path / "m.csv", text), root=tmp_path, default_split="train")
    numbered = [str(number) for number in range(11)]
    columns = {"verb": "verb", "noun": "noun"}
    labels = labels_from_columns(found, columns=columns, classes={"verb": numbered, "noun": None})
    assert labels.heads == (("verb", 11), ("noun", 1))
    assert labels.classes == (*(f"verb: {number}" for number in range(11)), "noun: lid")
    assert {name: annotation.labels for name, annotation in labels.by_video.items()} == {"a": (2, 11), "b": (10, -1)}
    with pytest.raises(
        InputError, match=r"column 'verb': 1 problem\(s\)\n.*row 3: label '10' is not in the class list"
    ):
        labels_from_columns(found, columns={"verb": "verb"}, classes={"verb": ("2", "3")})


def test_columns_of_heads_that_are_not_there_or_empty(tmp_path: Path) -> None:
    text = "video_id,path,verb,noun\na,a.mp4,open,\n"
    found = read_manifest(write(tmp_path / "m.csv", text), root=tmp_path, default_split="train")
    with pytest.raises(InputError, match=r"no column 'verbs'. Did you mean 'verb'"):
        labels_from_columns(found, columns={"verb": "verbs"})
    with pytest.raises(InputError, match=r"column 'noun' of head 'noun' is empty"):
        labels_from_columns(found, columns={"verb": "verb", "noun": "noun"})
