"""Commands over a whole pipeline: run, status, explain, graph. What they need is imported when they are called."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from reelwright.cli.options import (
    ConfigOption,
    DryRunOption,
    ForceOption,
    JobsOption,
    JsonOption,
    KeepGoingOption,
    LimitOption,
    SetOption,
)
from reelwright.storage.errors import Interrupted

if TYPE_CHECKING:
    from reelwright.pipeline.file import PipelineFile
    from reelwright.pipeline.results import RunOptions

OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="NODE", help="Run just this node. Repeatable.", show_default=False)
]
UntilOption = Annotated[
    list[str] | None,
    typer.Option("--until", metavar="NODE", help="Run this node and what it needs. Repeatable.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Pipeline")(run)
    app.command(rich_help_panel="Pipeline")(status)
    app.command(rich_help_panel="Pipeline")(explain)
    app.command(rich_help_panel="Pipeline")(graph)


def run(
    config: ConfigOption = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    only: OnlyOption = None,
    until: UntilOption = None,
    force: ForceOption = None,
    keep_going: KeepGoingOption = False,
    jobs: JobsOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring every node up to date; what is, is skipped, video by video."""
    from reelwright.pipeline.file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.results import RunOptions

    file = load_pipeline(find_pipeline_file(config), overrides or ())
    options = RunOptions(
        only=tuple(only or ()),
        until=tuple(until or ()),
        force=tuple(force or ()),
        keep_going=keep_going,
        limit=limit,
        jobs=jobs,
    )
    if dry_run:
        show_plan(file, options.force, as_json=as_json)
        return
    run_and_tell(file, options, as_json=as_json)


def status(
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 when something is not up to date.")
    ] = False,
) -> None:
    """Say of every node whether it is up to date, and if not, why. Runs nothing."""
    from reelwright.pipeline.file import find_pipeline_file, load_pipeline

    fresh = show_plan(load_pipeline(find_pipeline_file(config), overrides or ()), (), as_json=as_json)
    if exit_code and not fresh:
        raise typer.Exit(1)


def explain(
    node: Annotated[str, typer.Argument(help="Name of a node.")],
    video: Annotated[
        str | None, typer.Argument(help="A video_id: what is known of this one.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a node (or one of its videos) is or is not up to date, down to the setting."""
    from reelwright.cli.explaining import explain_node, explain_video
    from reelwright.pipeline.file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.runner import open_planner

    planner = open_planner(load_pipeline(find_pipeline_file(config), overrides or ()))
    planner.graph.check_name(node)
    if video is None:
        explain_node(planner, node, as_json=as_json)
    else:
        explain_video(planner, node, video, as_json=as_json)


def graph(
    config: ConfigOption = None,
    overrides: SetOption = None,
    form: Annotated[str, typer.Option("--format", help="text, mermaid, dot or svg.")] = "text",
) -> None:
    """Draw the nodes and what each reads."""
    from reelwright.cli.drawing import draw_graph
    from reelwright.pipeline.file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.graph import build_graph

    typer.echo(draw_graph(build_graph(load_pipeline(find_pipeline_file(config), overrides or ())), form))


def show_plan(file: PipelineFile, force: tuple[str, ...], *, as_json: bool) -> bool:
    """Print the plan; returns whether everything is up to date."""
    from reelwright.cli.format import plan_json, plan_table, print_json
    from reelwright.pipeline.plan import FRESH
    from reelwright.pipeline.runner import open_planner

    planner = open_planner(file, forced=force)
    plans = planner.plans()
    dataset = planner.dataset
    if as_json:
        videos = {"videos": len(dataset.videos), "unread": len(dataset.new), "unusable": len(dataset.unusable)}
        print_json({**videos, "nodes": [plan_json(plan) for plan in plans]})
    else:
        splits = ", ".join(
            f"{name} {sum(video.split == name for video in dataset.videos)}" for name in file.videos.splits
        )
        typer.echo(f"{len(dataset.videos):,} videos ({splits})")
        if dataset.new:
            typer.echo(f"{len(dataset.new):,} new or changed: `run` reads them first")
        for video in dataset.unusable:
            probe = dataset.probes[dataset.digests[video.video_id] or ""]
            typer.echo(f"unusable: {video.video_id}: {probe['cause']}: {probe['message']}")
        typer.echo(plan_table(plans))
    return not dataset.unread and all(plan.state == FRESH for plan in plans)


def run_and_tell(file: PipelineFile, options: RunOptions, *, as_json: bool) -> None:
    """Run, show progress on stderr and the outcome on stdout; exits with the run's code when it is not 0."""
    from reelwright.cli.format import failure_table, print_json, result_table, run_json
    from reelwright.cli.progress import Watcher
    from reelwright.cli.scores import scores_table
    from reelwright.pipeline.runner import run_pipeline

    watcher = Watcher()
    previous = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        result = run_pipeline(file, watcher, options)
    finally:
        watcher.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if as_json:
        print_json(run_json(result))
    elif result.nothing_to_do and not result.failures:
        typer.echo(f"nothing to do: all {len(result.nodes)} nodes are up to date")
    else:
        typer.echo(result_table(result.nodes))
    if not as_json:
        scores = scores_table({node.node: node.outputs for node in result.nodes if node.stage == "evaluate"})
        typer.echo(f"\n{scores}" if scores else "", nl=bool(scores))
        if result.failures:
            typer.echo(f"\n{len(result.failures)} failed:\n{failure_table(result.failures)}")
    sys.stdout.flush()
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    raise Interrupted(f"stopped by {signal.Signals(number).name}; what was done is kept, run again to go on")
