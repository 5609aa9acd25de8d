"""Output kinds: one table, which every stage and all that handles stored outputs go by."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

import pytest

from reelwright.stages.base.registry import STAGES, config_model
from reelwright.storage.integrity.check import check_items
from reelwright.storage.kinds import GROUPED, KINDS, RECORDED, WITH_ITEMS
from reelwright.storage.store import Store

KEY = "0" * 32


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_makes_is_in_the_table(stage: str) -> None:
    model = config_model(stage, where="test")
    kind = KINDS[model.produces]
    assert kind.is_rows == (model.kind == "items" and not model.publishes)
    assert bool(kind.check) == (model.kind == "items")
    assert (model.kind == "run") == (model.produces == "run")


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_says_where_it_lies_and_how_it_is_read_and_checked(name: str, tmp_path: Path) -> None:
    kind, store = KINDS[name], Store.at(tmp_path)
    place = store.output(name, KEY)
    assert place.relative_to(tmp_path).parts[0] == kind.folder
    assert place.name == KEY + kind.ending
    assert callable(resolve_name(kind.reader))
    assert not kind.check or list(check_items(kind, place, {}, None)) == []


def test_each_kind_has_a_folder_of_its_own() -> None:
    folders = [*GROUPED, *RECORDED]
    assert sorted(folders) == sorted({kind.folder for kind in KINDS.values()})
    assert len(folders) == len(KINDS)
    assert set(WITH_ITEMS) == {"frames", "embeddings", "predictions", "attention"}
