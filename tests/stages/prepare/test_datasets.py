"""Every data set that prepare knows, on a tiny made-up copy of its layout: the manifest is as it stands here."""

from __future__ import annotations

import csv
import json
import os
import pickle

import pytest
import torch
from PIL import Image

from reelwright.stages.base.work import SilentReporter
from reelwright.stages.prepare.specs import datasets
from reelwright.stages.prepare.work import PrepareRequest, prepare


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))


def text(folder, name, *lines):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def images(folder, numbers, *, form="{:05d}.jpg"):
    folder.mkdir(parents=True)
    for number in numbers:
        Image.new("RGB", (4, 4)).save(folder / form.format(number))


def hmdb51(root):
    touch(root, "videos/cut/a.avi", "videos/cut/b.avi", "videos/cut/c.avi", "videos/pour/a.avi")
    text(root, "splits/cut_test_split1.txt", "a.avi 1 ", "b.avi 2 ", "c.avi 0 ")
    text(root, "splits/pour_test_split1.txt", "a.avi 2 ")
    text(root, "splits/cut_test_split2.txt", "a.avi 2 ")
    return [
        ["videos/cut/a", "videos/cut/a.avi", "train", "cut"],
        ["videos/cut/b", "videos/cut/b.avi", "val", "cut"],
        ["videos/pour/a", "videos/pour/a.avi", "val", "pour"],
    ]


def ucf101(root):
    touch(root, "UCF-101/v_Archery_g01_c01.avi", "UCF-101/v_HandstandPushups_g01_c01.avi")
    text(root, "trainlist01.txt", "Archery/v_Archery_g01_c01.avi 3")
    text(root, "testlist01.txt", "HandstandPushups/v_HandStandPushups_g01_c01.avi")
    return [
        ["v_Archery_g01_c01", "UCF-101/v_Archery_g01_c01.avi", "train", "Archery"],
        ["v_HandstandPushups_g01_c01", "UCF-101/v_HandstandPushups_g01_c01.avi", "val", "HandstandPushups"],
    ]


def diving48(root):
    touch(root, "rgb/x_1.mp4", "rgb/x_2.mp4")
    text(root, "Diving48_V2_train.json", json.dumps([{"vid_name": "x_1", "label": 7, "start_frame": 0}]))
    text(root, "Diving48_V2_test.json", json.dumps([{"vid_name": "x_2", "label": 8}]))
    return [["x_1", "rgb/x_1.mp4", "train", "7"], ["x_2", "rgb/x_2.mp4", "val", "8"]]


def egtea(root):
    clips = ("OP01-R01-Pasta-66680-68130-F001597-F001640", "OP02-R03-Bacon-1-2-F1-F2")
    touch(root, f"cropped_clips/OP01-R01-Pasta/{clips[0]}.mp4", f"cropped_clips/OP02-R03-Bacon/{clips[1]}.mp4")
    text(root, "action_idx.txt", "Inspect/Read recipe 1", "Close fridge 2")
    text(root, "train_split1.txt", f"{clips[0]} 1 3 4 ")
    text(root, "test_split1.txt", f"{clips[1]} 2 1 1 ")
    return [
        [clips[0], f"cropped_clips/OP01-R01-Pasta/{clips[0]}.mp4", "train", "Inspect-Read-recipe"],
        [clips[1], f"cropped_clips/OP02-R03-Bacon/{clips[1]}.mp4", "val", "Close-fridge"],
    ]


def volleyball(root):
    for match, frame in (("1", 1000), ("2", 2000), ("4", 3000)):
        images(root / "videos" / match / str(frame), range(frame - 1, frame + 1), form="{}.jpg")
    text(root, "videos/1/annotations.txt", "1000.jpg r_set 1 2 3 4 standing", "")
    text(root, "videos/2/annotations.txt", "2000.jpg l-spike 1 2 3 4 standing")
    text(root, "videos/4/annotations.txt", "3000.jpg r_winpoint 1 2 3 4 waiting")
    return [
        ["1_1000", "videos/1/1000", "train", "r_set"],
        ["2_2000", "videos/2/2000", "val", "l-spike"],
        ["4_3000", "videos/4/3000", "test", "r_winpoint"],
    ]


def yuppp(root):
    touch(root, "camera_stationary/Beach/B_1.mp4", "camera_moving/Beach/B_1.mp4")
    text(root, "10_90_randsplit_1.txt", "B_1.mp4 static_train", "B_1.mp4 moving_test")
    return [
        ["stationary_Beach_B_1", "camera_stationary/Beach/B_1.mp4", "train", "Beach"],
        ["moving_Beach_B_1", "camera_moving/Beach/B_1.mp4", "test", "Beach"],
    ]


def something_v1(root):
    images(root / "20bn/78687", range(1, 4))
    images(root / "20bn/42326", range(1, 3))
    text(root, "train_videofolder.txt", "78687 3 135")
    text(root, "val_videofolder.txt", "42326 2 7")
    return [["78687", "20bn/78687", "train", "135"], ["42326", "20bn/42326", "val", "7"]]


def something_v2(root):
    touch(root, "38483.mp4", "2.mp4")
    text(root, "train.csv", "38483.mp4 146")
    text(root, "val.csv", "2.mp4 0")
    return [["38483", "38483.mp4", "train", "146"], ["2", "2.mp4", "val", "0"]]


def kinetics400(root):
    touch(root, "train/jf7RDuUTrsQ.mp4", "val/a b.mp4")
    text(root, "train.csv", "jf7RDuUTrsQ.mp4 325")
    text(root, "val.csv", "a b.mp4 1")
    return [["jf7RDuUTrsQ", "train/jf7RDuUTrsQ.mp4", "train", "325"], ["a b", "val/a b.mp4", "val", "1"]]


