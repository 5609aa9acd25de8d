"""The project of test_changes.py, and everything that is changed in it but settings."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from reelwright.pipeline.project import Project
from tests.small_project import SPLITS, read_rows, write_rows, write_video

PIPELINE = """
videos: {manifest: videos.csv, workers: 1}
labels: {segments: segments.csv}
stages:
  frames: {uses: decode, fps: 5, short_side: 48, workers: 1}
  embed:
    {uses: embed, frames: frames, encoder: timm/test_resnet, weights: encoder.safetensors, batch_size: 8}
  train:
    uses: train
    embeddings: [embed]
    task: per_row
    window: {length: 4, hop: 2}
    model: {name: gru, dropout: 0.0}
    epochs: 2
    batch_size: 8
    val_splits: []
  predict: {uses: predict, run: train}
  scores: {uses: evaluate, predictions: predict, thumbnails: 0}
"""
CLIPS = "clips"
Edit = Callable[["Scene"], object]
EDITS: dict[str, Edit] = {}


@dataclass
class Scene:
    """A finished project that is changed."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    overrides: list[str] = field(default_factory=list)
    file: str = "reelwright.yaml"

    def project(self) -> Project:
        """The project as it is set now."""
        return Project.open(self.folder / self.file, overrides=self.overrides)

    def replace(self, old: str, new: str, name: str = "reelwright.yaml") -> None:
        """Replace a text in a file; it must be there."""
        text = (self.folder / name).read_text(encoding="utf-8")
        assert old in text
        (self.folder / name).write_text(text.replace(old, new), encoding="utf-8")

    def rows(self, name: str, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
        """Change the rows of videos.csv or segments.csv."""
        write_rows(self.folder / name, list(change(read_rows(self.folder / name))))

    def yaml(self, change: Callable[[dict[str, Any]], dict[str, Any]], **style: Any) -> None:
        """Change the mapping in the pipeline file, or only how it is written."""
        path = self.folder / self.file
        content = change(yaml.safe_load(path.read_text(encoding="utf-8")))
        path.write_text(yaml.safe_dump(content, **{"sort_keys": False, **style}), encoding="utf-8")

    def clip(self, name: str) -> Path:
        """Where the file of a video lies."""
        return self.folder / CLIPS / f"{name}.mp4"

    def stored(self, node: str, kind: str) -> Path:
        """The folder in the store of a node: of its spec key for frames and embeddings, else of its key."""
        plan, store = self.project().planner().plan(node), self.project().file.store
        folder: Path = getattr(store, kind)(plan.spec_key if kind in {"frames", "embeddings"} else plan.key)
        return folder


def write_changeable(folder: Path) -> Path:
    """The project, not run yet: five videos, labels, and an encoder's weights."""
    (folder / CLIPS).mkdir(parents=True)
    for seed, name in enumerate(SPLITS):
        write_video(folder / CLIPS / f"{name}.mp4", seed=seed)
    rows = [{"video_id": name, "path": f"{CLIPS}/{name}.mp4", "split": split} for name, split in SPLITS.items()]
    write_rows(folder / "videos.csv", [*rows])
    write_rows(
        folder / "segments.csv",
        [
            {"video_id": name, "start_seconds": start, "stop_seconds": stop, "label": label}
            for name in SPLITS
            for start, stop, label in (("0", "1", "bright"), ("1", "2", "blue"))
        ],
    )
    write_weights(folder / "encoder.safetensors", seed=0)
    (folder / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    return folder


def restore(pristine: Path, folder: Path) -> Path:
    """Make ``folder`` what ``pristine`` is, changing only what differs: as long as neither is written to in place.

    Videos are links to the same files, so that none is read again.
    """
    wanted = {path.relative_to(pristine): path for path in sorted(pristine.rglob("*"))}
    if folder.is_dir():
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.relative_to(folder) not in wanted:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.mkdir(exist_ok=True)
    for name, path in wanted.items():
        if path.is_dir():
            (folder / name).mkdir(exist_ok=True)
        elif not _is_same(path, folder / name):
            (folder / name).unlink(missing_ok=True)
            (os.link if path.suffix == ".mp4" else shutil.copy2)(path, folder / name)
    return folder


def _is_same(path: Path, other: Path) -> bool:
    if not other.exists() or other.is_symlink():
        return False
    if path.suffix == ".mp4":
        return path.samefile(other)
    return (path.stat().st_size, path.stat().st_mtime_ns) == (other.stat().st_size, other.stat().st_mtime_ns)


def write_weights(path: Path, *, seed: int) -> None:
    """Random weights of the encoder."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), path)


def edit(name: str) -> Callable[[Edit], Edit]:
    """Note a change under its name in the table."""

    def note(function: Edit) -> Edit:
        EDITS[name] = function
        return function

    return note


def _each(**new: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    """Every row with other values."""
    return lambda rows: [{**row, **new} for row in rows]


def _of(video_id: str, /, **new: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    """Rows of one video with other values."""
    return lambda rows: [{**row, **new} if row["video_id"] == video_id else row for row in rows]


def _without(video_id: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    return lambda rows: [row for row in rows if row["video_id"] != video_id]


def _copy(old: str, **new: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    """The rows, and those of one video once more with other values."""
    return lambda rows: [*rows, *({**row, **new} for row in rows if row["video_id"] == old)]


def _rewrite(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file; the pristine project may be a link to the same bytes."""
    path.unlink(missing_ok=True)
    write(path)


def _add(scene: Scene, split: str) -> None:
    write_video(scene.clip("f"), seed=9)
    scene.rows("videos.csv", _copy("a", video_id="f", path=f"{CLIPS}/f.mp4", split=split))
    scene.rows("segments.csv", _copy("a", video_id="f"))


edit("video added for testing")(lambda scene: _add(scene, "test"))
edit("video added for training")(lambda scene: _add(scene, "train"))
edit("video of testing removed")(lambda scene: scene.rows("videos.csv", _without("d")))
edit("video of training removed")(lambda scene: scene.rows("videos.csv", _without("b")))
edit("video of testing replaced")(lambda scene: _rewrite(scene.clip("d"), lambda path: write_video(path, seed=9)))
edit("video of training replaced")(lambda scene: _rewrite(scene.clip("b"), lambda path: write_video(path, seed=9)))
edit("video replaced by another that is there")(
    lambda scene: _rewrite(scene.clip("b"), lambda path: shutil.copy(scene.clip("a"), path))
)
edit("split from test to train")(lambda scene: scene.rows("videos.csv", _of("d", split="train")))
edit("split from train to test")(lambda scene: scene.rows("videos.csv", _of("b", split="test")))
edit("split from test to one that nothing reads")(lambda scene: scene.rows("videos.csv", _of("d", split="val")))
edit("manifest reordered")(lambda scene: scene.rows("videos.csv", lambda rows: rows[::-1]))
edit("manifest with one more column")(lambda scene: scene.rows("videos.csv", _each(camera="left")))
edit("label of testing removed")(lambda scene: scene.rows("segments.csv", _without("d")))
edit("labels reordered")(lambda scene: scene.rows("segments.csv", lambda rows: rows[::-1]))
edit("labels of a video that is not in the manifest")(
    lambda scene: scene.rows("segments.csv", _copy("a", video_id="unknown"))
)
edit("class renamed")(lambda scene: scene.replace("bright", "light", "segments.csv"))
edit("label of training edited")(lambda scene: scene.replace("b,1,2,blue", "b,1.5,2,blue", "segments.csv"))
edit("label of testing edited")(lambda scene: scene.replace("d,1,2,blue", "d,1.5,2,blue", "segments.csv"))
edit("label times written differently")(lambda scene: scene.replace(",1,2,", ",1.00,2e0,", "segments.csv"))
edit("paths made absolute")(lambda scene: scene.replace(f",{CLIPS}/", f",{scene.folder}/{CLIPS}/", "videos.csv"))
edit("weights replaced")(lambda scene: write_weights(scene.folder / "encoder.safetensors", seed=1))
edit("weights touched")(lambda scene: (scene.folder / "encoder.safetensors").touch())
edit("comment in the file")(lambda scene: scene.replace("stages:", "# what is done\nstages:  # all of it"))
edit("file in flow style")(lambda scene: scene.yaml(lambda content: content, default_flow_style=True))
edit("a node less")(lambda scene: scene.replace("  scores:", "  # scores:"))
edit("labels named twice, the file and a setting agreeing")(
    lambda scene: scene.overrides.append("labels.segments=segments.csv")
)
edit("embeddings of a video removed by hand")(lambda scene: _remove_one(scene.stored("embed", "embeddings")))
edit("frames of a video removed by hand")(lambda scene: _remove_one(scene.stored("frames", "frames")))
edit("report removed by hand")(lambda scene: shutil.rmtree(scene.stored("scores", "report")))
edit("published tables removed by hand")(lambda scene: shutil.rmtree(scene.stored("predict", "predictions")))
for _stage in ("decode", "embed", "train", "predict", "evaluate"):
    edit(f"{_stage} version raised")(lambda scene, stage=_stage: _raise_version(scene, stage))


@edit("video_id renamed, in the labels too")
def _rename_id(scene: Scene) -> None:
    scene.rows("videos.csv", _of("a", video_id="z"))
    scene.rows("segments.csv", _of("a", video_id="z"))


@edit("video file renamed")
def _rename_clip(scene: Scene) -> None:
    scene.clip("c").rename(scene.clip("other"))
    scene.replace(f"{CLIPS}/c.mp4", f"{CLIPS}/other.mp4", "videos.csv")


@edit("file moved to another folder")
def _move_clip(scene: Scene) -> None:
    (scene.folder / "more").mkdir()
    scene.clip("c").rename(scene.folder / "more" / "c.mp4")
    scene.replace(f"{CLIPS}/c.mp4", "more/c.mp4", "videos.csv")


@edit("all files moved, root says where")
def _move_root(scene: Scene) -> None:
    (scene.folder / "data").mkdir()
    (scene.folder / CLIPS).rename(scene.folder / "data" / CLIPS)
    scene.overrides.append("videos.root=data")


@edit("file linked")
def _link(scene: Scene) -> None:
    scene.clip("c").rename(scene.folder / "elsewhere.mp4")
    scene.clip("c").symlink_to(scene.folder / "elsewhere.mp4")


@edit("video of testing duplicated")
def _duplicate_test(scene: Scene) -> None:
    shutil.copy(scene.clip("d"), scene.clip("d2"))
    scene.rows("videos.csv", _copy("d", video_id="d2", path=f"{CLIPS}/d2.mp4"))


@edit("video of training duplicated with its labels")
def _duplicate_train(scene: Scene) -> None:
    shutil.copy(scene.clip("b"), scene.clip("b2"))
    scene.rows("videos.csv", _copy("b", video_id="b2", path=f"{CLIPS}/b2.mp4"))
    scene.rows("segments.csv", _copy("b", video_id="b2"))


@edit("video of training duplicated with other labels")
def _duplicate_relabelled(scene: Scene) -> None:
    _duplicate_train(scene)
    scene.replace("b2,1,2,blue", "b2,1.5,2,blue", "segments.csv")


@edit("all files touched")
def _touch(scene: Scene) -> None:
    for name in SPLITS:
        _rewrite_same(scene, name)
        os.utime(scene.clip(name), ns=(1, 1))


@edit("file written anew with the same bytes")
def _write_again(scene: Scene) -> None:
    _rewrite_same(scene, "b")


def _rewrite_same(scene: Scene, name: str) -> None:
    content = scene.clip(name).read_bytes()
    _rewrite(scene.clip(name), lambda path: path.write_bytes(content))


@edit("manifest with other line ends, spaces and quotes")
def _other_text(scene: Scene) -> None:
    rows = [[f'" {cell} "' for cell in row.values()] for row in read_rows(scene.folder / "videos.csv")]
    lines = ["\ufeffvideo_id, path, split", "", *(",".join(cells) for cells in rows), ",,"]
    (scene.folder / "videos.csv").write_bytes("\r\n".join(lines).encode())


@edit("manifest as Parquet")
def _parquet(scene: Scene) -> None:
    pq.write_table(pa.Table.from_pylist(read_rows(scene.folder / "videos.csv")), scene.folder / "videos.parquet")
    scene.overrides.append("videos.manifest=videos.parquet")


@edit("labels as TSV")
def _tsv(scene: Scene) -> None:
    text = (scene.folder / "segments.csv").read_text(encoding="utf-8")
    (scene.folder / "segments.tsv").write_text(text.replace(",", "\t"), encoding="utf-8")
    scene.overrides.append("labels.segments=segments.tsv")


@edit("weights renamed")
def _rename_weights(scene: Scene) -> None:
    (scene.folder / "weights").mkdir()
    (scene.folder / "encoder.safetensors").rename(scene.folder / "weights" / "resnet.safetensors")
    scene.overrides.append("embed.weights=weights/resnet.safetensors")


def _raise_version(scene: Scene, stage: str) -> None:
    model = next(config for config in map(type, scene.project().file.nodes.values()) if config.stage == stage)
    scene.monkeypatch.setattr(model, "version", model.version + 1)


@edit("other versions of libraries")
def _other_versions(scene: Scene) -> None:
    scene.monkeypatch.setattr(importlib.metadata, "version", lambda _: "99.0")


@edit("other host, user, home, time zone and locale")
def _other_machine(scene: Scene) -> None:
    scene.monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    scene.monkeypatch.setattr("platform.node", lambda: "elsewhere")
    values = {"HOME": str(scene.folder), "TZ": "Asia/Tokyo", "LC_ALL": "de_DE.UTF-8", "USER": "someone", "LANG": "de"}
    for name, value in values.items():
        scene.monkeypatch.setenv(name, value)


@edit("another working folder")
def _other_folder(scene: Scene) -> None:
    scene.monkeypatch.chdir("/")


@edit("store moved, REELWRIGHT_STORE says where")
def _move_store(scene: Scene) -> None:
    (scene.folder / ".reelwright" / "store").rename(scene.folder / "shared")
    scene.monkeypatch.setenv("REELWRIGHT_STORE", str(scene.folder / "shared"))


@edit("store moved, the file says where")
def _move_store_named(scene: Scene) -> None:
    (scene.folder / ".reelwright" / "store").rename(scene.folder / "shared")
    scene.overrides.append("store=shared")


@edit("whole project moved")
def _move_project(scene: Scene) -> None:
    moved = scene.folder.with_name("moved")
    shutil.rmtree(moved, ignore_errors=True)
    scene.folder.rename(moved)
    scene.folder = moved


@edit("order of nodes and keys reversed")
def _reverse(scene: Scene) -> None:
    def turned(value: Any) -> Any:
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    scene.yaml(turned)


@edit("anchors and aliases")
def _anchors(scene: Scene) -> None:
    scene.replace("batch_size: 8\n", "batch_size: &eight 8\n")
    scene.replace("  predict: {", "  predict: {batch_size: *eight, ")


@edit("a value from the environment")
def _from_environment(scene: Scene) -> None:
    scene.monkeypatch.setenv("EPOCHS", "2")
    scene.replace("epochs: 2", "epochs: ${oc.env:EPOCHS}")


@edit("a value from another place of the file")
def _from_elsewhere(scene: Scene) -> None:
    scene.replace("epochs: 2", "epochs: ${stages.train.window.hop}")


@edit("pipeline file renamed")
def _rename_file(scene: Scene) -> None:
    (scene.folder / "reelwright.yaml").rename(scene.folder / "other.yaml")
    scene.file = "other.yaml"


@edit("nodes renamed")
def _rename_nodes(scene: Scene) -> None:
    scene.yaml(_with_other_names)


def _with_other_names(content: dict[str, Any]) -> dict[str, Any]:
    names = {name: f"my_{name}" for name in content["stages"]}
    stages = {names[name]: block for name, block in content["stages"].items()}
    for block in stages.values():
        for key in ("frames", "run", "predictions"):
            if key in block:
                block[key] = names[block[key]]
        block.update({"embeddings": [names[name] for name in block["embeddings"]]} if "embeddings" in block else {})
    return {**content, "stages": stages}


@edit("a node more")
def _add_node(scene: Scene) -> None:
    def with_node(content: dict[str, Any]) -> dict[str, Any]:
        train = content["stages"]["train"]
        return {**content, "stages": {**content["stages"], "train_again": {**train, "seed": 1}}}

    scene.yaml(with_node)


def _remove_one(folder: Path) -> None:
    shutil.rmtree(next(path for path in sorted(folder.iterdir()) if path.is_dir()))
