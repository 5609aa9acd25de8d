"""Outputs kept beside scores, in a pipeline: their key, verify and repair, gc, buckets, workers, reading."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from reelwright.pipeline.inspect.export import ExportRequest, export_node
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.results import NodeResult
from reelwright.pipeline.upkeep.gc import Limits, collect
from reelwright.pipeline.upkeep.repair import repair
from reelwright.pipeline.upkeep.verify import verify
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.errors import ConfigError
from tests.pipeline.test_verify import flip
from tests.slow.buckets import BUCKET, Bucket, Machine, serving
from tests.small_project import PIPELINE, put_back, read_rows, write_rows
from tests.storage.test_remote import Machines, machines

__all__ = ["machines"]


@pytest.fixture(scope="session")
def keeping(restorable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project, whose predict node keeps an output; read only."""
    put_back(restorable)
    folder = tmp_path_factory.mktemp("keeping") / "project"
    shutil.copytree(restorable, folder, ignore=shutil.ignore_patterns("*.mp4", "pristine"))
    text = (folder / "reelwright.yaml").read_text().replace("run: train}", "run: train, keep: [logits]}")
    (folder / "reelwright.yaml").write_text(text)
    project = Project.open(folder / "reelwright.yaml")
    project.file.store.project(restorable / "reelwright.yaml").rename(project.file.store.project(project.file.path))
    assert did(project.run().nodes) == {"predict": 5, "scores": 0}
    shutil.copytree(folder / ".reelwright", folder / "pristine")
    return folder


@pytest.fixture
def project(keeping: Path) -> Project:
    return put_back(keeping)


def did(results: tuple[NodeResult, ...]) -> dict[str, int]:
    return {result.node: result.num_done for result in results if result.state != "up to date"}


def group_of(project: Project) -> Path:
    return project.file.store.attention(project.planner().plan("predict").spec_key)


def digest_of(project: Project, video_id: str) -> str:
    digest = project.planner().dataset.digests[video_id]
    assert digest is not None
    return digest


def test_it_is_read_by_video_beside_the_tables(project: Project) -> None:
    kept = project.attention("predict")
    assert sorted(kept) == ["a", "b", "c", "d", "e"]
    windows = project.predictions("predict").windows().to_pandas()
    for name, outputs in kept.items():
        mine = windows[windows.video_id == name]
        assert outputs.num_windows == len(mine)
        assert outputs.spans.start_seconds.tolist() == mine.start_seconds.tolist()
        assert outputs.places.row[:, 0].tolist() == mine.start_row.tolist()
        logits = outputs.output("logits")[:, -1]
        scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(scores, np.stack(mine.scores), atol=1e-5)
    extra = project.predictions("predict").info.extra
    assert project.file.store.root / extra["kept"] == group_of(project)
    with pytest.raises(ConfigError, match="node 'train' makes run, not attention; these do: predict"):
        project.attention("train")


def test_it_is_exported_a_file_a_video(project: Project, tmp_path: Path) -> None:
    request = ExportRequest(node="predict", form="npz", folder=tmp_path / "out", splits=("test",))
    assert export_node(project, request) == 2
    assert [row["video_id"] for row in read_rows(tmp_path / "out" / "manifest.csv")] == ["d", "e"]
    kept = project.attention("predict")["d"]
    with np.load(tmp_path / "out" / "d.npz") as found:
        assert sorted(found) == ["logits", "row", "row_seconds", "row_source", "start_seconds", "stop_seconds"]
        np.testing.assert_array_equal(found["logits"], kept.output("logits"))
        np.testing.assert_array_equal(found["row_seconds"], kept.places.row_seconds)
    before = (tmp_path / "out" / "d.npz").read_bytes()
    export_node(project, request)
    assert (tmp_path / "out" / "d.npz").read_bytes() == before
    plain = Project.open(project.file.path, overrides=["predict.keep=[]"])
    with pytest.raises(
        ConfigError, match=r"predict makes predictions; npz is made of attention. Forms: mstcn, activitynet"
    ):
        export_node(plain, request)


