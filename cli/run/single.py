"""One command a stage: the same code path and cache as the node in `run`.

With a pipeline file, its nodes of that stage are brought up to date. With --videos, a pipeline is put together from the
stage and what it needs, each node under its usual name, all settings from -S.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelwright.cli.completion import complete_node
from reelwright.cli.options import (
    EXIT_SOME_FAILED,
    ConfigOption,
    DryRunOption,
    ExecutorOption,
    ForceOption,
    JobsOption,
    JsonOption,
    KeepGoingOption,
    LimitOption,
    ProfileOption,
    SchedulerOption,
    SetOption,
    VideosOption,
    WorkersOption,
)
from reelwright.cli.run.run import asking, run_or_show
from reelwright.pipeline.config.seeds import base_name
from reelwright.stages.base.registry import PREDICTS, STAGES, Stage, offered_stages, stage_of, usual_nodes
from reelwright.storage.errors import ConfigError

if TYPE_CHECKING:
    from reelwright.pipeline.config.pipeline_file import PipelineFile
    from reelwright.pipeline.run.results import RunOptions

NodesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NODE]...", help="Nodes of this stage; default: all.", autocompletion=complete_node),
]

TrainedOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="MODEL",
        help="Predict --videos, which need no labels, with a trained model and write --out: a folder that export-model "
        "wrote, or a train or finetune node of the pipeline file.",
    ),
]
ScoresOption = Annotated[
    Path | None,
    typer.Option(
        "--out", help="File of the scores: .parquet or .csv (a line a window), .json (segments, as ActivityNet)."
    ),
]
ProcessesOption = Annotated[int | None, typer.Option("--nproc", min=1, help="Processes that share each batch (DDP).")]


def register(app: typer.Typer) -> None:
    """Add one command for each stage of ours."""
    _register(app, STAGES)


def offered_commands() -> Mapping[str, Any]:
    """One command for each stage that packages offer, by name; where one cannot be imported, pipeline files say so."""
    app = typer.Typer()
    with contextlib.suppress(ConfigError):
        _register(app, {name: stage for name, stage in offered_stages().items() if name not in STAGES})
    return typer.main.get_group(app).commands


def _register(app: typer.Typer, stages: Mapping[str, Stage]) -> None:
    for stage, entry in stages.items():
        if entry.node is None:  # what is imported has commands of its own, or stands in pipeline files only
            continue
        app.command(stage, help=_help(stage, entry.summary), rich_help_panel="Stages")(_command(stage))


def _command(stage: str) -> Any:
    def command(
        nodes: NodesArgument = None,
        config: ConfigOption = None,
        videos: VideosOption = None,
        overrides: SetOption = None,
        dry_run: DryRunOption = False,
        force: ForceOption = None,
        keep_going: KeepGoingOption = False,
        jobs: JobsOption = None,
        limit: LimitOption = None,
        nproc: ProcessesOption = None,
        executor: ExecutorOption = None,
        scheduler: SchedulerOption = None,
        profile: ProfileOption = None,
        workers: WorkersOption = None,
        as_json: JsonOption = False,
        run: TrainedOption = None,
        out: ScoresOption = None,
    ) -> None:
        from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
        from reelwright.pipeline.run.results import RunOptions

        _check_together(config=config, videos=videos, run=run, out=out)

        def load(given: Sequence[str]) -> PipelineFile:
            if run is not None:
                from reelwright.pipeline.inspect.trained_model import pipeline_of_model

                return pipeline_of_model(run, str(videos), given, config=config)
            if videos is not None:
                return pipeline_for(stage, videos, given)
            return load_pipeline(find_pipeline_file(config), given)

        file = load(overrides or [])
        wanted = _nodes(file, stage, nodes or [])
        if nproc is not None:
            shared = dict.fromkeys(map(base_name, wanted))
            file = load([*(overrides or []), *(f"{name}.processes={nproc}" for name in shared)])
        options = RunOptions(
            until=wanted,
            force=tuple(force or ()),
            keep_going=keep_going,
            limit=limit,
            jobs=jobs,
            cluster={"executor": executor, "scheduler": scheduler, "profile": profile, "workers": workers},
            ask=asking(),
        )
        if out is None or dry_run:
            run_or_show(file, options, dry_run=dry_run, as_json=as_json)
        else:
            _run_and_write(file, options, out, as_json=as_json)

    left_out = set() if stage_of(stage).trains else {"nproc"}
    left_out |= set() if stage == PREDICTS else {"run", "out"}
    if left_out:
        signature = inspect.signature(command, eval_str=True)  # typer reads no annotation of it that is a text
        parameters = [parameter for parameter in signature.parameters.values() if parameter.name not in left_out]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _check_together(*, config: Path | None, videos: str | None, run: str | None, out: Path | None) -> None:
    """Raise ConfigError for options that do not go together, or a file of scores that could not be written."""
    if videos is not None and config is not None and run is None:
        raise ConfigError("give --config or --videos, not both")
    if (run is None) != (out is None) or (run is not None and videos is None):
        raise ConfigError("--run, --videos and --out go together: with which model, which videos, and where to")
    if out is not None:
        from reelwright.stages.export.scores_file import check_scores_file

        check_scores_file(out)


def _run_and_write(file: PipelineFile, options: RunOptions, out: Path, *, as_json: bool) -> None:
    """Run, then write the scores; also where some videos failed, since the others have theirs."""
    from reelwright.pipeline.project import Project
    from reelwright.stages.export.scores_file import write_scores_file

    failed: typer.Exit | None = None
    try:
        run_or_show(file, options, dry_run=False, as_json=as_json)
    except typer.Exit as exit_:
        if exit_.exit_code != EXIT_SOME_FAILED:
            raise
        failed = exit_
    count = write_scores_file(Project(file).predictions(list(file.nodes)[-1]), out)
    typer.echo(f"{out}: scores of {count} videos", err=as_json)
    if failed is not None:
        raise failed


def pipeline_for(stage: str, videos: str, overrides: Sequence[str]) -> PipelineFile:
    """A pipeline of one stage and what it needs, for a manifest, a folder, one video or a pattern."""
    from reelwright.pipeline.config.adhoc import adhoc_pipeline, videos_block

    return adhoc_pipeline(stage, videos_block(videos), usual_nodes(stage), overrides)


def _nodes(file: PipelineFile, stage: str, names: list[str]) -> tuple[str, ...]:
    own = [name for name, config in file.nodes.items() if config.stage == stage]
    wrong = [name for name in names if name not in {*own, *map(base_name, own)}]
    if wrong or not own:
        raise ConfigError(
            f"{file.path}: {', '.join(wrong) or 'no node'} uses {stage}. Nodes that do: {', '.join(own) or 'none'}"
        )
    return tuple(names or own)


def _help(stage: str, summary: str) -> str:
    return f"{summary}.\n\nSettings (-S NAME=VALUE): `reelwright settings {stage}` lists them with defaults and units."
