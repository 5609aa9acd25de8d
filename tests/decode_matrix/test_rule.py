"""What the matrix itself rests on: pictures that carry their number, and a verdict that can be bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.decode_matrix.compare import LOST, RIGHT, SAID, SILENT, UNTOLD, Rows, Subject, asked_of, judge
from tests.decode_matrix.lab import Case
from tests.decode_matrix.pictures import UNREADABLE, draw, read_number
from tests.decode_matrix.samplings import Sampling, expected_rows, sampling
from tests.decode_matrix.truth import Truth


@pytest.mark.parametrize("size", [(128, 96), (127, 95), (66, 50), (720, 576)])
def test_a_picture_carries_its_number_at_any_size(size: tuple[int, int]) -> None:
    for number in (0, 1, 74, 149, 512, 1023):
        scaled = Image.fromarray(draw(number)).resize(size).convert("YCbCr").convert("RGB")
        assert read_number(np.asarray(scaled)) == number


def test_the_mean_of_two_pictures_has_no_number() -> None:
    mean = (draw(3).astype(int) + draw(4)) // 2
    assert read_number(mean.astype(np.uint8)) == UNREADABLE


def judged(rows: Rows, *, is_truncated: bool = False, errors: tuple[str, ...] = (), backend: str = "pyav") -> str:
    case = Case(name="a.ts", codec="h264", structure="", make=lambda _lab, _path: None, is_truncated=is_truncated)
    seconds = np.arange(4) / 25
    truth = Truth(
        numbers=(5, 6, 7, 8),
        seconds=seconds,
        num_timed=4,
        is_timed=True,
        last_seconds=(0.04,),
        size=(96, 128),
        pixel_format="yuv420p",
        errors=errors,
        count_note="",
        pixels=Path(),
    )
    asked = asked_of(Subject(case, Path("a.ts"), "d", truth), "every", Rows())
    return judge(asked, backend, rows)[0]


def rows_of(numbers: list[int], *, late: float = 0.0, status: str = "ok", message: str = "") -> Rows:
    places = range(len(numbers))
    return Rows(
        numbers=dict(enumerate(numbers)),
        source={place: place for place in places},
        seconds={place: place / 25 + late for place in places},
        status=status,
        message=message,
        backend="pyav",
    )


@pytest.mark.parametrize(
    ("rows", "more", "kind"),
    [
        pytest.param(rows_of([5, 6, 7, 8]), {}, RIGHT, id="right"),
        pytest.param(rows_of([5, 6, 7, 8]), {"backend": "decord"}, RIGHT, id="another backend"),
        pytest.param(rows_of([5, 6, 7, 8], message="not used"), {"backend": "decord"}, SAID, id="refused"),
        pytest.param(rows_of([5, 6, 6, 8]), {}, SILENT, id="a picture too early"),
        pytest.param(rows_of([5, 6, 7, 8], late=0.002), {}, SILENT, id="late times"),
        pytest.param(rows_of([5, 6, 7]), {}, SILENT, id="a row too few"),
        pytest.param(rows_of([5, 6, 7, 8, 8]), {}, SILENT, id="a row too many"),
        pytest.param(rows_of([5, 6, 8], status="truncated"), {}, SILENT, id="wrong rows with a word"),
        pytest.param(rows_of([5, 6], status="truncated"), {}, LOST, id="too few with a word"),
        pytest.param(rows_of([5, 6, 7, 8], status="truncated"), {}, LOST, id="whole but called damaged"),
        pytest.param(rows_of([], status="failed"), {}, LOST, id="nothing"),
        pytest.param(rows_of([5, 6, 7, 8]), {"is_truncated": True, "errors": ("cut",)}, UNTOLD, id="damage untold"),
        pytest.param(rows_of([5, 6, 7, 8]), {"is_truncated": True}, RIGHT, id="cut where ffmpeg says nothing"),
        pytest.param(
            rows_of([5, 6, 7], status="truncated"), {"is_truncated": True, "errors": ("cut",)}, SAID, id="damage told"
        ),
    ],
)
def test_a_verdict(rows: Rows, more: dict[str, Any], kind: str) -> None:
    assert judged(rows, **more) == kind


def test_the_rule_on_times_that_one_can_follow() -> None:
    seconds = np.asarray([1.0, 1.2, 1.3, 2.0])
    found = {name: expected_rows(sampling(name, seconds), seconds, (0.5,))[0].tolist() for name in ("every", "fps1")}
    assert found == {"every": [0, 1, 2, 3], "fps1": [0, 3]}
    (rows,) = expected_rows(Sampling("fps", {"fps": 4.0}), seconds, (0.5,))  # 1.0 1.25 1.5 1.75 2.0 2.25
    assert rows.tolist() == [0, 1, 2, 2, 3, 3]
    (rows,) = expected_rows(Sampling("range", {"start": 1.2, "stop": 2.0}), seconds, (0.5,))
    assert rows.tolist() == [1, 2]
    (rows,) = expected_rows(Sampling("times", {"times": (1.29, 1.3, 2.4)}), seconds, (0.5,))
    assert rows.tolist() == [1, 2, 3]
