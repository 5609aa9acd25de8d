"""Commands over a whole pipeline: run, status, explain, graph. What they need is imported when they are called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from reelwright.cli.completion import complete_node
from reelwright.cli.options import (
    ConfigOption,
    DryRunOption,
    ExecutorOption,
    ForceOption,
    FrozenOption,
    JobsOption,
    JsonOption,
    KeepGoingOption,
    LimitOption,
    MultirunOption,
    NoRetryOption,
    ParallelOption,
    ProfileOption,
    RetriesOption,
    RetryQuarantinedOption,
    SchedulerOption,
    SetOption,
    WorkersOption,
)
from reelwright.stages.base.registry import produced_by
from reelwright.storage.errors import ConfigError

if TYPE_CHECKING:
    from reelwright.pipeline.config.pipeline_file import PipelineFile
    from reelwright.pipeline.run.results import RunOptions

OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NODE", help="Run just this node. Repeatable.", autocompletion=complete_node),
]
UntilOption = Annotated[
    list[str] | None,
    typer.Option(
        "--until", metavar="NODE", help="Run this node and what it needs. Repeatable.", autocompletion=complete_node
    ),
]


def run(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE,VALUE]...", help="With -m: settings to vary.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    only: OnlyOption = None,
    until: UntilOption = None,
    force: ForceOption = None,
    keep_going: KeepGoingOption = False,
    jobs: JobsOption = None,
    limit: LimitOption = None,
    frozen: FrozenOption = False,
    retries: RetriesOption = 0,
    no_retry: NoRetryOption = False,
    retry_quarantined: RetryQuarantinedOption = False,
    multirun: MultirunOption = False,
    parallel: ParallelOption = 1,
    executor: ExecutorOption = None,
    scheduler: SchedulerOption = None,
    profile: ProfileOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring every node up to date; what is, is skipped, video by video.

    With -m, every combination of the values given is run over the same store, as in
    `run -m train.optimizer.lr=1e-3,1e-4 train.window.length=33,65`, one after the other, or --parallel several at once.
    """
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.run.results import RunOptions

    if retry_quarantined and no_retry:
        raise ConfigError("--retry-quarantined and --no-retry: give one of the two")
    _check_combined(settings or [], multirun=multirun, frozen=frozen, retries=retries, no_retry=no_retry)
    if parallel > 1 and not multirun:
        raise ConfigError("--parallel runs the combinations of -m at once; for one run, -j sets the decoding processes")
    if parallel > 1 and force:
        raise ConfigError(
            "--parallel and --force: each combination would make the node again; force it in a run before"
        )
    path = find_pipeline_file(config)
    options = RunOptions(
        only=tuple(only or ()),
        until=tuple(until or ()),
        force=tuple(force or ()),
        keep_going=keep_going,
        limit=limit,
        jobs=jobs,
        frozen=frozen,
        retries=retries,
        retry_failed=not no_retry,
        retry_quarantined=retry_quarantined,
        cluster={"executor": executor, "scheduler": scheduler, "profile": profile, "workers": workers},
        ask=asking(),
    )
    if multirun:
        from reelwright.cli.run.grids import run_grid_and_print
        from reelwright.pipeline.inspect.grid import combinations

        grid = combinations(path, settings or [], overrides=overrides or ())
        run_grid_and_print(grid, options, dry_run=dry_run, as_json=as_json, processes=parallel)
        return
    file = load_pipeline(path, overrides or ())
    if dry_run and frozen:
        check_frozen(file)
    run_or_show(file, options, dry_run=dry_run, as_json=as_json)


def status(
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 when something is not up to date.")
    ] = False,
) -> None:
    """Say of every node whether it is up to date, if not, why, and who works on it now. Runs nothing."""
    from reelwright.cli.run.planning import show_plan
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline

    file = load_pipeline(find_pipeline_file(config), overrides or ())
    fresh = show_plan(file, None, as_json=as_json)
    if exit_code and not fresh:
        raise typer.Exit(1)


