"""How often a run plans each node, and reads its ledger and the table of files; and that it sees what others do."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.pipeline.plan.graph import NodePlan
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run import nodes
from reelwright.pipeline.run.work_units import build_work
from reelwright.storage.digests import file_digest
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.items import ItemLedger
from tests.small_project import write_rows

PIPELINE = """
videos: {features: rows, split: test}
labels: {segments: segments.csv}
stages:
  rows: {uses: features, fps: 1}
  scores: {uses: import_predictions, embeddings: rows}
"""
WITH_WEIGHTS = """stages:
  frames: {uses: decode, fps: 1}
  embed: {uses: embed, frames: frames, encoder: timm/resnet10t, weights: encoder.safetensors}"""
NAMES = ("a", "b", "c")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows of three videos, and what takes them as scores."""
    (tmp_path / "rows").mkdir()
    for name in NAMES:
        np.save(tmp_path / "rows" / f"{name}.npy", np.full((4, 2), ord(name) / 200, dtype=np.float32))
    segments = [
        {"video_id": name, "start_seconds": 2 * place, "stop_seconds": 2 * place + 2, "label": label}
        for name in NAMES
        for place, label in enumerate(("one", "two"))
    ]
    write_rows(tmp_path / "segments.csv", segments)
    (tmp_path / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Plans by node, ledgers that are read, and tables of files that are read."""
    counts: Counter[str] = Counter()

    def count(owner: type, method: str, name: Callable[..., str]) -> None:
        before = getattr(owner, method)

        def wrapped(*given: object, **named: object) -> object:
            counts[name(*given)] += 1
            return before(*given, **named)

        monkeypatch.setattr(owner, method, wrapped)

    count(Planner, "_plan", lambda _, node, *__: f"plan {node.name}")
    count(Planner, "_checked", lambda _, plan, *__: f"look at {plan.node.name}")
    count(ItemLedger, "load", lambda *_: "ledgers")
    count(KnownFiles, "__init__", lambda *_: "tables of files")
    return counts


class Meanwhile(SilentObserver):
    """Does something once the plan is known, before anything runs, as another process may."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action

    def planned(self, plans: Sequence[NodePlan]) -> None:
        """Do it."""
        del plans
        self._action()


def opened(folder: Path) -> Project:
    return Project.open(folder / "reelwright.yaml")


def states(folder: Path, **options: object) -> dict[str, str]:
    return {node.node: node.state for node in opened(folder).run(**options).nodes}


def test_each_node_is_planned_once_where_nothing_is_to_do(folder: Path, counted: Counter[str]) -> None:
    """Cold: the store is looked at before anything runs, alone under the node's lock, and when its work is done."""
    assert states(folder) == {"rows": "ran", "scores": "ran"}
    plans = {"plan rows": 1, "plan scores": 1}
    assert counted == {**plans, "look at rows": 3, "look at scores": 3, "ledgers": 6, "tables of files": 1}
    counted.clear()
    assert states(folder) == {"rows": "up to date", "scores": "up to date"}
    assert counted == {**plans, "look at rows": 1, "look at scores": 1, "tables of files": 1}


def test_units_of_work_know_the_digests_of_files_that_their_inputs_name(folder: Path) -> None:
    (folder / "encoder.safetensors").write_bytes(b"one")
    train = "  train: {uses: train, embeddings: [embed], val_splits: []}"
    (folder / "reelwright.yaml").write_text(f"{PIPELINE.replace('stages:', WITH_WEIGHTS)}{train}", encoding="utf-8")
    planner = opened(folder).planner()
    (embed,) = build_work(planner, planner.plan("train")).inputs["embeddings"]
    assert embed.files == {"weights": file_digest(folder / "encoder.safetensors")}


def test_a_file_that_enters_a_key_is_read_again_where_it_was_written_since(folder: Path) -> None:
    weights = folder / "encoder.safetensors"
    weights.write_bytes(b"one")
    (folder / "reelwright.yaml").write_text(PIPELINE.replace("stages:", WITH_WEIGHTS), encoding="utf-8")
    planner = opened(folder).planner()
    keys = [planner.plan("embed").spec_key, planner.renew("embed").spec_key]
    weights.write_bytes(b"another")
    keys.append(planner.renew("embed").spec_key)
    assert keys[0] == keys[1] != keys[2]


def test_a_run_with_nothing_to_do_tells_nobody_what_it_uses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("others were told")

    opened(folder).run()
    monkeypatch.setattr(nodes, "using", never)
    assert set(states(folder).values()) == {"up to date"}
    with pytest.raises(AssertionError, match="others were told"):
        states(folder, force=["rows"])


class WorkBeginsError(Exception):
    """Whatever work needs is asked for."""


@pytest.fixture
def idle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project when all is up to date; whatever work needs may not be asked for."""
    opened(folder).run()

    def never(*_: object, **__: object) -> None:
        raise WorkBeginsError

    monkeypatch.setattr(nodes, "run_nodes", never)
    return folder


def test_a_run_with_nothing_to_do_asks_for_nothing_that_work_needs(idle: Path) -> None:
    result = opened(idle).run()
    assert (result.nothing_to_do, result.failures, result.exit_code) == (True, (), 0)
    assert [(node.node, node.num_items) for node in result.nodes] == [("rows", 3), ("scores", 3)]
    assert list(states(idle, until=["rows"])) == ["rows"]


@pytest.mark.parametrize(
    "options",
    [{"force": "rows"}, {"frozen": True}, {"cluster": {"executor": "local"}}, {"only": "scores", "force": ["scores"]}],
    ids=str,
)
def test_what_is_asked_for_is_looked_at_though_nothing_is_to_do(idle: Path, options: dict[str, Any]) -> None:
    with pytest.raises(WorkBeginsError):
        states(idle, **options)


@pytest.mark.parametrize("what", ["video", "video changed", "rows gone", "group gone", "record gone", "setting"])
def test_whatever_is_not_as_it_was_is_work(idle: Path, what: str) -> None:
    project = opened(idle)
    plan = project.planner().plan("rows")
    group = project.file.store.embeddings(plan.spec_key)
    match what:
        case "video":
            np.save(idle / "rows" / "d.npy", np.zeros((4, 2), dtype=np.float32))
        case "video changed":
            np.save(idle / "rows" / "a.npy", np.zeros((5, 2), dtype=np.float32))
        case "rows gone":
            shutil.rmtree(group / plan.wanted[0].digest)
        case "group gone":
            (group / "zarr.json").unlink()
        case "record gone":
            (project.file.store.node(plan.key) / "record.json").unlink()
        case "setting":
            (idle / "reelwright.yaml").write_text(PIPELINE.replace("fps: 1", "fps: 2"), encoding="utf-8")
    with pytest.raises(WorkBeginsError):
        states(idle)


def test_a_node_is_planned_again_where_what_it_reads_came_out_otherwise(folder: Path, counted: Counter[str]) -> None:
    """A file that cannot be read is left out of the set of videos that its reader was planned with."""
    (folder / "rows" / "b.npy").write_bytes(b"no array")
    result = opened(folder).run()
    assert {node.node: node.num_items for node in result.nodes} == {"rows": 3, "scores": 2}
    assert (counted["plan rows"], counted["plan scores"]) == (1, 2)


def test_what_another_run_did_since_the_plan_was_made_is_not_done_again(folder: Path) -> None:
    other = Meanwhile(lambda: opened(folder).run())
    assert states(folder, observer=other) == {"rows": "up to date", "scores": "up to date"}


def test_what_went_since_the_plan_was_made_is_not_taken_for_there(folder: Path) -> None:
    """As by `gc`, before it knew that a run uses it."""
    project = opened(folder)
    project.run(until=["rows"])
    plan = project.planner().plan("rows")

    def remove() -> None:
        shutil.rmtree(project.file.store.embeddings(plan.spec_key))
        for key in {plan.key, plan.spec_key}:
            shutil.rmtree(project.file.store.node(key), ignore_errors=True)

    result = opened(folder).run(observer=Meanwhile(remove))
    assert [(node.state, node.message) for node in result.nodes] == [
        ("up to date", ""),
        ("failed", "rows is not complete. Run it with --until scores"),
    ]
    assert states(folder) == {"rows": "ran", "scores": "ran"}
