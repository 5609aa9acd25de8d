"""Commands about where a pipeline runs: doctor, logs, cluster script."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelwright.cli.options import ConfigOption, ExecutorOption, JsonOption, ProfileOption, SchedulerOption, SetOption
from reelwright.storage.errors import ConfigError

if TYPE_CHECKING:
    from reelwright.pipeline.inspect.logs import Said

cluster = typer.Typer(no_args_is_help=True, help="What would run on a cluster.")
cluster.callback()(lambda: None)  # a group of one command is still a group
_TAIL_LINES = 40


def doctor(
    pipeline: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A pipeline file: only this is looked at, no machine.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    executor: ExecutorOption = None,
    scheduler: SchedulerOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check machine, store and cluster, and whether the pipeline file fits its videos and labels, and say what to do.

    Of the file: windows longer than most videos, few updates, frames that take much room, classes with one video in a
    split, videos without a label. Exit code 1 when something is bad.
    """
    from reelwright.cli.format import print_json
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.config.profiles import cluster_settings
    from reelwright.pipeline.upkeep.doctor import BAD, examine
    from reelwright.pipeline.upkeep.file_checks import examine_file

    if pipeline is not None and config is not None:
        raise ConfigError(f"doctor {pipeline} -c {config}: give the file once")
    file = load_pipeline(find_pipeline_file(pipeline or config), overrides or ())
    settings = cluster_settings(file, {"executor": executor, "scheduler": scheduler, "profile": profile})
    found = []
    for check in itertools.chain(() if pipeline else examine(file, settings), examine_file(file)):
        found.append(check)
        if not as_json:
            typer.echo(f"{check.state:<5} {check.what:<10} {check.message}")
            if check.advice:
                typer.echo(f"{'':<16} -> {check.advice}")
    if as_json:
        print_json([dataclasses.asdict(check) for check in found])
    if any(check.state == BAD for check in found):
        raise typer.Exit(1)


def logs(
    video: Annotated[str, typer.Argument(help="A video_id.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    whole: Annotated[bool, typer.Option("--all", help="The whole logs, not only their ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what became of a video in every node, and what was said while it failed."""
    from reelwright.cli.format import print_json
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.inspect.logs import account
    from reelwright.pipeline.run.runner import open_planner

    planner = open_planner(load_pipeline(find_pipeline_file(config), overrides or ()), read=True)
    found = account(planner, video)
    if as_json:
        print_json([_plain(said) for said in found])
        return
    for said in found:
        typer.echo(f"{video} in {said.node}: {_status_text(said)}")
        for path in said.files:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            shown = lines if whole else lines[:1] + [line for line in lines[1:] if line[:1] != "#"][-_TAIL_LINES:]
            typer.echo("\n".join([f"  {path}", *(f"  | {line}" for line in shown)]))
    if not found and video in {entry.video_id for entry in planner.dataset.new}:
        typer.echo(f"nothing is known of {video} yet: its content is not read, `run` reads it first")
    elif not found:
        typer.echo(f"nothing is known of {video} yet: no node has tried it with its present settings")


@cluster.command()
def script(
    config: ConfigOption = None,
    overrides: SetOption = None,
    profile: ProfileOption = None,
) -> None:
    """Print the job scripts as they would be submitted: of a worker, and of training. Submits nothing."""
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.config.profiles import cluster_settings
    from reelwright.pipeline.executors.scripts import training_script, worker_script
    from reelwright.stages.base.registry import stage_of

    file = load_pipeline(find_pipeline_file(config), overrides or ())
    settings = cluster_settings(file, {"executor": "slurm", "profile": profile})
    typer.echo(
        f"# a worker, at most {settings.workers} of them\n{worker_script(settings, logs=file.store.logs('workers'))}"
    )
    for name, node in file.nodes.items():
        if stage_of(node.stage).trains:
            folder = file.store.job("KEY")
            typer.echo(f"# {name}\n{training_script(settings, folder=folder, name=f'reelwright-{name}-KEY')}")


def _status_text(said: Said) -> str:
    row = said.row
    if row is None:
        return "not finished"
    cause = f" ({row.cause})" if row.cause else ""
    message = f": {row.message}" if row.message else ""
    return f"{row.status}, {row.rows} rows, {row.attempts} attempts{cause}{message}"


def _plain(said: Said) -> dict[str, object]:
    row = dataclasses.asdict(said.row) if said.row is not None else None
    return {"node": said.node, "row": row, "logs": [str(path) for path in said.files]}
