"""Where metrics go besides metrics.jsonl: TensorBoard always, MLflow and Weights & Biases when asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder

Note = Callable[[str], None]


class Logger(Protocol):
    """Takes the values of an epoch."""

    errors: tuple[type[Exception], ...]  # of its library or the network: no reason to end a training

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
        self._settings = _flat(about)

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """See Logger."""
        for name, value in values.items():
            self._board.add_scalar(_tag(name), value, epoch)

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


class MlflowLogger:
    """A run of MLflow's current experiment; MLFLOW_TRACKING_URI says where. An interrupted one goes on.

    Where its run is not known any more, another one begins, with the epochs from there on.
    """

    def __init__(self, run: RunFolder, *, first_epoch: int, about: Mapping[str, Any], note: Note) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        self.errors: tuple[type[Exception], ...] = (OSError, self._mlflow.MlflowException)
        self._note = run.loggers / "mlflow_run_id"
        before = self._note.read_text(encoding="utf-8") if self._note.is_file() else None
        named: dict[str, Any] = {"run_name": run_name(about), "tags": _tags(about)}
        why = "its id was lost" if first_epoch > 1 and before is None else ""
        if before is not None:
            try:
                self._mlflow.start_run(run_id=before, **named)
            except self._mlflow.MlflowException as error:
                why = f"its run {before} cannot be gone on with: {error}"
        if before is None or why:
            started = self._mlflow.start_run(**named)
            run.loggers.mkdir(parents=True, exist_ok=True)
            self._note.write_text(started.info.run_id, encoding="utf-8")
            self._mlflow.log_params(_flat(about))
        if why:
            note(f"warning: mlflow: {why}; another run begins with epoch {first_epoch}")

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """See Logger."""
        self._mlflow.log_metrics({_tag(name): float(value) for name, value in values.items()}, step=epoch)

    def close(self, final: Mapping[str, float]) -> None:
        """See Logger."""
        if final:
            self._mlflow.log_metrics({f"final/{name}": float(value) for name, value in final.items()})
            self._note.unlink(missing_ok=True)  # trained anew (--force), it is another run
        self._mlflow.end_run(status="FINISHED" if final else "KILLED")


class WandbLogger:
    """A run of Weights & Biases; an interrupted one goes on under the same id. WANDB_PROJECT is its own.

    Its group is the node, so that seeds are drawn as one line with a band. Its files lie in the run's folder of the
    store's loggers/: they change whenever it likes, so that they must not be among those whose digests the record of
    the run has.
    """

    def __init__(self, run: RunFolder, *, first_epoch: int, about: Mapping[str, Any], note: Note) -> None:
        del first_epoch, note
        wandb: Any = importlib.import_module("wandb")
        self.errors: tuple[type[Exception], ...] = (OSError, wandb.Error)
        run.loggers.mkdir(parents=True, exist_ok=True)  # else wandb takes a folder of the system, which may go
        tags = _tags(about)
        self._run = wandb.init(
            id=run.path.name[:32],
            name=run_name(about),
            group=tags["group"],
            job_type=tags["stage"],
            tags=list(dict.fromkeys(value for name, value in tags.items() if value and name != "key")),
            config=dict(about),
            dir=str(run.loggers),
            resume="allow",
        )

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """See Logger."""
        self._run.log({_tag(name): value for name, value in values.items()}, step=epoch)

    def close(self, final: Mapping[str, float]) -> None:
        """See Logger."""
        self._run.summary.update({f"final/{name}": value for name, value in final.items()})
        self._run.finish(exit_code=0 if final else 1)


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
    """TensorBoard's and those of ``names``; epochs from ``first_epoch`` on are written again after an interruption."""
    return [LOGGERS[name](run, first_epoch=first_epoch, about=about, note=note) for name in ("tensorboard", *names)]


def notify(loggers: Iterable[Logger], what: str, function: Callable[[Logger], None], *, note: Note) -> None:
    """Call ``function`` of every logger; where one fails for reasons of its own, ``note`` says so and all go on."""
    for logger in loggers:
        try:
            function(logger)
        except logger.errors as error:
            note(f"warning: {type(logger).__name__} did not take {what}: {error}; metrics.jsonl has it")


def run_name(about: Mapping[str, Any]) -> str:
    """What people call a run: its node and the settings that are changed most, ``train@1: gru, lr 0.001, seed 1``."""
    optimizer = about.get("optimizer") or {}
    parts = {
        "": (about.get("model") or {}).get("name"),
        "lr": optimizer.get("lr"),
        "batch": about.get("batch_size"),
        "seed": about.get("seed"),
    }
    given = {word: value for word, value in parts.items() if value is not None}
    shown = [f"{word} {f'{value:g}' if isinstance(value, float) else value}".strip() for word, value in given.items()]
    return f"{about.get('node', 'train')}: {', '.join(shown)}" if shown else str(about.get("node", "train"))


def _tags(about: Mapping[str, Any]) -> dict[str, str]:
    """By which runs are found: those of one node that differ by seeds (train@0, train@1) are a group."""
    node = str(about.get("node", "train"))
    model = str((about.get("model") or {}).get("name", ""))
    stage, key = str(about.get("stage", "")), str(about.get("key", ""))
    return {"group": node.partition("@")[0], "node": node, "stage": stage, "model": model, "key": key}


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
