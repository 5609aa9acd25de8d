"""One SLURM job: put into the queue, looked at, cancelled, by SLURM's own commands."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from reelwright.storage.errors import ConfigError, StageError

PATIENCE_SECONDS = 1800.0  # for a controller that does not answer, as while it is started again or moved
_LIMIT_SECONDS = 60.0
_AGAIN_SECONDS = 5.0
_T = TypeVar("_T")
GONE = "GONE"  # not in the queue any more
ACTIVE = frozenset(
    {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "STAGE_OUT"}
)
# Of slurm_strerror: the controller was not reached, or did not answer in time.
SILENCE = ("Unable to contact slurm controller", "Socket timed out", "Zero Bytes were transmitted", "in standby mode")


class NoAnswerError(StageError):
    """SLURM's controller does not answer; its jobs go on."""


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
    return int(_run("sbatch", "--parsable", str(script)).split(";")[0])


def find(script: Path) -> int | None:
    """The number of the job in the queue that runs the script; None where there is none."""
    message = _run("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%o")
    lines = (line.strip().partition("|") for line in message.splitlines())
    return next((int(job) for job, _, command in lines if command.strip() == str(script)), None)


def look(*numbers: int) -> dict[int, JobState]:
    """What the queue says of jobs. Raises NoAnswerError when it says nothing."""
    if not numbers:
        return {}
    chosen = ",".join(map(str, numbers))
    try:
        message = _run("squeue", "--noheader", "--states=all", f"--jobs={chosen}", "--format=%i|%T|%R")
    except StageError as error:
        if "Invalid job id" not in str(error):
            raise
        message = ""
    lines = (line.strip().split("|", 2) for line in message.splitlines())
    found = {int(number): JobState(state, where) for number, state, where in lines}
    return {number: found.get(number, JobState(GONE)) for number in numbers}


def cancel(job: int) -> None:
    """Take a job out of the queue, or end it."""
    _run("scancel", str(job))


def partitions() -> list[str]:
    """Names of the partitions. Raises StageError when SLURM does not answer."""
    return sorted(set(_run("sinfo", "--noheader", "--format=%R").split()))


def is_silence(said: str) -> bool:
    """Whether a command of SLURM said that the controller does not answer, rather than no."""
    return any(text in said for text in SILENCE)


def patiently(ask: Callable[[], _T], *, report: Callable[[str], None]) -> _T:
    """What SLURM answers. Raises NoAnswerError when it did not for PATIENCE_SECONDS."""
    until, message = time.monotonic() + PATIENCE_SECONDS, ""
    while True:
        try:
            return ask()
        except NoAnswerError as error:
            if time.monotonic() > until:
                raise
            if str(error) != message:
                message = str(error)
                report(f"{message}; it is asked again")
            time.sleep(_AGAIN_SECONDS)


def _run(*command: str) -> str:
    asked = f"`{' '.join(command)}`"
    try:
        done = subprocess.run(  # noqa: S603 - SLURM's commands with our own arguments, no shell
            command, capture_output=True, text=True, check=False, timeout=_LIMIT_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise NoAnswerError(f"{asked} took over {_LIMIT_SECONDS:g} s") from None
    except OSError as error:
        raise StageError(f"{asked} cannot be run ({error}). Is SLURM reachable from here?") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise (NoAnswerError if is_silence(said) else StageError)(f"{asked} failed: {said}")
    return done.stdout
