"""One command a stage: the same code path and cache as the node in `run`.

With a pipeline file, its nodes of that stage are brought up to date. With --videos, a pipeline is put together from the
stage and what it needs, each node under its usual name, all settings from -S.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelwright.cli.completion import complete_model, complete_node
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
    on_this_machine,
)
from reelwright.cli.run.run import asking, run_or_show
from reelwright.pipeline.config.seeds import base_name
from reelwright.stages.base.registry import EMBEDS, PREDICTS, STAGES, Stage, offered_stages, stage_of, usual_nodes
from reelwright.storage.errors import ConfigError, nearest

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
        autocompletion=complete_model,
    ),
]
ScoresOption = Annotated[
    Path | None,
    typer.Option(
        "--out", help="File of the scores: .parquet or .csv (a line a window), .json (segments, as ActivityNet)."
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", metavar="NAME", help="Of --videos: which encoder; `reelwright encoders` lists them."),
]
FeaturesOption = Annotated[
    Path | None,
    typer.Option("--out", help="Of --videos: also write the embeddings, a file a video, into this new folder."),
]
FormOption = Annotated[
    str | None, typer.Option("--to", metavar="npy|parquet|zarr", help="Form of the files in --out; default: npy.")
]
FORMS = ("npy", "parquet", "zarr")  # of `export`, those with a file a video
ProcessesOption = Annotated[int | None, typer.Option("--nproc", min=1, help="Processes that share each batch (DDP).")]


def offered_commands() -> Mapping[str, Any]:
    """One command for each stage that packages offer, by name; where one cannot be imported, pipeline files say so."""
    try:
        return stage_commands({name: stage for name, stage in offered_stages().items() if name not in STAGES})
    except ConfigError:
        return {}


def stage_commands(stages: Mapping[str, Stage] = STAGES) -> Mapping[str, Any]:
    """One command for each stage, by name."""
    app = typer.Typer()
    for stage, entry in stages.items():
        if entry.node is None:  # what is imported has commands of its own, or stands in pipeline files only
            continue
        about = _help(stage, entry.summary)
        app.command(stage, help=about, epilog=f"Example: reelwright {stage} -n", rich_help_panel="Stages")(
            _command(stage)
        )
    return typer.main.get_group(app).commands


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
        encoder: EncoderOption = None,
        folder: FeaturesOption = None,
        form: FormOption = None,
    ) -> None:
        from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
        from reelwright.pipeline.run.results import RunOptions

        _check_together(config=config, videos=videos, run=run, out=out)
        _check_features(videos, encoder=encoder, folder=folder, form=form)
        given = [*(overrides or []), *([] if encoder is None else [f"encoder={encoder}"])]

        def load(given: Sequence[str]) -> PipelineFile:
            if run is not None:
                from reelwright.pipeline.inspect.trained_model import pipeline_of_model

                return pipeline_of_model(run, str(videos), given, config=config)
            if videos is not None:
                return pipeline_for(stage, videos, given)
            return load_pipeline(find_pipeline_file(config), given)

        file = load(given)
        wanted = _nodes(file, stage, nodes or [])
        if nproc is not None:
            shared = dict.fromkeys(map(base_name, wanted))
            file = load([*given, *(f"{name}.processes={nproc}" for name in shared)])
        options = RunOptions(
            until=wanted,
            force=tuple(force or ()),
            keep_going=keep_going,
            limit=limit,
            jobs=jobs,
            cluster={"executor": executor, "scheduler": scheduler, "profile": profile, "workers": workers},
            ask=asking(),
        )
        if folder is not None and len(wanted) > 1:
            raise ConfigError(
                f"--out {folder}: here are rows of {', '.join(wanted)}, and it takes those of one. Give one seed, or "
                "a pipeline file, of which `reelwright export NODE --to npy --out DIR` writes each"
            )
        write = None if dry_run else _writer(file, wanted[0], scores=out, features=folder, form=form or FORMS[0])
        if write is None:
            run_or_show(file, options, dry_run=dry_run, as_json=as_json)
        else:
            _run_and_write(file, options, write, as_json=as_json)

    left_out = set() if stage_of(stage).trains else {"nproc"}
    left_out |= set() if stage == PREDICTS else {"run", "out"}
    left_out |= set() if stage == EMBEDS else {"encoder", "folder", "form"}
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


def _check_features(videos: str | None, *, encoder: str | None, folder: Path | None, form: str | None) -> None:
    """Raise ConfigError for options of embed that do not go together."""
    if videos is None and (encoder is not None or folder is not None):
        raise ConfigError(
            "--encoder and --out are of --videos. With a pipeline file, set the encoder there, and `reelwright export "
            "NODE --to npy --out DIR` writes what a node made"
        )
    if form is not None and folder is None:
        raise ConfigError(f"--to {form} is the form of files: give their folder, --out DIR")
    if form is not None and form not in FORMS:
        raise ConfigError(f"--to {form!r}: allowed are {', '.join(FORMS)}.{nearest(form, FORMS)}")


def _writer(
    file: PipelineFile, node: str, *, scores: Path | None, features: Path | None, form: str
) -> Callable[[], str] | None:
    """What writes into the file or folder that was asked for, and says so; None where none was."""
    if features is not None:
        return _features_writer(file, node, features, form)
    return None if scores is None else partial(_write_scores, file, scores)


def _run_and_write(file: PipelineFile, options: RunOptions, write: Callable[[], str], *, as_json: bool) -> None:
    """Run, then ``write`` what was made and print what it returns; also where some videos failed."""
    failed: typer.Exit | None = None
    try:
        run_or_show(file, options, dry_run=False, as_json=as_json)
    except typer.Exit as exit_:
        if exit_.exit_code != EXIT_SOME_FAILED:
            raise
        failed = exit_
    typer.echo(write(), err=as_json)
    if failed is not None:
        raise failed


def _write_scores(file: PipelineFile, out: Path) -> str:
    from reelwright.pipeline.project import Project
    from reelwright.stages.export.scores_file import write_scores_file

    count = write_scores_file(Project(file).predictions(list(file.nodes)[-1]), out)
    return f"{out}: scores of {count} videos"


def _features_writer(file: PipelineFile, node: str, folder: Path, form: str) -> Callable[[], str]:
    """What writes the rows of a node into files. Raises ConfigError where that cannot be, before anything is run."""
    from reelwright.pipeline.inspect.export import ExportRequest, check_export, export_node
    from reelwright.pipeline.project import Project

    outputs = tuple(getattr(file.nodes[node], "outputs", ()))
    output = "pooled" if "pooled" in outputs else outputs[0]
    request = ExportRequest(node=node, form=form, folder=on_this_machine(folder) or folder, output=output)
    check_export(request)

    def write() -> str:
        count = export_node(Project(file), request)
        times = "times.csv" if form == FORMS[0] else f"each .{form}"
        return (
            f"{folder}: {output} of {count} videos, a .{form} each; manifest.csv says which is whose, times are in "
            f"{times}"
        )

    return write


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
