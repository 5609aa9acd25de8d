"""Workers that are SLURM jobs, by dask-jobqueue, and what it leaves out: jobs that SLURM refused or that have died."""

from __future__ import annotations

import logging
import math
import re
import time
from collections import Counter
from pathlib import Path

from dask_jobqueue import SLURMCluster
from dask_jobqueue.slurm import SLURMJob
from distributed import Status

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.executors import jobs
from reelwright.pipeline.executors.scripts import worker_lines, worker_options
from reelwright.storage.errors import StageError

_REFUSED_SECONDS = 15.0  # between two tries to put jobs into the queue
_LOOK_SECONDS = 10.0  # between two questions to the queue


class _WorkerJob(SLURMJob):  # type: ignore[misc]  # dask-jobqueue has no types
    """Keeps why it could not be put into the queue."""

    refusal = ""

    async def _submit_job(self, script_filename: str) -> str:
        try:
            return str(await super()._submit_job(script_filename))
        except (RuntimeError, OSError) as error:  # RuntimeError: the command, its exit code and what it said
            found = re.search(r"stderr:\n(.*)", str(error), flags=re.DOTALL)
            said = (found[1] if found else str(error)).strip()
            self.refusal = "; ".join(said.splitlines()) or "sbatch failed and said nothing"
            raise


class WorkerJobs:
    """The jobs of all workers of a pool."""

    def __init__(self, settings: ClusterSettings, *, logs: Path) -> None:
        """No worker is there yet; ``cluster.scale`` puts their jobs into the queue."""
        logs.mkdir(parents=True, exist_ok=True)
        self.cluster = SLURMCluster(
            **worker_options(settings, logs=logs),
            job_cls=_WorkerJob,
            job_script_prologue=worker_lines(settings),
            scheduler_options={"dashboard_address": ":0"},
            silence_logs=logging.CRITICAL,
        )
        self._looked = self._refused = -math.inf
        self._states: list[jobs.JobState] | None = None

    def forget_refused(self, *, is_any_there: bool) -> str:
        """Why SLURM refused jobs, if it did since; the next ``cluster.scale`` puts them into the queue again.

        Raises StageError when it said no and there is neither a worker nor a job: trying again would not help.
        """
        if time.monotonic() - self._refused < _REFUSED_SECONDS:
            return ""
        refused = {
            name: job
            for name, job in list(self.cluster.workers.items())
            if job.refusal and job.status == Status.created
        }
        if not refused:
            return ""
        self._refused = time.monotonic()
        for name in refused:
            self.cluster.workers.pop(name, None)
        refusal = str(next(iter(refused.values())).refusal)
        if not (jobs.is_silence(refusal) or is_any_there or self._is_any_active(anew=True)):
            raise StageError(
                f"SLURM refuses the job of a worker: {refusal}. See the cluster block; `reelwright cluster script` "
                "prints the job, and `reelwright doctor` checks the rest"
            )
        return refusal

    def are_dead(self) -> bool:
        """Whether jobs were there, and none of them runs or waits any more."""
        return not self._is_any_active() and bool(self._states)

    def __str__(self) -> str:
        """How many are in which state, and why they wait, as of the last look."""
        states = self._look()
        if states is None:
            return "SLURM does not answer"
        counts = Counter(map(str, states))
        return ", ".join(f"{count} x {state}" for state, count in counts.items()) or "no job in the queue"

    def _is_any_active(self, *, anew: bool = False) -> bool:
        """Also where SLURM does not say."""
        states = self._look(anew=anew)
        return states is None or any(state.is_active for state in states)

    def _look(self, *, anew: bool = False) -> list[jobs.JobState] | None:
        if anew or time.monotonic() - self._looked > _LOOK_SECONDS:
            numbers = (int(job.job_id) for job in list(self.cluster.workers.values()) if getattr(job, "job_id", None))
            try:
                self._states = list(jobs.look(*numbers).values())
            except jobs.NoAnswerError:
                self._states = None
            self._looked = time.monotonic()
        return self._states
