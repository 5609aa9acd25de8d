"""Processes that do units: a LocalCluster, a scheduler that is there, or dask-jobqueue's workers on SLURM.

distributed is imported when the first unit is there to be done, never before.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.executors.unit_scheduler import Ended
from reelwright.storage.errors import ConfigError, StageError

_SCALE_SECONDS = 2.0  # between two looks whether workers are missing
_COUNT_SECONDS = 0.5
_RECONNECT_SECONDS = 30.0
_CONNECT_SECONDS = 20.0
_FIRST_REPORT_SECONDS, _REPORT_SECONDS = 15.0, 60.0  # that no worker is there: for the first time, and again
_DEAD_JOBS_SECONDS = 30.0  # more than dask needs to forget a worker that was lost, whose job is replaced then
_CLOSE_SECONDS = 10.0
_SCHEDULER_SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # each death is told at once: we know better what to try again
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,  # see scripts.py
    "distributed.worker.daemon": False,  # decoding processes are children of workers
    "distributed.deploy.lost-worker-timeout": "15s",  # a nanny may start another process meanwhile
    "distributed.admin.log-format": "%(message)s",
}


class DaskPool:
    """Units under way on dask workers; see `unit_scheduler.Pool`. Close it."""

    def __init__(self, settings: ClusterSettings, *, logs: Path, report: Callable[[str], None]) -> None:
        self.settings, self._logs, self._report = settings, logs, report
        self._ended: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._futures: dict[str, Any] = {}
        self._client: Any = None
        self._cluster: Any = None
        self._stack = contextlib.ExitStack()
        self._idle: threading.Timer | None = None
        self._scaled = self._counted = -1e9
        self._wanted = self._num_workers = 0
        self._alone_since: float | None = None  # without any worker
        self._next_report = 0.0
        self._jobs: Any = None  # `slurm_workers.WorkerJobs`
        self._last_refusal = ""
        self._was_gpu_sought = False

    def want(self, num_units: int) -> None:
        """See `Pool`. Workers are never taken away while there is work: dask might choose a busy one."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not num_units:
            if self._cluster is not None:
                self._idle = threading.Timer(self.settings.idle_seconds, self._go_idle)
                self._idle.daemon = True
                self._idle.start()
            return
        if self._client is None:
            self._open()
        target = min(self.settings.workers, max(num_units, self._wanted))
        if self._cluster is not None and (target > self._wanted or time.monotonic() - self._scaled > _SCALE_SECONDS):
            self._scaled, self._wanted = time.monotonic(), target
            self._look_at_refused()
            self._cluster.scale(target)  # the same number again replaces what was lost

    def size(self) -> int:
        """One unit for each worker that is there; 0 while none is."""
        if time.monotonic() - self._counted > _COUNT_SECONDS:
            with contextlib.suppress(OSError):
                self._num_workers = len(self._client.ncores())
            self._counted = time.monotonic()
            self._watch_loneliness()
        return self._num_workers if self._cluster is None else min(self._num_workers, self.settings.workers)

    def submit(self, name: str, unit: dict[str, Any], *, needs_gpu: bool) -> None:
        """See `Pool`."""
        from reelwright.pipeline.executors.dask_worker import do_text

        resources = {"GPU": 1} if needs_gpu and self.settings.gpus else None
        if resources is not None and self.settings.scheduler is not None:
            self._look_for_gpus()
        text, key = json.dumps(unit), f"unit-{name}"
        future = self._client.submit(do_text, text, key=key, pure=False, resources=resources)
        self._futures[name] = future
        future.add_done_callback(lambda ended: self._ended.put((name, ended)))

    def ended(self, timeout_seconds: float) -> list[Ended]:
        """See `Pool`."""
        found = []
        timeout: float | None = timeout_seconds
        while True:
            try:
                name, future = self._ended.get(timeout=timeout) if timeout else self._ended.get_nowait()
            except queue.Empty:
                break
            timeout = None
            if self._futures.pop(name, None) is not None:
                found.append(self._outcome(name, future))
        if not found and self._client is not None and self._client.status in {"closed", "closing"}:
            raise self._gone()
        return found

    def cancel(self) -> None:
        """See `Pool`."""
        futures, self._futures = list(self._futures.values()), {}
        with contextlib.suppress(Exception):  # the scheduler may be what is broken; nothing more can be done
            self._client.cancel(futures, force=True)

    def close(self) -> None:
        """End the workers that were started here, and the connection."""
        if self._idle is not None:
            self._idle.cancel()
        self._stack.close()
        self._client = self._cluster = self._jobs = None

    def _outcome(self, name: str, future: Any) -> Ended:
        """What became of it; the scheduler may be lost at any moment, and the result with it."""
        from distributed import CancelledError

        problem = None
        with contextlib.suppress(OSError, CancelledError):  # OSError: times that ran out, too
            if future.status == "finished":
                return Ended(name=name, done=json.loads(future.result(timeout=_RECONNECT_SECONDS)))
            if future.status == "error":
                problem = future.exception(timeout=_RECONNECT_SECONDS)
        if problem is None:
            self._wait_for_scheduler()
            return Ended(name=name, is_lost=True)
        if type(problem).__name__ == "KilledWorker":
            return Ended(name=name, why=f"worker {getattr(problem.last_worker, 'name', '?')}")
        raise StageError(f"a worker failed: {type(problem).__name__}: {problem}. Its log says more") from problem

    def _wait_for_scheduler(self) -> None:
        """After the connection was lost, until it is there again. Raises StageError when it does not come back."""
        from reelwright.pipeline.executors.dask_worker import LeavePlugin

        until = time.monotonic() + _RECONNECT_SECONDS
        while True:
            if self._client.status == "running":
                with contextlib.suppress(OSError):  # the client may learn of the loss only now
                    self._client.register_plugin(LeavePlugin())
                    return
            if time.monotonic() > until or self._client.status in {"closed", "closing"}:
                raise self._gone()
            time.sleep(0.1)

    def _gone(self) -> StageError:
        where = self.settings.scheduler or "the dask scheduler"
        return StageError(f"{where} is gone and did not come back. What was done is kept: run again to go on")

    def _watch_loneliness(self) -> None:
        """Tell of the waiting for workers, and end it where a limit is set."""
        now = time.monotonic()
        if self._num_workers:
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = now
            self._next_report = now + _FIRST_REPORT_SECONDS
        limit = self.settings.wait_minutes
        if limit is not None and now - self._alone_since > 60 * limit:
            raise StageError(
                f"no worker came within cluster.wait_minutes: {limit:g}{self._jobs_in_words()}. {self._where_to_look()}"
            )
        if self._jobs is not None and now - self._alone_since > _DEAD_JOBS_SECONDS and self._jobs.are_dead():
            raise StageError(
                f"the jobs of all workers ended before a worker was there: {self._jobs}. {self._where_to_look()}"
            )
        if now > self._next_report:
            self._next_report = now + _REPORT_SECONDS
            waited = f"{now - self._alone_since:.0f} s"
            self._report(f"waits for workers since {waited}{self._jobs_in_words()}. {self._where_to_look()}")

    def _look_for_gpus(self) -> None:
        """Say, once, that no worker of somebody else's scheduler has what units wait for."""
        if self._was_gpu_sought:
            return
        self._was_gpu_sought = True
        workers = self._client.scheduler_info()["workers"].values()
        if not any("GPU" in worker.get("resources", {}) for worker in workers):
            self._report(
                "no worker has said that it has a GPU, and units wait for one that does. Start workers with "
                "`dask worker ADDRESS --nthreads 1 --resources GPU=1`, or ask for none with cluster.gpus=0"
            )

    def _jobs_in_words(self) -> str:
        return "" if self._jobs is None else f" ({self._jobs})"

    def _look_at_refused(self) -> None:
        """Tell of jobs of workers that SLURM does not take, when it is news."""
        refusal = "" if self._jobs is None else self._jobs.forget_refused(is_any_there=self._num_workers > 0)
        if refusal and refusal != self._last_refusal:
            self._last_refusal = refusal
            self._report(f"the job of a worker is not in the queue yet: {refusal}; it is tried again")

    def _where_to_look(self) -> str:
        look = {"slurm": "`squeue --me` shows their jobs", "dask": "see the scheduler's dashboard"}
        return f"{look[self.settings.executor]}; logs of workers: {self._logs}"

    def _go_idle(self) -> None:
        self._wanted = 0
        with contextlib.suppress(Exception):  # in a thread of its own, where the cluster may be closing
            self._cluster.scale(0)

    def _open(self) -> None:
        import dask
        from distributed import Client

        from reelwright.pipeline.executors.dask_worker import LeavePlugin

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is told by us, in words
        self._stack.enter_context(dask.config.set(_SCHEDULER_SETTINGS))
        if self.settings.scheduler is None:
            self._cluster = {"dask": self._local_cluster, "slurm": self._slurm_cluster}[self.settings.executor]()
            self._stack.callback(_close, self._cluster)
        try:
            self._client = Client(
                self.settings.scheduler or self._cluster, timeout=_CONNECT_SECONDS, set_as_default=False
            )
        except OSError as error:
            raise StageError(
                f"no dask scheduler answers at {self.settings.scheduler} ({error}). Start one with `dask scheduler`, "
                "and workers with `dask worker ADDRESS --nthreads 1`"
            ) from error
        self._stack.callback(_close, self._client)
        self._client.register_plugin(LeavePlugin())
        address = self._client.scheduler.address
        self._report(f"{self.settings.executor}: scheduler {address}, dashboard {self._client.dashboard_link}")

    def _local_cluster(self) -> Any:
        """Processes on this machine."""
        from distributed import LocalCluster

        settings = self.settings
        threads = os.environ.get("OMP_NUM_THREADS", str(settings.cpus))
        return LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            memory_limit=settings.memory_bytes,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            resources={"GPU": 1} if settings.gpus else {},
            env={"OMP_NUM_THREADS": threads},
        )

    def _slurm_cluster(self) -> Any:
        try:
            from reelwright.pipeline.executors.slurm_workers import WorkerJobs
        except ImportError:
            raise ConfigError("executor slurm needs dask-jobqueue: pip install 'reelwright[slurm]'") from None

        self._jobs = WorkerJobs(self.settings, logs=self._logs)
        return self._jobs.cluster


def _close(opened: Any) -> None:
    with contextlib.suppress(Exception):  # a scheduler that is gone cannot be told, and its workers end by themselves
        opened.close(timeout=_CLOSE_SECONDS)
