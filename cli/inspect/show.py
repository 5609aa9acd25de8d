"""Commands that look at things: settings, show, report."""

from __future__ import annotations

import ast
import inspect as python_inspect
import textwrap
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from reelwright.cli.completion import complete_node, complete_stage
from reelwright.cli.options import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from pathlib import Path

    from reelwright.pipeline.project import Project


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Look")(settings)
    app.command(rich_help_panel="Look")(show)
    app.command(rich_help_panel="Look")(report)


def settings(
    stage: Annotated[
        str,
        typer.Argument(help="Name of a stage, or videos, labels, synthesize, cluster.", autocompletion=complete_stage),
    ],
) -> None:
    """List the settings of a stage: name, default, what it means."""
    from reelwright.pipeline.config.cluster import ClusterSettings
    from reelwright.stages.base.registry import config_model
    from reelwright.stages.index.config import LabelsConfig, VideosConfig
    from reelwright.stages.synthesize.config import SourceConfig

    blocks: dict[str, type[Any]] = {
        "videos": VideosConfig,
        "labels": LabelsConfig,
        "synthesize": SourceConfig,
        "cluster": ClusterSettings,
    }
    model = blocks.get(stage) or config_model(stage, where="reelwright settings")
    typer.echo((model.__doc__ or "").strip() + "\n")
    for line in _setting_lines(model, prefix=""):
        typer.echo(line)
    if "seed" in model.model_fields and stage not in blocks:
        typer.echo(
            "seeds = None\n    Instead of seed: how many (4: 0, 1, 2, 3) or which ones; a run each, and their mean."
        )


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


def _setting_lines(model: type[Any], *, prefix: str, block: Any = None) -> list[str]:
    """Every setting with what it is unless it is given: in ``block``, else by itself. Blocks that can be null too."""
    notes = _field_notes(model)
    lines = []
    for name, info in model.model_fields.items():
        value = info.get_default(call_default_factory=True) if block is None else getattr(block, name)
        choices = get_args(info.annotation) if isinstance(info.annotation, UnionType) else (info.annotation,)
        nested = next((each for each in choices if isinstance(each, type) and hasattr(each, "model_fields")), None)
        if nested is None or nested is not info.annotation:
            default = "required" if block is None and info.is_required() else repr(value)
            lines.append(f"{prefix}{name} = {default if nested is None or value is None else '{}'}")
            lines += textwrap.wrap(notes.get(name, ""), width=110, initial_indent="    ", subsequent_indent="    ")
        if nested is not None:
            inner = value if isinstance(value, nested) else None
            lines += _setting_lines(nested, prefix=f"{prefix}{name}.", block=inner)
    return lines


def _field_notes(model: type[Any]) -> dict[str, str]:
    """The texts that stand below the fields in the source, of the class and what it inherits."""
    notes: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not owner.__module__.startswith("reelwright."):
            continue
        body = ast.parse(textwrap.dedent(python_inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                notes[field.target.id] = " ".join(str(text.value.value).split())
    return notes
