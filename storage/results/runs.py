"""A run: one trained model in a folder, complete exactly when its weights are there.

runs/<key>/
    config.yaml           all that is needed to build the model again and to know what it saw
    metrics.jsonl         one line an epoch: epoch, update, lr, train_loss, ..., val_loss, val_<metric>, ...
    events.out.tfevents.* the same for TensorBoard
    summary.json          epochs, best epoch, metric and its value, seconds
    checkpoints/          best-96.safetensors, after update 96; epoch-10.safetensors, ... where asked for; last/: from
                          where an interrupted run goes on; its state.pt names the best weights that go with it
    init.json             what was taken of the weights it started from (init_from)
    profile.txt           where a step's time went, where asked for
    model.safetensors     the best weights; written last, in one step
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reelwright.storage.constants import LOGGERS
from reelwright.storage.digests import damaged, file_digest, readable
from reelwright.storage.errors import InputError, StoreError
from reelwright.storage.files import remove, write_json, write_text

EXPORTED = "model.json"  # of an exported model, a folder: the digest of every file, as it was written


@dataclass(frozen=True)
class RunFolder:
    """The files of one run below ``path`` (`Store.run(key)`)."""

    path: Path

    @property
    def weights(self) -> Path:
        """The best weights."""
        return self.path / "model.safetensors"

    def best(self, update: int) -> Path:
        """The best weights so far: those after ``update`` updates, while training goes on."""
        return self.path / "checkpoints" / f"best-{update}.safetensors"

    def keep_best(self, update: int | None) -> None:
        """Remove the best weights of all other updates; those that no checkpoint names belong to none."""
        for path in sorted((self.path / "checkpoints").glob("best*.safetensors")):
            if update is None or path != self.best(update):
                remove(path)

    @property
    def last(self) -> Path:
        """The folder from which an interrupted run goes on."""
        return self.path / "checkpoints" / "last"

    def kept(self, epoch: int) -> Path:
        """The weights after an epoch, where they were asked to stay."""
        return self.path / "checkpoints" / f"epoch-{epoch}.safetensors"

    @property
    def init_report(self) -> Path:
        """What was taken of the weights it started from."""
        return self.path / "init.json"

    @property
    def profile(self) -> Path:
        """Where a step's time went."""
        return self.path / "profile.txt"

    @property
    def loggers(self) -> Path:
        """What loggers such as Weights & Biases keep of the run: beside the runs, since their files are not ours."""
        return self.path.parent.parent / LOGGERS / self.path.name

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def is_complete(self) -> bool:
        """Whether training has ended well."""
        return self.weights.is_file()

    def config(self) -> dict[str, Any]:
        """The resolved settings. Raises StoreError when they are not there or no mapping."""
        file = self.path / "config.yaml"
        if not file.is_file():
            raise StoreError(f"{file} is not there: no run was trained here. Run the train or finetune node first.")
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise damaged(file, f"no plain YAML: {error}") from error
        if not isinstance(values, dict):
            raise damaged(file, f"it holds {type(values).__name__}, not a mapping")
        return values

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Write the resolved settings: plain data, keys in the order given; then what only another release wrote."""
        try:
            before = self.config()
        except StoreError:  # not there, or damaged: it is written anew
            before = {}
        values = {**values, **{name: value for name, value in before.items() if name not in values}}
        text = yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True, width=120)
        write_text(self.path / "config.yaml", text)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, oldest first; a last line cut off by a crash is left out."""
        if not self.metrics_file.is_file():
            return []
        with readable(self.metrics_file):
            lines = self.metrics_file.read_text(encoding="utf-8").split("\n")
        with readable(self.metrics_file):
            return [json.loads(line) for line in lines[:-1]]

    def add_metrics(self, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self.metrics_file.parent.mkdir(parents=True, exist_ok=True)
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(values), allow_nan=False) + "\n")

    def keep_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Replace metrics.jsonl by ``records``: what a run that goes on has seen so far."""
        write_text(self.metrics_file, "".join(json.dumps(dict(record)) + "\n" for record in records))

    def summary(self) -> dict[str, Any]:
        """What summary.json says. Raises StoreError when it is not there."""
        file = self.path / "summary.json"
        if not file.is_file():
            raise StoreError(f"{file} is not there: training has not ended. Run the node again.")
        with readable(file):
            values = json.loads(file.read_text(encoding="utf-8"))
            return dict(values)

    def write_summary(self, values: Mapping[str, Any]) -> None:
        """Write summary.json."""
        write_json(self.path / "summary.json", dict(values))

    def weights_digest(self) -> str:
        """The content digest of the best weights. Raises StoreError when the run is not complete."""
        if not self.is_complete:
            raise StoreError(f"{self.weights} is not there: training has not ended. Run the node again.")
        return file_digest(self.weights)

    def clear(self) -> None:
        """Remove all of the run, its weights first, so that a half-removed run never looks complete."""
        remove(self.weights)
        remove(self.path)


def exported_above(path: Path) -> Path | None:
    """The folder of the exported model that a file is in, at most two folders deep; None where it is in none."""
    return next((folder for folder in path.parents[:3] if (folder / EXPORTED).is_file()), None)


def exported_names(folder: Path) -> dict[str, str]:
    """Digest of each file by its place in the folder. Raises InputError where `model.json` is damaged."""
    try:
        return dict(json.loads((folder / EXPORTED).read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / EXPORTED} is damaged: {error!r}. Export the model again") from error


def check_exported(folder: Path, names: Iterable[str]) -> None:
    """Raise InputError for one of the files ``names`` that is not as it was exported."""
    files = exported_names(folder)
    for name in names:
        if not (folder / name).is_file() or file_digest(folder / name) != files.get(name):
            raise InputError(
                f"{folder / name} is not the file that was exported ({EXPORTED} has another digest): it is damaged, "
                "was changed or is gone. Export the model again"
            )


def _plain(value: Any) -> Any:
    """Tuples as lists and mappings as dicts: all that plain YAML knows, dates too, which JSON does not."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
