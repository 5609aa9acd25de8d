"""On a real SLURM of two nodes: the whole pipeline, in a folder and in a bucket; long videos, lost nodes, killed
submitters, memory, training beyond its time, jobs that SLURM does not take, a controller that is started again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from reelwright.pipeline.executors import jobs
from reelwright.pipeline.executors.jobs import JobState
from reelwright.pipeline.executors.training import Submission
from reelwright.pipeline.project import Project
from reelwright.storage.ledger.items import ItemLedger
from tests import forks
from tests.slow.buckets import bucket_of, bucket_outcome, environment, local_outcome, serving
from tests.slow.gate import Gate
from tests.slow.slurm import NODES, Slurm, why_not
from tests.slow.test_dask import claims, contents, written
from tests.slow.test_kills import finished_files, outcome, stamps, verify_whole, write_project
from tests.small_project import write_rows, write_video

CLUSTER = "\ncluster: {{executor: slurm, workers: 2, memory: 3GB, time: '00:10:00', unit_seconds: 0.2{more}}}\n"
NUM_LONG, LONG_FRAMES = 7, 200
LONG = """
videos: {manifest: videos.csv}
stages:
  frames: {uses: decode, fps: 10, short_side: 48, materialize: false, workers: 1}
  embed:
    {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none, batch_size: 4, channels_last: false,
     preprocess: {size: [64, 64]}, deterministic: true, shard_rows: 32}
