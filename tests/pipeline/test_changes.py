"""What each single change makes run again: nodes, and videos of each. The tables were written by hand, before any run.

From DESIGN 4: what changes the output of a node is in its key, and nothing else; sources enter by content, derived
things by the key they were made with; a run depends on the set of (content, targets), not on names or order.
Published predictions carry names, splits and targets, so a change of these writes the tables anew and scores no video.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelwright.pipeline.plan.graph import FRESH, WAITING
from reelwright.pipeline.plan.why import explain_video
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.runner import RunResult, open_planner
from reelwright.stages.train.config import TrainConfig
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from tests.pipeline.changes import EDITS, Scene, restore, write_changeable

Ran = dict[str, int]  # nodes that run -> videos they do; 0 for those that are not per video

NOTHING: Ran = {}
SCORES: Ran = {"scores": 0}
PUBLISH: Ran = {"predict": 0, **SCORES}  # new tables of scores that are there
PREDICT: Ran = {"predict": 5, **SCORES}
TRAIN: Ran = {"train": 0, **PREDICT}
EMBED: Ran = {"embed": 5, **TRAIN}
ALL: Ran = {"frames": 5, **EMBED}

# Five videos: a, b, c for training, d, e for testing. A setting, as it is given with -S.
SETTINGS: dict[str, Ran] = {
    # decode
    "frames.fps=2.5": ALL,
    "frames.short_side=32": ALL,
    "frames.interpolation=nearest": ALL,
    "frames.crop=[0,0,48,48]": ALL,
    "frames.stop=1.6": ALL,
    "frames.backend=pyav": ALL,
    "frames.codec=jpeg": ALL,
    "frames.workers=2": NOTHING,
    "frames.timeout_seconds=30": NOTHING,
    "frames.materialize=false": NOTHING,
    # embed
    "embed.outputs=[pooled,map]": EMBED,
    "embed.precision=bf16": EMBED,
    "embed.dtype=float32": EMBED,
    "embed.preprocess.size=[32,32]": EMBED,
    "embed.weights=none": EMBED,
    "embed.batch_size=2": NOTHING,
    "embed.device=cpu": NOTHING,
    "embed.channels_last=true": NOTHING,
    "embed.compile=true": NOTHING,
    "embed.deterministic=true": NOTHING,
    "train.deterministic=true": NOTHING,
    "predict.deterministic=true": NOTHING,
    "embed.codec=zstd": NOTHING,
    "embed.chunk_bytes=4096": NOTHING,
    "embed.shard_rows=4": NOTHING,
    # train
    "train.window.length=3": TRAIN,
    "train.window.hop=1": TRAIN,
    "train.window.dilation=2": TRAIN,
    "train.window.to_end=false": TRAIN,
    "train.window.short=repeat": TRAIN,
    "train.window.pad=true": NOTHING,  # an older word for short: pad, the default
    "train.model.name=lstm": TRAIN,
    "train.optimizer.lr=0.01": TRAIN,
    "train.optimizer.name=sgd": TRAIN,
    "train.loss.label_smoothing=0.1": TRAIN,
    "train.schedule.name=constant": TRAIN,
    "train.epochs=3": TRAIN,
    "train.batch_size=4": TRAIN,  # of training: it changes the weights
    "train.seed=1": TRAIN,
    "train.task=last_row": TRAIN,
    "train.val_splits=[test]": TRAIN,
    "train.device=cpu": NOTHING,
    "train.checkpoint_every=2": NOTHING,
    "train.memory_bytes=1000000": NOTHING,
    # predict
    "predict.window.hop=2": PREDICT,
    "predict.window.length=3": PREDICT,
    "predict.window.to_end=false": PREDICT,
    "predict.window.short=leave_out": PREDICT,
    "predict.window.pad=false": PREDICT,  # an older word for it
    "predict.batch_size=4": NOTHING,
    "predict.frame_batch_size=4": NOTHING,
    "predict.device=cpu": NOTHING,
    "predict.splits=[test]": PUBLISH,  # the tables are of fewer videos
    # evaluate
    "scores.topk=[1]": SCORES,
    "scores.splits=[train,test]": SCORES,
    "scores.background=blue": SCORES,
    "scores.report=false": SCORES,
    "scores.thumbnails=1": SCORES,  # the report shows them
    "scores.report_videos=1": SCORES,  # the report shows fewer
    # labels and videos
    "labels.classes=[bright,blue]": TRAIN,  # another order of class ids
    "labels.classes=[blue,bright]": NOTHING,  # the order that the names have sorted
    "labels.classes=[blue,bright,dark]": TRAIN,
    "labels.background=blue": TRAIN,
    "predict.labels={segments: segments.csv, background: blue}": PUBLISH,  # targets of rows that no segment covers
    "predict.labels={segments: segments.csv}": NOTHING,  # as the pipeline has them
    "train.labels={segments: segments.csv, background: blue}": TRAIN,
    "videos.workers=1": NOTHING,
    "videos.timeout_seconds=30": NOTHING,
    "videos.split=test": NOTHING,  # every row names its own
    "videos.splits=[train,val,test,more]": NOTHING,
    "videos.missing=skip": NOTHING,  # none is missing
    "videos.digest=quick": ALL,  # other digests, which never equal full ones
    # equal values written differently
    "frames.fps=5.0": NOTHING,
    "frames.fps='5'": NOTHING,
    "frames.short_side=48.0": NOTHING,
    "frames.stride=null": NOTHING,
    "train.optimizer.lr=0.001": NOTHING,  # the default
    "train.optimizer.lr=1e-3": NOTHING,
    "train.window.length=4.0": NOTHING,
    "train.window.dilation=1": NOTHING,
    "train.model.dropout=0": NOTHING,  # the file has 0.0
}

# Anything else; `tests/pipeline/changes.py` does it.
OTHERS: dict[str, Ran] = {
    # videos
    "video added for testing": {"frames": 1, "embed": 1, "predict": 1, **SCORES},
    "video added for training": {"frames": 1, "embed": 1, "train": 0, "predict": 6, **SCORES},
    "video of testing removed": PUBLISH,
    "video of training removed": {"train": 0, "predict": 4, **SCORES},
    "video of testing replaced": {"frames": 1, "embed": 1, "predict": 1, **SCORES},
    "video of training replaced": {"frames": 1, "embed": 1, **TRAIN},
    "video replaced by another that is there": {"train": 0, "predict": 4, **SCORES},  # b.mp4 is now what a.mp4 is
    "video_id renamed, in the labels too": PUBLISH,
    "video file renamed": NOTHING,
    "file moved to another folder": NOTHING,
    "all files moved, root says where": NOTHING,
    "paths made absolute": NOTHING,
    "file linked": NOTHING,
    "video of testing duplicated": PUBLISH,  # its second name is one more row of the tables
    "video of training duplicated with its labels": PUBLISH,  # nothing new to learn from
    "video of training duplicated with other labels": TRAIN,
    "all files touched": NOTHING,
    "file written anew with the same bytes": NOTHING,
    # manifest
    "split from test to train": TRAIN,
    "split from train to test": TRAIN,
    "split from test to one that nothing reads": PUBLISH,
    "manifest reordered": NOTHING,
    "manifest with one more column": NOTHING,
    "manifest with other line ends, spaces and quotes": NOTHING,
    "manifest as Parquet": NOTHING,
    # labels
    "label of training edited": TRAIN,
    "label of testing edited": PUBLISH,
    "label of testing removed": PUBLISH,
    "labels reordered": NOTHING,
    "label times written differently": NOTHING,
    "labels of a video that is not in the manifest": NOTHING,
    "labels as TSV": NOTHING,
    "class renamed": TRAIN,
    # weights
    "weights replaced": EMBED,
    "weights touched": NOTHING,
    "weights renamed": NOTHING,
    # code and machine
    "decode version raised": ALL,
    "embed version raised": EMBED,
    "train version raised": {"train": 0},  # the same weights come out; written as TRAIN at first
    "predict version raised": PREDICT,
    "evaluate version raised": SCORES,
    "other versions of libraries": NOTHING,
    "other host, user, home, time zone and locale": NOTHING,
    "another working folder": NOTHING,
    "store moved, REELWRIGHT_STORE says where": NOTHING,
    "store moved, the file says where": NOTHING,
    "whole project moved": NOTHING,
    # the pipeline file
    "comment in the file": NOTHING,
    "order of nodes and keys reversed": NOTHING,
    "file in flow style": NOTHING,
    "anchors and aliases": NOTHING,
    "a value from the environment": NOTHING,
    "a value from another place of the file": NOTHING,
    "pipeline file renamed": NOTHING,
    "nodes renamed": NOTHING,
    "a node more": {"train_again": 0},
    "a node less": NOTHING,
    "labels named twice, the file and a setting agreeing": NOTHING,
    # the store
    "embeddings of a video removed by hand": {"embed": 1},
    "frames of a video removed by hand": {"frames": 1},
    "report removed by hand": SCORES,
    "published tables removed by hand": {"predict": 0},
}

CHANGES = {**SETTINGS, **OTHERS}

# What `status` and `explain` say of a node then.
REASONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("frames.fps=2.5", "frames"): ("spec.fps: 5 -> 2.5", "nothing done yet of 5 videos"),
    ("frames.fps=2.5", "embed"): ("input frames: frames changed", "nothing done yet of 5 videos"),
    ("frames.fps=2.5", "train"): ("input embeddings: embed changed",),
    ("frames.fps=2.5", "predict"): ("waits for train",),
    ("frames.stop=1.6", "frames"): ("spec.stop: null -> 1.6", "nothing done yet of 5 videos"),
    ("embed.outputs=[pooled,map]", "embed"): (
        'spec.outputs: ["pooled"] -> ["pooled", "map"]',
        "nothing done yet of 5 videos",
    ),
    ("embed.weights=none", "embed"): ("spec.seed: (not set) -> 0", "weights changed", "nothing done yet of 5 videos"),
    ("train.optimizer.lr=0.01", "train"): ("spec.optimizer.lr: 0.001 -> 0.01",),
    ("train.val_splits=[test]", "train"): (
        'spec.val_splits: [] -> ["test"]',
        "input embeddings: 2 of 5 videos new",
    ),
    ("predict.window.hop=2", "predict"): ("spec.window.hop: 1 -> 2", "nothing done yet of 5 videos"),
    ("predict.window.hop=2", "scores"): ("input predictions: predict changed",),
    ("predict.splits=[test]", "predict"): ("input embeddings: 3 of 5 videos gone",),
    ("labels.classes=[bright,blue]", "train"): (
        'classes: ["blue", "bright"] -> ["bright", "blue"]',
        "labels: 3 of 3 videos changed",
    ),
    ("labels.background=blue", "train"): ('background: none -> "blue"',),
    ("predict.labels={segments: segments.csv, background: blue}", "predict"): ("names or labels changed",),
    ("video added for testing", "frames"): ("videos: 1 of 6 videos new",),
    ("video added for testing", "embed"): ("input frames: 1 of 6 videos new",),
    ("video added for testing", "predict"): ("input embeddings: 1 of 6 videos new",),
    ("video added for training", "train"): ("input embeddings: 1 of 4 videos new",),
    ("video of training removed", "train"): ("input embeddings: 1 of 3 videos gone",),
    ("video of training replaced", "train"): (
        "input embeddings: 1 of 3 videos new",
        "input embeddings: 1 of 3 videos gone",
    ),
    ("video of testing removed", "predict"): ("input embeddings: 1 of 5 videos gone",),
    ("video_id renamed, in the labels too", "predict"): ("names: 1 of 5 videos changed",),
    ("split from test to one that nothing reads", "predict"): ("splits: 1 of 5 videos changed",),
    ("split from train to test", "train"): ("input embeddings: 1 of 3 videos gone",),
    ("label of training edited", "train"): ("labels: 1 of 3 videos changed",),
    ("label of testing edited", "predict"): ("labels: 1 of 5 videos changed",),
    ("class renamed", "train"): ('classes: ["blue", "bright"] -> ["blue", "light"]',),
    ("weights replaced", "embed"): ("weights changed", "nothing done yet of 5 videos"),
    ("train version raised", "train"): (f"stage version: {TrainConfig.version} -> {TrainConfig.version + 1}",),
    ("a node more", "train_again"): ("never ran",),
    ("embeddings of a video removed by hand", "embed"): ("gone from the store: 1 of 5 videos",),
    ("report removed by hand", "scores"): ("its output is gone from the store",),
    ("published tables removed by hand", "predict"): ("its tables are gone from the store",),
}

# What `explain NODE VIDEO` says then: state, and reasons or what is there.
OF_VIDEOS: dict[tuple[str, str, str], tuple[str, ...]] = {
    ("embed.batch_size=2", "embed", "a"): ("up to date",),
    ("frames.fps=2.5", "frames", "a"): ("to do", "spec.fps: 5 -> 2.5"),
    ("weights replaced", "embed", "a"): ("to do", "weights changed"),
    ("weights replaced", "predict", "a"): ("waiting", "waits for train"),
    ("weights replaced", "train", "d"): ("left out", "its split is test; train reads train"),
    ("video added for testing", "embed", "f"): ("to do", "new since the last run: another video, or other content"),
    ("video added for testing", "embed", "a"): ("up to date",),
    ("video added for testing", "predict", "a"): ("up to date",),
    ("video added for training", "train", "f"): (
        "stale",
        "this video: new content since the last run",
        "input embeddings: 1 of 4 videos new",
    ),
    ("video added for training", "train", "a"): ("stale", "input embeddings: 1 of 4 videos new"),
    ("video of training replaced", "frames", "b"): ("to do", "new since the last run: another video, or other content"),
    ("label of training edited", "train", "b"): (
        "stale",
        "this video: labels changed",
        "labels: 1 of 3 videos changed",
    ),
    ("label of training edited", "embed", "b"): ("up to date",),
    ("label of testing edited", "predict", "d"): ("stale", "labels: 1 of 5 videos changed"),
    ("embeddings of a video removed by hand", "frames", "a"): ("up to date",),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, run to its end once, in the folder ``project``; and all of it once more beside it."""
    folder = write_changeable(tmp_path_factory.mktemp("changes") / "project")
    assert Project.open(folder / "reelwright.yaml").run().exit_code == 0
    return restore(folder, folder.with_name("pristine"))