def explain(
    node: Annotated[
        str,
        typer.Argument(help="Name of a node, or videos where the pipeline makes them.", autocompletion=complete_node),
    ],
    video: Annotated[str | None, typer.Argument(help="A video_id: what is known of this one.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a node (or one of its videos) is or is not up to date, down to the setting, and what it left where."""
    from reelwright.cli.run.explaining import show_node, show_synthetic, show_video
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.plan.synthetic import NODE
    from reelwright.pipeline.run.runner import open_planner

    planner = open_planner(load_pipeline(find_pipeline_file(config), overrides or ()))
    if node == NODE and planner.dataset.synthetic is not None:
        show_synthetic(planner, as_json=as_json)
        return
    planner.graph.check_name(node)
    if video is None:
        show_node(planner, node, as_json=as_json)
    else:
        show_video(planner, node, video, as_json=as_json)


def graph(
    config: ConfigOption = None,
    overrides: SetOption = None,
    form: Annotated[str, typer.Option("--format", help="text, mermaid or dot.")] = "text",
) -> None:
    """Draw the nodes and what each reads."""
    from reelwright.cli.run.drawing import draw_graph
    from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
    from reelwright.pipeline.plan.graph import build_graph

    typer.echo(draw_graph(build_graph(load_pipeline(find_pipeline_file(config), overrides or ())), form))


def run_or_show(file: PipelineFile, options: RunOptions, *, dry_run: bool, as_json: bool) -> None:
    """Run a pipeline, or with ``dry_run`` show its plan."""
    if dry_run:
        from reelwright.cli.run.planning import show_plan

        show_plan(file, options, as_json=as_json)
    else:
        run_and_print(file, options, as_json=as_json)


def run_and_print(file: PipelineFile, options: RunOptions, *, as_json: bool) -> None:
    """Run, show progress on stderr and the outcome on stdout; exits with the run's code when it is not 0."""
    from reelwright.cli.format import failure_table, print_json, result_table, run_json
    from reelwright.cli.progress import Watcher
    from reelwright.pipeline.run.runner import interruptible, run_pipeline

    with Watcher() as watcher, interruptible():
        result = run_pipeline(file, watcher, options)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print_json(run_json(result))
    elif result.nothing_to_do and not result.failures:
        typer.echo(f"nothing to do: all {len(result.nodes)} nodes are up to date")
    else:
        typer.echo(result_table(result.nodes))
    if not as_json:
        scored = {node.node: node.outputs for node in result.nodes if produced_by(node.stage) == "scores"}
        if scored:
            from reelwright.cli.run.scores import scores_table

            scores = scores_table(scored)
            typer.echo(f"\n{scores}" if scores else "", nl=bool(scores))
        if result.failures:
            typer.echo(f"\n{len(result.failures)} not whole or failed:\n{failure_table(result.failures)}")
    sys.stdout.flush()
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def asking() -> Callable[[str], bool] | None:
    """How a person is asked; None where nobody sits at a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(question: str) -> bool:
        try:
            return typer.confirm(question, err=True)
        except typer.Abort:  # a second Ctrl-C is no answer
            return False

    return ask


def check_frozen(file: PipelineFile) -> None:
    """Raise ConfigError where a pipeline differs from its lock file, as far as the videos read so far tell."""
    from reelwright.pipeline.plan.lockfile import Frozen
    from reelwright.pipeline.run.runner import open_planner

    planner, lock = open_planner(file, read=True), Frozen(file)
    lock.check_settings(planner.graph)
    lock.check_videos(planner.dataset.synthetic)
    if not planner.dataset.unread and not planner.dataset.num_to_make:
        lock.check_plans(planner)


def _check_combined(settings: Sequence[str], *, multirun: bool, frozen: bool, retries: int, no_retry: bool) -> None:
    """Raise ConfigError for options that contradict each other."""
    if settings and not multirun:
        raise ConfigError(
            f"run {settings[0]!r}: a setting is given with -S {settings[0]}; to vary settings, put -m before them"
        )
    if multirun and frozen:
        raise ConfigError("--frozen and -m: a grid differs from the lock file by what it varies; give one of the two")
    if retries and no_retry:
        raise ConfigError("--retries and --no-retry: give one of the two")
