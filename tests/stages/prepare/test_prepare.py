"""What prepare finds wrong, and how it reads lists, patterns and pickles."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.pipeline.project import Project
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.prepare.patterns import PathIndex, compile_pattern, fill
from reelwright.stages.prepare.plain_pickle import read_plain_pickle
from reelwright.stages.prepare.tables import resampled
from reelwright.stages.prepare.work import PrepareRequest, missing_numbers, prepare
from reelwright.storage.errors import ConfigError, InputError
from tests.small_project import write_video
from tests.stages.prepare.test_datasets import WRITERS, images, read_manifest, text, touch


def run(root, name, **options):
    request = PrepareRequest(dataset=name, root=root, out=root.parent / "out", workers=1, **options)
    return prepare(request, SilentReporter())


def kinds(result):
    return sorted((problem.kind, problem.video) for problem in result.problems)


@pytest.mark.slow
def test_every_file_is_checked_and_the_manifest_runs(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for number, name in enumerate(["a", "b", "c"]):
        write_video(root / f"{name}.mp4", seed=number, num_frames=4)
    shutil.copy(root / "a.mp4", root / "copy of a.mp4")
    text(root, "broken.mp4", "no video")
    images(root / "frames", [1, 2, 4])
    text(root, "train.csv", "a.mp4,x", "b.mp4,x", "gone.mp4,x", "broken.mp4,y", "a.mp4,y", "frames,y", "rubbish")
    text(root, "val.csv", "copy of a.mp4,y", "b.mp4,x", "c.mp4,")
    result = run(root, "csv")
    assert kinds(result) == [
        ("duplicate", "copy of a"),
        ("missing", "gone.mp4"),
        ("not_read", ""),
        ("twice", "a.mp4"),
        ("twice", "b.mp4"),
        ("unlabelled", "c"),
        ("unreadable", "broken"),
    ]
    leak = next(problem.detail for problem in result.problems if problem.kind == "duplicate")
    assert "same content as a.mp4; a leak from train to val; labels differ: 'x' and 'y'" in leak
    assert [row[:5] for row in read_manifest(tmp_path / "out")] == [
        ["video_id", "path", "split", "label", "num_frames"],
        ["a", "../root/a.mp4", "train", "x", "4"],
        ["b", "../root/b.mp4", "train", "x", "4"],
        ["frames", "../root/frames", "train", "y", "3"],
        ["copy of a", "../root/copy of a.mp4", "val", "y", "4"],
        ["c", "../root/c.mp4", "val", "", "4"],
    ]
    (tmp_path / "reelwright.yaml").write_text(
        "videos: {manifest: out/manifest.csv}\nlabels: {column: label}\n"
        "stages:\n  frames: {uses: decode, fps: 5, short_side: 32, workers: 1}\n"
    )
    assert Project.open(tmp_path / "reelwright.yaml").run().exit_code == 0


@pytest.mark.slow
def test_raw_frames_are_counted(tmp_path):
    images(tmp_path / "root/a", [1, 2, 4])
    images(tmp_path / "root/b", [0, 1])
    text(tmp_path / "root", "train.txt", "a 4 0", "b 2 1")
    result = run(tmp_path / "root", "rawframes")
    details = [problem.detail for problem in result.problems]
    assert details == [
        "4 frames are promised, 3 are there",
        "image 3 is missing",
        "images are numbered from 0, not from 1",
    ]


def test_a_part_of_a_folder_is_not_read_as_all_of_it(tmp_path):
    images(tmp_path / "root/a", [1, 2, 3])
    images(tmp_path / "root/b", [1, 2, 3])
    text(tmp_path / "root", "annotations.txt", "a 1 3 x", "b 2 3 y")
    result = run(tmp_path / "root", "rawframes")
    assert kinds(result) == [("not_read", ""), ("unlisted", "b")]
    assert [video.video_id for video in result.videos] == ["a"]


def test_missing_numbers(tmp_path):
    images(tmp_path / "whole", [1, 2, 3])
    assert missing_numbers(tmp_path / "whole", first=1) == ""


def test_archives_are_unpacked_once_beside_the_tables(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with zipfile.ZipFile(root / "clips.zip", "w") as archive:
        archive.writestr("clips/a.mp4", b"1")
        archive.writestr("clips/train.csv", "a.mp4 jump\n")
    touch(root, "old.rar")
    result = run(root, "csv", check="names")
    assert kinds(result) == [("not_read", "old.rar")]
    assert read_manifest(tmp_path / "out")[1][:4] == ["a", "files/clips/clips/a.mp4", "train", "jump"]
    unpacked = tmp_path / "out/files/clips/clips/a.mp4"
    first = unpacked.stat().st_ino
    run(root, "csv", check="names")
    assert unpacked.stat().st_ino == first


def test_files_of_one_path_in_two_archives_are_both_there(tmp_path):
    """Which of both a list means cannot be known, unless it names the archive."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("part1", "part2 "):
        with zipfile.ZipFile(root / f"{name.strip()}.zip", "w") as archive:
            archive.writestr("clips/0001.mp4", name)
            archive.writestr("clips/copy.mp4", "the same")
    touch(root, "part2/0002.mp4")
    (root / "part2.zip").rename(root / "part3.zip")
    text(root, "train.csv", "0001.mp4,x", "copy.mp4,x", "part2/0002.mp4,y")
    text(root, "val.csv", "part3/clips/0001.mp4,y")
    result = run(root, "csv", check="names")
    found = [(video.found.path.relative_to(tmp_path).as_posix(), video.found.label) for video in result.videos]
    assert found == [
        ("out/files/part1/clips/copy.mp4", "x"),
        ("root/part2/0002.mp4", "y"),
        ("out/files/part3/clips/0001.mp4", "y"),
    ]
    (ambiguous,) = (problem.detail for problem in result.problems if problem.kind == "ambiguous")
    assert ambiguous == "train.csv:1: 2 files fit: part1/clips/0001.mp4, part3/clips/0001.mp4"


