"""Commands that look at data: data show, data sheet."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelwright.cli.format import print_json, seconds_text, table_text
from reelwright.cli.options import ConfigOption, JobsOption, JsonOption, SetOption, VideosOption, on_this_machine
from reelwright.cli.progress import Watcher
from reelwright.pipeline.config.pipeline_file import find_pipeline_file, load_pipeline
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.stages.base.registry import load
from reelwright.storage.errors import ConfigError, InputError, ItemError
from reelwright.storage.tables.feature_files import is_feature_file

if TYPE_CHECKING:
    from reelwright.pipeline.inspect.contents import Contents

data = typer.Typer(help="Look at videos and labels: what there is, and what is in two splits.", no_args_is_help=True)
_SHOWN = 20  # lines of a table; the picture shows more, --json all


@data.command()
def show(
    source: Annotated[
        str | None, typer.Argument(help="A manifest, a folder or a pattern; default: the pipeline file's videos.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", callback=on_this_machine, help="Also draw it, as PNG.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 when a content is in two splits.")
    ] = False,
) -> None:
    """Say what a manifest holds: classes, splits, durations, sizes, codecs, and contents that are in several splits.

    Labels of a manifest are its column label, or -S labels.segments=FILE (steps, rows).
    """
    from reelwright.pipeline.inspect.contents import contents_of

    dataset = _read(source, config, overrides or [], jobs)
    contents = contents_of(dataset)
    if as_json:
        print_json(contents.plain())
    else:
        _print_contents(contents)
    if picture is not None:
        _draw(contents, picture, title=source or "videos of the pipeline file")
        typer.echo(f"picture: {picture}", err=True)
    if exit_code and contents.leaks:
        raise typer.Exit(1)


@data.command()
def sheet(
    video: Annotated[str, typer.Argument(help="A video_id, or a video file.")],
    out: Annotated[Path, typer.Option("--out", callback=on_this_machine, help="The PNG to write.")],
    frames: Annotated[int, typer.Option("--frames", min=1, max=400, help="How many, equally far apart.")] = 24,
    columns: Annotated[int, typer.Option("--columns", min=1, max=40)] = 6,
    short_side: Annotated[int, typer.Option("--short-side", min=16, max=1080, help="Of each frame, in pixels.")] = 120,
    source: VideosOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Draw a contact sheet of a video."""
    given = video if source is None and config is None and Path(video).exists() else source
    dataset = _read(given, config, overrides or [], None)
    name = dataset.videos[0].video_id if given == video and dataset.videos else video
    dataset.check_video(name)
    digest = dataset.digests[name] or ""
    probe = dataset.probes[digest]
    if digest not in dataset.items or is_feature_file(dataset.items[digest].path):
        raise InputError(f"{video} cannot be shown: {probe.message or 'it is a file of features'}")
    times = load("reelwright.stages.evaluate.pages.thumbnails:slice_times")(
        probe.start_seconds, probe.start_seconds + probe.duration_seconds, number=frames
    )
    try:
        shown = load("reelwright.stages.evaluate.pages.frame_source:frames_at")(
            dataset.items[digest], tuple(times), short_side=short_side
        )
    except ItemError as error:
        raise InputError(f"{video} cannot be decoded: {error}") from None
    facts = (
        f"{probe.width}x{probe.height}",
        probe.codec,
        f"{probe.duration_seconds:.1f} s",
        f"{probe.num_frames} frames",
    )
    title = ", ".join((name, *facts))
    out.parent.mkdir(parents=True, exist_ok=True)
    load("reelwright.stages.show.pictures:draw_sheet")(shown, title=title, columns=columns).save(out, "PNG")
    typer.echo(f"{name}: {len(shown)} frames in {out}")


def _read(source: str | None, config: Path | None, overrides: Sequence[str], jobs: int | None) -> Dataset:
    """The videos, read and probed where they are new."""
    from reelwright.pipeline.inspect.contents import source_file
    from reelwright.pipeline.run.reading import read_videos

    if source is not None and config is not None:
        raise ConfigError("give videos or --config, not both")
    file = (
        source_file(source, overrides) if source is not None else load_pipeline(find_pipeline_file(config), overrides)
    )
    with Watcher() as watcher:
        return read_videos(file, watcher, jobs=jobs, anew=False)


