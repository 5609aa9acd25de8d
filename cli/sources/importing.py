"""The command import-features: features that people already have into an embedding store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reelwright.cli.options import ConfigOption, DryRunOption, ForceOption, JsonOption, SetOption
from reelwright.cli.run.run import run_or_show
from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
from reelwright.pipeline.run.results import RunOptions
from reelwright.stages.base.registry import load
from reelwright.storage.errors import ConfigError, InputError, ItemError

_NODE = "feats"

SourceArgument = Annotated[
    str | None,
    typer.Argument(
        help="A folder of .npy .npz .pt .h5 .mat (a file a video), one file, a pattern, or a manifest whose path names "
        "such files. Without it, the features nodes of the pipeline file.",
    ),
]
FpsOption = Annotated[float | None, typer.Option("--fps", help="Frames per second of the video the features are of.")]
HopOption = Annotated[int | None, typer.Option("--hop", help="Frames from row to row.")]
OldHopOption = Annotated[int | None, typer.Option("--stride", hidden=True)]  # refused with its new name
TimesOption = Annotated[
    str | None, typer.Option("--times", help="Table video_id, start_seconds[, stop_seconds], a line a row.")
]
KeyOption = Annotated[str | None, typer.Option("--key", help="Which array of a file that holds several.")]
MembersOption = Annotated[
    Path | None,
    typer.Option(
        "--members",
        metavar="FOLDER",
        help="SOURCE is one file with a video under each name: write each to FOLDER/NAME.npy, then import those.",
    ),
]


def import_features(
    source: SourceArgument = None,
    fps: FpsOption = None,
    hop: HopOption = None,
    stride: OldHopOption = None,
    times: TimesOption = None,
    key: KeyOption = None,
    transposed: Annotated[bool, typer.Option("--transposed", help="Files hold (D, T), time last.")] = False,
    members: MembersOption = None,
    pattern: Annotated[str, typer.Option("--pattern", help="With --members: only names like this.")] = "*",
    config: ConfigOption = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring features that you have into an embedding store, with their times; only new and changed files are read.

    In a pipeline file the same is `videos: {features: FOLDER}` and a node `feats: {uses: features, fps: 15}`, which
    train and predict name under `embeddings`. More settings (-S NAME=VALUE): `reelwright settings features`.
    """
    from reelwright.pipeline.config.adhoc import adhoc_pipeline, videos_block

    given = {"fps": fps, "hop": hop, "stride": stride, "times": times, "key": key, "transposed": transposed or None}
    settings = {name: value for name, value in given.items() if value is not None}
    if source is None:
        if settings or members is not None:
            raise ConfigError(f"{', '.join(settings) or '--members'} goes with SOURCE; for a pipeline file use -S")
        file = load_pipeline(find_pipeline_file(config), overrides or ())
    elif config is not None:
        raise ConfigError("give SOURCE or --config, not both")
    else:
        videos = videos_block(_taken_apart(source, members, pattern), folder="features")
        node = {"uses": "features", **settings}
        file = adhoc_pipeline("import-features", videos, {_NODE: node}, overrides or ())
    nodes = tuple(name for name, node in file.nodes.items() if node.stage == "features")
    if not nodes:
        raise ConfigError(f"{file.path}: no node uses features. Add one: `{_NODE}: {{uses: features, fps: 15}}`")
    options = RunOptions(until=nodes, force=tuple(force or ()))
    run_or_show(file, options, dry_run=dry_run, as_json=as_json)


def _taken_apart(source: str, members: Path | None, pattern: str) -> str:
    if members is None:
        return source
    try:
        count, written = load("reelwright.stages.features.members:take_apart")(Path(source), members, pattern=pattern)
    except ItemError as error:
        raise InputError(str(error)) from None
    typer.echo(f"{source}: {count} arrays, {written} new or changed, in {members}", err=True)
    return str(members)