def test_archives_of_one_name_would_lie_in_one_folder(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "clips.tar", "w") as archive:
        touch(tmp_path, "a.mp4")
        archive.add(tmp_path / "a.mp4", "a.mp4")
    with zipfile.ZipFile(root / "clips.zip", "w") as zipped:
        zipped.writestr("b.mp4", b"2")
    text(root, "train.csv", "a.mp4,x")
    result = run(root, "csv", check="names")
    assert kinds(result) == [("not_read", "clips.zip")]
    assert "another archive is called clips; rename it" in result.problems[0].detail
    assert (tmp_path / "out/files/clips/a.mp4").is_file()


def test_an_archive_that_leads_out_is_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with zipfile.ZipFile(root / "clips.zip", "w") as archive:
        archive.writestr("../../escaped.txt", b"1")
    with pytest.raises(InputError, match="leads out of the folder"):
        run(root, "csv", check="names")
    assert not list(tmp_path.rglob("escaped*"))


def test_splits_are_chosen_and_renamed(tmp_path):
    root = tmp_path / "root"
    touch(root, "cut/a.avi", "cut/b.avi")
    text(root, "cut_test_split1.txt", "a.avi 1", "b.avi 2")
    text(root, "cut_test_split3.txt", "a.avi 2", "b.avi 1")
    result = run(root, "hmdb51", check="names", split_number=3, splits=("test",), rename={"val": "test"})
    assert [(video.video_id, video.found.split) for video in result.videos] == [("a", "test")]
    with pytest.raises(ConfigError, match="no video is in the split 'dev'; there are train, val"):
        run(root, "hmdb51", check="names", splits=("dev",))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "--split-number 2: csv has one official split only"),
        ({"lists": {"train": Path("mine.txt")}}, "--split-number 2: the lists are given"),
    ],
    ids=["one split", "own lists"],
)
def test_a_split_number_that_says_nothing_is_refused(tmp_path, options, match):
    text(tmp_path / "root", "train.csv", "a.mp4,x")
    with pytest.raises(ConfigError, match=match):
        run(tmp_path / "root", "csv", check="names", split_number=2, **options)


def test_lists_of_ones_own(tmp_path):
    root = tmp_path / "root"
    touch(root, "a.mp4", "b.mp4")
    text(tmp_path, "mine.txt", "a.mp4 x", "b.mp4 y")
    result = run(root, "csv", check="names", lists={"test": tmp_path / "mine.txt"})
    assert result.counts() == {"test": 2}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root.exists(), "no such folder or archive\nHMDB51.*people get it from https://serre-lab"),
        (lambda root: root.mkdir(), r"no list of videos(.|\n)*people get it from https://serre-lab"),
        (lambda root: text(root, "cut_test_split1.txt", "a.avi 1"), "not one video(.|\n)*missing: cut/a.avi"),
    ],
    ids=["no root", "no lists", "no videos"],
)
def test_where_to_get_it_is_told(tmp_path, make, message):
    make(tmp_path / "root")
    with pytest.raises(InputError, match=message):
        run(tmp_path / "root", "hmdb51", check="names")


