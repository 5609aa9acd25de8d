"""A run as a SLURM job: submitted or found again, watched, queued again when its time is over, cancelled when asked to.

jobs/<key>/  job.json           number of the job that trains the run now
             work.json          the unit of work, plain data
             job.sh             the script
             events.<rank>.jsonl   what the training processes say
             job.log            what is printed in the job

The job goes on when this process dies; the next `run` finds it by job.json, or finds what it has done.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.executors import jobs
from reelwright.pipeline.executors.scripts import training_script
from reelwright.stages.base.work import Reporter, Work, work_to_plain
from reelwright.storage import errors
from reelwright.storage.errors import ConfigError, ReelwrightError, StageError, StoreError
from reelwright.storage.files import remove, write_json, write_text
from reelwright.storage.heartbeat import check_held
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import CACHE_VARIABLE, Store, backend_of

_POLL_SECONDS = 0.5
_LOOK_SECONDS = 5.0  # between two questions to the queue
_SHOWN_SECONDS = 60.0  # for a shared file system to show a file that was written on another machine
_FLUSH_SECONDS = 10.0  # for a shared file system to show the last events of a job that has ended
_TAIL_LINES = 12
_SAYS = {"total": ("amount", "unit", "done"), "advance": ("amount",), "note": ("text",), "error": ("kind", "message")}


def _event(line: bytes) -> dict[str, Any] | None:
    """What a line of a file of events says; None where it is damaged."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(values, dict) and values.keys() >= {"event", *_SAYS.get(str(values.get("event")), ())}
    return values if is_whole else None


