"""Tables as people and their programs write them are read right, or refused with the row and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reelwright.storage.errors import InputError
from reelwright.storage.tables import text_tables
from reelwright.storage.tables.text_tables import read_columns, read_lines, read_text, whole_in

PLAIN = "video_id,label\na,fäll\nb,walk\n"
CELLS = {"video_id": ["a", "b"], "label": ["fäll", "walk"]}

READ = {
    "UTF-8 with a mark": ("t.csv", PLAIN.encode("utf-8-sig")),
    "UTF-16, as Excel's Unicode text": ("t.txt", PLAIN.replace(",", "\t").encode("utf-16")),
    "UTF-16, the other way round": ("t.csv", b"\xfe\xff" + PLAIN.encode("utf-16-be")),
    "UTF-32": ("t.csv", PLAIN.encode("utf-32")),
    "a line of blanks first": ("t.csv", b"  \n" + PLAIN.encode()),
    "semicolons, as Excel writes in Europe": ("t.csv", PLAIN.replace(",", ";").encode()),
    "semicolons and quotes": ("t.csv", '"video_id";"label"\n"a";"fäll"\n"b";"walk"\n'.encode()),
    "tabs in .csv": ("t.csv", PLAIN.replace(",", "\t").encode()),
    "commas in .tsv": ("t.tsv", PLAIN.encode()),
    "line ends of Windows": ("t.csv", PLAIN.replace("\n", "\r\n").encode()),
    "line ends of old Macs": ("t.csv", PLAIN.replace("\n", "\r").encode()),
    "blank lines": ("t.csv", ("\n" + PLAIN.replace("\n", "\n \n\n,\n")).encode()),
    "empty cells behind": ("t.csv", b"video_id,label,,\na,f\xc3\xa4ll,,\nb,walk,,\n"),
    "a column of row numbers, as pandas writes": ("t.csv", ",video_id,label\n0,a,fäll\n1,b,walk\n".encode()),
    "padded by a spreadsheet": ("t.csv", "video_id,label\na,fäll,,,\nb,walk\n".encode()),
    "no line end at the end": ("t.csv", PLAIN.strip().encode()),
}


@pytest.mark.parametrize(("name", "content"), READ.values(), ids=READ)
@pytest.mark.parametrize("many_bytes", [0, 1 << 20], ids=["by Arrow where it can", "by csv"])
def test_read_right(tmp_path, monkeypatch, name, content, many_bytes):
    monkeypatch.setattr(text_tables, "_MANY_BYTES", many_bytes, raising=False)
    (tmp_path / name).write_bytes(content)
    assert read_columns(tmp_path / name, required=["video_id", "label"]).cells == CELLS


REFUSED = {
    "Windows-1252": (
        PLAIN.encode("cp1252"),
        r"t\.csv:2: byte 4 of the row \(0xE4\) is not UTF-8; in Windows-1252 it would be 'ä'\. .*iconv -f WINDOWS-1252",
    ),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), r"t\.csv:1: holds a NUL, .*Is it UTF-16 without its mark"),
    "UTF-16 of an odd length": (PLAIN.encode("utf-16") + b"x", "begins as utf-16.* but is not: truncated data"),
    "NUL": (b"video_id,label\na,x\0y\nb,z\n", r"t\.csv:2: holds a NUL"),
    "an open quote": (b'video_id,label\na,"x\nb,y\nc,z\n', r't\.csv:2: a quote \("\) in this row does not close'),
    "an open quote before a closed one": (
        b'video_id,label\na,"x\nb,"y"\nc,z\n',
        r"t\.csv:2: a quote .* does not close",
    ),
    "an open and a stray quote": (b'video_id,label\na,"x\nb,y"\nc,z\n', r"t\.csv:2: column 'label' holds a line break"),
    "text behind a quote": (b'video_id,label\na,"x" y\n', r"t\.csv:2: a quote .*text follows where it closes"),
    "a column twice": (b"video_id,label, label\na,x,y\n", r"'label' stands 2 times \(columns 2, 3\)"),
    "a row too long": (b"video_id,label\na,x\nb,y,z\n", r"row 3: 3 cells under 2 columns: .* needs quotes"),
    "a row too short": (b"video_id,label\na\nb,y\n", r"row 2: 1 cells under 2 columns: write empty cells"),
    "empty": (b"", r"is empty\. Write a header with the columns video_id, label"),
    "blank": (b"\xef\xbb\xbf \n\n", "is empty"),
    "two files joined": (PLAIN.encode("utf-8-sig") * 2, r"t\.csv:4: a byte-order mark stands inside"),
    "another table": (b"id,class\na,x\n", r"column 'video_id' is missing\..*There are: id, class"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("many_bytes", [0, 1 << 20], ids=["by Arrow where it can", "by csv"])
def test_refused_with_row_and_way_out(tmp_path, monkeypatch, content, message, many_bytes):
    monkeypatch.setattr(text_tables, "_MANY_BYTES", many_bytes, raising=False)
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){message}"):
        read_columns(tmp_path / "t.csv", required=["video_id", "label"])


def test_rows_have_the_number_of_their_first_line(tmp_path):
    (tmp_path / "t.csv").write_text('\nvideo_id,note,label\n\na,"two\nlines",x\nb,,y\n', encoding="utf-8")
    found = read_columns(tmp_path / "t.csv", required=["video_id", "label"])
    assert list(found.numbers) == [4, 6]
    assert found.cells["note"] == ["two\nlines", ""]


def test_a_header_alone_has_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text("video_id,label\n", encoding="utf-8")
    assert read_columns(tmp_path / "t.csv", required=["video_id"]).cells == {"video_id": [], "label": []}


@pytest.mark.parametrize("quote", ["", '"'], ids=["bare", "quoted"])
def test_a_huge_cell_is_read(tmp_path, quote):
    cell = "x" * 3_000_000
    (tmp_path / "t.csv").write_text(f"video_id,label\na,{quote}{cell}{quote}\nb,y\n", encoding="utf-8")
    assert read_columns(tmp_path / "t.csv", required=["label"]).cells["label"] == [cell, "y"]


def test_many_wrong_rows_are_counted(tmp_path):
    (tmp_path / "t.csv").write_text("video_id,label\n" + "a\n" * 500, encoding="utf-8")
    with pytest.raises(InputError, match=r"500 row\(s\) are not as the header") as error:
        read_columns(tmp_path / "t.csv", required=["label"])
    assert error.value.problems[-1] == "... and 480 more rows"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters='"\0\r\n,\ufeff'), max_size=6)] * 3),
        min_size=1,
    )
)
def test_arrow_reads_as_csv_does(tmp_path, rows):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a,b,c", *(",".join(cells) for cells in rows)]) + "\n", encoding="utf-8", newline="")
    found = []
    for many_bytes in (0, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text_tables, "_MANY_BYTES", many_bytes)
            table = read_columns(path, required=["a"])
            found.append((list(table.numbers), table.cells))
    assert found[0] == found[1]


def test_parquet_that_cannot_be_meant_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["path", "path"]), path)
    with pytest.raises(InputError, match="'path' stands 2 times"):
        read_columns(path, required=["path"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="no readable Parquet file"):
        read_columns(path, required=["path"])
    pq.write_table(pa.table({"path": pa.array([b"a.mp4"])}), path)
    assert read_columns(path, required=["path"]).cells == {"path": ["a.mp4"]}
    pq.write_table(pa.table({"path": pa.array([b"\xe9.mp4"])}), path)
    with pytest.raises(InputError, match="no readable Parquet file"):
        read_columns(path, required=["path"])


def test_parquet_is_trimmed_as_text_is(tmp_path):
    """Else ` fall` is a class of its own, and NaN, as numpy has it where nothing is known, a class called nan."""
    path = tmp_path / "t.parquet"
    labels = pa.array(np.array([1.5, np.nan]))
    pq.write_table(pa.table({" video_id": ["a ", "\tb"], "label": labels, "other": [None, " x y "], "": [1, 2]}), path)
    assert read_columns(path, required=["video_id"]).cells == {
        "video_id": ["a", "b"],
        "label": ["1.5", ""],
        "other": ["", "x y"],
    }
    pq.write_table(pa.table({"path": ["a"], "path ": ["b"]}), path)
    with pytest.raises(InputError, match="'path' stands 2 times"):
        read_columns(path, required=["path"])


@pytest.mark.parametrize("text", ["1_5", "1_000.5", "_1"])
def test_a_number_has_no_underscore(text):
    """Python would take 1_5 for 15."""
    with pytest.raises(ValueError, match=f"frame '{text}' is not a number"):
        whole_in(text, "frame")


def test_a_table_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, other = tmp_path / "t.csv", tmp_path / "other.csv"
    path.write_text(PLAIN, encoding="utf-8")
    other.write_text("video_id,label\nc,jump\n", encoding="utf-8")
    read = Path.read_bytes

    def replaced(self):
        content = read(self)
        other.replace(self)
        return content

    monkeypatch.setattr(Path, "read_bytes", replaced)
    with pytest.raises(InputError, match="changed while it was read"):
        read_columns(path, required=["label"])


def test_lists_without_a_header_are_read_by_the_same_rules(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'1.jpg,"a, b"\n\n2.jpg,c\n')
    assert read_lines(tmp_path / "t.csv") == [(1, ["1.jpg", "a, b"]), (3, ["2.jpg", "c"])]
    (tmp_path / "t.txt").write_text("grün", encoding="utf-16")
    assert read_text(tmp_path / "t.txt") == "grün"
