"""One SLURM job: put into the queue, looked at, cancelled, by SLURM's own commands."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from reelwright.storage.errors import ConfigError, StageError

_LIMIT_SECONDS = 60.0
GONE = "GONE"  # not in the queue any more
ACTIVE = frozenset(
    {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "STAGE_OUT"}
)


@dataclass(frozen=True)
class JobState:
    """What the queue says of a job."""

    state: str  # SLURM's word, or GONE
    where: str = ""  # its nodes, or why it waits

    @property
    def is_active(self) -> bool:
        """Whether it runs, or will."""
        return self.state in ACTIVE

    def __str__(self) -> str:
        return f"{self.state.lower()} {self.where}".strip()


def check_slurm() -> None:
    """Raise ConfigError where SLURM's commands are not there."""
    missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise ConfigError(
            f"executor slurm: no {', '.join(missing)} here. Run on a login node of the cluster, or use --executor local"
        )


def submit(script: Path) -> int:
    """Put a script into the queue; returns the number of the job. Raises StageError with what sbatch said."""
    told = _run("sbatch", "--parsable", str(script))
    return int(told.split(";")[0])


def look(job: int) -> JobState:
    """What the queue says. Raises StageError when it does not answer."""
    try:
        told = _run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T|%R")
    except StageError as error:
        if "Invalid job id" in str(error):
            return JobState(GONE)
        raise
    state, _, where = told.strip().partition("|")
    return JobState(state, where) if state else JobState(GONE)


def cancel(job: int) -> None:
    """Take a job out of the queue, or end it."""
    _run("scancel", str(job))


def partitions() -> list[str]:
    """Names of the partitions. Raises StageError when SLURM does not answer."""
    return sorted(set(_run("sinfo", "--noheader", "--format=%R").split()))


def _run(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - SLURM's commands with our own arguments, no shell
            command, capture_output=True, text=True, check=False, timeout=_LIMIT_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StageError(f"`{' '.join(command)}` does not answer ({error}). Is SLURM reachable from here?") from error
    if done.returncode:
        raise StageError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