@pytest.mark.slow
def test_a_pipeline_keeps_the_attention_of_a_branch_over_stored_maps(folder: Path) -> None:
    text = PIPELINE.replace("weights: none,", "weights: none, outputs: [map],").replace(
        "window: {length: 4, hop: 2}", "window: {length: 4, hop: 2}\n    output: map"
    )
    text = text.replace("{name: linear}", "{name: attention_branch, width: 8, layers: 1}")
    (folder / "reelwright.yaml").write_text(text.replace("run: train}", "run: train, keep: [attention]}"))
    project = Project.open(folder / "reelwright.yaml")
    assert project.run().exit_code == 0
    outputs = project.attention("predict")["d"]
    windows = len(project.predictions("predict").windows().to_pandas().query("video_id == 'd'"))
    rows = project.embeddings("embed")["d"].row_shape("map")
    assert outputs.output("attention.space").shape == (windows, 4, *rows[1:])
    assert min(rows[1:]) > 1
    assert outputs.output("attention.time").shape == (windows, 4)
    assert verify(project.file, whole=True).problems == ()
    wrong = Project.open(folder / "reelwright.yaml", overrides=["predict.keep=[attention.spaces]"])
    with pytest.raises(
        ConfigError, match=r"unknown output 'attention.spaces'; allowed: attention.space, attention.time"
    ):
        wrong.planner()


def test_only_what_is_kept_is_another_key(project: Project) -> None:
    """Without it the scores of before are there still, and what follows from them."""
    plain = Project.open(project.file.path, overrides=["predict.keep=[]"])
    assert plain.planner().plan("predict").spec_key != project.planner().plan("predict").spec_key
    assert plain.run().nothing_to_do
    same = Project.open(project.file.path, overrides=["predict.keep=[logits,logits]"])
    assert same.run().nothing_to_do
    assert project.run().nothing_to_do


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*/logits/c/0/0/0", 1), ("*/row/zarr.json", 1), ("*/zarr.json", 1), ("zarr.json", 0)],
    ids=["a chunk", "an array's zarr.json", "a video's zarr.json", "attributes of the spec"],
)
def test_a_flipped_byte_is_named_and_repaired(project: Project, pattern: str, expected: int) -> None:
    path = min(group_of(project).glob(pattern))
    flip(path)
    found = [problem for problem in verify(project.file).problems if problem.is_wrong]
    assert [(problem.path, problem.kind) for problem in found] == [(path, "altered")]
    assert verify(project.file, whole=True).problems == tuple(found)
    repaired = repair(project.file, SilentObserver())
    assert did(repaired.results) == {"predict": expected}
    assert repaired.problems == verify(project.file, whole=True).problems == ()
    assert project.run().nothing_to_do


@pytest.mark.parametrize("name", ["*-*", ""], ids=["a video", "all"])
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_gone_is_named_and_made_again(project: Project, name: str, whole: bool) -> None:
    group = group_of(project)
    gone = group / digest_of(project, "b") if name else group
    shutil.rmtree(gone)
    found = verify(project.file, whole=whole).problems
    assert {problem.kind for problem in found} == {"missing"}
    assert all(problem.path.is_relative_to(gone) for problem in found)
    assert len(found) == len(set(found)) == (1 if name else 5 if whole else 6)
    count = 1 if name else 5
    assert len(project.planner().plan("predict").todo) == count
    assert did(repair(project.file, SilentObserver(), whole=whole).results) == {"predict": count}
    assert verify(project.file, whole=True).problems == ()


def test_a_ledger_is_listed_again_without_what_is_broken_beside_the_scores(project: Project) -> None:
    ledger = project.file.store.node(project.planner().plan("predict").spec_key) / "items.parquet"
    flip(ledger)
    assert did(repair(project.file, SilentObserver()).results) == {}
    flip(ledger)
    shard = group_of(project) / digest_of(project, "b") / "logits/c/0/0/0"
    flip(shard)
    repaired = repair(project.file, SilentObserver())
    assert did(repaired.results) == {"predict": 1}
    assert repaired.problems == verify(project.file, whole=True).problems == ()


def test_gc_takes_it_with_the_setting_and_with_the_video(project: Project) -> None:
    group, now = group_of(project), Limits(guard_seconds=0.0)
    collect([project.file], SilentObserver(), limits=now)  # the scores of before
    assert len(list(group.iterdir())) == 6
    assert project.run().nothing_to_do
    rows = read_rows(project.file.path.parent / "videos.csv")
    gone = digest_of(project, "e")
    try:
        write_rows(project.file.path.parent / "videos.csv", rows[:-1])
        collect([Project.open(project.file.path).file], SilentObserver(), limits=now)
        assert {path.name for path in group.iterdir()} == {digest_of(project, name) for name in "abcd"} | {"zarr.json"}
        assert not (group / gone).exists()
    finally:
        write_rows(project.file.path.parent / "videos.csv", rows)
    plain = Project.open(project.file.path, overrides=["predict.keep=[]"])
    collect([plain.file], SilentObserver(), limits=now)
    assert not group.exists()