def _print_contents(contents: Contents) -> None:
    rows = []
    for name, split in contents.splits.items():
        lengths = split.durations_seconds
        middle = seconds_text(statistics.median(lengths)) if lengths else ""
        shortest, longest = (seconds_text(lengths[0]), seconds_text(lengths[-1])) if lengths else ("", "")
        total = seconds_text(split.total_seconds) if lengths else ""
        numbers = (f"{split.videos:,}", f"{split.usable:,}", f"{split.labelled:,}")
        rows.append((name, *numbers, total, shortest, middle, longest))
    header = ("split", ">videos", ">usable", ">labelled", ">together", ">shortest", ">median", ">longest")
    typer.echo(table_text(header, rows))
    splits = list(contents.splits)
    _print_counts(f"class ({contents.label_unit})", contents.labels, splits)
    _print_counts("class (seconds)", contents.label_seconds, splits, digits=1)
    _print_counts("size", contents.sizes, splits)
    _print_counts("codec", contents.codecs, splits)
    _print_counts("frames/s", contents.rates, splits)
    if contents.same:
        typer.echo(
            f"\ncontents that occur more than once: {len(contents.same)}; in several splits: {len(contents.leaks)}"
        )
        ordered = sorted(contents.same, key=lambda entry: not entry.is_leak)
        for entry in ordered[:_SHOWN]:
            listed = ", ".join(f"{name} ({split})" for name, split in entry.videos)
            typer.echo(f"  {'leak' if entry.is_leak else 'copy'}: {listed}")
    else:
        typer.echo("\nno content occurs twice")


def _print_counts(
    title: str, counts: Mapping[str, Mapping[str, float]], splits: Sequence[str], *, digits: int = 0
) -> None:
    if not counts:
        return
    longest = max(sum(parts.values()) for parts in counts.values()) or 1
    rows = [
        (
            name,
            *(f"{parts.get(split, 0):,.{digits}f}" for split in splits),
            "#" * round(20 * sum(parts.values()) / longest),
        )
        for name, parts in list(counts.items())[:_SHOWN]
    ]
    typer.echo("\n" + table_text((title, *(f">{split}" for split in splits), "together"), rows))
    if len(counts) > _SHOWN:
        typer.echo(f"... and {len(counts) - _SHOWN} more (--json shows all)")


def _draw(contents: Contents, path: Path, *, title: str) -> None:
    panel, histogram = (load(f"reelwright.stages.show.pictures:{name}") for name in ("Panel", "histogram"))
    videos = [(name, {name: float(split.videos)}) for name, split in contents.splits.items()]
    durations = {name: split.durations_seconds for name, split in contents.splits.items()}
    panels = [
        panel(title="Videos by split", bars=videos),
        panel(title="Durations in seconds", bars=histogram(durations)),
        panel(title=f"Classes: {contents.label_unit}", bars=list(contents.labels.items())),
        panel(title="Classes: seconds", bars=list(contents.label_seconds.items()), unit=" s"),
        panel(title="Sizes", bars=list(contents.sizes.items())),
        panel(title="Codecs", bars=list(contents.codecs.items())),
        panel(title="Frames per second", bars=list(contents.rates.items())),
    ]
    leaks = dict.fromkeys(contents.splits, 0.0)
    for entry in contents.leaks:
        for split in {split for _, split in entry.videos}:
            leaks[split] += 1
    panels.append(
        panel(title="Contents that are in several splits", bars=[(name, {name: n}) for name, n in leaks.items()])
    )
    shown = [entry for entry in panels if entry.bars]
    path.parent.mkdir(parents=True, exist_ok=True)
    load("reelwright.stages.show.pictures:draw_panels")(shown, title=title, splits=list(contents.splits)).save(
        path, "PNG"
    )
