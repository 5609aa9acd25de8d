"""Where metrics go besides metrics.jsonl: TensorBoard always, MLflow and Weights & Biases when asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder


class Logger(Protocol):
    """Takes the values of an epoch."""

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Values by name; `val_loss` stands under `val/loss`."""

    def close(self) -> None:
        """Nothing more comes."""


class TensorBoardLogger:
    """Event files in the run folder."""

    def __init__(self, run: RunFolder, *, first_epoch: int, about: Mapping[str, Any]) -> None:
        del about
        from torch.utils.tensorboard import SummaryWriter  # here, since predict asks this module for names only

        self._board = SummaryWriter(run.path, purge_step=first_epoch)

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """See Logger."""
        for name, value in values.items():
            self._board.add_scalar(_tag(name), value, epoch)

    def close(self) -> None:
        """See Logger."""
        self._board.close()


class MlflowLogger:
    """A run of MLflow's current experiment, named as the node; MLFLOW_TRACKING_URI says where."""

    def __init__(self, run: RunFolder, *, first_epoch: int, about: Mapping[str, Any]) -> None:
        del first_epoch
        self._mlflow: Any = importlib.import_module("mlflow")
        self._mlflow.start_run(run_name=f"{about.get('node', 'train')} {run.path.name[:12]}")
        self._mlflow.log_params(_flat(about))

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """See Logger."""
        self._mlflow.log_metrics({_tag(name): float(value) for name, value in values.items()}, step=epoch)

    def close(self) -> None:
        """See Logger."""
        self._mlflow.end_run()


class WandbLogger:
    """A run of Weights & Biases; an interrupted one goes on under the same id. WANDB_PROJECT is its own.

    Its files lie in the run's folder of the store's loggers/: they change whenever it likes, so that they must not be
    among those whose digests the record of the run has.
    """

    def __init__(self, run: RunFolder, *, first_epoch: int, about: Mapping[str, Any]) -> None:
        del first_epoch
        wandb: Any = importlib.import_module("wandb")
        run.loggers.mkdir(parents=True, exist_ok=True)  # else wandb takes a folder of the system, which may go
        self._run = wandb.init(
            id=run.path.name[:32],
            name=str(about.get("node", "train")),
            config=dict(about),
            dir=str(run.loggers),
            resume="allow",
        )

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """See Logger."""
        self._run.log({_tag(name): value for name, value in values.items()}, step=epoch)

    def close(self) -> None:
        """See Logger."""
        self._run.finish()


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


def open_loggers(run: RunFolder, names: Sequence[str], *, first_epoch: int, about: Mapping[str, Any]) -> list[Logger]:
    """TensorBoard's and those of ``names``; epochs from ``first_epoch`` on are written again after an interruption."""
    return [LOGGERS[name](run, first_epoch=first_epoch, about=about) for name in ("tensorboard", *names)]


def _tag(name: str) -> str:
    return name.replace("_", "/", 1) if name.startswith(("train_", "val_")) else name


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `optimizer.lr`: MLflow knows no nesting and at most 500 letters."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)[:500]
    return flat
