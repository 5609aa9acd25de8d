"""Take a model that was trained elsewhere into the store: its files are copied, nothing is computed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.inputs import unchanged_sources
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.import_model.config import ImportModelConfig
from reelwright.storage.errors import InputError, StoreError
from reelwright.storage.files import replacing
from reelwright.storage.results.runs import RunFolder, check_exported, exported_above, exported_names
from reelwright.storage.store import Store


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Copy the run into ``runs/<key>``; returns {"weights": digest of the weights, "metrics": {}}: none is measured.

    Raises InputError where its config.yaml is that of no run, or a file of an exported model is not what was exported.
    """
    config = parse_config(ImportModelConfig, dict(work.config), where=work.node)
    files = {name: Path(path) for name, path in config.sources().items()}
    folder = RunFolder(Store.at(work.store).run(work.key))
    with unchanged_sources(work):
        for path in files.values():
            if (exported := exported_above(path)) is not None:
                name = path.relative_to(exported).as_posix()
                check_exported(exported, {name} & exported_names(exported).keys())
        values = _values(files["config"], where=work.node)
        folder.write_config(values)
        with replacing(folder.weights) as temporary:  # last: then the run is complete
            shutil.copyfile(files["weights"], temporary)
    reporter.note(f"{work.node}: the model of {values['stage']} node {values['node']}, from {files['weights']}")
    return {"weights": folder.weights_digest(), "metrics": {}}


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