def test_two_files_that_fit(tmp_path):
    root = tmp_path / "root"
    touch(root, "one/a.mp4", "two/a.mp4", "b.mp4", "deep/b.mp4")
    text(root, "train.csv", "a.mp4 x", "b.mp4 x")
    assert kinds(run(root, "csv", check="names")) == [
        ("ambiguous", "a.mp4"),
        ("unlisted", "deep/b.mp4"),
        ("unlisted", "one/a.mp4"),
        ("unlisted", "two/a.mp4"),
    ]


def test_finegym_elements(tmp_path):
    """Times of the last pair of each element, frames int(start fps) to int(stop fps), both included, at 25 a second."""
    root = tmp_path / "root"
    event = "0LtLS9wROrk_E_002407_002435"
    touch(root, f"processed_videos/{event}.mp4")
    segments = {"A_0003_0005": {"timestamps": [[0.0, 0.1], [3.0, 3.1]]}, "A_0011_0014": {"timestamps": [[4.0, 4.04]]}}
    info = {"0LtLS9wROrk": {"E_002407_002435": {"event": 2, "segments": segments}}}
    text(root, "finegym_annotation_info_v1.0.json", json.dumps(info))
    text(root, "gym99_train_element_v1.0.txt", f"{event}_A_0003_0005 17", f"{event}_A_0011_0014 3", f"{event}_A_9 1")
    result = run(root, "finegym99", check="names")
    assert read_manifest(tmp_path / "out")[1][:4] == [event, f"../root/processed_videos/{event}.mp4", "train", "2"]
    lines = (tmp_path / "out/rows.csv").read_text().splitlines()[1:]
    assert lines == [f"{event},{frame},{label}" for frame, label in [(75, 17), (76, 17), (77, 17), (100, 3), (101, 3)]]
    assert [problem.kind for problem in result.problems] == ["not_read"]


ANNOTATED = "0LtLS9wROrk_E_002407_002435_A_0003_0005"


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ("{", "finegym_annotation_info_v1.0.json: no readable JSON"),
        ("[]", "an object by video is needed, not list"),
        ('{"0LtLS9wROrk": 3}', "the annotation file has no times of it"),
        (
            '{"0LtLS9wROrk": {"E_002407_002435": {"segments": {"A_0003_0005": {"timestamps": [0]}}}}}',
            "the annotation file has no times of it",
        ),
    ],
)
def test_a_damaged_annotation_file_is_said(tmp_path, info, message):
    touch(tmp_path / "root", f"{ANNOTATED[:27]}.mp4")
    text(tmp_path / "root", "finegym_annotation_info_v1.0.json", info)
    text(tmp_path / "root", "gym99_train_element_v1.0.txt", f"{ANNOTATED} 17", "")
    with pytest.raises(InputError, match=re.escape(message)):
        run(tmp_path / "root", "finegym99", check="names")


@pytest.mark.parametrize("labels", [[], None, 3, ["x"], [0.5, 1], torch.tensor([0.0, float("nan")])])
def test_labels_of_frames_that_are_no_whole_numbers_are_a_problem_of_their_video(tmp_path, labels):
    root = tmp_path / "root"
    touch(root, "a.mp4")
    touch(root, "b.mp4")
    entries = [
        {"name": "a", "video_file": "a.mp4", "frame_label": labels},
        {"name": "b", "video_file": "b.mp4", "frame_label": torch.tensor([1.0, 2.0])},
    ]
    (root / "train.pkl").write_bytes(pickle.dumps(entries))
    result = run(root, "pouring", check="names")
    assert kinds(result) == [("not_read", "a"), ("unlisted", "a.mp4")]
    assert "entry 1: frame_label is not a whole number for each frame" in result.problems[0].detail
    assert result.num_frame_labels == 2


RESAMPLED = {
    "as many": ("abc", 3, "abc"),
    "more labels": ("abcd", 2, "ac"),
    "more labels, odd": ("abcde", 3, "abd"),
    "more frames": ("ab", 4, "aabb"),
    "more frames, odd": ("ab", 5, "aabbb"),
}


@pytest.mark.parametrize(("labels", "num_frames", "expected"), RESAMPLED.values(), ids=RESAMPLED)
def test_resampled(labels, num_frames, expected):
    assert "".join(map(chr, resampled([ord(letter) for letter in labels], num_frames=num_frames))) == expected


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def test_pickles_are_data(tmp_path, capsys):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([{"a": torch.arange(4)[1:], "b": ("x", 1.5, None)}]))
    ((first,),) = (read_plain_pickle(path),)
    assert first["a"].tolist() == [1, 2, 3]
    assert first["b"] == ("x", 1.5, None)
    path.write_bytes(pickle.dumps([Payload()]))
    with pytest.raises(InputError, match=r"names builtins.print, and loading that could run code"):
        read_plain_pickle(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="no readable pickle"):
        read_plain_pickle(path)
    assert "executed" not in capsys.readouterr().out


