"""Commands about where a pipeline runs: doctor, cluster script."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated

import typer

from reelwright.cli.format import print_json
from reelwright.cli.options import ConfigOption, ExecutorOption, JsonOption, ProfileOption, SchedulerOption, SetOption
from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
from reelwright.stages.base.registry import stage_of
from reelwright.storage.errors import ConfigError

cluster = typer.Typer(no_args_is_help=True, help="What would run on a cluster.")
cluster.callback()(lambda: None)  # a group of one command is still a group


def doctor(
    pipeline: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A pipeline file: only this is looked at, no machine.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Also do one video, and say about how long decode and embed will take.")
    ] = False,
    executor: ExecutorOption = None,
    scheduler: SchedulerOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check machine, store and cluster, and whether the pipeline file fits its videos and labels, and say what to do.

    Of the file: windows longer than most videos, few updates, frames that take much room, classes with one video in a
    split, videos without a label. Exit code 1 when something is bad.
    """
    from reelwright.pipeline.config.profiles import cluster_settings
    from reelwright.pipeline.upkeep.doctor import BAD, examine
    from reelwright.pipeline.upkeep.file_checks import examine_file, probed

    if pipeline is not None and config is not None:
        raise ConfigError(f"doctor {pipeline} -c {config}: give the file once")
    file = load_pipeline(find_pipeline_file(pipeline or config), overrides or ())
    settings = cluster_settings(file, {"executor": executor, "scheduler": scheduler, "profile": profile})
    found = []
    checks = (() if pipeline else examine(file, settings), examine_file(file), probed(file) if estimate else ())
    for check in itertools.chain.from_iterable(checks):
        found.append(check)
        if not as_json:
            typer.echo(f"{check.state:<5} {check.what:<10} {check.message}")
            if check.advice:
                typer.echo(f"{'':<16} -> {check.advice}")
    if as_json:
        print_json([dataclasses.asdict(check) for check in found])
    if any(check.state == BAD for check in found):
        raise typer.Exit(1)


@cluster.command()
def script(
    config: ConfigOption = None,
    overrides: SetOption = None,
    profile: ProfileOption = None,
) -> None:
    """Print the job scripts as they would be submitted: of a worker, and of training. Submits nothing."""
    from reelwright.pipeline.config.profiles import cluster_settings
    from reelwright.pipeline.executors.scripts import training_script, worker_script

    file = load_pipeline(find_pipeline_file(config), overrides or ())
    settings = cluster_settings(file, {"executor": "slurm", "profile": profile})
    typer.echo(
        f"# a worker, at most {settings.workers} of them\n{worker_script(settings, logs=file.store.logs('workers'))}"
    )
    for name, node in file.nodes.items():
        if stage_of(node.stage).trains:
            folder = file.store.job("KEY")
            typer.echo(f"# {name}\n{training_script(settings, folder=folder, name=f'reelwright-{name}-KEY')}")
