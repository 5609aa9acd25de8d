"""Loggers elsewhere, MLflow and Weights & Biases: what is not taken is given again, and ends no training."""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from reelwright.stages.fit.loop.logged_names import flat_settings, run_name, tag, tags_of
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder

Note = Callable[[str], None]

PAUSE = 10  # times as long as an attempt that failed took: so what waits for a server is a tenth of the time at most


class ServerLogger(ABC):
    """A logger elsewhere. What it does not take, as while its server is not reached, it is given with what comes next.

    Attempts may last minutes each, so there is a while between those that fail, and an interrupted training, which is
    to end soon, makes none behind one that failed.
    """

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, run: RunFolder, *, first_epoch: int, about: Mapping[str, Any], note: Note) -> None:
        self.folder, self.first_epoch, self.about, self.note = run.loggers, first_epoch, about, note
        self.key = run.path.name
        self._waiting: list[Callable[[], None]] = [self.connect]
        self._next_attempt = 0.0  # on the monotonic clock

    @abstractmethod
    def connect(self) -> None:
        """Begin a run of the logger's own, or go on with it."""

    @abstractmethod
    def send(self, values: Mapping[str, float], epoch: int) -> None:
        """See `Logger.log`."""

    @abstractmethod
    def finish(self, final: Mapping[str, float]) -> None:
        """See `Logger.close`."""

    @abstractmethod
    def is_refused(self, error: Exception) -> bool:
        """Whether an error says that no later attempt would help, as without a key."""

    def open(self) -> None:
        """See Logger. Raises ConfigError where no later attempt would help."""
        try:
            self._give()
        except self.errors as error:
            if self.is_refused(error):
                raise ConfigError(
                    f"{type(self).__name__} cannot be used: {error}. Or leave it out of log_to"
                ) from error
            raise

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """See Logger."""
        self._waiting.append(lambda: self.send(values, epoch))
        if time.monotonic() >= self._next_attempt:
            self._give()

    def close(self, final: Mapping[str, float]) -> None:
        """See Logger."""
        if final or not self._waiting:
            self._waiting.append(lambda: self.finish(final))
            self._give()

    def _give(self) -> None:
        started = time.monotonic()
        try:
            while self._waiting:
                self._waiting[0]()
                del self._waiting[0]
        except self.errors:
            now = time.monotonic()
            self._next_attempt = now + PAUSE * (now - started)
            raise


class MlflowLogger(ServerLogger):
    """A run of MLflow's current experiment; MLFLOW_TRACKING_URI says where. An interrupted one goes on.

    Where its run is not known any more, another one begins, with the epochs from there on.
    """

    def __init__(self, run: RunFolder, *, first_epoch: int, about: Mapping[str, Any], note: Note) -> None:
        super().__init__(run, first_epoch=first_epoch, about=about, note=note)
        self._mlflow: Any = importlib.import_module("mlflow")
        self.errors = (OSError, self._mlflow.MlflowException)
        self._id = run.loggers / "mlflow_run_id"

    def connect(self) -> None:
        """See ServerLogger."""
        before = self._id.read_text(encoding="utf-8") if self._id.is_file() else None
        named: dict[str, Any] = {"run_name": run_name(self.about), "tags": tags_of(self.about)}
        why = "its id was lost" if before is None and self.first_epoch > 1 else ""
        if before is not None:
            gone = self._why_gone(before)
            if not gone:
                self._mlflow.start_run(run_id=before, **named)
                return
            why = f"its run {before} cannot be gone on with: {gone}"
        started = self._mlflow.start_run(**named)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._id.write_text(started.info.run_id, encoding="utf-8")
        self._waiting.insert(1, lambda: self._mlflow.log_params(flat_settings(self.about)))
        if why:
            self.note(f"warning: mlflow: {why}; another run begins with epoch {self.first_epoch}")

    def is_refused(self, error: Exception) -> bool:
        """See ServerLogger."""
        return getattr(error, "error_code", "") in {"UNAUTHENTICATED", "PERMISSION_DENIED"}

    def _why_gone(self, run_id: str) -> str:
        """Why nothing can be added to a run; "" where it is there. A server that does not answer says neither."""
        try:
            found = self._mlflow.get_run(run_id)
        except self._mlflow.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return str(error)
            raise
        return "it was deleted" if found.info.lifecycle_stage == "deleted" else ""

    def send(self, values: Mapping[str, float], epoch: int) -> None:
        """See ServerLogger."""
        self._mlflow.log_metrics({tag(name): float(value) for name, value in values.items()}, step=epoch)

    def finish(self, final: Mapping[str, float]) -> None:
        """See ServerLogger."""
        if final:
            self._mlflow.log_metrics({f"final/{name}": float(value) for name, value in final.items()})
            self._id.unlink(missing_ok=True)  # trained anew (--force), it is another run
        self._mlflow.end_run(status="FINISHED" if final else "KILLED")


class WandbLogger(ServerLogger):
    """A run of Weights & Biases; an interrupted one goes on under the same id. WANDB_PROJECT is its own.

    Its group is the node, so that seeds are drawn as one line with a band. Its files lie in the run's folder of the
    store's loggers/: they change whenever it likes, so that they must not be among those whose digests the record of
    the run has.
    """

    def __init__(self, run: RunFolder, *, first_epoch: int, about: Mapping[str, Any], note: Note) -> None:
        super().__init__(run, first_epoch=first_epoch, about=about, note=note)
        self._wandb: Any = importlib.import_module("wandb")
        self.errors = (OSError, self._wandb.Error)
        self._finished = run.loggers / "wandb_finished"  # how often the run was trained to its end

    def connect(self) -> None:
        """See ServerLogger; one trained anew is another run, since it takes no epoch a second time."""
        self.folder.mkdir(parents=True, exist_ok=True)  # else wandb takes a folder of the system, which may go
        tags, times = tags_of(self.about), self._times_finished()
        self._run = self._wandb.init(
            id=f"{self.key[:28]}-{times}" if times else self.key[:32],
            name=run_name(self.about),
            group=tags["group"],
            job_type=tags["stage"],
            tags=list(dict.fromkeys(value for name, value in tags.items() if value and name != "key")),
            config=dict(self.about),
            dir=str(self.folder),
            resume="allow",
        )

    def is_refused(self, error: Exception) -> bool:
        """See ServerLogger."""
        return type(error).__name__ in {"UsageError", "AuthenticationError"}

    def _times_finished(self) -> int:
        return int(self._finished.read_text(encoding="utf-8")) if self._finished.is_file() else 0

    def send(self, values: Mapping[str, float], epoch: int) -> None:
        """See ServerLogger."""
        self._run.log({tag(name): value for name, value in values.items()}, step=epoch)

    def finish(self, final: Mapping[str, float]) -> None:
        """See ServerLogger."""
        self._run.summary.update({f"final/{name}": value for name, value in final.items()})
        self._run.finish(exit_code=0 if final else 1)
        if final:
            self._finished.write_text(str(self._times_finished() + 1), encoding="utf-8")
