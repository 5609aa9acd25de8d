"""Commands that look at things: show, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reelwright.cli.completion import complete_node
from reelwright.cli.options import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from pathlib import Path

    from reelwright.pipeline.project import Project


def show(
    node: Annotated[str, typer.Argument(help="Name of a node.", autocompletion=complete_node)],
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a node left in the store: where it lies, its record, its outputs."""
    import dataclasses

    from reelwright.cli.format import bytes_text, print_json, seconds_text
    from reelwright.pipeline.plan.graph import has_rows
    from reelwright.pipeline.project import Project
    from reelwright.stages.base.work import headroom_line
    from reelwright.storage.errors import StoreError

    project = Project.open(config, overrides=overrides or ())
    planner = project.planner(read=True)
    planner.graph.check_name(node)
    plan = planner.plan(node)
    record = plan.record
    if record is None:
        raise StoreError(f"{node} has no record for its present settings: {'; '.join(plan.reasons)}. Run it first")
    store = project.file.store
    folder = store.output(plan.node.config.produces, plan.spec_key if has_rows(plan.node) else plan.key)
    place = f"{store.url}/{folder.relative_to(store.root).as_posix()}" if store.url else str(folder)
    if as_json:
        print_json({"place": place, **dataclasses.asdict(record)})
        return
    typer.echo(f"{node} ({record.stage}), key {record.key}\nlies in {place}")
    typer.echo(
        f"{record.rows:,} rows, {bytes_text(record.bytes)}, {seconds_text(record.seconds)}, finished {record.finished}"
    )
    if line := headroom_line(record.work):
        typer.echo(line)
    for name, value in record.items.items():
        typer.echo(f"videos {name}: {value:,}")
    for name, value in record.outputs.items():
        typer.echo(f"{name}: {value}")


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
