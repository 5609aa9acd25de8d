"""Grids: every combination of values of several settings over the same store, one after the other or several at once.

What two combinations share (decoded frames, embeddings, a trained run) is done once, by the first that needs it: two
that would do the same node never run at once, the second waits until the first has left the record of that node.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile, load_pipeline
from reelwright.pipeline.plan.graph import FRESH, build_graph
from reelwright.pipeline.plan.history import History
from reelwright.pipeline.project import SilentObserver
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.results import Observer, RunOptions
from reelwright.pipeline.run.runner import RunResult, interruptible, open_planner, run_pipeline
from reelwright.stages.base.registry import produced_by
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError, ReelwrightError, StageError

_WORST_FIRST = (1, 3, 0)  # exit codes
_OPENING, _CLOSING = "[{(", "]})"
_SECONDS_BETWEEN_LOOKS = 0.1

# number of a combination and what becomes of it: nothing where it runs in this process, "starts", "ends with 0"
Report = Callable[[int, str], None]

# name of what a node will make -> the record it leaves when it has; None where a record lies there already
Unmade = dict[str, Path | None]


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One point of a grid."""

    settings: tuple[tuple[str, str], ...]  # (name, value as written)
    file: PipelineFile

    def __str__(self) -> str:
        """``train.epochs=5 train.seed=0``."""
        return " ".join(f"{name}={value}" for name, value in self.settings)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one combination."""

    combination: Combination
    result: RunResult
    best: dict[str, tuple[str, float]]  # run node -> metric on val that chose the weights, and its best value


def combinations(path: Path, axes: Sequence[str], *, overrides: Sequence[str] = ()) -> list[Combination]:
    """All combinations of ``name=value,value``, the last name varying fastest; every one is checked.

    Raises ConfigError for an axis without values, a name given twice, or settings that are not allowed.
    """
    parsed = [_axis(axis) for axis in axes]
    names = [name for name, _ in parsed]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ConfigError(
            f"-m: {f'{twice[0]} is given twice' if twice else 'no setting is given'}; "
            "write each once, as in -m train.epochs=5,10 train.seed=0,1"
        )
    found = []
    for values in itertools.product(*(values for _, values in parsed)):
        settings = tuple(zip(names, values, strict=True))
        file = load_pipeline(path, [*overrides, *(f"{name}={value}" for name, value in settings)])
        build_graph(file)
        found.append(Combination(settings=settings, file=file))
    return found


def run_grid(
    grid: Sequence[Combination], observer: Observer, options: RunOptions, *, report: Report, processes: int = 1
) -> list[Outcome]:
    """Run all combinations, at most ``processes`` at once; one that fails does not stop the others.

    With several processes only the reading of videos is shown to ``observer``. Raises ReelwrightError, after all others
    were stopped, when a combination could not run at all.
    """
    if processes > 1:
        anew, quarantined = options.retry_failed, options.retry_quarantined
        read_videos(grid[0].file, observer, jobs=options.jobs, anew=anew, quarantined=quarantined)
        results = _run_at_once(grid, options, report, processes=processes)
    else:
        results = []
        for number, combination in enumerate(grid):
            report(number, "")
            results.append(run_pipeline(combination.file, observer, options))
    pairs = zip(grid, results, strict=True)
    return [Outcome(combination=one, result=result, best=_best(one.file, result)) for one, result in pairs]


def worst_exit_code(outcomes: Sequence[Outcome]) -> int:
    """1 where any failed, else 3 where any video failed, else 0."""
    codes = {outcome.result.exit_code for outcome in outcomes}
    return next((code for code in _WORST_FIRST if code in codes), 0)


def split_values(text: str) -> list[str]:
    """Values between commas; commas inside brackets or quotes do not separate: ``[1,2],[3]`` are two values.

    Raises ValueError for a bracket or quote that is not closed, and for an empty value.
    """
    values, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            values.append("")
            continue
        values[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in _OPENING) - (letter in _CLOSING)
    if depth or quote:
        raise ValueError(f"{quote or 'a bracket'} is not closed")
    values = [value.strip() for value in values]
    if not all(values):
        raise ValueError("a value is empty")
    return values


def _axis(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    if not equals:
        raise ConfigError(f"-m {text!r}: write name=value,value, such as train.epochs=5,10")
    try:
        return name, split_values(values)
    except ValueError as error:
        raise ConfigError(f"-m {text!r}: {error}") from None


def _best(file: PipelineFile, result: RunResult) -> dict[str, tuple[str, float]]:
    planner = open_planner(file)
    ended = [node for node in result.nodes if node.state not in {"failed", "not run"}]
    done = [node.node for node in ended if produced_by(node.stage) == "run"]
    found = {}
    for name in done:
        record = planner.plan(name).record
        best = History(file.store).best(record) if record is not None else None
        if best is not None:
            found[name] = best
    return found


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One combination in a process of its own."""

    unmade: Unmade
    process: BaseProcess
    answers: Connection

    def result(self) -> RunResult:
        """What the process answered. Raises ReelwrightError where it could not run at all."""
        try:
            answer = self.answers.recv()
        except EOFError:
            self.process.join()
            raise StageError(f"a combination's process ended with exit code {self.process.exitcode}") from None
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, RunResult)
        return answer


