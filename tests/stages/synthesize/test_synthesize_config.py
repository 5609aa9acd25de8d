"""What may be asked for: the grammar of times, and settings that are refused with what is allowed."""

import json
from pathlib import Path

import pytest

from reelwright.stages.base.config import parse_config
from reelwright.stages.synthesize.config import SynthesizeConfig, parse_duration
from reelwright.storage.errors import ConfigError

PUBLISHED = json.loads((Path(__file__).parents[2] / "data" / "synthesize_vectors.json").read_text())["fractal"]


@pytest.mark.parametrize(("text", "seconds"), PUBLISHED["time_to_secs"].items())
def test_times_are_the_published_ones_and_what_was_no_limit_is_an_error(text: str, seconds: int) -> None:
    if seconds:
        assert parse_duration(text) == seconds
    else:
        with pytest.raises(ConfigError, match=f"^'{text}' is no "):
            parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "2H",
        " 2h",
        "2h ",
        "2h 30m",
        "1.5h",
        "-1h",
        "2",
        "h",
        "h2",
        "60m",
        "60s",
        "2h30",
        "2h30m15s1h",
        "\u0662h",
        "0h0m",
    ],
)
def test_nothing_else_is_a_time(text: str) -> None:
    with pytest.raises(ConfigError, match="is no"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s30m2h", 9015), ("59m59s", 3599), ("007m", 420), ("0h1s", 1), ("1000h", 3_600_000)]
)
def test_units_stand_in_any_order(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"family": "fractl"}, "'fractal', 'perlin', 'octopus', 'dead_leaves' or 'actions'"),
        ({"size": 63}, "size: 63 is not allowed"),
        ({"size": 16}, "size: 16 is not allowed"),
        ({"size": 4096}, "size: 4096 is not allowed"),
        ({"fps": 0}, "fps: 0 is not allowed"),
        ({"seed": -1}, "seed: -1 is not allowed"),
        ({"codec": "vp9"}, "'h264' or 'h265'"),
        ({"family": "perlin", "size": 256}, "perlin is 240 x 240 only"),
        ({"family": "octopus", "fractal": {"still": True}}, "no meaning for octopus"),
        ({"fractal": {"variations": []}}, "name at least one variation"),
        ({"fractal": {"variations": [23]}}, "no variation has the number 23"),
        ({"fractal": {"variations": [4, 4]}}, "named twice"),
        ({"fractal": {"variations": [-1, 4]}}, "-1 .mixed. stands alone"),
        ({"fractal": {"num_iterations": 25}}, "num_iterations is 25 and num_skipped 25: nothing would be drawn"),
        ({"fractal": {"num_window_iterations": 9}}, "num_window_iterations is 9 and num_skipped 25"),
        ({"fractal": {"num_points": 0}}, "fractal.num_points: 0 is not allowed"),
        ({"fractal": {"window_keep": 1.0}}, "fractal.window_keep: 1.0 is not allowed"),
        ({"fractal": {"window_keep": 0.0}}, "fractal.window_keep: 0.0 is not allowed"),
        ({"fractal": {"iter": 7500}}, "fractal.iter: unknown key"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_settings_are_checked(values: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_config(SynthesizeConfig, {"family": "fractal", **values}, where="synthesize")


def test_perlin_has_its_own_size() -> None:
    assert SynthesizeConfig(family="perlin").size == 240
    assert SynthesizeConfig(family="octopus").size == 256


def test_splits_do_not_change_the_content() -> None:
    assert SynthesizeConfig(family="fractal", num_val=3).content() == SynthesizeConfig(family="fractal").content()
    assert SynthesizeConfig(family="fractal", seed=2).content() != SynthesizeConfig(family="fractal").content()