def test_an_output_that_the_model_does_not_give_is_refused_before_any_work(folder: Path) -> None:
    message = r"stages\.predict: keep: unknown output 'logit'; allowed: logits; did you mean 'logits'\?"
    with pytest.raises(ConfigError, match=message):
        Project.open(folder / "reelwright.yaml", overrides=["predict.keep=[logit]"]).run()
    tuned = "  tune: {uses: finetune, frames: frames, spatial: embed, temporal: train}\n"
    (folder / "reelwright.yaml").write_text(PIPELINE.replace("run: train}", "run: tune, keep: [logit]}") + tuned)
    with pytest.raises(ConfigError, match=message):
        Project.open(folder / "reelwright.yaml").planner()
    assert not (folder / ".reelwright").exists()


@pytest.mark.slow
def test_a_bucket_holds_it_and_another_machine_reads_it(finished: Path, tmp_path: Path, machines: Machines) -> None:
    text = PIPELINE.replace("manifest: videos.csv", f"manifest: videos.csv, root: {finished}")
    for name in ("videos.csv", "segments.csv"):
        shutil.copy(finished / name, tmp_path)
    text = text.replace("run: train}", "run: train, keep: [logits]}")
    (tmp_path / "reelwright.yaml").write_text(f"store: {machines.url}\n{text}")
    machines.use("one")
    assert Project.open(tmp_path / "reelwright.yaml").run(until=["predict"]).exit_code == 0
    machines.use("two")
    other = Project.open(tmp_path / "reelwright.yaml")
    assert other.run(until=["predict"]).nothing_to_do
    assert other.attention("predict")["d"].output("logits").shape == (7, 4, 2)
    assert verify(other.file).problems == ()
    key, gone = other.planner().plan("predict").spec_key, digest_of(other, "d")
    shutil.rmtree(machines.bucket / "attention" / f"{key}.zarr" / gone)
    assert [problem.path.parent.name for problem in verify(other.file).problems] == [gone]
    machines.use("three")
    assert did(Project.open(tmp_path / "reelwright.yaml").run(until=["predict"]).nodes) == {"predict": 1}
    assert verify(other.file).problems == ()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_object_store_is_repaired(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("videos.csv", "segments.csv"):
        shutil.copy(finished / name, folder)
    text = PIPELINE.replace("manifest: videos.csv", f"manifest: videos.csv, root: {finished}")
    with serving("s3") as server:
        store = f"s3://{BUCKET}/kept"
        text = text.replace("run: train}", "run: train, keep: [logits]}")
        (folder / "reelwright.yaml").write_text(f"store: {store}\n{text}")
        one, two = (Machine(server, tmp_path / name, folder) for name in ("one", "two"))
        one.done("run")
        bucket = Bucket(server, store, folder, tmp_path)
        shard = min(name for name in bucket.names() if name.startswith("attention/") and "/logits/c/" in name)
        whole = bucket.content(shard)
        bucket.files.pipe_file(f"{store}/{shard}", whole[:9] + bytes([whole[9] ^ 1]) + whole[10:])
        message = one.done("verify", "--repair")
        assert "nothing is wrong any more" in message
        assert bucket.content(shard) == whole
        assert "nothing to do: all 5 nodes are up to date" in two.done("run")
        assert "nothing is wrong" in two.done("verify")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of distributed
def test_workers_of_a_cluster_write_the_same(project: Project) -> None:
    group = group_of(project)
    before = {
        digest: WindowOutputStore(group).rows(digest).output("logits") for digest in WindowOutputStore(group).digests()
    }
    shutil.rmtree(group)
    result = project.run(cluster={"executor": "dask", "workers": 2})
    assert did(result.nodes) == {"predict": 5}
    after = WindowOutputStore(group)
    assert after.digests() == sorted(before)
    for digest, logits in before.items():
        np.testing.assert_allclose(after.rows(digest).output("logits"), logits, atol=1e-5)
    assert verify(project.file, whole=True).problems == ()
