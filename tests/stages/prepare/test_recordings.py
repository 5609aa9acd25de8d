"""Recordings of a procedure, laid out as the public data sets are: tables by hand, and what is inconsistent is told."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from reelwright.stages.prepare.recordings import RecordingsRequest, builtin_procedure, prepare_recordings
from reelwright.stages.steps.procedure import read_procedure
from reelwright.stages.synthesize.procedures.recordings import demo_procedure, make_recordings
from reelwright.stages.synthesize.procedures.write import DatasetParameters
from reelwright.storage.errors import InputError

PROCEDURE = """
name: toy
fps: 10
components: [base, wheel]
states: ["10", "11"]
procedures: {assy: {match: "*_assy_*", initial: "10"}, main: {match: "*_main_*", initial: "11", expected: [5]}}
splits: {train: ["01_assy_0_1"], test: ["02_main_0_1"]}
"""
RAW = ["000000.jpg,1,0", "000003.jpg,1,-1", "000005.jpg,1,0", "000007.jpg,1,1"]


def write_recording(root, split, name, *, raw=RAW, steps=None, with_errors=None, num_frames=9, first=0):
    folder = root / "recordings" / split / name
    (folder / "rgb").mkdir(parents=True)
    for number in range(first, first + num_frames):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "rgb" / f"{number:06d}.jpg")
    for kind, rows in (("_raw", raw), ("", steps), ("_with_errors", with_errors)):
        if rows is not None:
            (folder / f"PSR_labels{kind}.csv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "toy"
    write_recording(
        folder,
        "train",
        "01_assy_0_1",
        steps=["000007.jpg,3,Install wheel"],
        with_errors=["000003.jpg,4,Incorrectly installed wheel", "000007.jpg,3,Install wheel"],
    )
    write_recording(folder, "test", "02_main_0_1", raw=["0,1,1", "4,1,0"], steps=["4,5,Remove wheel"], with_errors=None)
    (folder / "toy.yaml").write_text(PROCEDURE, encoding="utf-8")
    return folder


def prepared(root, **values):
    return prepare_recordings(
        RecordingsRequest(procedure=root / "toy.yaml", root=root, out=root.parent / "tables", **values)
    )


def table(found, name):
    with (found.out / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [",".join(row) for row in csv.reader(file)][1:]


def test_the_tables(root):
    found = prepared(root)
    assert table(found, "manifest") == [
        "01_assy_0_1,../toy/recordings/train/01_assy_0_1/rgb,train,assy",
        "02_main_0_1,../toy/recordings/test/02_main_0_1/rgb,test,main",
    ]
    assert table(found, "states") == [
        "01_assy_0_1,0.0,10",
        "01_assy_0_1,0.3,error",
        "01_assy_0_1,0.5,10",
        "01_assy_0_1,0.7,11",
        "02_main_0_1,0.0,11",
        "02_main_0_1,0.4,10",
    ]
    assert table(found, "changes") == ["01_assy_0_1,0.7,wheel", "02_main_0_1,0.4,wheel"]
    assert table(found, "steps") == ["01_assy_0_1,0.7,Install wheel", "02_main_0_1,0.4,Remove wheel"]
    assert table(found, "steps_with_errors")[0] == "01_assy_0_1,0.3,Incorrectly installed wheel"
    assert read_procedure(found.out / "procedure.yaml") == read_procedure(root / "toy.yaml")
    train = found.counts["train"]
    assert [train[name] for name in ("with errors", "state rows", "right steps", "wrong steps")] == [1, 4, 1, 1]
    assert found.counts["test"]["of these removals"] == 1
    # the only thing that is not as it should be: a file is missing, and is made up for
    assert [(problem.kind, problem.video) for problem in found.problems] == [("labels", "02_main_0_1")]


def test_errors_as_states_of_their_own(root):
    found = prepared(root, include_errors=True)
    assert table(found, "changes")[:3] == ["01_assy_0_1,0.3,wheel", "01_assy_0_1,0.5,wheel", "01_assy_0_1,0.7,wheel"]


def test_labels_may_lie_elsewhere_and_need_no_frames(root, tmp_path):
    labels = tmp_path / "labels" / "val" / "03_assy_0_1"
    labels.mkdir(parents=True)
    (labels / "PSR_labels_raw.csv").write_text("000000.jpg,1,0\n000002.jpg,0,0\n", encoding="utf-8")
    found = prepared(root, labels=tmp_path / "labels")
    assert [(one.name, one.split, one.frames) for one in found.recordings] == [("03_assy_0_1", "val", None)]
    message = {(problem.kind, problem.video) for problem in found.problems}
    assert {("missing", "03_assy_0_1"), ("split", "03_assy_0_1"), ("unlabelled", "01_assy_0_1")} <= message
    assert table(found, "manifest") == []
    # the initial state is not installed again: a removal of the base, at a state that is not listed
    assert table(found, "steps") == ["03_assy_0_1,0.2,Remove base"]
    assert table(found, "states")[1] == "03_assy_0_1,0.2,other"


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            {"steps": ["000006.jpg,3,Install wheel"]},
            "steps",
            "1 not in the raw states: 6 Install wheel; 1 only there: 7",
        ),
        ({"steps": ["000007.jpg,9,Install wheel"]}, "labels", "'000007.jpg,9,Install wheel' is no step"),
        ({"raw": [*RAW, "000006.jpg,1,0"]}, "labels", "frame 6 comes after frame 7"),
        ({"num_frames": 6}, "frames", "label at frame 7, but there are frames 0 to 5"),
        ({"first": 1}, "frames", "numbered from 1, not from 0, but are shown from 0 s on: its labels are +0.1 s off"),
    ],
)
def test_what_is_inconsistent_is_told(root, values, kind, message):
    write_recording(root, "val", "04_assy_0_1", **values)
    mine = [problem for problem in prepared(root).problems if problem.video == "04_assy_0_1"]
    assert any(problem.kind == kind and message in problem.detail for problem in mine)


def test_procedure_info_is_compared(root):
    entries = [{"id": step, "state_idx": step // 3, "description": "Install base"} for step in range(5)]
    (root / "procedure_info.json").write_text(json.dumps(entries), encoding="utf-8")
    message = [problem.detail for problem in prepared(root).problems if problem.kind in {"procedure", "names"}]
    assert message[0] == "procedure_info.json: 5 steps, the procedure toy has 6"
    assert message[1] == "procedure_info.json: step 1 is 'Install base', in toy 'Incorrectly installed base'"


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (["000000.jpg,1,0,0"], "2 values of 1, 0 or -1 are needed, one for each component of toy"),
        (["000000.jpg,1,2"], "not '1,2'"),
        (["first.jpg,1,0"], "'first.jpg' is no frame"),
    ],
)
def test_rows_that_cannot_be_read(root, raw, match):
    write_recording(root, "val", "04_assy_0_1", raw=raw)
    with pytest.raises(InputError, match=match):
        prepared(root)


def test_a_folder_without_recordings(tmp_path):
    (tmp_path / "toy.yaml").write_text(PROCEDURE, encoding="utf-8")
    with pytest.raises(InputError, match=r"no recording with PSR_labels_raw\.csv"):
        prepared(tmp_path)


def test_known_procedures():
    assert builtin_procedure("nothing") is None
    for name, size in (("industreal", 11), ("meccano", 17)):
        path = builtin_procedure(name)
        assert path is not None
        assert len(read_procedure(path).components) == size


def test_the_stand_in_is_consistent(tmp_path):
    parameters = DatasetParameters(num_train=1, num_val=0, num_test=1, seed=0, height=48, width=48, fps=2.0)
    data = tmp_path / "data"
    make_recordings(data, parameters)
    found = prepare_recordings(RecordingsRequest(procedure=data / "procedure.yaml", root=data, out=tmp_path / "tables"))
    assert found.problems == ()
    assert found.procedure == demo_procedure(2.0)
    assert {split: counts["right steps"] for split, counts in found.counts.items()} == {"train": 4, "test": 4}
    images = sorted((data / "recordings" / "train" / "01_assy_0_1" / "rgb").iterdir())
    make_recordings(data, parameters)  # nothing is made again
    assert sorted(images[0].parent.iterdir()) == images
    with pytest.raises(InputError, match=r"made with other settings \(num_train: 1 -> 2\)"):
        make_recordings(data, DatasetParameters(2, 0, 1, 0, 48, 48, 2.0))
