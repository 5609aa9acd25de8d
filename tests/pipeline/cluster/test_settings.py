"""The cluster block, profiles and options: what holds, what is refused, and that no key sees any of it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from reelwright.pipeline.config.cluster import ClusterSettings, bytes_of, seconds_of
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.config.profiles import VARIABLE, cluster_settings
from reelwright.pipeline.executors.scripts import (
    slurm_time,
    training_script,
    worker_lines,
    worker_options,
    worker_script,
)
from reelwright.pipeline.project import SilentObserver
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.runner import open_planner
from reelwright.storage.errors import ConfigError
from tests.small_project import PIPELINE

PROFILES = """
big: {executor: slurm, partition: gpu, account: abc, gpus: 1, cpus: 8, memory: 60GB, workers: 16}
small: {executor: dask, workers: 1}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "reelwright.yaml").write_text(PIPELINE)
    (tmp_path / "clusters.yaml").write_text(PROFILES)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "clusters.yaml"))
    return tmp_path / "reelwright.yaml"


def settings(project: Path, block: str = "", **given: object) -> ClusterSettings:
    project.write_text(f"{PIPELINE}\n{block}\n")
    return cluster_settings(load_pipeline(project), given)


@pytest.mark.parametrize(
    ("block", "given", "expected"),
    [
        ("", {}, {"executor": "local"}),
        ("cluster: {executor: dask}", {}, {"executor": "dask", "workers": 2}),
        ("cluster: {profile: big}", {}, {"executor": "slurm", "gpus": 1, "workers": 16}),
        ("cluster: {profile: big, workers: 3}", {}, {"executor": "slurm", "workers": 3, "cpus": 8}),
        ("cluster: {profile: big}", {"profile": "small"}, {"executor": "dask", "workers": 1, "gpus": 0}),
        (
            "cluster: {executor: slurm, workers: 3}",
            {"executor": "local", "workers": 5},
            {"executor": "local", "workers": 5},
        ),
        ("", {"scheduler": "tcp://a:1"}, {"executor": "dask", "scheduler": "tcp://a:1"}),
    ],
    ids=["nothing", "block", "profile", "block over profile", "option over block", "options", "scheduler means dask"],
)
def test_options_go_over_the_block_and_that_over_the_profile(project, block, given, expected) -> None:
    found = settings(project, block, **given)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("block", "given", "message"),
    [
        ("cluster: {exectuor: dask}", {}, "exectuor: unknown key"),
        ("cluster: {executor: k8s}", {}, "'k8s' is not allowed"),
        ("cluster: {time: 5h}", {}, "write \\[days-\\]hours:minutes"),
        ("cluster: {memory: lots}", {}, "such as 16GB"),
        ("cluster: {training: {memory: 4}}", {}, "training.memory"),
        ("cluster: {profile: bgi}", {}, "no such block. Did you mean 'big'"),
        ("", {"executor": "slurm", "scheduler": "tcp://a:1"}, "scheduler is for executor: dask"),
        ("", {"executor": "slrum"}, "'slrum' is not allowed"),
    ],
    ids=["key", "executor", "time", "memory", "nested", "profile", "scheduler", "option"],
)
def test_wrong_settings_are_told_with_what_is_allowed(project, block, given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(project, block, **given)


def test_a_missing_file_of_profiles_is_named(project, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "nowhere.yaml")
    with pytest.raises(ConfigError, match="no file of profiles, nowhere\\.yaml"):
        settings(project, "cluster: {profile: big}")


def test_keys_know_nothing_of_where_work_is_done(folder: Path) -> None:
    read_videos(load_pipeline(folder / "reelwright.yaml"), SilentObserver())
    other = "cluster={executor: slurm, workers: 7, gpus: 1, training: {nodes: 3}}"
    plans = [open_planner(load_pipeline(folder / "reelwright.yaml", given)).plans() for given in ([], [other])]
    keys = [[plan.key for plan in found if plan.key] for found in plans]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 3


@pytest.mark.parametrize(
    ("text", "seconds", "slurm"),
    [("00:01", 60, "00:01:00"), ("04:00:00", 14_400, "04:00:00"), ("1-02:03:04", 93_784, "1-02:03:04")],
)
def test_times(text: str, seconds: int, slurm: str) -> None:
    assert seconds_of(text) == seconds
    assert slurm_time(seconds) == slurm


def test_sizes() -> None:
    assert bytes_of("1.5GB") == 1_500_000_000


def test_a_worker_ends_before_its_job_does_and_offers_its_gpu(tmp_path: Path) -> None:
    found = ClusterSettings(
        executor="slurm", time="01:00:00", gpus=1, partition="gpu", directives=("--constraint=a100",)
    )
    text = worker_script(found, logs=tmp_path)
    assert "--lifetime 3000s --lifetime-stagger 300s" in text  # 3000 + 300 < 3600
    assert "--resources GPU=1" in text
    assert {"#SBATCH -p gpu", "#SBATCH --gres=gpu:1", "#SBATCH --constraint=a100"} <= set(text.splitlines())
    assert worker_options(found, logs=tmp_path)["processes"] == 1


def test_workers_of_slurm_keep_the_memory_that_a_forward_pass_needs_again() -> None:
    code = "import dask, distributed; print(dask.config.get('distributed.nanny.pre-spawn-environ'))"
    lines = [*worker_lines(ClusterSettings(executor="slurm")), shlex.join([sys.executable, "-c", code])]
    message = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True).stdout
    assert "'MALLOC_TRIM_THRESHOLD_': None" in message
    assert "OMP_NUM_THREADS" in message  # the rest stays as it is