PATTERNS = {
    "deep": ("{label}/a.avi", {}, "x/cut/a.avi", {"label": "cut"}),
    "whole": ("{label}/a.avi", {}, "cut/a.avi", {"label": "cut"}),
    "known": ("{label}/{file}", {"file": "a.avi"}, "cut/A.AVI", {"label": "cut"}),
    "any ending": ("{id}.*", {"id": "7"}, "x/7.webm", {}),
    "number": ("{id}_{start:06d}.mp4", {"id": "q", "start": "12"}, "q_000012.mp4", {}),
    "not inside a name": ("a.avi", {}, "cut/ba.avi", None),
    "brackets are text": ("{file}", {"file": "a(1)+.avi"}, "x/a(1)+.avi", {}),
}


@pytest.mark.parametrize(("pattern", "values", "path", "groups"), PATTERNS.values(), ids=PATTERNS)
def test_patterns(pattern, values, path, groups):
    match = compile_pattern(pattern, values).fullmatch(path)
    assert (None if match is None else match.groupdict()) == groups
    assert [found for _, found in PathIndex([path]).matches(pattern, values)] == ([] if groups is None else [groups])


def test_hostile_values_stay_text():
    assert fill("{name}", {"name": "{0.__class__}"}) == "{0.__class__}"


EPIC = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
EPIC_TEST = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame"


def epic(root, *videos):
    """The first lines of EPIC-100's own tables, as its repository has them, and one of each of the others."""
    touch(root, *videos)
    text(
        root,
        "epic-kitchens-100-annotations/EPIC_100_train.csv",
        EPIC,
        "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,3,['door'],[3]",
        "P01_01_1,P01,P01_01,00:00:02.629,00:01:04.37,01:00:06.17,262,370,turn on light,turn-on,6,light,114,"
        '"[\'light\', \'a ""lamp""\']","[114, 3]"',
    )
    text(
        root,
        "epic-kitchens-100-annotations/EPIC_100_validation.csv",
        EPIC,
        "P01_11_0,P01,P01_11,00:00:00.000,00:00:00.00,00:00:02.52,1,151,take plate,take,0,plate,2,['plate'],[2]",
    )
    text(
        root,
        "epic-kitchens-100-annotations/EPIC_100_test_timestamps.csv",
        EPIC_TEST,
        "P01_17_0,P01,P01_17,00:00:00.00,00:00:02.09,1,125",
    )


def test_epics_own_tables_with_clips(tmp_path):
    epic(tmp_path / "root", "P01/P01_01_0.MP4", "P01/P01_01_1.MP4", "P01/P01_11_0.MP4", "P01/P01_17_0.MP4")
    result = run(tmp_path / "root", "epic-kitchens-100", check="names")
    assert result.problems == ()
    assert read_manifest(tmp_path / "out")[0][5:] == ["verb", "noun", "narration", "participant_id"]
    assert [[row[0], *row[2:4], *row[5:]] for row in read_manifest(tmp_path / "out")[1:]] == [
        ["P01_01_0", "train", "3_3", "3", "3", "open door", "P01"],
        ["P01_01_1", "train", "6_114", "6", "114", "turn on light", "P01"],
        ["P01_11_0", "val", "0_2", "0", "2", "take plate", "P01"],
        ["P01_17_0", "test", "", "", "", "", "P01"],
    ]


def test_epics_own_tables_with_whole_videos(tmp_path):
    epic(tmp_path / "root", "P01/videos/P01_01.MP4", "P01/videos/P01_11.MP4", "P01/videos/P01_17.MP4")
    result = run(tmp_path / "root", "epic-kitchens-100", check="names")
    assert result.problems == ()
    assert result.num_segments == 3
    assert [[row[0], row[2], row[3]] for row in read_manifest(tmp_path / "out")[1:]] == [
        ["P01_01", "train", ""],
        ["P01_11", "val", ""],
        ["P01_17", "test", ""],
    ]
    assert (tmp_path / "out/segments.csv").read_text().splitlines() == [
        "video_id,start_seconds,stop_seconds,label",
        "P01_01,0.14,3.37,3_3",
        "P01_01,64.37,3606.17,6_114",
        "P01_11,0.0,2.52,0_2",
    ]
    assert not (tmp_path / "out/rows.csv").exists()