def epic(root):
    touch(root, "clips/P20_01_0.mp4", "clips/P20_01_1.mp4")
    text(root, "train.csv", "P20_01_0,6,0")
    text(root, "val.csv", "P20_01_1,0,12")
    return [
        ["P20_01_0", "clips/P20_01_0.mp4", "train", "6_0", "6", "0"],
        ["P20_01_1", "clips/P20_01_1.mp4", "val", "0_12", "0", "12"],
    ]


def pickled(root, name, *entries):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(list(entries)))


def entry(name, labels, **more):
    touch_name = f"videos/{name}.mp4"
    tensor = torch.tensor(labels)
    return {"id": 1, "name": name, "video_file": touch_name, "frame_label": tensor, "seq_len": len(labels), **more}


def pouring(root):
    touch(root, "videos/cup_1.mp4", "videos/cup_2.mp4")
    pickled(root, "train.pkl", entry("cup_1", [0, 0, 1]))
    pickled(root, "val.pkl", entry("cup_2", [4, -1]))
    return [["cup_1", "videos/cup_1.mp4", "train", ""], ["cup_2", "videos/cup_2.mp4", "val", ""]]


def penn_action(root):
    touch(root, "videos/0001_bowl.mp4", "videos/0002_squat.mp4")
    pickled(root, "train.pkl", entry("0001_bowl", [0, 1, 1], action_label=3))
    path = root / "val.pkl"
    path.write_bytes(pickle.dumps(([entry("0002_squat", [2, 3], action_label=9)], {"squat": [0]})))
    return [
        ["0001_bowl", "videos/0001_bowl.mp4", "train", "bowl"],
        ["0002_squat", "videos/0002_squat.mp4", "val", "squat"],
    ]


def finegym(gym):
    def write(root):
        touch(root, "videos/e1.mp4", "videos/e2.mp4")
        pickled(root, f"{gym}_train_v1.0.pkl", entry("e1", [-1, 5, 5], event_label=1))
        pickled(root, f"{gym}_val.pkl", entry("e2", [6, -1], event_label=2))
        return [["e1", "videos/e1.mp4", "train", "1"], ["e2", "videos/e2.mp4", "val", "2"]]

    return write


def rawframes(root):
    images(root / "walk/0001", range(1, 4))
    images(root / "run/0001", range(1, 3))
    text(root, "train_videofolder.txt", "walk/0001 3 0")
    text(root, "val_videofolder.txt", "run/0001 2 1")
    return [["walk/0001", "walk/0001", "train", "0"], ["run/0001", "run/0001", "val", "1"]]


def any_csv(root):
    touch(root, "a/x.mp4", "b/y.webm")
    text(root, "train.csv", "video,label", "a/x.mp4,jump high")
    text(root, "val.csv", "b/y.webm;walk")
    return [["x", "a/x.mp4", "train", "jump high"], ["y", "b/y.webm", "val", "walk"]]


WRITERS = {
    "hmdb51": hmdb51,
    "ucf101": ucf101,
    "diving48": diving48,
    "egtea": egtea,
    "volleyball": volleyball,
    "yup++": yuppp,
    "something-something-v1": something_v1,
    "something-something-v2": something_v2,
    "kinetics400": kinetics400,
    "epic-kitchens-100": epic,
    "pouring": pouring,
    "penn-action": penn_action,
    "finegym99": finegym("gym99"),
    "finegym288": finegym("gym288"),
    "rawframes": rawframes,
    "csv": any_csv,
}
FRAME_LABELS = {
    "pouring": ["cup_1,0,0", "cup_1,1,0", "cup_1,2,1", "cup_2,0,4"],
    "penn-action": [
        "0001_bowl,0,bowl_0",
        "0001_bowl,1,bowl_1",
        "0001_bowl,2,bowl_1",
        "0002_squat,0,squat_2",
        "0002_squat,1,squat_3",
    ],
    "finegym99": ["e1,1,5", "e1,2,5", "e2,0,6"],
}


def read_manifest(folder):
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_lists_of_ucf101_as_tstl_has_them(tmp_path):
    touch(tmp_path, "root/videos/v_Archery_g01_c01.avi", "root/videos/v_Biking_g01_c01.avi")
    text(tmp_path / "root", "train.csv", "v_Archery_g01_c01.avi 2")
    text(tmp_path / "root", "val.csv", "v_Biking_g01_c01.avi 10")
    request = PrepareRequest(dataset="ucf101", root=tmp_path / "root", out=tmp_path / "out", check="names")
    assert prepare(request, SilentReporter()).problems == ()
    assert [[row[0], row[2], row[3]] for row in read_manifest(tmp_path / "out")[1:]] == [
        ["v_Archery_g01_c01", "train", "2"],
        ["v_Biking_g01_c01", "val", "10"],
    ]


def test_every_data_set_has_its_test():
    assert set(WRITERS) == set(datasets())
    assert all(spec.where and spec.title for spec in datasets().values())


@pytest.mark.parametrize("name", WRITERS)
def test_golden(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    expected = WRITERS[name](root)
    before = sorted(root.rglob("*"))
    request = PrepareRequest(dataset=name, root=root, out=tmp_path / "out", check="names")
    result = prepare(request, SilentReporter())
    rows = read_manifest(tmp_path / "out")
    found = [[row[0], row[1].removeprefix("../root/"), *row[2:4], *row[5:]] for row in rows[1:]]
    assert found == expected
    assert [problem for problem in result.problems if problem.kind not in {"unlisted", "unlabelled"}] == []
    assert sorted(root.rglob("*")) == before
    if name in FRAME_LABELS:
        lines = (tmp_path / "out/rows.csv").read_text().splitlines()
        assert lines == ["video_id,frame,label", *FRAME_LABELS[name]]