"""
STORED = LONG.replace("materialize: false, ", "")
TRAINING = """
  long:
    {uses: train, embeddings: [embed], task: per_row, window: {length: 4, hop: 2}, model: {name: linear},
     epochs: 20, batch_size: 8, val_splits: [], optimizer: {lr: 1e-3}, checkpoint_every: 20, log_to: [wandb]}
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=f"SLURM cannot be started here: {why_not()}"),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with Slurm() as running:
        yield running


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, run here."""
    folder = write_project(tmp_path_factory.mktemp("local"), videos=None)
    assert Project.open(folder / "reelwright.yaml").run().exit_code == 0
    return folder


@contextmanager
def started(
    slurm: Slurm, folder: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> Iterator[forks.Forked]:
    """`reelwright run` in a process of its own; what it says goes to log.txt."""
    environment = {**os.environ, **(variables or {}), **slurm.environment, "NO_COLOR": "1"}
    process = forks.start("run", *arguments, cwd=folder, env=environment, log=folder / "log.txt")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run(slurm: Slurm, folder: Path, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
    """Run to the end; what was said."""
    with started(slurm, folder, *arguments, variables=variables) as process:
        code = process.wait(400)
    said = (folder / "log.txt").read_text()
    assert code == 0, said + "\n".join(path.read_text() for path in folder.glob(".reelwright/store/jobs/*/job.log"))
    return said


def wait_until(true: Callable[[], object], process: forks.Forked, folder: Path, *, seconds: float = 200) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, (folder / "log.txt").read_text()
        assert time.monotonic() < until, (folder / "log.txt").read_text()
        time.sleep(0.05)


def write_long(folder: Path) -> Path:
    """Videos that take a moment to embed."""
    names = [f"v{number}" for number in range(NUM_LONG)]
    for number, name in enumerate(names):
        write_video(folder / f"{name}.mp4", seed=number, num_frames=LONG_FRAMES)
    write_rows(folder / "videos.csv", [{"video_id": name, "path": f"{name}.mp4"} for name in names])
    (folder / "reelwright.yaml").write_text(LONG)
    return folder


def test_the_whole_pipeline_on_two_nodes_equals_that_on_this_machine(slurm, reference: Path, tmp_path: Path) -> None:
    folder = write_project(tmp_path, videos=reference)
    with (folder / "reelwright.yaml").open("a") as file:
        file.write(CLUSTER.format(more=""))
    said = run(slurm, folder)
    assert outcome(folder) == outcome(reference)
    assert list(verify_whole(folder)) == []
    assert "submitted; it writes" in said  # training was a job of its own
    hosts = [path.read_text() for path in folder.glob(".reelwright/store/logs/workers/*.err")]
    assert len(hosts) >= 2
    assert "nothing to do" in run(slurm, folder)


def test_the_whole_pipeline_in_a_bucket_on_two_nodes_equals_that_in_a_folder(
    slurm, reference: Path, tmp_path: Path
) -> None:
    """The nodes and the submitting machine share nothing but the bucket, and the folder of logs and job scripts."""
    caches = tmp_path / "machines"
    own_cache = f"environment: ['export REELWRIGHT_CACHE={caches}/$SLURMD_NODENAME']"
    with serving() as server:
        bucket = bucket_of(server, reference, tmp_path)
        with (bucket.project / "reelwright.yaml").open("a") as file:
            file.write(CLUSTER.format(more=f", {own_cache}"))
        said = run(slurm, bucket.project, variables=environment(server, caches / "driver"))
        assert bucket_outcome(bucket) == local_outcome(reference)
    assert "submitted; it writes" in said  # training was a job of its own
    for node in NODES:
        assert list(caches.glob(f"{node}/stores/*/embeddings/*/*/zarr.json")), node
    assert not list(caches.glob("driver/stores/*/*/*.zarr/*/zarr.json"))  # it neither makes rows nor reads them


def test_a_lost_node_and_a_killed_submitter_cost_what_was_in_flight(slurm, tmp_path: Path) -> None:
    folder = write_long(tmp_path)
    local = Project.open(folder / "reelwright.yaml", overrides=["store=local"])
    assert local.run().exit_code == 0
    (folder / "reelwright.yaml").write_text(LONG + CLUSTER.format(more=", cpus: 2"))
    store = Project.open(folder / "reelwright.yaml").file.store.root

    def num_done() -> int:
        return len(list(store.glob("nodes/*/items/*.json")))

    with started(slurm, folder) as process:
        wait_until(lambda: num_done() >= 1, process, folder)
        slurm.kill_node("n1")
        wait_until(lambda: num_done() >= 4, process, folder)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while slurm.processes("n2", holding="dask_worker") and time.monotonic() < deadline:
        time.sleep(0.1)  # workers end by themselves when their scheduler is gone
    assert not slurm.processes("n2", holding="dask_worker")
    assert [problem for problem in verify_whole(folder) if problem.is_wrong] == []
    before = finished_files(store)
    slurm.restart_node("n1")
    run(slurm, folder)
    after = stamps(store)
    assert {path: after.get(path) for path in before} == before  # nothing is done twice
    assert [problem for problem in verify_whole(folder) if problem.is_wrong] == []
    assert arrays(store) == arrays(local.file.store.root)


def test_a_long_video_is_shared_by_both_nodes_and_a_lost_one_costs_its_shards(slurm, tmp_path: Path) -> None:
    """512 frames are 16 seconds of work as declared, and 16 shards, one to a unit; decode has brought both workers."""
    names = {"long": 512, "one": 20, "two": 20}
    for number, (name, num_frames) in enumerate(names.items()):
        write_video(tmp_path / f"{name}.mp4", seed=number, num_frames=num_frames)
    write_rows(tmp_path / "videos.csv", [{"video_id": name, "path": f"{name}.mp4"} for name in names])
    (tmp_path / "reelwright.yaml").write_text(STORED)
    local = Project.open(tmp_path / "reelwright.yaml", overrides=["store=local"])
    assert local.run().exit_code == 0
    more = ", cpus: 2, split_seconds: 5, frames_per_second: 32"
    (tmp_path / "reelwright.yaml").write_text(STORED + CLUSTER.format(more=more))
    store = Project.open(tmp_path / "reelwright.yaml").file.store.root
    writers: dict[str, str] = {}

    def both_have_written_and_one_writes() -> bool:
        claimed = claims_by_node(store)
        writers.update(claimed)
        done = {writers[shard] for shard in written(store).keys() - claimed.keys() if shard in writers}
        return done == set(NODES) and "n1" in claimed.values()

    with started(slurm, tmp_path) as process:
        wait_until(both_have_written_and_one_writes, process, tmp_path)
        slurm.kill_node("n1")
        before = written(store)
        assert process.wait(100) == 0, (tmp_path / "log.txt").read_text()
    after = written(store)
    assert len(before) < len(after) == 16 + 2
    assert {name: after.get(name) for name in before} == before  # no shard is written again
    said = " ".join((tmp_path / "log.txt").read_text().split())
    assert "its shards of long are done again" in said
    assert "long: 512 rows by 2 processes" in said
    assert contents(store) == contents(local.file.store.root)
    assert list(verify_whole(tmp_path)) == []
    slurm.restart_node("n1")


def claims_by_node(store: Path) -> dict[str, str]:
    """Shards of embeddings that are being written, and on which node."""
    found = {}
    for shard, process in claims(store).items():
        with suppress(psutil.Error):
            found[shard] = psutil.Process(process).environ()["SLURMD_NODENAME"]
    return found


def test_a_video_that_takes_more_memory_than_a_job_may_have_is_quarantined_and_the_others_are_done(
    slurm, tmp_path: Path
) -> None:
    """SLURM itself kills the jobs: slurmstepd adds up the memory of all their processes once a second (OverMemoryKill).

    It is a real video that takes the memory, in the process that decodes it. What is not shown is a kill by the kernel
    (task/cgroup): SLURM would move the test's processes out of the cgroup that whoever runs the tests keeps them in.
    There the process that took the memory dies alone, by SIGKILL: a decoder as in stages/decode/test_pool.py, or a
    worker as in test_dask.py.
    """
    names = [f"v{number}" for number in range(6)]
    for number, name in enumerate(names):
        write_video(tmp_path / f"{name}.mp4", seed=number)
    write_giant(tmp_path / "giant.mp4")
    write_rows(tmp_path / "videos.csv", [{"video_id": name, "path": f"{name}.mp4"} for name in (*names, "giant")])
    cluster = CLUSTER.format(more=", directives: ['--mem=1200M']")
    pipeline = "videos: {manifest: videos.csv}\nstages:\n  frames: {uses: decode, fps: 5, short_side: 48}"
    (tmp_path / "reelwright.yaml").write_text(pipeline + cluster)
    with started(slurm, tmp_path) as process:
        assert process.wait(300) == 3, (tmp_path / "log.txt").read_text()
    store = Project.open(tmp_path / "reelwright.yaml").file.store.root
    rows = [row for node in store.glob("nodes/*") for row in ItemLedger(node).load().values()]
    assert sorted((row.status, row.cause, row.attempts) for row in rows) == [
        ("crashed", "killed_worker", 3), *[("ok", "", 1)] * 6
    ]  # fmt: skip
    logs = [path.read_text(errors="replace") for path in store.glob("logs/workers/*.err")]
    assert sum("exceeded memory limit" in log for log in logs) == 3, "\n".join(logs)
    num_jobs = len(logs)
    with started(slurm, tmp_path) as process:
        code = process.wait(100)
    said = (tmp_path / "log.txt").read_text()
    assert code == 3, said
    assert len(list(store.glob("logs/workers/*.err"))) == num_jobs  # it is left alone
    assert "It may need more memory than a worker has (cluster.memory)" in said.replace("\n", " ")


def write_giant(path: Path) -> None:
    """Five grey frames of 8192 x 8192 pixels in a few kB: decoding them takes more than 2 GB."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"preset": "ultrafast", "threads": "1"})
        stream.width = stream.height = 8192
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((8192 * 3 // 2, 8192), 128, np.uint8), format="yuv420p")
        for number in range(5):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def arrays(store: Path) -> dict[str, bytes]:
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.glob("embeddings/*/*/**/c/**/*")
        if path.is_file()
    }


def test_training_over_two_nodes_goes_on_after_its_time_and_after_its_submitter(
    slurm, reference: Path, tmp_path: Path
) -> None:
    folder = write_project(tmp_path, videos=reference)
    text = (folder / "reelwright.yaml").read_text().replace("  predict:", f"{TRAINING}  predict:")
    gate = Gate(tmp_path / "gate")
    more = ", training: {nodes: 2, warn_seconds: 165, time: '00:03:00'}"
    (folder / "reelwright.yaml").write_text(f"{text}store: {reference}/.reelwright/store\n" + CLUSTER.format(more=more))
    project = Project.open(folder / "reelwright.yaml", overrides=["stages.long.log_to=[]"])
    store = project.file.store
    with started(slurm, folder, "--until", "long", variables=gate.variables) as process:
        wait_until(lambda: "running n[1-2]" in (folder / "log.txt").read_text(), process, folder)
        process.send_signal(signal.SIGKILL)
    (job,) = (json.loads(path.read_text())["job"] for path in store.root.glob("jobs/*/job.json"))
    slurm.stop_controller()
    with started(slurm, folder, "--until", "long", variables=gate.variables) as process:
        wait_until(lambda: "it is asked again" in " ".join((folder / "log.txt").read_text().split()), process, folder)
        slurm.start_controller()
        wait_until(lambda: "its time is over" in (folder / "log.txt").read_text(), process, folder)
        gate.open()
        slurm.run(
            "scontrol", "update", f"job={job}", "TimeLimit=10"
        )  # minutes; else a busy machine comes never to an end
        code = process.wait(400)
    said = (folder / "log.txt").read_text()
    assert code == 0, said
    assert "trains it already" in said
    assert said.count("submitted; it writes") == 1  # SLURM queued it again itself
    trained = project.trained("long")
    found = [line["train_loss"] for line in trained.metrics()]
    assert [line["epoch"] for line in trained.metrics()] == list(range(1, 21))
    message = slurm.run("scontrol", "show", "job", str(job))
    assert "Restarts=0" not in message
    assert "NumNodes=2" in message
    assert project.run(only=["long"], force=["long"], cluster={"executor": "local"}).exit_code == 0
    expected = [line["train_loss"] for line in project.trained("long").metrics()]
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (", partition: nope", "SLURM refuses the job of a worker: .*Invalid partition name specified. See the cluster"),
        (
            ", environment: [exit 7], wait_minutes: 2",
            r"the jobs of all workers ended before a worker was there: 1 x failed \(NonZero",
        ),
        (", directives: ['--begin=now+1hour'], wait_minutes: 0.3", r"wait_minutes: 0.3 \(1 x pending \(BeginTime\)\)"),
    ],
)
def test_why_there_is_no_worker_is_told(slurm, tmp_path: Path, more: str, reason: str) -> None:
    write_video(tmp_path / "v.mp4", seed=0)
    write_rows(tmp_path / "videos.csv", [{"video_id": "v", "path": "v.mp4"}])
    pipeline = "videos: {manifest: videos.csv}\nstages:\n  frames: {uses: decode, fps: 5, short_side: 48}"
    (tmp_path / "reelwright.yaml").write_text(pipeline + CLUSTER.format(more=more))
    with started(slurm, tmp_path) as process:
        assert process.wait(150) == 1
    said = " ".join((tmp_path / "log.txt").read_text().split())
    assert re.search(reason, said), said


