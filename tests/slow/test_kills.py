"""SIGKILL of the whole process tree at twenty moments of a run; each time the next run goes on and ends the same.

Seven moments are drawn over the time of a run, thirteen over the files it gives their names, some in every kind. The
seed is printed; REELWRIGHT_KILL_SEED sets another.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from reelwright.pipeline.project import Project
from reelwright.pipeline.upkeep.verify import verify
from reelwright.storage.digests import file_digest
from reelwright.storage.ledger.items import ItemLedger
from tests import forks
from tests.forks import Moment
from tests.small_project import SPLITS, write_rows, write_video

SEED = int(os.environ.get("REELWRIGHT_KILL_SEED", "3"))
NUM_BY_TIME = 7
PIPELINE = """
videos: {{manifest: videos.csv, root: {root}, workers: 1}}
labels: {{segments: segments.csv}}
stages:
  frames: {{uses: decode, fps: 10, short_side: 48, workers: 1}}
  embed:
    uses: embed
    frames: frames
    encoder: timm/test_resnet
    weights: none
    batch_size: 4
    channels_last: false
    deterministic: true
    shard_rows: 8
  train:
    uses: train
    embeddings: [embed]
    task: per_row
    window: {{length: 4, hop: 2}}
    model: {{name: gru, dropout: 0.2}}
    epochs: 6
    batch_size: 8
    val_splits: [test]
  predict: {{uses: predict, run: train}}