def test_a_training_job_finds_what_has_spaces_in_its_name(tmp_path: Path) -> None:
    """The script before `srun`, and what that starts, done by bash alone; sbatch takes quotes as a shell does."""
    folder = tmp_path / 'a "b" 5%'
    folder.mkdir()
    python = folder / "py thon"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    script = training_script(ClusterSettings(executor="slurm", python=str(python)), folder=folder, name="reelwright-x")
    (output,) = (line.partition("=")[2] for line in script.splitlines() if line.startswith("#SBATCH --output"))
    assert shlex.split(output) == [str(folder / "job.log").replace("%", "%%")]
    started = script[script.index("bash -c '") : script.index("code=$?")]
    given = {"folder": str(folder), "SLURM_NNODES": "1", "SLURM_NODEID": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    said = subprocess.run(["bash", "-c", started], capture_output=True, text=True, check=True, env=given).stdout
    assert said.splitlines()[-1] == f"{folder}/work.json"
    plain = training_script(ClusterSettings(executor="slurm"), folder=Path("/lab/x"), name="reelwright-x")
    assert "#SBATCH --output=/lab/x/job.log" in plain.splitlines()


def test_a_training_job_is_warned_and_queued_again(tmp_path: Path) -> None:
    training = {"nodes": 2, "gpus": 4, "cpus": 16, "memory": "100GB", "time": "1-00:00", "warn_seconds": 300}
    found = ClusterSettings(executor="slurm", account="abc", environment=("module load cuda",), training=training)
    lines = training_script(found, folder=tmp_path, name="reelwright-train").splitlines()
    directives = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    assert {"--nodes=2", "--ntasks-per-node=1", "--gres=gpu:4", "--cpus-per-task=16", "--time=1-00:00:00"} <= directives
    assert {"--signal=USR1@300", "--requeue", "--account=abc", "--mem=95368M", "--open-mode=append"} <= directives
    assert lines.index("module load cuda") < next(n for n, line in enumerate(lines) if line.startswith("srun"))
    assert "--nproc-per-node=4" in "\n".join(lines)
    assert "  left=$((end - $(date +%s) - 300))" in lines
    assert "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}" in lines  # 16 cores for 4 processes
