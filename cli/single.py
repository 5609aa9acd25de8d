"""One command a stage: the same code path and cache as the node in `run`.

With a pipeline file, its nodes of that stage are brought up to date. With --videos, a pipeline is put together from the
stage and what it needs, each node under its usual name, all settings from -S.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelwright.cli.options import (
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
    WorkersOption,
)
from reelwright.cli.run import asking, run_and_tell
from reelwright.stages.registry import all_stages, stage_of, usual_nodes
from reelwright.storage.errors import ConfigError

if TYPE_CHECKING:
    from reelwright.pipeline.file import PipelineFile

VideosOption = Annotated[
    str | None,
    typer.Option(
        "--videos", help="Without a pipeline file: a manifest, a folder, a video or a pattern.", show_default=False
    ),
]
NodesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NODE]...", help="Nodes of this stage; default: all.", show_default=False)
]

ProcessesOption = Annotated[
    int | None, typer.Option("--nproc", min=1, help="Processes that share each batch (DDP).", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add one command for each stage of the table."""
    for stage, entry in all_stages().items():
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
    ) -> None:
        from reelwright.pipeline.file import find_pipeline_file, load_pipeline
        from reelwright.pipeline.results import RunOptions

        if videos is not None and config is not None:
            raise ConfigError("give --config or --videos, not both")

        def load(given: Sequence[str]) -> PipelineFile:
            if videos is not None:
                return pipeline_for(stage, videos, list(given))
            return load_pipeline(find_pipeline_file(config), given)

        file = load(overrides or [])
        wanted = _nodes(file, stage, nodes or [])
        if nproc is not None:
            file = load([*(overrides or []), *(f"{name}.processes={nproc}" for name in wanted)])
        options = RunOptions(
            until=wanted,
            force=tuple(force or ()),
            keep_going=keep_going,
            limit=limit,
            jobs=jobs,
            cluster={"executor": executor, "scheduler": scheduler, "profile": profile, "workers": workers},
            ask=asking(),
        )
        if dry_run:
            from reelwright.cli.planning import show_plan

            show_plan(file, options, as_json=as_json)
            return
        run_and_tell(file, options, as_json=as_json)

    if not stage_of(stage).trains:
        signature = inspect.signature(command)
        parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "nproc"]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def pipeline_for(stage: str, videos: str, overrides: list[str]) -> PipelineFile:
    """A pipeline of one stage and what it needs, for a manifest, a folder, one video or a pattern."""
    from omegaconf import OmegaConf

    from reelwright.pipeline.file import PipelineSettings, build_pipeline

    nodes = usual_nodes(stage)
    known = {*nodes, *PipelineSettings.model_fields}
    own = stage_of(stage).node
    full = [entry if entry.split("=")[0].split(".")[0] in known else f"{own}.{entry}" for entry in overrides]
    content = OmegaConf.create({"videos": _videos_block(videos), "stages": nodes})
    return build_pipeline(content, path=Path.cwd() / f"reelwright-{stage}.yaml", overrides=full)


def _videos_block(videos: str) -> dict[str, Any]:
    from reelwright.storage.manifest import is_table_name, is_video_name
    from reelwright.storage.patterns import is_pattern
    from reelwright.storage.urls import is_url

    path = Path(videos)
    if path.is_dir():
        return {"folder": videos}
    if is_table_name(videos):
        return {"manifest": videos}
    if path.is_file() or is_video_name(videos) or is_pattern(videos):
        return {"glob": videos}
    if is_url(videos):
        return {"folder": videos}
    raise ConfigError(
        f"--videos {videos!r}: give a manifest (.csv, .tsv, .parquet), a folder, a video or a pattern ('clips/*.mp4')"
    )


def _nodes(file: PipelineFile, stage: str, names: list[str]) -> tuple[str, ...]:
    own = [name for name, config in file.nodes.items() if config.stage == stage]
    wrong = [name for name in names if name not in own]
    if wrong or not own:
        raise ConfigError(
            f"{file.path}: {', '.join(wrong) or 'no node'} uses {stage}. Nodes that do: {', '.join(own) or 'none'}"
        )
    return tuple(names or own)


def _help(stage: str, summary: str) -> str:
    return f"{summary}.\n\nSettings (-S NAME=VALUE): `reelwright settings {stage}` lists them with defaults and units."