def test_a_controller_that_is_started_again_costs_nothing_but_time(slurm, reference: Path, tmp_path: Path) -> None:
    folder = write_project(tmp_path, videos=reference)
    text = (folder / "reelwright.yaml").read_text().replace("  predict:", f"{TRAINING}  predict:")
    (folder / "reelwright.yaml").write_text(text + CLUSTER.format(more=""))
    said, gate = folder / "log.txt", Gate(tmp_path / "gate")

    def num_epochs() -> int:
        return sum(path.read_text().count("\n") for path in folder.glob(".reelwright/store/runs/*/metrics.jsonl"))

    def is_said(text: str) -> Callable[[], bool]:
        return lambda: text in " ".join(said.read_text().split())

    slurm.stop_controller()
    try:
        with started(slurm, folder, "--until", "long", variables=gate.variables) as process:
            wait_until(is_said("Unable to contact slurm controller"), process, folder)
            slurm.start_controller()
            wait_until(is_said("long: job"), process, folder)
            wait_until(is_said(": running n"), process, folder)
            wait_until(gate.is_reached, process, folder)
            slurm.stop_controller()
            wait_until(is_said("goes on meanwhile"), process, folder)
            gate.open()
            wait_until(lambda: num_epochs() > 1, process, folder)  # without a controller
            slurm.start_controller()
            assert process.wait(400) == 0, said.read_text()
    finally:
        slurm.start_controller()
    assert is_said("the job of a worker is not in the queue yet")()
    assert said.read_text().count("submitted; it writes") == 1
    assert num_epochs() == 20
    assert list(verify_whole(folder)) == []


def test_a_script_that_is_in_the_queue_is_not_put_there_again(
    slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\n#SBATCH --hold\nsleep 100\n")
    submission = Submission(script)
    job = submission()
    assert submission() == job  # as after an sbatch that was heard and got no answer
    assert jobs.look(job, job + 100) == {job: JobState("PENDING", "(JobHeldUser)"), job + 100: JobState(jobs.GONE)}
    jobs.cancel(job)
    assert not jobs.look(job)[job].is_active
    again = submission()
    assert again > job
    jobs.cancel(again)
