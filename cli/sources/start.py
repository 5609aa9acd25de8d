"""Commands to start with: demo, init, index, fetch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from reelwright.cli.completion import complete_recipe
from reelwright.cli.format import table_text
from reelwright.cli.options import ConfigOption, JobsOption, SetOption
from reelwright.cli.progress import Watcher, counted
from reelwright.cli.run.run import run_and_print
from reelwright.pipeline.config.pipeline_file import PipelineFile, find_pipeline_file, load_pipeline
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.run.results import RunOptions
from reelwright.stages.base.registry import fetch_weights, load
from reelwright.storage.errors import ConfigError
from reelwright.storage.files import write_text
from reelwright.storage.kinds import KINDS
from reelwright.storage.tables.feature_files import is_feature_file


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where videos, pipeline file and store go.")] = Path("demo"),
    overrides: SetOption = None,
    jobs: JobsOption = None,
) -> None:
    """Make labelled videos and run the whole chain on them, fine-tuning included."""
    from reelwright.cli.inspect.export import report_file
    from reelwright.pipeline.config.sample_data import prepare_demo
    from reelwright.pipeline.project import Project

    with counted(f"videos in {folder / 'data'}", "videos") as report:
        workers = jobs or os.cpu_count() or 1
        file = prepare_demo(folder, overrides=overrides or (), workers=workers, progress=report)
    run_and_print(file, RunOptions(jobs=jobs), as_json=False)
    project = Project(file)
    typer.echo("")
    for name, config in file.nodes.items():
        if KINDS[config.produces].page:
            typer.echo(f"report of {name}: {os.path.relpath(report_file(project, name))}")


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new pipeline file.")] = Path(),
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Which pipeline: see --list. Without: what fits the videos there.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
    data: Annotated[bool, typer.Option(help="Of recipes with a stand-in for their data set: make it, too.")] = True,
    jobs: JobsOption = None,
) -> None:
    """Write a pipeline file that fits the videos and labels in the folder, and say what was seen and chosen.

    Labels are a table video_id, start_seconds, stop_seconds, label; a column label of a manifest; or folders by class.
    With --recipe, a pipeline to start from; of some recipes with made-up data, so that they run as they are.
    """
    from reelwright.pipeline.config.own_data import look_at, pipeline_text, write_manifest
    from reelwright.pipeline.config.recipes import read_recipe, recipe_summaries
    from reelwright.pipeline.config.sample_data import STAND_INS

    if listing:
        for name, summary in recipe_summaries().items():
            typer.echo(f"{name}: {summary}")
        return
    text = read_recipe(recipe or "default")
    target = folder / "reelwright.yaml"
    if target.exists():
        raise ConfigError(f"{target} is there already; remove it or choose another folder")
    if recipe is None and (found := look_at(folder)) is not None:
        text, chose = pipeline_text(found)
        if found.manifest is not None and found.manifest.exists():
            raise ConfigError(f"{found.manifest}, which is to have splits and labels, is there already; rename it")
        write_manifest(found)
        write_text(target, text)
        written = f"{target}{f' and {found.manifest}' if found.manifest else ''}"
        lines = [*(f"saw: {line}" for line in found.said), *(f"chose: {line}" for line in chose), f"wrote {written}"]
        typer.echo(
            "\n".join([*lines, "next: `reelwright doctor` looks at it, `reelwright run -n` says what it will do"])
        )
        return
    if recipe is None:
        typer.echo(f"no videos in {folder.absolute()}: this is the recipe `default`; name your videos in it")
    if data and recipe in STAND_INS:
        with counted(f"recordings in {folder / 'data'}", "recordings") as report:
            STAND_INS[recipe](folder, workers=jobs or os.cpu_count() or 1, progress=report)
    write_text(target, text)
    typer.echo(f"wrote {target}")


def index(
    config: ConfigOption = None,
    overrides: SetOption = None,
    jobs: JobsOption = None,
    again: Annotated[bool, typer.Option("--again", help="Also read videos again that could not be used.")] = False,
    audit: Annotated[
        bool,
        typer.Option("--audit", help="Compare every backend with FFmpeg's own decode, frame by frame; exit 1: differ."),
    ] = False,
    sample: Annotated[int | None, typer.Option(min=1, help="Audit so many videos, evenly chosen; all.")] = None,
) -> None:
    """Check manifest and labels, read and probe new videos, and list what there is.

    ~ after frames or seconds: about so many, only decoding will tell (AVI, TS, MPEG-PS, WMV and others); after a rate:
    it varies.
    """
    from reelwright.pipeline.plan.data_warnings import data_warnings
    from reelwright.pipeline.run.reading import read_videos, settled_probes

    if sample is not None and not audit:
        raise ConfigError("--sample is of --audit: give both, or neither")
    file = load_pipeline(find_pipeline_file(config), overrides or ())
    with Watcher() as watcher:
        dataset = read_videos(file, watcher, jobs=jobs, anew=again, quarantined=again)
        is_wrong = audit and _audit(dataset, file, watcher, sample=sample, jobs=jobs)
    if audit:
        raise typer.Exit(1 if is_wrong else 0)
    rows = []
    message: list[str] = []
    probes = settled_probes(dataset, file.store)
    for video in dataset.videos:
        probe = probes[dataset.digests[video.video_id] or ""]
        usable = probe.status == "ok"
        measured = usable and probe.num_frames > 0  # files of features say nothing of this
        about = "" if probe.is_exact else "~"
        size = f"{probe.width}x{probe.height}" if measured else ""
        size += f" ({probe.pixel_aspect:.3g}:1 pixels)" if measured and probe.pixel_aspect != 1 else ""
        seconds = f"{probe.duration_seconds:.2f}{about}" if measured else ""
        rate = f"{probe.fps:.2f}{'~' if probe.variable_frame_rate else ''}" if measured else ""
        frames = f"{probe.num_frames}{about}" if measured else ""
        state = str(probe.status) if usable else f"{probe.status}: {probe.cause}: {probe.message}"
        rows.append((video.video_id, video.split, seconds, frames, rate, size, str(probe.codec), state))
        if usable and probe.message:
            message.append(f"{video.video_id}: {probe.message}")
    typer.echo(table_text(("video", "split", ">seconds", ">frames", ">fps", ">size", "codec", "status"), rows))
    for note in (*message, *dataset.notes):
        typer.echo(note)
    for warning in data_warnings(dataset):
        typer.echo(f"warning: {warning}", err=True)
    if dataset.unusable:
        raise typer.Exit(3)


def _audit(dataset: Dataset, file: PipelineFile, watcher: Watcher, *, sample: int | None, jobs: int | None) -> bool:
    """Print how each backend compares with FFmpeg's decode; whether one that is used gives another frame."""
    items = [item for item in dataset.all_items if Path(item.path).is_file() and not is_feature_file(item.path)]
    if sample is not None and sample < len(items):
        items = [items[place * len(items) // sample] for place in range(sample)]
    rows, is_wrong, failed = [], False, []
    audited = load("reelwright.stages.index.audit:audit_videos")(
        items,
        index=file.store.frame_index,
        workers=jobs or file.videos.workers,
        timeout_seconds=10 * file.videos.timeout_seconds,
        reporter=watcher.working(f"audit: {len(items):,} videos"),
    )
    for item, comparisons, problem in audited:
        failed += [f"{item.video_id}: not audited: {problem}"] if problem else []
        for compared in comparisons:
            is_wrong = is_wrong or (compared.is_wrong and compared.is_used)
            where = f"frame {compared.first_wrong} at {compared.first_seconds:.3f} s" if compared.is_wrong else ""
            said = f"{compared.num_wrong} wrong, from {where}" if compared.is_wrong else "equal"
            used = "yes" if compared.is_used else "no"
            verdict = compared.refusal if compared.refusal and not compared.is_wrong else said
            rows.append((item.video_id, compared.backend, used, f"{compared.num_frames}", verdict))
    typer.echo(table_text(("video", "backend", "used", ">frames", "compared with FFmpeg's decode"), rows))
    for line in failed:
        typer.echo(line)
    return is_wrong


def fetch(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Bring the pretrained weights that a pipeline needs from their hub into the store."""
    file = load_pipeline(find_pipeline_file(config), overrides or ())
    named = {name: node for node in file.nodes.values() if (name := node.hub_weights()) is not None}
    for name, node in sorted(named.items()):
        place = file.store.weights(name)
        if not file.store.backend.ensure_local(place):
            fetch_weights(node, file.store)
        typer.echo(f"{name}: {place}")
    if not named:
        typer.echo("no node takes weights from a hub")
