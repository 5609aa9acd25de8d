"""The command `synthesize`: videos made by programs, to start from without any data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelwright.cli.options import JsonOption, on_this_machine

if TYPE_CHECKING:
    from reelwright.stages.synthesize.work import Outcome

EXIT_SOME_FAILED = 3
PROCEDURE = "procedure"
_FRACTAL_PANEL = "Fractals only"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Start")(synthesize)


def synthesize(
    family: Annotated[
        str, typer.Argument(metavar="TYPE", help="fractal, perlin, octopus, dead_leaves, or the demo's procedure.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", callback=on_this_machine, help="Folder of the data set (or class files).", show_default=False
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="How many there shall be; finished ones count.", show_default=False),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option("--time", metavar="2h30m", help="Stop after so long; what was begun ends.", show_default=False),
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option("--gen-param", min=1, help="Write so many class files instead of videos.", show_default=False),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option("--dir-in", help="Class files: make labelled instances of them.", show_default=False),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--res", help="Side in pixels: 256; perlin always 240; procedure 128.", show_default=False),
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="Frames a second: 12; procedure 10.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same frames.")] = 1,
    num_val: Annotated[int, typer.Option("--val", min=0, help="Videos of every class for the split val.")] = 0,
    num_test: Annotated[int, typer.Option("--test", min=0, help="Videos of every class for the split test.")] = 0,
    codec: Annotated[str, typer.Option("--codec", help="h264 or h265.")] = "h264",
    frames: Annotated[bool, typer.Option("--frames", help="Write a frame store, no video files.")] = False,
    workers: Annotated[
        int | None, typer.Option("-j", "--jobs", min=1, help="Processes; default: one a core.", show_default=False)
    ] = None,
    tell_every: Annotated[int, typer.Option("--print-every", min=1, help="Samples between lines of progress.")] = 50,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", help="Only draw a contact sheet (PNG) of the first samples.", show_default=False),
    ] = None,
    still: Annotated[
        bool, typer.Option("--img", help="Sets of 16 still images.", rich_help_panel=_FRACTAL_PANEL)
    ] = False,
    variations: Annotated[
        list[int] | None,
        typer.Option(
            "--var",
            help="Variation number; -1: mixed. Repeatable.",
            rich_help_panel=_FRACTAL_PANEL,
            show_default=False,
        ),
    ] = None,
    linear_motion: Annotated[
        bool, typer.Option("--linear-motion", help="Everything moves evenly.", rich_help_panel=_FRACTAL_PANEL)
    ] = False,
    num_points: Annotated[
        int | None,
        typer.Option("--bs-point", help="Points at once: 8192.", rich_help_panel=_FRACTAL_PANEL, show_default=False),
    ] = None,
    num_iterations: Annotated[
        int | None,
        typer.Option("--iter", help="Jumps of a point: 140.", rich_help_panel=_FRACTAL_PANEL, show_default=False),
    ] = None,
    num_window_iterations: Annotated[
        int | None,
        typer.Option(
            "--iter-b", help="Jumps to find the view: 69.", rich_help_panel=_FRACTAL_PANEL, show_default=False
        ),
    ] = None,
    num_skipped: Annotated[
        int | None,
        typer.Option(
            "--iter-skip", help="First jumps, not drawn: 25.", rich_help_panel=_FRACTAL_PANEL, show_default=False
        ),
    ] = None,
    window_keep: Annotated[
        float | None,
        typer.Option(
            "--thres-b", help="Share that the view holds: 0.9.", rich_help_panel=_FRACTAL_PANEL, show_default=False
        ),
    ] = None,
    window_size: Annotated[
        int | None,
        typer.Option(
            "--res-b", help="Canvas to find the view: 128.", rich_help_panel=_FRACTAL_PANEL, show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make synthetic videos: fractals, noise, octopuses, dead leaves, or labelled procedures.

    Give --samples, --time or both. A call that was stopped goes on where it was; one that is done does nothing.
    """
    common = {"seed": seed, "size": size, "fps": fps}
    fractal = {
        "still": still or None,
        "variations": variations,
        "linear_motion": linear_motion or None,
        "num_points": num_points,
        "num_iterations": num_iterations,
        "num_window_iterations": num_window_iterations,
        "num_skipped": num_skipped,
        "window_keep": window_keep,
        "window_size": window_size,
    }
    counts = {"num_val": num_val, "num_test": num_test}
    processes = workers or os.cpu_count() or 1
    if family == PROCEDURE:
        _refuse_for_procedure(
            {"--time": duration, "--gen-param": num_classes, "--dir-in": classes, "--sheet": sheet}
            | {"--frames": frames or None, "--codec h265": codec != "h264" or None}
            | {f"fractal option {name}": value for name, value in fractal.items()}
        )
        _tell(_make_procedure(out, samples, counts, common, processes), as_json=as_json)
        return
    values = {"family": family, "codec": codec, "into": "frames" if frames else "files", **common, **counts}
    config = _config(values, fractal)
    amounts = {"--samples": samples, "--time": duration}
    if sheet is not None:
        _refuse("--sheet", {"--out": out, "--time": duration, "--gen-param": num_classes})
        _draw_sheet(sheet, config, num_samples=samples, classes=classes)
    elif num_classes is not None:
        _refuse("--gen-param", {"--dir-in": classes, **amounts})
        _tell(_make_classes(_needed(out), config, num_classes, processes), as_json=as_json)
    else:
        effort = {"num_samples": samples, "workers": processes, "tell_every": tell_every}
        _tell(_make(_needed(out), config, effort, duration=duration, classes=classes), as_json=as_json)