def test_a_wrong_time_is_a_problem_of_its_row(tmp_path):
    epic(tmp_path / "root", "P01_11.MP4")
    path = tmp_path / "root/epic-kitchens-100-annotations/EPIC_100_train.csv"
    path.write_text(path.read_text().replace("00:00:03.37", "soon").replace("01:00:06.17", "00:00:06.17"))
    result = run(tmp_path / "root", "epic-kitchens-100", check="names", splits=("val",))
    assert [problem.detail for problem in result.problems if problem.kind == "not_read"] == [
        "EPIC_100_train.csv:2: 'soon' is no time; write seconds or HH:MM:SS.ms",
        "EPIC_100_train.csv:3: stop 6.17 s is not after 64.37 s",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b c\nd e f\n", r"mine\.txt: none of its lines fits the pattern .*; first mine\.txt:1: 'a b c' is not as"),
        ("", r"mine\.txt: none of its lines fits the pattern"),
        ("id,verb\nP01,3\n", "the videos are {narration_id}.*, but its columns are id, verb"),
    ],
    ids=["other lines", "empty", "other columns"],
)
def test_a_list_of_ones_own_that_fits_no_pattern_is_named(tmp_path, content, message):
    touch(tmp_path / "root", "P01_01.MP4")
    name = "mine.csv" if "," in content else "mine.txt"
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"(?s)--list: not as the lists of 'EPIC-Kitchens-100.*{message}"):
        run(tmp_path / "root", "epic-kitchens-100", check="names", lists={"train": tmp_path / name})


def test_one_of_several_lists_that_fits_no_pattern_is_named(tmp_path):
    touch(tmp_path / "root", "P01_0.mp4")
    text(tmp_path, "train.csv", "P01_0,1,2")
    text(tmp_path, "val.csv", "P01_0 1 2")
    lists = {"train": tmp_path / "train.csv", "val": tmp_path / "val.csv"}
    with pytest.raises(InputError, match=r"val\.csv: none of its lines fits"):
        run(tmp_path / "root", "epic-kitchens-100", check="names", lists=lists)


def test_a_name_that_is_not_utf8_is_left_out(tmp_path):
    root = tmp_path / "root"
    touch(root, "a.mp4", os.fsdecode(b"caf\xe9.mp4"), os.fsdecode(b"d\xe9/b.mp4"))
    text(root, "train.csv", "a.mp4,x")
    result = run(root, "csv", check="names")
    found = [problem.video for problem in result.problems if problem.kind == "left_out"]
    assert found == [rf"{root}/d\xe9", rf"{root}/caf\xe9.mp4"]
    assert r"caf\xe9.mp4" in (tmp_path / "out/problems.csv").read_text(encoding="utf-8")
    assert len(result.videos) == 1


IDS = {
    "names": (["a/x.mp4", "b/y.mp4"], ["x", "y"]),
    "folders too": (["a/x.mp4", "b/x.mp4"], ["a/x", "b/x"]),
    "endings too": (["a/x.mp4", "a/x.webm"], ["a/x.mp4", "a/x.webm"]),
    "numbers behind a dot": (["a/P01.1", "a/P01.2"], ["P01.1", "P01.2"]),
}


@pytest.mark.parametrize(("names", "ids"), IDS.values(), ids=IDS)
def test_ids_differ(tmp_path, names, ids):
    root = tmp_path / "root"
    for name in names:
        if "P01" in name:
            images(root / name, [1])
        else:
            touch(root, name)
    text(root, "train.csv", *(f"{name},x" for name in names))
    run(root, "csv", check="names")
    assert [row[0] for row in read_manifest(tmp_path / "out")[1:]] == ids


@pytest.mark.parametrize(
    ("name", "labels"), [("pouring", "{rows: out/rows.csv}"), ("penn-action", "{rows: out/rows.csv, column: label}")]
)
def test_labels_of_rows_and_of_their_videos_are_named_for_a_pipeline_file(tmp_path, monkeypatch, name, labels):
    monkeypatch.chdir(tmp_path)
    Path("root").mkdir()
    WRITERS[name](tmp_path / "root")
    said = CliRunner().invoke(app, ["prepare", name, "--root", "root", "--out", "out", "--quick"]).stdout
    assert said.endswith(f"for a pipeline file:\nvideos: {{manifest: out/manifest.csv}}\nlabels: {labels}\n")
