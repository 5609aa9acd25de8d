"""The seam between what is to be done and where: `execute` knows an Executor, a stage knows neither."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.executors.progress_file import LiveReporter
from reelwright.stages.base.inputs import bring_inputs
from reelwright.stages.base.registry import load, stage_of
from reelwright.stages.base.work import Reporter, Work

if TYPE_CHECKING:
    from reelwright.pipeline.executors.dask_pool import DaskPool

Ask = Callable[[str], bool]  # a question for a person; whether the answer is yes


class Executor(Protocol):
    """Does the work of a node."""

    def items(self, work: Work, reporter: LiveReporter) -> None:
        """Do the videos of ``work``; every one ends as a row of the node's ledger."""

    def whole(self, work: Work, reporter: LiveReporter) -> dict[str, Any]:
        """Do a node that has no items, a run or a table; returns its outputs."""


class LocalExecutor:
    """In this process and those that stages start."""

    def items(self, work: Work, reporter: LiveReporter) -> None:
        """See Executor."""
        bring_inputs(work)
        load(stage_of(work.stage).work)(work, reporter)

    def whole(self, work: Work, reporter: LiveReporter) -> dict[str, Any]:
        """See Executor."""
        bring_inputs(work)
        outputs: dict[str, Any] = load(stage_of(work.stage).work)(work, reporter)
        return dict(outputs)


class DaskExecutor(LocalExecutor):
    """Videos of the stages that are worth it on dask workers, all else here."""

    def __init__(self, settings: ClusterSettings, *, logs: Path) -> None:
        self.settings = settings
        self._logs = logs
        self._pool: DaskPool | None = None
        self._reporter: Reporter | None = None

    def items(self, work: Work, reporter: LiveReporter) -> None:
        """See Executor."""
        if not stage_of(work.stage).spreads:
            super().items(work, reporter)
            return
        from reelwright.pipeline.executors.dask_pool import DaskPool
        from reelwright.pipeline.executors.unit_scheduler import Spreader

        self._reporter = reporter
        pool = self._pool = self._pool or DaskPool(self.settings, logs=self._logs, report=self._report)
        try:
            work = sized(work, cpus=self.settings.cpus)
            Spreader(work, pool, reporter, self.settings, report_running=reporter.running).run()
        finally:
            pool.want(0)

    def close(self) -> None:
        """End what was started."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _report(self, text: str) -> None:
        """To the node at work, or the last one."""
        if self._reporter is not None:
            self._reporter.note(text)


def sized(work: Work, *, cpus: int) -> Work:
    """The same work with as many decoding processes as a worker has cores, where the settings leave it open."""
    beside = max(1, cpus // 2)  # of a forward pass
    refs = {
        name: tuple(replace(ref, config=_sized_config(ref.config, beside)) for ref in given)
        for name, given in work.inputs.items()
    }
    return replace(work, config=_sized_config(work.config, cpus), inputs=refs)


def _sized_config(config: Mapping[str, Any], cpus: int) -> dict[str, Any]:
    is_open = "workers" in config and config["workers"] is None
    return {**config, "workers": cpus} if is_open else dict(config)


class SlurmExecutor(DaskExecutor):
    """Videos on workers that dask-jobqueue starts, training as jobs of its own, all else here."""

    def __init__(self, settings: ClusterSettings, *, logs: Path, ask: Ask | None) -> None:
        super().__init__(settings, logs=logs)
        self._ask = ask

    def whole(self, work: Work, reporter: LiveReporter) -> dict[str, Any]:
        """See Executor."""
        if not stage_of(work.stage).trains:
            return super().whole(work, reporter)
        from reelwright.pipeline.executors.training import train_as_job

        return train_as_job(work, reporter, self.settings, ask=self._ask)


@contextlib.contextmanager
def executing(file: PipelineFile, settings: ClusterSettings, *, ask: Ask | None = None) -> Iterator[Executor]:
    """The executor that the settings name; what it starts ends with the block."""
    if settings.executor == "local":
        yield LocalExecutor()
        return
    logs = file.store.logs("workers")
    executor = (
        DaskExecutor(settings, logs=logs)
        if settings.executor == "dask"
        else SlurmExecutor(settings, logs=logs, ask=ask)
    )
    try:
        yield executor
    finally:
        executor.close()