def _config(values: dict[str, Any], fractal: dict[str, Any]) -> Any:
    """The checked settings; what was not given keeps its default."""
    from reelwright.stages.config import parse_config
    from reelwright.stages.synthesize.config import FAMILY_NAMES, SynthesizeConfig
    from reelwright.storage.errors import ConfigError, nearest

    known = (*FAMILY_NAMES, PROCEDURE)
    if values["family"] not in known:
        hint = nearest(values["family"], known)
        raise ConfigError(f"no type of videos is called {values['family']!r}.{hint} Allowed: {', '.join(known)}")
    given = {name: value for name, value in values.items() if value is not None}
    own = {name: value for name, value in fractal.items() if value is not None}
    return parse_config(SynthesizeConfig, {**given, **({"fractal": own} if own else {})}, where="synthesize")


def _make(out: Path, config: Any, effort: dict[str, Any], *, duration: str | None, classes: Path | None) -> Outcome:
    from reelwright.stages.synthesize.config import parse_duration

    seconds = None if duration is None else parse_duration(duration)
    from reelwright.stages.synthesize.work import Effort, synthesize

    with _reporter(config.family) as reporter:
        return synthesize(out, config, effort=Effort(**effort, seconds=seconds), reporter=reporter, classes=classes)


def _make_classes(out: Path, config: Any, num_classes: int, workers: int) -> Outcome:
    from reelwright.stages.synthesize.work import synthesize_classes

    with _reporter(f"{config.family} classes") as reporter:
        return synthesize_classes(out, config, num_classes=num_classes, workers=workers, reporter=reporter)


def _make_procedure(
    out: Path | None, samples: int | None, counts: dict[str, int], common: dict[str, Any], workers: int
) -> Outcome:
    from reelwright.stages.synthesize.procedures import make_procedures

    with _reporter(PROCEDURE) as reporter:
        given = {name: value for name, value in common.items() if value is not None}
        amounts = {"num_samples": samples, **counts}
        return make_procedures(_needed(out), **{**amounts, **given}, workers=workers, reporter=reporter)


def _draw_sheet(path: Path, config: Any, *, num_samples: int | None, classes: Path | None) -> None:
    from reelwright.stages.synthesize.sheet import write_sheet

    write_sheet(path, config, num_samples=num_samples or 4, classes=classes)
    typer.echo(f"wrote {path}")


def _tell(outcome: Outcome, *, as_json: bool) -> None:
    from reelwright.cli.format import bytes_text, print_json

    report = outcome.report
    if as_json:
        print_json({"folder": str(outcome.folder), "new": outcome.num_new, "found": outcome.num_found, **report})
    else:
        rejected = report["rejected_degenerate_draws"]
        typer.echo(
            f"{report['files']:,} files in {outcome.folder}, {bytes_text(report['bytes'])}; "
            f"{outcome.num_new:,} samples new, {outcome.num_found:,} were there; {rejected:,} degenerate draws rejected"
        )
        if outcome.manifest.exists():
            typer.echo(f"for a pipeline file:  videos: {{manifest: {outcome.manifest}}}")
    if outcome.num_given_up:
        raise typer.Exit(EXIT_SOME_FAILED)


def _reporter(name: str) -> Any:
    """A progress display that closes itself at the end of a `with` block."""
    import contextlib

    from rich.console import Console

    from reelwright.cli.progress import NodeReporter

    return contextlib.closing(NodeReporter(name, Console(stderr=True, highlight=False)))


def _needed(out: Path | None) -> Path:
    from reelwright.storage.errors import ConfigError

    if out is None:
        raise ConfigError("where to? Give --out FOLDER")
    return out


def _refuse(option: str, others: dict[str, Any]) -> None:
    from reelwright.storage.errors import ConfigError

    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ConfigError(f"{option} does not go with {', '.join(given)}: leave one of them out")


def _refuse_for_procedure(others: dict[str, Any]) -> None:
    _refuse("procedure", others)
