"""The command `synthesize`: videos made by programs, to start from without any data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from reelwright.cli.format import bytes_text, print_json
from reelwright.cli.options import EXIT_SOME_FAILED, JsonOption, on_this_machine
from reelwright.cli.progress import Watcher
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.registry import load
from reelwright.stages.synthesize.config import FAMILY_NAMES, SynthesizeConfig
from reelwright.storage.errors import ConfigError, nearest

if TYPE_CHECKING:
    from reelwright.stages.synthesize.work import SynthesisResult

PROCEDURE = "procedure"
_STAGE = "reelwright.stages.synthesize"
_FRACTAL_PANEL, _PROCEDURE_PANEL = "Fractals only", "Procedures only"


def synthesize(
    family: Annotated[
        str,
        typer.Argument(metavar="TYPE", help="fractal, perlin, octopus, dead_leaves, actions, or the demo's procedure."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", callback=on_this_machine, help="Folder of the data set (or class files).")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="How many there shall be; finished ones count.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--time", metavar="2h30m", help="Stop after so long; what was begun ends.")
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option("--gen-param", min=1, help="Write so many class files instead of videos.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option("--dir-in", help="Class files: make labelled instances of them.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--res", help="Side in pixels: 256; perlin always 240; procedure 128.")
    ] = None,
    fps: Annotated[float | None, typer.Option("--fps", help="Frames a second: 12; procedure 10.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same frames.")] = 1,
    num_val: Annotated[int, typer.Option("--val", min=0, help="Videos of every class for the split val.")] = 0,
    num_test: Annotated[int, typer.Option("--test", min=0, help="Videos of every class for the split test.")] = 0,
    codec: Annotated[str, typer.Option("--codec", help="h264 or h265.")] = "h264",
    frames: Annotated[bool, typer.Option("--frames", help="Write a frame store, no video files.")] = False,
    workers: Annotated[int | None, typer.Option("-j", "--jobs", min=1, help="Processes; default: one a core.")] = None,
    tell_every: Annotated[int, typer.Option("--print-every", min=1, help="Samples between lines of progress.")] = 50,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Only draw a contact sheet (PNG) of the first samples.")
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
        ),
    ] = None,
    linear_motion: Annotated[
        bool, typer.Option("--linear-motion", help="Everything moves evenly.", rich_help_panel=_FRACTAL_PANEL)
    ] = False,
    num_points: Annotated[
        int | None, typer.Option("--bs-point", help="Points at once: 8192.", rich_help_panel=_FRACTAL_PANEL)
    ] = None,
    num_iterations: Annotated[
        int | None, typer.Option("--iter", help="Jumps of a point: 140.", rich_help_panel=_FRACTAL_PANEL)
    ] = None,
    num_window_iterations: Annotated[
        int | None, typer.Option("--iter-b", help="Jumps to find the view: 69.", rich_help_panel=_FRACTAL_PANEL)
    ] = None,
    num_skipped: Annotated[
        int | None, typer.Option("--iter-skip", help="First jumps, not drawn: 25.", rich_help_panel=_FRACTAL_PANEL)
    ] = None,
    window_keep: Annotated[
        float | None, typer.Option("--thres-b", help="Share that the view holds: 0.9.", rich_help_panel=_FRACTAL_PANEL)
    ] = None,
    window_size: Annotated[
        int | None, typer.Option("--res-b", help="Canvas to find the view: 128.", rich_help_panel=_FRACTAL_PANEL)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="easy, or realistic: like real labels.", rich_help_panel=_PROCEDURE_PANEL),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--setting", metavar="NAME=VALUE", help="camera=0.5. Repeatable.", rich_help_panel=_PROCEDURE_PANEL
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option("--layout", help="videos, industreal or pouring.", rich_help_panel=_PROCEDURE_PANEL),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make synthetic videos: fractals, noise, octopuses, dead leaves, objects that act, or labelled procedures.

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
        others = {"--time": duration, "--gen-param": num_classes, "--dir-in": classes, "--sheet": sheet}
        others |= {"--frames": frames or None, "--codec h265": codec != "h264" or None}
        _refuse("procedure", others | {f"fractal option {name}": value for name, value in fractal.items()})
        amounts = {"num_samples": samples, **counts, "workers": processes}
        kinds = {"procedure": _settings(preset, settings), "layout": layout}
        given = _given({**common, **kinds})
        _make("procedures.make:make_procedures", out, as_json=as_json, name=PROCEDURE, **amounts, **given)
        return
    _refuse(family, {"--preset": preset, "--setting": settings, "--layout": layout})
    config = _config(
        {"family": family, "codec": codec, "into": "frames" if frames else "files", **common, **counts}, fractal
    )
    if sheet is not None:
        _refuse("--sheet", {"--out": out, "--time": duration, "--gen-param": num_classes})
        load(f"{_STAGE}.sheet:write_sheet")(sheet, config, num_samples=samples or 4, classes=classes)
        typer.echo(f"wrote {sheet}")
    elif num_classes is not None:
        _refuse("--gen-param", {"--dir-in": classes, "--samples": samples, "--time": duration})
        amounts = {"num_classes": num_classes, "workers": processes}
        _make("work:synthesize_classes", out, config, as_json=as_json, name=f"{family} classes", **amounts)
    else:
        seconds = None if duration is None else load(f"{_STAGE}.config:parse_duration")(duration)
        effort = load(f"{_STAGE}.work:Effort")(
            num_samples=samples, seconds=seconds, workers=processes, tell_every=tell_every
        )
        _make("work:synthesize", out, config, as_json=as_json, name=family, effort=effort, classes=classes)


def _settings(preset: str | None, given: list[str] | None) -> dict[str, Any] | None:
    """Settings of procedures as they were typed; None where there are none."""
    values: dict[str, Any] = {} if preset is None else {"preset": preset}
    for text in given or ():
        name, is_pair, value = text.partition("=")
        if not is_pair:
            raise ConfigError(f"--setting {text}: write NAME=VALUE, such as camera=0.5")
        try:
            values[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--setting {text}: {value!r} is no value ({error}). Write a number, true or false"
            ) from None
    return values or None


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Without what was not given, so that it keeps its default."""
    return {name: value for name, value in values.items() if value is not None}


def _config(values: dict[str, Any], fractal: dict[str, Any]) -> Any:
    """The checked settings; what was not given keeps its default."""
    known = (*FAMILY_NAMES, PROCEDURE)
    if values["family"] not in known:
        hint = nearest(values["family"], known)
        raise ConfigError(f"no type of videos is called {values['family']!r}.{hint} Allowed: {', '.join(known)}")
    own = {"fractal": _given(fractal) or None}
    return parse_config(SynthesizeConfig, _given({**values, **own}), where="synthesize")


def _make(entry: str, out: Path | None, *settings: Any, as_json: bool, name: str, **options: Any) -> None:
    """Make videos or class files with a function of the stage; tells of them, and exits with 3 when some failed."""
    if out is None:
        raise ConfigError("where to? Give --out FOLDER")
    with Watcher() as watcher:
        outcome = load(f"{_STAGE}.{entry}")(out, *settings, **options, reporter=watcher.working(name))
    _print_outcome(outcome, as_json=as_json)


def _print_outcome(outcome: SynthesisResult, *, as_json: bool) -> None:
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


def _refuse(option: str, others: dict[str, Any]) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ConfigError(f"{option} does not go with {', '.join(given)}: leave one of them out")
