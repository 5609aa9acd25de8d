"""Schedules by hand."""

from __future__ import annotations

import pytest

from reelwright.models.blocks.schedules import SCHEDULES, Warmup, build_schedule

CASES = [
    ("constant", {"total_steps": 4}, [1, 1, 1, 1]),
    ("constant", {"total_steps": 4, "warmup": Warmup(steps=2)}, [0, 0.5, 1, 1]),
    ("cosine", {"total_steps": 4}, [1, 0.853553, 0.5, 0.146447, 0, 0]),
    ("cosine", {"total_steps": 4, "warmup": Warmup(steps=2), "min_ratio": 0.2}, [0, 0.5, 1, 0.6, 0.2, 0.2]),
    ("cosine_restarts", {"total_steps": 9, "T_0": 2, "T_mult": 2}, [1, 0.5, 1, 0.853553, 0.5, 0.146447, 1]),
    (
        "cosine_restarts",
        {"total_steps": 9, "warmup": Warmup(steps=3, start=0.1), "T_0": 5},
        [0.1, 0.4, 0.7, 1, 0.904508, 0.654508, 0.345492, 0.095492, 1],
    ),
    ("step", {"total_steps": 5, "size": 2, "gamma": 0.5}, [1, 1, 0.5, 0.5, 0.25]),
    ("step", {"total_steps": 5, "size": 1, "warmup": Warmup(steps=1)}, [0, 1, 0.1, 0.01]),
    ("cosine", {"total_steps": 2, "warmup": Warmup(steps=2)}, [0, 0.5, 1]),
    ("multi_step", {"total_steps": 5, "milestones": (1, 3), "gamma": 0.5}, [1, 0.5, 0.5, 0.25, 0.25]),
    ("cyclic", {"total_steps": 5, "size": 2, "min_ratio": 0.2}, [0.2, 0.6, 1, 0.6, 0.2, 0.6]),
    ("cyclic", {"total_steps": 5, "size": 1, "gamma": 0.5}, [0, 0.5, 0, 0.125]),
    ("polynomial", {"total_steps": 4, "min_ratio": 0.2}, [1, 0.8, 0.6, 0.4, 0.2, 0.2]),
    ("polynomial", {"total_steps": 2, "power": 2}, [1, 0.25, 0]),
    ("cosine", {"total_steps": 5, "warmup": Warmup(steps=3, is_inclusive=True)}, [0, 0.5, 1, 1, 0.5]),
    ("constant", {"total_steps": 5, "warmup": Warmup(steps=1, start=0.3, is_inclusive=True)}, [0.3, 1]),
    ("cosine", {"total_steps": 4, "warmup": Warmup(steps=2, overlaps=True)}, [0, 0.5, 0.5, 0.146447]),
    ("constant", {"total_steps": 4, "warmup": Warmup(steps=2, lag=1)}, [0, 0, 0.5, 1]),
]


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
def test_multipliers(name, options, expected):
    schedule = build_schedule(name, **options)
    assert [schedule(step) for step in range(len(expected))] == pytest.approx(expected, abs=1e-6)


def test_every_schedule_is_covered():
    assert {name for name, _, _ in CASES} == set(SCHEDULES)


REFUSED = [
    ("size", "step", {"size": 0}, r"size is 0; it must be at least 1"),
    ("cycle", "cyclic", {"size": 0}, r"size is 0"),
    ("period", "cosine_restarts", {"T_0": 0}, r"T_0 is 0"),
]


@pytest.mark.parametrize(("name", "options", "message"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(name, total_steps=10, **options)