@pytest.fixture
def scene(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The finished project, in the place where it ran."""
    folder = pristine.with_name("project")
    yield Scene(folder, monkeypatch)
    restore(pristine, folder)


def change(scene: Scene, name: str) -> None:
    if name in SETTINGS:
        scene.overrides.append(name)
    else:
        EDITS[name](scene)


def planned(project: Project) -> Ran:
    """What the plan says will run; -1 where the number of videos is not known before."""
    read_videos(project.file, SilentObserver(), jobs=1)
    stale = [plan for plan in project.status() if plan.state != FRESH]
    return {plan.node.name: -1 if plan.state == WAITING else len(plan.todo) for plan in stale}


def check_plan(project: Project, name: str) -> None:
    """`status` tells beforehand what will run; what waits for weights does only when they come out otherwise."""
    expected, found = CHANGES[name], planned(project)
    assert {node: videos for node, videos in found.items() if videos >= 0} == {
        node: videos for node, videos in expected.items() if found.get(node) != -1
    }


def ran(result: RunResult) -> Ran:
    assert result.exit_code == 0, result
    return {node.node: node.num_done for node in result.nodes if node.state == "ran"}


def test_every_change_is_in_the_table() -> None:
    assert set(EDITS) == set(OTHERS)


@pytest.mark.parametrize("name", SETTINGS)
def test_plan_of_a_setting(pristine: Path, name: str) -> None:
    check_plan(Project.open(pristine.with_name("project") / "reelwright.yaml", overrides=[name]), name)


@pytest.mark.parametrize("name", OTHERS)
def test_plan_of_a_change(scene: Scene, name: str) -> None:
    change(scene, name)
    check_plan(scene.project(), name)


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in REASONS))
def test_reasons(scene: Scene, name: str) -> None:
    change(scene, name)
    read_videos(scene.project().file, SilentObserver(), jobs=1)
    message = {plan.node.name: plan.reasons for plan in scene.project().status()}
    expected = {node: reasons for (changed, node), reasons in REASONS.items() if changed == name}
    assert {node: message[node] for node in expected} == expected


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in OF_VIDEOS))
def test_reasons_of_videos(scene: Scene, name: str) -> None:
    change(scene, name)
    read_videos(scene.project().file, SilentObserver(), jobs=1)
    for node, video in (entry[1:] for entry in OF_VIDEOS if entry[0] == name):
        why = explain_video(scene.project().planner(), node, video)
        assert (why.state, *why.reasons) == OF_VIDEOS[name, node, video], (node, video)


def test_what_failed_is_incomplete_or_forced_is_told(scene: Scene) -> None:
    """Marks in the ledger, as a run leaves them that was killed, or in which a video failed."""
    scene.overrides.append("embed.batch_size=3")  # nothing
    project = scene.project()
    plan = project.planner().plan("embed")
    failed = ItemRow(digest=plan.wanted[0].digest, status="failed", cause="no_frames", message="none", attempts=2)
    ItemLedger(project.file.store.node(plan.spec_key)).commit(failed)
    shutil.rmtree(project.file.store.node(plan.key))
    assert project.planner().plan("embed").reasons == ("failed: 1",)
    message = (
        "failed",
        "failed after 2 attempt(s): no_frames: none",
        "`run` tries it again, `run --no-retry` leaves it",
    )
    why = explain_video(project.planner(), "embed", "a")
    assert (why.state, *why.reasons) == message
    assert open_planner(project.file, forced=["embed"]).plan("embed").reasons == ("forced", "failed: 1")
    why = explain_video(open_planner(project.file, forced=["embed"]), "embed", "b")
    assert (why.state, *why.reasons) == ("to do", "forced")
    why = explain_video(project.planner(), "predict", "a")
    assert (why.state, *why.reasons) == ("left out", "failed in embed: no_frames: none")
    shutil.rmtree(project.file.store.embeddings(plan.spec_key) / plan.wanted[1].digest)
    shutil.rmtree(project.planner().project)
    assert project.planner().plan("embed").reasons == ("incomplete: 1 of 5 videos to do", "failed: 1")
    assert project.planner().plan("train").reasons == ("never ran",)
    scene.clip("c").unlink()
    scene.clip("c").write_bytes(b"not a video")
    assert explain_video(scene.project().planner(), "frames", "c").reasons[0].startswith("changed since it was read")


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_run(scene: Scene, name: str) -> None:
    """It does just that, and then there is nothing to do."""
    change(scene, name)
    assert ran(scene.project().run(jobs=1)) == CHANGES[name]
    assert scene.project().run().nothing_to_do


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["frames.fps=2.5", "embed.precision=bf16", "train.seed=1", "labels.classes=[bright,blue]"]
)
def test_going_back_is_a_hit_at_once(scene: Scene, name: str) -> None:
    """Training too: whatever was set and run, the earlier setting has nothing to do."""
    change(scene, name)
    assert scene.project().run(jobs=1, until=["predict"]).exit_code == 0
    scene.overrides.clear()
    assert scene.project().run().nothing_to_do
