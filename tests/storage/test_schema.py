"""The layout number of a store, and fields that another release wrote: read or refused with a sentence, never lost."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reelwright.storage.digests import read_sealed, read_sealed_table
from reelwright.storage.errors import ConfigError, StoreError
from reelwright.storage.files import write_sealed, write_table
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes, VideoProbe
from reelwright.storage.ledger.items import ItemLedger, ItemRow, items_table
from reelwright.storage.ledger.records import (
    LAYOUT,
    OLDEST_LAYOUT,
    Record,
    check_schema,
    load_record,
    note_schema,
    older_note,
    read_records,
    write_record,
)
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store
from tests.storage.test_remote import Machines, machines

__all__ = ["machines"]
ONE, TWO = "1" * 32, "2" * 32
RECORD = Record(node="train", stage="train", key="k", spec_key="k", material={})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path)


def test_a_new_store_gets_the_number_once(store: Store) -> None:
    assert check_schema(store) is None
    note_schema(store)
    assert check_schema(store) == LAYOUT
    before = (store.root / "store.json").stat()
    note_schema(store)
    assert (store.root / "store.json").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            LAYOUT + 1,
            rf"layout {LAYOUT + 1}, of a newer release .* up to {LAYOUT}. Install a newer release",
        ),
        (
            OLDEST_LAYOUT - 1,
            rf"layout {OLDEST_LAYOUT - 1}, of an older release .* reads from {OLDEST_LAYOUT} on. Name another store",
        ),
    ],
)
def test_a_number_that_cannot_be_read_is_refused(store: Store, number: int, message: str) -> None:
    write_sealed(store.root / "store.json", {"schema": number})
    for act in (check_schema, note_schema):
        with pytest.raises(ConfigError, match=message):
            act(store)
    assert read_sealed(store.root / "store.json") == {"schema": number}


@pytest.mark.parametrize("number", [OLDEST_LAYOUT, *range(OLDEST_LAYOUT + 1, LAYOUT)])
def test_of_an_older_store_is_said_what_is_made_anew_until_it_has_the_number(store: Store, number: int) -> None:
    assert older_note(store) == ""  # there is nothing yet
    write_record(store, RECORD, project=store.root / "projects" / "p")
    if number > OLDEST_LAYOUT:  # which had no such file
        write_sealed(store.root / "store.json", {"schema": number})
    assert "settings had other names (skip, stride, " in older_note(store)
    assert "frames and fetched weights are used as they are; embeddings, runs" in older_note(store)
    note_schema(store)
    assert older_note(store) == ""


@pytest.mark.parametrize("content", ["", "{", '{"schema": 1}', "[1]"])
def test_a_number_that_is_damaged_is_refused(store: Store, content: str) -> None:
    (store.root / "store.json").write_text(content)
    with pytest.raises(StoreError, match=r"store.json is damaged \(.*\). Run `reelwright verify --repair`"):
        note_schema(store)


def test_all_machines_see_the_number_of_a_bucket(machines: Machines) -> None:
    note_schema(machines.use("one"))
    assert check_schema(machines.use("two")) == LAYOUT
    write_sealed(machines.use("newer").root / "store.json", {"schema": LAYOUT + 1})
    with pytest.raises(ConfigError, match=rf"the store file://.* has layout {LAYOUT + 1}, of a newer release"):
        check_schema(machines.use("two"))


def test_unknown_fields_of_a_record_are_kept(store: Store, tmp_path: Path) -> None:
    path, project = store.node("k") / "record.json", tmp_path / "projects" / "p"
    write_record(store, RECORD, project=project)
    write_sealed(path, {**read_sealed(path), "watts": 12, "tags": ["a"]})
    (found,) = read_records(store)
    assert found.other == {"watts": 12, "tags": ["a"]}
    write_record(store, Record(**{**asdict(RECORD), "rows": 5}), project=project)
    written = read_sealed(path)
    assert (written["rows"], written["watts"], written["tags"]) == (5, 12, ["a"])
    assert "other" not in written
    write_sealed(path, {"node": "train"})
    with pytest.raises(StoreError, match=r"record.json is damaged \(not a record of ours: .*missing"):
        load_record(path)


def test_unknown_columns_of_a_ledger_are_kept(store: Store) -> None:
    folder = store.node("k")
    ledger = ItemLedger(folder)
    newer = items_table([{**asdict(ItemRow(digest=name, status="ok", rows=3)), "watts": 1.5} for name in (ONE, TWO)])
    write_table(folder / "items.parquet", newer)
    assert ledger.load()[ONE] == ItemRow(digest=ONE, status="ok", rows=3)
    ledger.fold([ItemRow(digest=TWO, status="failed")])
    mark = {**asdict(ItemRow(digest="3" * 32, status="ok")), "place": "here"}
    write_sealed(folder / "items" / f"{'3' * 32}.json", mark)
    ledger.compact()
    table = read_sealed_table(folder / "items.parquet").to_pydict()
    assert table["watts"] == [1.5, None, None]
    assert table["place"] == [None, None, "here"]
    assert table["status"] == ["ok", "failed", "ok"]
    ledger.drop([TWO])
    assert read_sealed_table(folder / "items.parquet").to_pydict()["watts"] == [1.5, None]


def test_what_only_rows_of_made_videos_say_is_in_no_other_ledger(store: Store) -> None:
    ledger = ItemLedger(store.node(ONE))
    table = store.node(ONE) / "items.parquet"
    ledger.commit(ItemRow(digest=ONE, status="ok", rows=3))
    ledger.compact()
    assert not {"name", "file", "content"} & set(pq.read_schema(table).names)
    made = ItemRow(digest=TWO, status="ok", rows=3, name="a/1", file="a/1.mp4", content="c")
    ledger.commit(made)
    ledger.compact()
    assert ItemLedger(store.node(ONE)).load() == {ONE: ItemRow(digest=ONE, status="ok", rows=3), TWO: made}
    ledger.drop([TWO])
    assert ItemLedger(store.node(ONE)).load() == {ONE: ItemRow(digest=ONE, status="ok", rows=3)}


def test_columns_that_an_older_ledger_lacks_are_as_by_default(store: Store) -> None:
    folder = store.node("k")
    write_table(folder / "items.parquet", pa.table({"digest": [ONE], "status": ["ok"]}))
    ledger = ItemLedger(folder)
    ledger.commit(ItemRow(digest=TWO, status="ok", rows=2))
    ledger.compact()
    assert ledger.load() == {
        ONE: ItemRow(digest=ONE, status="ok"),
        TWO: ItemRow(digest=TWO, status="ok", rows=2),
    }


def test_unknown_columns_of_probes_and_files_are_kept(store: Store, tmp_path: Path) -> None:
    probes = KnownProbes(store.videos)
    probes.add({ONE: VideoProbe(ONE, fps=25.0), TWO: VideoProbe(TWO)})
    columns = read_sealed(store.videos)["columns"]
    write_sealed(store.videos, {"columns": {**columns, "colour": ["bt709", "bt601"]}})
    probes.add({TWO: VideoProbe(TWO, fps=5.0), "3" * 32: VideoProbe("3" * 32)})
    assert [probe.fps for probe in probes.load().values()] == [25.0, 5.0, 0.0]
    assert read_sealed(store.videos)["columns"]["colour"] == ["bt709", None, None]
    (tmp_path / "a.mp4").write_bytes(b"a")
    known = KnownFiles(store.files)
    known.digest(tmp_path / "a.mp4")
    known.save()
    columns = read_sealed(store.files)["columns"]
    write_sealed(store.files, {"columns": {**columns, "host": ["h"]}})
    (tmp_path / "b.mp4").write_bytes(b"b")
    again = KnownFiles(store.files)
    again.digest(tmp_path / "b.mp4")
    again.save()
    assert read_sealed(store.files)["columns"]["host"] == ["h", None]
    assert set(KnownFiles(store.files).entries) == {str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")}


def test_unknown_settings_of_a_run_are_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_config({"task": "per_row", "classes": ["a"]})
    (tmp_path / "config.yaml").write_text((tmp_path / "config.yaml").read_text() + "watts: 12\n")
    run.write_config({"task": "video", "classes": ["a", "b"]})
    assert run.config() == {"task": "video", "classes": ["a", "b"], "watts": 12}
    (tmp_path / "config.yaml").write_text("classes: [a\n")
    run.write_config({"task": "video"})
    assert run.config() == {"task": "video"}


def test_an_altered_digit_is_damage(store: Store) -> None:
    write_record(store, Record(**{**asdict(RECORD), "rows": 5}), project=store.root / "projects")
    path = store.node("k") / "record.json"
    path.write_text(path.read_text().replace('"rows": 5', '"rows": 6'))
    assert json.loads(path.read_text())["rows"] == 6
    with pytest.raises(StoreError, match="its bytes are not those that were written"):
        load_record(path)