@dataclass
class JobFolder:
    """The files of one job."""

    path: Path

    @property
    def script(self) -> Path:
        """What sbatch is given."""
        return self.path / "job.sh"

    @property
    def log(self) -> Path:
        """What is printed in the job."""
        return self.path / "job.log"

    def write(self, work: Work, settings: ClusterSettings) -> None:
        """Write work and script; events of an earlier job are removed."""
        for old in (*self.path.glob("events.*"), *self.path.glob("stopped.*")):
            remove(old)
        config = {**work.config, "processes": 1}  # how many there are is torchrun's to say
        write_json(self.path / "work.json", work_to_plain(replace(work, config=config)))
        name = f"reelwright-{work.node}-{work.key[:8]}"
        write_text(self.script, training_script(settings, folder=self.path, name=name))

    def job(self) -> int | None:
        """The number of the job that was submitted last."""
        try:
            return int(json.loads((self.path / "job.json").read_text(encoding="utf-8"))["job"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # damaged: submitted anew
            return None

    def tail(self) -> str:
        """The end of the log."""
        if not self.log.is_file():
            return "nothing"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n  ".join(lines[-_TAIL_LINES:])


@dataclass
class _Watch:
    """One run on its way through one job or several."""

    work: Work
    reporter: Reporter
    settings: ClusterSettings
    folder: JobFolder
    offsets: dict[Path, int] = field(default_factory=dict)  # bytes read of files of events
    result: dict[str, Any] | None = None
    problem: ReelwrightError | None = None
    message: str = ""  # state of the job that was told last
    said: str = ""  # by the training processes last
    reported: int = 0  # of the progress, so that it never runs backwards when a job goes on
    counted: int = 0
    moves: int = 0  # times that the job came further than any before
    damaged: Path | None = None  # file of events of which it was said last

    def read(self) -> None:
        """Take what the training processes have said since."""
        for path in sorted(self.folder.path.glob("events.*.jsonl")):
            for event in self._new(path):
                self._take(event)

    def _new(self, path: Path) -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            file.seek(self.offsets.get(path, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written
                self.offsets[path] = self.offsets.get(path, 0) + len(line)
                event = _event(line)
                if event is not None:
                    yield event
                elif self.damaged != path:
                    self.damaged = path
                    self.reporter.note(f"a line of {path} is damaged and left out: the progress shown may be wrong")

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "total":
                self.counted = event["done"]  # a job that goes on says anew how far it is
                self.reported = max(self.reported, self.counted)
                self.reporter.total(event["amount"], event["unit"], event["done"])
            case "advance":
                self.counted += event["amount"]
                if self.counted > self.reported:
                    self.moves += 1
                    self.reporter.advance(self.counted - self.reported)
                    self.reported = self.counted
            case "note":
                self.reporter.note(event["text"])
            case "interrupted":
                self.note_once(f"its time is over: {event.get('message', '').split(';')[0]}")
            case "result" if event.get("result") is not None:
                self.result = event["result"]
            case "error":
                kind = getattr(errors, event["kind"], StageError)
                self.problem = self.problem or kind(event["message"])

    def note_once(self, text: str) -> None:
        """What is said again and again, as by each of the processes."""
        if text != self.said:
            self.said = text
            self.reporter.note(text)

    def report(self, job: int, state: jobs.JobState) -> None:
        """Say what became of the job, when it is news."""
        if str(state) != self.message:
            self.message = str(state)
            self.reporter.note(f"job {job}: {state}")


def train_as_job(work: Work, reporter: Reporter, settings: ClusterSettings, *, ask: Any) -> dict[str, Any]:
    """Train the run of ``work`` in a SLURM job, waiting for it; returns what the stage returns.

    Ctrl-C asks whether to cancel the job, where somebody is there to be asked; else it goes on, and so does what waits
    for it with the next `run`. Raises what the stage raises, and StageError when jobs end without coming any further.
    """
    jobs.check_slurm()
    store = Store.at(work.store)
    if store.url is not None and CACHE_VARIABLE not in os.environ:
        raise ConfigError(
            f"{work.node}: the store is {store.url}, so set {CACHE_VARIABLE} to a folder that all nodes of the cluster "
            "see: scripts and logs of training jobs lie there"
        )
    folder = JobFolder(store.job(work.key))
    run = RunFolder(store.run(work.key))
    watch = _Watch(work, reporter, settings, folder)
    job = folder.job()
    if job is not None:
        watch.read()
        state = jobs.patiently(partial(jobs.look, job), report=reporter.note)[job]
        if watch.result is not None and run.is_complete and not state.is_active:
            return _taken(watch, run, f"job {job} has trained it meanwhile")
        if state.is_active:
            reporter.note(f"job {job} trains it already")
        else:
            job = None
    try:
        return _follow(watch, run, job)
    except KeyboardInterrupt:
        _ask_to_cancel(folder, ask, reporter)
        raise


def _follow(watch: _Watch, run: RunFolder, job: int | None) -> dict[str, Any]:
    """Submit jobs, one after the other, until the run is there."""
    fruitless = 0
    while True:
        if job is None:
            job = _submit(watch)
        _wait(watch, job)
        if watch.problem is not None:
            raise watch.problem
        if watch.result is not None:
            return _taken(watch, run, f"job {job} is done")
        fruitless = 0 if watch.moves else fruitless + 1
        if fruitless >= watch.settings.training.attempts:
            raise StageError(
                f"{watch.work.node}: {fruitless} jobs ended without coming any further, the last one is {job}. "
                f"{watch.folder.log} ends with:\n  {watch.folder.tail()}"
            )
        watch.reporter.note(
            f"job {job} ended before training did ({watch.message or 'gone'}); another one goes on with it"
        )
        job = None


def _taken(watch: _Watch, run: RunFolder, message: str) -> dict[str, Any]:
    assert watch.result is not None
    backend_of(run.path).pull(run.path, anew=True)
    until = time.monotonic() + _SHOWN_SECONDS
    while not run.is_complete and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    if run.weights_digest() != watch.result.get("weights"):
        raise StoreError(f"{run.weights} is not what the job wrote. Run again with --force {watch.work.node}")
    watch.reporter.note(message)
    return watch.result


def _submit(watch: _Watch) -> int:
    watch.folder.write(watch.work, watch.settings)
    watch.offsets, watch.result, watch.problem, watch.moves = {}, None, None, 0
    job = jobs.patiently(Submission(watch.folder.script), report=watch.reporter.note)
    write_json(watch.folder.path / "job.json", {"job": job})
    watch.reporter.note(f"job {job} submitted; it writes {watch.folder.log}")
    return job


@dataclass
class Submission:
    """Put a script into the queue, once: sbatch may have been heard where it got no answer."""

    script: Path
    was_tried: bool = False

    def __call__(self) -> int:
        """The number of its job. Raises what `jobs` does."""
        found = jobs.find(self.script) if self.was_tried else None
        self.was_tried = True
        return jobs.submit(self.script) if found is None else found


def _wait(watch: _Watch, job: int) -> None:
    """Until the job is not in the queue any more, or has said how training ended."""
    looked, ended, answered = -_LOOK_SECONDS, None, time.monotonic()
    while True:
        check_held(watch.folder.script)
        watch.read()
        now = time.monotonic()
        if ended is None and now - looked >= _LOOK_SECONDS:
            looked = now
            try:
                state = jobs.look(job)[job]
            except jobs.NoAnswerError as error:
                if now - answered > jobs.PATIENCE_SECONDS:
                    raise
                watch.note_once(f"{error}; job {job} goes on meanwhile")
            else:
                answered = now
                watch.report(job, state)
                ended = None if state.is_active else now
        if watch.result is not None or watch.problem is not None:
            return
        if ended is not None and now - ended > _FLUSH_SECONDS:
            return
        time.sleep(_POLL_SECONDS)


def _ask_to_cancel(folder: JobFolder, ask: Any, reporter: Reporter) -> None:
    job = folder.job()
    if job is None:
        return
    if ask is not None and ask(f"Cancel job {job}? Otherwise it goes on, and `run` finds it again."):
        jobs.cancel(job)
        reporter.note(f"job {job} is cancelled; its last checkpoint is kept")
    else:
        reporter.note(f"job {job} goes on; `reelwright run` waits for it again, `scancel {job}` ends it")
