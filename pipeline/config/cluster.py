"""Settings of the `cluster:` block of a pipeline file and of profiles: where and with what work is done, never what."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from reelwright.stages.base.config import Settings

_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d{2})(?::(\d{2}))?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(MB|GB|TB)")
_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def seconds_of(time: str) -> int:
    """'1-02:03:04' -> seconds; '04:00' is four hours."""
    found = _TIME.fullmatch(time)
    assert found is not None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def bytes_of(memory: str) -> int:
    """'4GB' -> bytes."""
    found = _SIZE.fullmatch(memory)
    assert found is not None
    return int(float(found[1]) * _BYTES[found[2]])


def _checked_time(value: str) -> str:
    if _TIME.fullmatch(value) is None or seconds_of(value) < 60:
        raise ValueError("write [days-]hours:minutes[:seconds], in quotes and at least a minute, such as '04:00:00'")
    return value


def _checked_size(value: str) -> str:
    if _SIZE.fullmatch(value) is None or bytes_of(value) < 10**6:
        raise ValueError("write a number and MB, GB or TB, such as 16GB")
    return value


_Time = Annotated[str, AfterValidator(_checked_time)]
_Size = Annotated[str, AfterValidator(_checked_size)]


class TrainingSettings(Settings):
    """Of the job that trains one run; null: as the workers have it."""

    nodes: PositiveInt = 1
    """Machines that train one run together."""
    processes: PositiveInt | None = None
    """Processes on each; null: one for each GPU, or one where there are none."""
    cpus: PositiveInt | None = None  # On each machine.
    gpus: int | None = Field(None, ge=0)
    """On each machine."""
    memory: _Size | None = None  # On each machine, such as 60GB.
    time: _Time | None = None  # SLURM's limit for the job.
    partition: str | None = None  # SLURM's.
    directives: tuple[str, ...] | None = None  # More lines for #SBATCH, in place of the workers'.
    warn_seconds: PositiveInt = 120
    """Seconds before the end of its time at which a job is warned: it writes a checkpoint and is queued again."""
    attempts: PositiveInt = 3
    """Jobs for one run that may end without having come any further."""


class ClusterSettings(Settings):
    """Workers for the stages that go video by video, and jobs for training. None of it is in any key."""

    executor: Literal["local", "dask", "slurm"] = "local"
    """local: processes on this machine; dask: workers here or of a scheduler; slurm: workers and jobs on a cluster."""
    profile: str | None = None
    """A block of the user's file of profiles, over which this one is laid."""
    scheduler: str | None = None
    """dask: address of a scheduler that is there (tcp://host:8786); null: workers are started on this machine."""
    workers: PositiveInt = 2
    """At most so many workers; they come as there is work, and go when idle."""
    cpus: PositiveInt = 1
    """Cores of a worker."""
    memory: _Size = "4GB"
    """Of a worker, which is stopped and replaced when it takes more."""
    gpus: int = Field(0, ge=0)
    """Of a worker. With some, embed and predict go to workers that have one."""
    time: _Time = "04:00:00"
    """SLURM's limit for a job, [days-]hours:minutes[:seconds]; workers end in peace a little earlier."""
    account: str | None = None  # SLURM's; null: your default one.
    partition: str | None = None  # SLURM's; null: its default one.
    directives: tuple[str, ...] = ()
    """More lines for #SBATCH, such as --constraint=a100."""
    environment: tuple[str, ...] = ()
    """Lines of shell before anything is started, such as module load cuda."""
    interface: str | None = None
    """Network interface by which workers reach the scheduler (ib0); null: the usual one."""
    python: str | None = None
    """Interpreter on the workers; null: this one."""
    unit_seconds: PositiveFloat = 20.0
    """Work that a worker is given at once, as far as it can be foreseen."""
    split_seconds: PositiveFloat | None = 120.0
    """A video that takes one worker longer to decode or embed is shared by several, by ranges of shards; null: none."""
    frames_per_second: PositiveFloat = 50.0
    """Frames that a worker decodes or embeds in a second, as declared: what is long is reckoned with it, and ranges."""
    idle_seconds: PositiveFloat = 60.0
    """Without work for so long, all workers go."""
    wait_minutes: PositiveFloat | None = None
    """How long to wait for the first worker; null: as long as the queue takes."""
    training: TrainingSettings = TrainingSettings()

    @property
    def time_seconds(self) -> int:
        """The time limit of a worker's job."""
        return seconds_of(self.time)

    @property
    def memory_bytes(self) -> int:
        """Of a worker."""
        return bytes_of(self.memory)
