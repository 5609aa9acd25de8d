"""The command report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reelwright.cli.completion import complete_node
from reelwright.cli.options import ConfigOption, SetOption

if TYPE_CHECKING:
    from pathlib import Path

    from reelwright.pipeline.project import Project


def report(
    node: Annotated[
        str | None,
        typer.Argument(help="An evaluate, probe or render node; default: all of them.", autocompletion=complete_node),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Print where the reports lie; exit code 1 when one is not there."""
    from reelwright.pipeline.project import Project
    from reelwright.storage.errors import ConfigError, StoreError
    from reelwright.storage.kinds import KINDS

    project = Project.open(config, overrides=overrides or ())
    names = [name for name, settings_ in project.file.nodes.items() if KINDS[settings_.produces].page]
    if not node and not names:
        raise ConfigError(f"{project.file.path}: no node uses evaluate, probe or render, so there is no report")
    missing = []
    for name in [node] if node else names:
        try:
            typer.echo(f"{name}: {report_file(project, name)}")
        except StoreError as error:
            missing.append(str(error))
    if missing:
        raise StoreError("\n  ".join(missing))


def report_file(project: Project, name: str) -> Path:
    """What there is to look at of a node: its page, or its numbers where none was asked for.

    Raises StoreError when it is not there.
    """
    from reelwright.storage.errors import StoreError
    from reelwright.storage.kinds import KINDS

    folder, config = project.report(name), project.file.nodes[name]
    kind = KINDS[config.produces]
    file = folder / (kind.page if config.spec().get("report", True) else kind.marker)
    if not file.is_file():
        raise StoreError(f"{file} is gone. `reelwright run --force {name}` writes it again")
    return file
