"""A detector's outputs: the table, and the public code's files."""

from __future__ import annotations

import pytest

from reelwright.storage.errors import InputError
from reelwright.storage.tables.detections import DetectedState, import_detections, read_detections

HEAD = "video_id,frame,class,confidence\n"


def test_read(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text(HEAD + "a,3,1,0.9\nb,1,2,1\na,3,0,0.2\n", encoding="utf-8")
    found = read_detections(path, num_classes=3)
    assert found == {
        "a": [DetectedState(3, None, 1, 0.9), DetectedState(3, None, 0, 0.2)],
        "b": [DetectedState(1, None, 2, 1.0)],
    }
    path.write_text("video_id,time_seconds,class,confidence\na,1.5,1,0.5\n", encoding="utf-8")
    assert read_detections(path, num_classes=3) == {"a": [DetectedState(None, 1.5, 1, 0.5)]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,3,3,0.5", "row 2: class 3 is not known; classes are 0 to 2"),
        ("a,3.5,1,0.5", "row 2: frame '3.5' is not a whole number"),
        ("a,3,1,1.5", r"row 2: confidence 1.5 must lie in \[0, 1\]"),
        ("a,x,1,0.5", "row 2: frame 'x' is not a number"),
        ("a,-1,1,0.5", "frame '-1' must not be negative"),
    ],
)
def test_wrong_rows(tmp_path, row, message):
    path = tmp_path / "d.csv"
    path.write_text(HEAD + row, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_detections(path, num_classes=3)


def test_without_a_place(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("video_id,class,confidence\na,1,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="need a column frame or time_seconds"):
        read_detections(path, num_classes=3)


def test_import(tmp_path):
    folder = tmp_path / "outputs" / "test"
    folder.mkdir(parents=True)
    head = ",frame,class,conf,x,y,w,h\n"
    (folder / "01_assy_results_pred.csv").write_text(
        head + "0,4,2,0.87654,1,2,3,4\n1,4,1,0.5,1,2,3,4\n", encoding="utf-8"
    )
    (folder / "02_main_results_pred.csv").write_text(head, encoding="utf-8")
    target = tmp_path / "table.csv"
    assert import_detections([tmp_path / "outputs"], target) == 2
    found = read_detections(target, num_classes=3)
    assert found == {"01_assy": [DetectedState(4, None, 2, 0.877), DetectedState(4, None, 1, 0.5)]}
    import_detections([folder / "01_assy_results_pred.csv"], target, names={"01_assy": "one"})
    assert list(read_detections(target, num_classes=3)) == ["one"]


def test_import_refuses(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x_results_pred.csv").write_text("h\n0,4,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="are both of video 'x'"):
        import_detections([tmp_path], tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"x_results_pred.csv:2: '0,4,2' is no line of a detector"):
        import_detections([tmp_path / "a"], tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"no file \*_results_pred.csv in"):
        import_detections([tmp_path / "a" / "b"], tmp_path / "t.csv") if (
            tmp_path / "a" / "b"
        ).mkdir() is None else None
    assert not (tmp_path / "t.csv").exists()
