"""verify and repair: one byte flipped in each kind of stored file is named, and mended without doing more again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.results import NodeResult
from reelwright.pipeline.upkeep.repair import repair
from reelwright.pipeline.upkeep.verify import verify
from reelwright.storage.files import folder_bytes
from tests.small_project import put_back


@pytest.fixture
def project(restorable: Path) -> Project:
    return put_back(restorable)


def one(project: Project, pattern: str) -> Path:
    return min(project.file.store.root.glob(pattern))


def record_of(node: str) -> Callable[[Project], Path]:
    return lambda project: project.file.store.node(project.planner().plan(node).key) / "record.json"


def ledger_of(node: str) -> Callable[[Project], Path]:
    return lambda project: project.file.store.node(project.planner().plan(node).spec_key) / "items.parquet"


def at(pattern: str) -> Callable[[Project], Path]:
    return lambda project: one(project, pattern)


def flip(path: Path, *, share: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int((len(content) - 1) * share)] ^= 1
    path.write_bytes(content)


def did(results: tuple[NodeResult, ...]) -> dict[str, int]:
    return {result.node: result.num_done for result in results}


# What is flipped -> nodes that run again, and how many videos they do.
KINDS: dict[str, tuple[Callable[[Project], Path], dict[str, int]]] = {
    "frames, a chunk": (at("frames/*.zarr/*/frame/c/0/0/0/0"), {"frames": 1}),
    "frames, times": (at("frames/*.zarr/*/pts_seconds/c/0"), {"frames": 1}),
    "frames, attributes of the spec": (at("frames/*.zarr/zarr.json"), {"frames": 0}),
    "embeddings, a chunk": (at("embeddings/*.zarr/*/pooled/c/0/0"), {"embed": 1}),
    "embeddings, an array's zarr.json": (at("embeddings/*.zarr/*/pooled/zarr.json"), {"embed": 1}),
    "embeddings, a video's zarr.json": (at("embeddings/*.zarr/*/zarr.json"), {"embed": 1}),
    "embeddings, attributes of the spec": (at("embeddings/*.zarr/zarr.json"), {"embed": 0}),
    "scores of a video": (at("predictions/*/*.rows.parquet"), {"predict": 1}),
    "published table": (at("predictions/*/windows.parquet"), {"predict": 0}),
    "record of a run": (record_of("train"), {}),
    "record of items": (record_of("embed"), {}),
    "ledger of embeddings": (ledger_of("embed"), {}),
    "ledger of scores": (ledger_of("predict"), {}),
    "samples of a run": (at("nodes/*/samples.json"), {}),
    "weights of a run": (at("runs/*/model.safetensors"), {"train": 0}),
    "settings of a run": (at("runs/*/config.yaml"), {"train": 0}),
    "metrics of a run": (at("runs/*/metrics.jsonl"), {"train": 0}),
    "events of a run": (at("runs/*/events*"), {}),
    "checkpoint, best": (at("runs/*/checkpoints/best-*.safetensors"), {}),
    "checkpoint, last": (at("runs/*/checkpoints/last/state.pt"), {}),
    "metrics of a report": (at("reports/*/metrics.json"), {"scores": 0}),
    "report": (at("reports/*/report.html"), {"scores": 0}),
    "copy of a record": (at("projects/*/train.json"), {}),
    "digests of files": (at("files.json"), {}),
    "probes of videos": (at("videos.json"), {}),
    "layout of the store": (at("store.json"), {}),
}


def stored(root: Path) -> list[Path]:
    """All files of a store but lock files, which say for a moment who works, and frame indexes, a cache with CRCs."""
    left_out = {"locks", "frame_index"}
    return [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] not in left_out]


def test_a_finished_store_is_whole_and_every_kind_of_file_is_in_the_table(project: Project) -> None:
    assert verify(project.file).problems == verify(project.file, whole=True).problems == ()
    root = project.file.store.root
    areas = {path.relative_to(root).parts[0] for path in stored(root)}
    assert areas == {choose(project).relative_to(root).parts[0] for choose, _ in KINDS.values()}


# One of each area; the others with the slow tests.
QUICK = {
    "frames, a chunk",
    "embeddings, a chunk",
    "scores of a video",
    "record of a run",
    "ledger of embeddings",
    "weights of a run",
    "report",
    "probes of videos",
}


@pytest.mark.parametrize(
    ("choose", "expected"),
    [pytest.param(*values, id=name, marks=[] if name in QUICK else pytest.mark.slow) for name, values in KINDS.items()],
)
def test_a_flipped_byte_is_named_and_mended(
    project: Project, choose: Callable[[Project], Path], expected: dict[str, int]
) -> None:
    path = choose(project)
    weights = project.record("train").outputs["weights"]
    flip(path)
    found = [problem for problem in verify(project.file).problems if problem.is_wrong]
    assert [(problem.path, problem.kind) for problem in found] == [(path, "altered")]
    mended = repair(project.file, SilentObserver())
    assert did(mended.results) == expected
    assert mended.problems == verify(project.file, whole=True).problems == ()
    assert project.run().nothing_to_do
    assert project.record("train").outputs["weights"] == weights


@pytest.mark.slow
def test_the_first_and_the_last_byte_count_too(project: Project) -> None:
    """Of one file of each kind; names differ by keys and numbers."""
    root = project.file.store.root
    kinds = {re.sub("[0-9a-f]{32}|[0-9]+", "*", str(path)): path for path in stored(root)}
    assert len(kinds) > len(KINDS)
    for path in kinds.values():
        for share in (0.0, 1.0):
            flip(path, share=share)
        assert path in [problem.path for problem in verify(project.file, whole=True).problems if problem.is_wrong]
        for share in (0.0, 1.0):
            flip(path, share=share)
    assert verify(project.file, whole=True).problems == ()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("frames/*.zarr/*/source_frame/c/0", {"frames": 1}),
        ("embeddings/*.zarr/*", {"embed": 1}),
        ("predictions/*/*.rows.parquet", {"predict": 1}),
        ("runs/*/model.safetensors", {"train": 0}),
    ],
    ids=["shard", "item", "scores", "weights"],
)
def test_what_is_missing_or_cut_is_named_so(project: Project, pattern: str, expected: dict[str, int]) -> None:
    path = one(project, pattern)
    if path.is_file():
        path.write_bytes(path.read_bytes()[: folder_bytes(path) // 2])
        assert [(problem.path, problem.kind) for problem in verify(project.file, whole=True).problems] == [
            (path, "truncated")
        ]
        path.unlink()
    else:
        shutil.rmtree(path)
    found = verify(project.file, whole=True).problems
    assert [problem.kind for problem in found] == ["missing"]
    assert found[0].path.is_relative_to(path)
    assert did(repair(project.file, SilentObserver()).results) == expected
    assert verify(project.file, whole=True).problems == ()


def test_leftovers_are_no_errors_and_foreign_files_stay(project: Project) -> None:
    root = project.file.store.root
    leftovers = [root / ".tmp-1-x", one(project, "embeddings/*.zarr") / ".partial-0", root / "runs" / ("0" * 32)]
    for path in leftovers:
        path.mkdir()
    report = verify(project.file, whole=True)
    assert {problem.path: problem.kind for problem in report.problems} == dict.fromkeys(leftovers, "leftover")
    assert report.is_whole
    (run,) = set(root.glob("runs/*")) - set(leftovers)
    foreign = run / "notes.txt"
    foreign.write_text("mine")
    assert [(problem.path, problem.kind) for problem in verify(project.file).problems if problem.is_wrong] == [
        (foreign, "foreign")
    ]
    mended = repair(project.file, SilentObserver())
    assert [problem.path for problem in mended.problems] == [foreign]
    assert foreign.read_text() == "mine"


@pytest.mark.slow
def test_repair_leaves_what_is_stale_for_another_reason(project: Project) -> None:
    changed = Project.open(project.file.path, overrides=["train.epochs=3"])
    path = one(changed, "embeddings/*.zarr/*/pooled/c/0/0")
    flip(path)
    assert [problem.path for problem in verify(changed.file).problems] == [path]
    mended = repair(changed.file, SilentObserver())
    assert (did(mended.results), mended.problems) == ({"embed": 1}, ())
    assert changed.planner().plan("train").state == "stale"
    assert verify(project.file, whole=True).problems == ()


def test_damage_that_keeps_the_pipeline_from_being_planned(project: Project) -> None:
    """Several broken at once: the whole store is looked at, and all is mended."""
    paths = [choose(project) for choose in (record_of("train"), ledger_of("frames"), at("reports/*/report.html"))]
    for path in paths[:2]:
        path.write_bytes(path.read_bytes()[:-9])
    flip(paths[2])
    report = verify(project.file)
    assert "cannot be planned" in report.note
    assert {problem.path: problem.kind for problem in report.problems if problem.is_wrong} == dict(
        zip(paths, ("truncated", "truncated", "altered"), strict=True)
    )
    assert did(repair(project.file, SilentObserver()).results) == {"scores": 0}
    assert project.run().nothing_to_do
