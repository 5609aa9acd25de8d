"""`reelwright settings`: every setting says what it means; types and limits are in words."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from pydantic import Field, PositiveInt

from reelwright.cli.inspect.settings import allowed, blocks, listed, models, objectives, settings, settings_of
from reelwright.stages.base.config import Settings
from reelwright.stages.base.registry import STAGES
from reelwright.storage.errors import ConfigError

NAMES = [*STAGES, *models(), *objectives(), *blocks()]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_says_what_it_means_and_what_is_allowed(name: str) -> None:
    owner, of_name = settings_of(name)
    found = list(listed(owner, of_name=of_name))
    assert [entry.name for entry in found if not entry.meaning] == []
    assert len({entry.name for entry in found}) == len(found)
    assert (owner.__doc__ or "").strip()
    assert not any("type: ignore" in entry.meaning or "noqa" in entry.meaning for entry in found)


def test_without_a_name_what_has_settings_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    settings()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == NAMES
    assert next(line for line in lines if line.startswith("tcn ")).endswith("  a row is like one shortly before it")
    settings(as_json=True)
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == NAMES
    meanings = {entry.name: entry.meaning for entry in listed(settings_of("videos")[0])}
    assert meanings["synthesize.family"].startswith("Family of videos; ")


class _Inner(Settings):
    """A block."""

    share: float = Field(0.5, ge=0, lt=1)
    """A share."""


class _Outer(Settings):
    count: PositiveInt | None = None
    name: Literal["a", "b"]
    """Which."""
    inner: _Inner | None = None
    sizes: tuple[PositiveInt, ...] = ()


def test_types_and_limits_are_in_words() -> None:
    found = {entry.name: (entry.default, entry.allowed, entry.meaning) for entry in listed(_Outer)}
    assert found == {
        "count": ("None", "whole number > 0 | null", ""),  # a setting without a text is found by the test above
        "name": ("required", "a | b", "Which."),
        "inner": ("None", "", "A block."),
        "inner.share": ("0.5", "number >= 0 < 1", "A share."),
        "sizes": ("()", "list of whole number > 0", ""),
    }
    assert allowed(dict[str, float]) == "map of number"


def test_models_and_objectives_have_theirs_too(capsys: pytest.CaptureFixture[str]) -> None:
    settings("ms_tcn")
    assert "layers = " in capsys.readouterr().out
    settings("moco", as_json=True)
    shown = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["settings"]}
    assert set(shown) == {"queue", "momentum", "dim", "hidden", "temperature"}  # predictor_hidden is byol's
    assert shown["queue"]["allowed"] == "whole number > 0"
    with pytest.raises(ConfigError, match="ms_tcm"):
        settings_of("ms_tcm")