"""
# What is given its name -> how many of the moments fall on it.
KINDS = {
    r"/videos\.json$": 1,
    r"/files\.json$": 1,
    r"/items/\w+\.json$": 1,
    r"/items\.parquet$": 1,
    r"embeddings/.*/pooled/c/\d+/0$": 3,
    r"embeddings/\w+\.zarr/\w+$": 1,
    r"checkpoints/": 2,
    r"runs/\w+/model\.safetensors$": 1,
    r"predictions/\w+/\w+\.parquet$": 1,
    r"/record\.json$": 1,
}
MEASURED = {"seconds", "items_per_second", "updates_per_second", "peak_memory_bytes"}  # of metrics.jsonl
Inodes = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Reference:
    """A run that nobody disturbed."""

    folder: Path
    seconds: float
    renamed: tuple[str, ...]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = write_project(tmp_path_factory.mktemp("undisturbed"), videos=None)
    forks.run("--help", cwd=folder)  # it has all imported before the time is taken
    started = time.monotonic()
    assert run(folder, renamed=folder / "renamed.txt") == 0, (folder / "log.txt").read_text()
    seconds = time.monotonic() - started
    return Reference(folder, seconds, tuple((folder / "renamed.txt").read_text().splitlines()))


def write_project(folder: Path, *, videos: Path | None) -> Path:
    """The project; with the ``videos`` of another one."""
    if videos is None:
        for seed, name in enumerate(SPLITS):
            write_video(folder / f"{name}.mp4", seed=seed, num_frames=24)
    (folder / "reelwright.yaml").write_text(PIPELINE.format(root=videos or folder))
    rows = [{"video_id": name, "path": f"{name}.mp4", "split": split} for name, split in SPLITS.items()]
    write_rows(folder / "videos.csv", rows)
    halves = ((0, 1.2, "bright"), (1.2, 2.4, "blue"))
    write_rows(
        folder / "segments.csv",
        [
            {"video_id": name, "start_seconds": start, "stop_seconds": stop, "label": label}
            for name in SPLITS
            for start, stop, label in halves
        ],
    )
    return folder


def moments(reference: Reference, rng: random.Random) -> list[Moment | float]:
    """Seconds after the start, and renamings."""
    chosen: list[Moment | float] = [rng.uniform(0, reference.seconds) for _ in range(NUM_BY_TIME)]
    for pattern, count in KINDS.items():
        found = sum(bool(re.search(pattern, path)) for path in reference.renamed)
        assert found, f"nothing of the undisturbed run fits {pattern}"
        for _ in range(count):
            delay = rng.choice([0.0, 0.0, rng.uniform(0, 0.02)])
            chosen.append(Moment(pattern=pattern, number=rng.randint(1, found), delay_seconds=delay))
    return chosen


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_loses_the_shard_in_flight_and_nothing_else(reference: Reference, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    wanted = outcome(reference.folder)
    chosen = moments(reference, rng)
    assert len(chosen) == 20
    print(f"seed {SEED}, an undisturbed run takes {reference.seconds:.1f} s")
    interrupted = set()
    for number, moment in enumerate(chosen):
        folder = killed_project(tmp_path / str(number), moment, reference=reference)
        stopped_in = stage_of(folder)
        interrupted.add(stopped_in)
        print(f"{number}: {moment}, in {stopped_in}")
        store = Project.open(folder / "reelwright.yaml").file.store
        wrong = [problem for problem in verify_whole(folder) if problem.is_wrong]
        assert wrong == [], (moment, wrong)
        before = finished_files(store.root)
        has_weights = any(store.root.glob("runs/*/model.safetensors"))
        has_checkpoint = any(store.root.glob("runs/*/checkpoints/last/state.pt"))
        assert run(folder, is_run=True) == 0, (moment, (folder / "log.txt").read_text())
        after = stamps(store.root)
        assert {path: after.get(path) for path in before} == before, (moment, "done twice")
        assert outcome(folder) == wanted, moment
        if has_checkpoint and stopped_in == "train" and not has_weights:
            assert "goes on after update" in (folder / "log.txt").read_text()
        assert [problem for problem in verify_whole(folder) if problem.is_wrong] == []
        assert {plan.state for plan in Project.open(folder / "reelwright.yaml").status()} == {"up to date"}
        shutil.rmtree(folder)
    assert interrupted >= {"index", "frames", "embed", "train", "predict"}


def killed_project(folder: Path, moment: Moment | float, *, reference: Reference) -> Path:
    """A project whose first run was killed; earlier, where the moment came after the end of a quicker run."""
    for _ in range(5):
        folder.mkdir()
        write_project(folder, videos=reference.folder)
        if run_and_kill(folder, moment):
            return folder
        shutil.rmtree(folder)
        moment = replace(moment, delay_seconds=0.0) if isinstance(moment, Moment) else moment / 2
    raise AssertionError(f"not killed in five runs: {moment}")


def run_and_kill(folder: Path, moment: Moment | float) -> bool:
    """Whether the run was killed before its end."""
    if isinstance(moment, Moment):
        return run(folder, kill=moment) == -signal.SIGKILL
    process = forks.start("run", cwd=folder, log=folder / "log.txt")
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):  # it was done
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait(300) == -signal.SIGKILL


def run(folder: Path, **options: Any) -> int:
    """The exit status of `reelwright run`, negative where a signal ended it; what it says is added to log.txt."""
    return forks.start("run", cwd=folder, log=folder / "log.txt", **options).wait(300)


def stage_of(folder: Path) -> str:
    """What was next to be finished."""
    project = Project.open(folder / "reelwright.yaml")
    plans = {plan.node.name: plan.state for plan in project.status()}
    if project.planner().dataset.new:
        return "index"
    return next((name for name, state in plans.items() if state != "up to date"), "end")


def verify_whole(folder: Path):
    return verify(Project.open(folder / "reelwright.yaml").file, whole=True).problems


def finished_files(root: Path) -> Inodes:
    """What must not be written again: files of items that are done, and of shards that are whole."""
    found = stamps(root)
    done = {
        (path.parent.name, digest) for path in root.glob("nodes/*/items*") for digest in ItemLedger(path.parent).done()
    }
    kept: Inodes = {}
    for name, stamp in found.items():
        area, group, *rest = [*name.split("/"), ""]
        if area in {"frames", "embeddings"} and "c" in rest:
            is_done = (group.removesuffix(".zarr"), rest[0]) in done
            if is_done or (area == "embeddings" and is_whole_shard(name, found)):
                kept[name] = stamp
        elif area == "predictions" and (group, rest[0].partition(".")[0]) in done:
            kept[name] = stamp
    return kept


def is_whole_shard(name: str, found: Inodes) -> bool:
    """Whether every array of the video has the shard that a file belongs to."""
    item, _, rest = name.partition("/pooled/c/") if "/pooled/c/" in name else (name, "", "")
    index = rest.partition("/")[0]
    spans = ("start_seconds", "stop_seconds", "source_start", "source_stop")
    return bool(rest) and all(f"{item}/{span}/c/{index}" in found for span in spans)


def stamps(root: Path) -> Inodes:
    """Inode and time of change of all files; an unfinished item goes by its later name."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.name.endswith(".partial"):
            status = path.stat()
            name = path.relative_to(root).as_posix().replace("/.partial-", "/")
            found[name] = (status.st_ino, status.st_mtime_ns)
    return found


def outcome(folder: Path) -> dict[str, object]:
    """Everything that came out, without times and names of machines."""
    project = Project.open(folder / "reelwright.yaml")
    root = project.file.store.root
    arrays = {
        path.relative_to(root).as_posix(): file_digest(path)
        for area in ("frames", "embeddings")
        for path in root.glob(f"{area}/*/*/**/c/**/*")
        if path.is_file()
    }
    run = project.trained("train")
    metrics = [{name: value for name, value in line.items() if name not in MEASURED} for line in run.metrics()]
    predictions = project.predictions("predict")
    tables = {name: predictions._read(name, None).to_pylist() for name in ("windows", "rows", "videos")}
    return {
        "arrays": arrays,
        "keys": {plan.node.name: plan.key for plan in project.status()},
        "weights": run.weights_digest(),
        "metrics": metrics,
        "tables": json.dumps(tables, default=str),
        "lock": (folder / "reelwright.lock").read_text(),
    }
