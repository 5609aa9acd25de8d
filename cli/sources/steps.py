"""Commands for step recognition: a procedure to start from, and a detector's outputs as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reelwright.cli.options import on_this_machine
from reelwright.storage.errors import ConfigError


def procedure(
    name: Annotated[str, typer.Argument(help="industreal or meccano.")],
) -> None:
    """Print the procedure file of a known data set, to be used or changed for another."""
    from importlib.resources import files

    from reelwright.storage.errors import nearest

    folder = files("reelwright.stages.steps")
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if name not in known:
        raise ConfigError(f"no procedure {name!r} is known.{nearest(name, known)} Known: {', '.join(known)}")
    typer.echo((folder / f"{name}.yaml").read_text(encoding="utf-8"), nl=False)


def import_detections(
    sources: Annotated[list[Path], typer.Argument(help="Folders of, or single files, <recording>_results_pred.csv.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=on_this_machine, help="The table to write, a .csv.")
    ],
) -> None:
    """Make one table of detected states, for `steps`, of files as the public code of IndustReal leaves them."""
    from reelwright.storage.tables.detections import import_detections as make

    if output.suffix != ".csv":
        raise ConfigError(f"--output {output}: the table is a .csv; give such a name")
    number = make(sources, output)
    typer.echo(f"{number:,} detections in {output}")
