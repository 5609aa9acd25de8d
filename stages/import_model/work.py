"""Take a model that was trained elsewhere into the store: its files are copied, nothing is computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.inputs import unchanged_sources
from reelwright.stages.base.registry import EXPORTED
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.import_model.config import ImportModelConfig
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import InputError, StoreError
from reelwright.storage.files import replacing
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Copy the run into ``runs/<key>``; returns {"weights": digest of the weights, "metrics": those it was made with}.

    Raises InputError where its config.yaml is that of no run, or a file of an exported model is not what was exported.
    """
    config = parse_config(ImportModelConfig, dict(work.config), where=work.node)
    files = {name: Path(path) for name, path in config.sources().items()}
    folder = RunFolder(Store.at(work.store).run(work.key))
    with unchanged_sources(work):
        for path in files.values():
            _check_exported(path, where=work.node)
        values = _values(files["config"], where=work.node)
        folder.write_config(values)
        with replacing(folder.weights) as temporary:  # last: then the run is complete
            shutil.copyfile(files["weights"], temporary)
    reporter.note(f"{work.node}: the model of {values['stage']} node {values['node']}, from {files['weights']}")
    return {"weights": folder.weights_digest(), "metrics": values.get("metrics", {})}


def _values(path: Path, *, where: str) -> dict[str, Any]:
    try:
        values = RunFolder(path.parent).config() if path.name == "config.yaml" else {}
    except StoreError as error:
        raise InputError(f"{where}: {error}") from error
    missing = [name for name in ("stage", "node") if name not in values]
    if missing:
        raise InputError(
            f"{where}: {path} is not the config.yaml of a run (it does not say {missing[0]}). Name the folder of a "
            "run, or what `reelwright export-model` wrote"
        )
    return values


def _check_exported(path: Path, *, where: str) -> None:
    """Raise InputError for a file that the description of an exported model, some folders up, has otherwise."""
    description = next((folder / EXPORTED for folder in path.parents[:3] if (folder / EXPORTED).is_file()), None)
    if description is None:
        return
    try:
        files = json.loads(description.read_text(encoding="utf-8"))["files"]
        expected = files.get(path.relative_to(description.parent).as_posix())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{where}: {description} is damaged: {error}. Export the model again") from error
    if expected is not None and expected != file_digest(path):
        raise InputError(
            f"{where}: {path} is not the file that was exported ({EXPORTED} has another digest): it is damaged or "
            "was changed. Export the model again"
        )