def _run_at_once(
    grid: Sequence[Combination], options: RunOptions, report: Report, *, processes: int
) -> list[RunResult]:
    waiting = {number: _unmade(combination.file) for number, combination in enumerate(grid)}
    running: dict[int, _Job] = {}
    results: dict[int, RunResult] = {}
    alone = dataclasses.replace(options, ask=None)  # nobody could tell which of several processes asks
    try:
        while waiting or running:
            for number, nodes in list(waiting.items()):
                if len(running) < processes and not any(_clash(nodes, job.unmade) for job in running.values()):
                    running[number] = _start(waiting.pop(number), grid[number].file, alone, processes=processes)
                    report(number, "starts")
            for number in [number for number, job in running.items() if job.answers.poll()]:
                results[number] = running[number].result()
                running.pop(number).process.join()
                report(number, f"ends with {results[number].exit_code}")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:  # each that still runs keeps what it has done
        for job in running.values():
            job.process.terminate()
        for job in running.values():
            job.process.join()
    return [results[number] for number in sorted(results)]


def _start(nodes: Unmade, file: PipelineFile, options: RunOptions, *, processes: int) -> _Job:
    context = multiprocessing.get_context("spawn")  # nothing of this process is shared, no lock and no thread
    answers, answer = context.Pipe(duplex=False)
    process = context.Process(target=_run_one, args=(file, options, processes, answer))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # else Ctrl-C meets an interpreter that starts
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    answer.close()  # the other process's end is the only one now: when that process ends, reading does
    return _Job(unmade=nodes, process=process, answers=answers)


def _run_one(file: PipelineFile, options: RunOptions, processes: int, answer: Connection) -> None:
    """Run one combination with its share of the cores, so that those at work do not slow each other down."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who shares out the work, and ends this one
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))  # before torch is loaded
    try:
        with interruptible():
            found: RunResult | Exception = run_pipeline(file, SilentObserver(), options)
    except (ReelwrightError, OSError) as error:
        found = error
    answer.send(found)


def _unmade(file: PipelineFile) -> Unmade:
    """What a run of ``file`` will make; equal names of two files mean the same output.

    A node whose key depends on weights that are not there yet is named by its settings and what it reads.
    """
    planner = open_planner(file)
    names: dict[str, str] = {}
    found: Unmade = {}
    for plan in planner.plans():
        parents = [names[parent] for parent in plan.node.parents]
        known = plan.spec_key or digest([plan.node.stage, plan.node.config.spec(), parents])
        names[plan.node.name] = known
        if plan.state != FRESH or plan.record is None:
            found[known] = file.store.node(plan.key) / "record.json" if plan.key and plan.record is None else None
    return found


def _clash(one: Unmade, other: Unmade) -> bool:
    """Whether both would make a node that is not there yet."""
    return any(name in other and ((record := one[name]) is None or not record.exists()) for name in one)
