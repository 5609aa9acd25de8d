"""The texts of job scripts: dask-jobqueue's options for workers, and the whole script of a training job."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from reelwright.pipeline.config.cluster import ClusterSettings, bytes_of, seconds_of
from reelwright.pipeline.executors import jobs
from reelwright.storage.errors import ConfigError

_MOST_SPARE_SECONDS = 300  # that a worker ends before its job does


def worker_options(settings: ClusterSettings, *, logs: Path) -> dict[str, Any]:
    """Arguments of `dask_jobqueue.SLURMCluster` for one worker a job."""
    spare = min(_MOST_SPARE_SECONDS, settings.time_seconds // 5)
    extra = ["--lifetime", f"{settings.time_seconds - 2 * spare}s", "--lifetime-stagger", f"{spare}s"]
    extra += ["--resources", "GPU=1"] if settings.gpus else []
    directives = [*([f"--gres=gpu:{settings.gpus}"] if settings.gpus else []), *settings.directives]
    return {
        "cores": 1,  # threads of a worker: one unit at a time
        "processes": 1,
        "job_cpu": settings.cpus,
        "memory": settings.memory,
        "job_mem": _slurm_memory(settings.memory),
        "queue": settings.partition,
        "account": settings.account,
        "walltime": slurm_time(settings.time_seconds),
        "job_extra_directives": directives,
        "job_name": "reelwright-worker",
        "python": settings.python or sys.executable,
        "interface": settings.interface,
        "log_directory": str(logs),
        "worker_extra_args": extra,
        "death_timeout": "120",
    }


def worker_script(settings: ClusterSettings, *, logs: Path) -> str:
    """The script that dask-jobqueue submits for a worker; the address of the scheduler is known when it runs.

    Raises ConfigError when dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue.slurm import SLURMJob
    except ImportError:
        raise ConfigError("job scripts of workers need dask-jobqueue: pip install 'reelwright[slurm]'") from None
    options = worker_options(settings, logs=logs)
    job = SLURMJob(
        scheduler="tcp://SCHEDULER",
        name="NAME",
        job_script_prologue=worker_lines(settings),
        **{**options, "log_directory": None},
    )
    return str(job.job_script())


def worker_lines(settings: ClusterSettings) -> list[str]:
    """Lines of shell before a worker starts."""
    threads = f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{settings.cpus}}}"
    return [*settings.environment, threads, *_CALM, _KEEP_MEMORY]


_CALM = ["export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}", "export HF_HUB_OFFLINE=1  # nothing is fetched here"]
# dask has malloc give memory back at once, which a forward pass needs again at once: it then takes twice the time
_KEEP_MEMORY = """export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON="{'MALLOC_TRIM_THRESHOLD_': None}\""""


def training_script(settings: ClusterSettings, *, folder: Path, name: str) -> str:
    """The script of a job that trains the run whose work lies in ``folder``/work.json, with torchrun on every node.

    The warning before the end of its time goes to the training processes, as SIGUSR1: they write a checkpoint and end
    with 75, and the job queues itself again. torchrun itself must not take that signal, which would end it. The script
    has a timer of its own, since SLURM warns once only: not a job that it starts again (22.05), and not again where the
    processes were not ready to listen yet.
    """
    training = settings.training
    gpus = settings.gpus if training.gpus is None else training.gpus
    processes = training.processes or max(1, gpus)
    cpus = training.cpus or settings.cpus
    time = training.time or settings.time
    directives = {
        "job-name": name,
        "nodes": training.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cpus,
        "mem": _slurm_memory(training.memory or settings.memory),
        "time": slurm_time(seconds_of(time)),
        "partition": training.partition or settings.partition,
        "account": settings.account,
        "gres": f"gpu:{gpus}" if gpus else None,
        "signal": f"USR1@{training.warn_seconds}",
        "output": _in_directive(folder / "job.log"),
        "open-mode": "append",
    }
    lines = [f"#SBATCH --{key}={value}" for key, value in directives.items() if value is not None]
    extra = settings.directives if training.directives is None else training.directives
    return _TRAINING.format(
        directives="\n".join([*lines, "#SBATCH --requeue", *(f"#SBATCH {line}" for line in extra)]),
        environment="\n".join([*settings.environment, *_CALM]),
        threads=max(1, cpus // processes),
        python=shlex.quote(settings.python or sys.executable),
        folder=shlex.quote(str(folder)),
        processes=processes,
        warn_seconds=training.warn_seconds,
        silence="|".join(f'*"{said}"*' for said in jobs.SILENCE),
    )


def _in_directive(path: Path) -> str:
    """A path as sbatch reads it after #SBATCH: % begins a pattern, and space and quotes what is not of the path."""
    text = str(path).replace("%", "%%")
    return text if re.fullmatch(r"[\w/.,:+@%=~-]+", text) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def slurm_time(seconds: int) -> str:
    """[days-]hours:minutes:seconds as SLURM reads it."""
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def _slurm_memory(memory: str) -> str:
    return f"{-(-bytes_of(memory) // (1 << 20))}M"


_TRAINING = """#!/usr/bin/env bash
{directives}
set -u
folder={folder}
{environment}
export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{threads}}}
export REELWRIGHT_EVENTS=$folder/events
export MASTER_ADDR=$(hostname)  # a batch script runs on the first of its nodes
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
rm -f "$folder"/stopped.*
(
  until ends=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e) && [ -n "$ends" ] && end=$(date -d "$ends" +%s)
  do sleep 5; done  # SLURM may not answer for a while
  left=$((end - $(date +%s) - {warn_seconds}))
  sleep $((left > 1 ? left : 1))
  while true; do scancel --signal=USR1 "$SLURM_JOB_ID"; sleep 5; done
) > /dev/null 2>&1 &
timer=$!
srun --kill-on-bad-exit=1 bash -c '
  trap "" USR1  # for the processes that train, not for torchrun
  exec "$1" -m torch.distributed.run --nnodes="$SLURM_NNODES" --node-rank="$SLURM_NODEID" \\
    --nproc-per-node={processes} --master-addr="${{SLURM_LAUNCH_NODE_IPADDR:-$MASTER_ADDR}}" \\
    --master-port="$MASTER_PORT" -m reelwright.stages.fit.processes.process "$0"/work.json
' "$folder" {python}
code=$?
kill "$timer"
if ls "$folder"/stopped.* > /dev/null 2>&1; then  # a checkpoint is written: go on in the next job
  until said=$(scontrol requeue "$SLURM_JOB_ID" 2>&1); do
    echo "$said"
    case $said in {silence}) sleep 5 ;; *) break ;; esac
  done
fi
exit $code
"""
