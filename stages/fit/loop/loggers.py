"""Where metrics go besides metrics.jsonl: TensorBoard always, MLflow and Weights & Biases when asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from reelwright.stages.fit.loop.logged_names import flat_settings, tag
from reelwright.stages.fit.loop.servers import MlflowLogger, Note, WandbLogger
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder


class Logger(Protocol):
    """Takes the values of an epoch."""

    errors: tuple[type[Exception], ...]  # of its library or the network: no reason to end a training

    def open(self) -> None:
        """Training begins, or goes on."""

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Values by name; `val_loss` stands under `val/loss`."""

    def close(self, final: Mapping[str, float]) -> None:
        """Nothing more comes; ``final`` is how it ended, with the best value on val; empty: it did not end."""


class TensorBoardLogger:
    """Event files in the run folder."""

    errors: tuple[type[Exception], ...] = ()  # what cannot be written beside the run is a reason

    def __init__(self, run: RunFolder, *, first_epoch: int, about: Mapping[str, Any], note: Note) -> None:
        del note
        from torch.utils.tensorboard import SummaryWriter  # here, since predict asks this module for names only

        self._board = SummaryWriter(run.path, purge_step=first_epoch)
        self._settings = flat_settings(about)

    def open(self) -> None:
        """See Logger; it is from the start."""

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """See Logger."""
        for name, value in values.items():
            self._board.add_scalar(tag(name), value, epoch)

    def close(self, final: Mapping[str, float]) -> None:
        """See Logger; settings and final values are in the board's table of hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        named = {f"final/{name}": value for name, value in final.items()}
        writer: Any = self._board.file_writer
        for summary in hparams(self._settings, named) if final else ():  # type: ignore[no-untyped-call]
            writer.add_summary(summary)  # as `add_hparams`, which would begin another run for it
        for name, value in named.items():
            self._board.add_scalar(name, value)
        self._board.close()


LOGGERS: dict[str, Callable[..., Logger]] = {
    "tensorboard": TensorBoardLogger,
    "mlflow": MlflowLogger,
    "wandb": WandbLogger,
}


def check_loggers(names: Sequence[str]) -> None:
    """ConfigError for one that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"log_to: {name} is not installed. `pip install reelwright[{name}]`, or leave it out: metrics.jsonl "
                "and TensorBoard are written anyway."
            )


def open_loggers(
    run: RunFolder, names: Sequence[str], *, first_epoch: int, about: Mapping[str, Any], note: Note
) -> list[Logger]:
    """TensorBoard's and those of ``names``; epochs from ``first_epoch`` on are written again after an interruption.

    One whose server is not reached is there all the same: it is tried again later. Raises ConfigError where that could
    not help.
    """
    loggers = [LOGGERS[name](run, first_epoch=first_epoch, about=about, note=note) for name in ("tensorboard", *names)]
    notify(loggers, "the beginning", lambda logger: logger.open(), note=note)
    return loggers


def notify(loggers: Iterable[Logger], what: str, function: Callable[[Logger], None], *, note: Note) -> None:
    """Call ``function`` of every logger; where one fails for reasons of its own, ``note`` says so and all go on."""
    for logger in loggers:
        try:
            function(logger)
        except logger.errors as error:
            note(f"warning: {type(logger).__name__} did not take {what}: {error}; metrics.jsonl has it")
