"""Pictures of rows: like rows have like colours, and lines are where the alignment is."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo
from reelwright.stages.show.row_pictures import (
    PATH_COLOURS,
    Alignment,
    label_colours,
    principal_colours,
    similarity_picture,
    strip,
    strips_picture,
)

_MARGIN = 64


def video(name, rows, **fields):
    rows = np.asarray(rows, float)
    return EmbeddedVideo(name=name, rows=rows, seconds=np.arange(len(rows)) * 0.5, **fields)


def test_like_rows_have_like_colours_in_all_videos():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(4, 16))
    first, second = principal_colours([video("a", points[[0, 0, 1, 2]]), video("b", points[[2, 1, 3]])])
    assert (first[0] == first[1]).all()
    assert (first[2] == second[1]).all()
    assert (first[3] == second[0]).all()
    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 4
    again = principal_colours([video("a", points[[0, 0, 1, 2]]), video("b", points[[2, 1, 3]])])
    assert (again[0] == first).all()


@pytest.mark.parametrize("rows", [np.ones((1, 3)), np.ones((5, 1)), np.full((4, 6), 7.0)], ids=["one", "D 1", "equal"])
def test_rows_that_say_nothing_are_grey(rows):
    (colours,) = principal_colours([video("a", rows)])
    assert (colours == 128).all()
    assert colours.shape == (len(rows), 3)


def test_a_strip_is_in_time():
    """Three rows at 0, 1 and 9 s: the last one is nearest to all after 5 s."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    line = np.asarray(strip(colours, np.array([0.0, 1.0, 9.0]), width=91, height=2))[0]
    counts = [int((line == colour).all(axis=1).sum()) for colour in colours]
    assert counts == [6, 45, 40]


def test_labels_without_a_name_are_grey():
    found = label_colours(np.array([0, -1, 0, 7]))
    assert (found[0] == found[2]).all()
    assert (found[0] == found[3]).all()  # the page has seven colours
    assert tuple(found[1]) == (0x8A, 0x92, 0x9B)


def test_the_similarity_matrix_runs_down_and_across():
    """The query is the key twice as slow: the brightest cells and the path lie on the line from corner to corner."""
    rows = np.random.default_rng(1).normal(size=(30, 8))
    query, key = video("q", np.repeat(rows, 2, axis=0)), video("k", rows)
    aligned = np.repeat(np.arange(30), 2)
    plain = np.asarray(similarity_picture(Alignment(query=query, key=key, rows={}), distance="sqeuclidean"))
    cell = plain[_MARGIN + 7 * 20 + 10, _MARGIN + 7 * 10 + 5]  # row 20 of 60 is row 10 of 30
    assert tuple(cell) == (0xFD, 0xE7, 0x25)
    assert tuple(plain[_MARGIN + 7 * 20 + 10, _MARGIN + 7 * 20 + 5]) != tuple(cell)
    lined = np.asarray(similarity_picture(Alignment(query=query, key=key, rows={"dtw": aligned}), distance="euclidean"))
    white = np.argwhere((lined[_MARGIN : _MARGIN + 400, _MARGIN : _MARGIN + 200] == 255).all(axis=2))
    assert np.abs(white[:, 0] / 2 - white[:, 1]).max() < 12
    assert len(white) > 200
    dots = np.asarray(similarity_picture(Alignment(query=query, key=key, rows={"nearest": aligned}), distance="cosine"))
    wanted = [int(PATH_COLOURS["nearest"][start : start + 2], 16) for start in (1, 3, 5)]
    assert (dots == wanted).all(axis=2).sum() > 200


def test_one_row_and_no_times():
    one = EmbeddedVideo(name="o" * 300, rows=np.ones((1, 2)))
    picture = similarity_picture(Alignment(query=one, key=one, rows={"dtw": np.array([0])}), distance="sqeuclidean")
    assert picture.width < 600
    assert strips_picture([one, video("a", np.eye(2))], title="t" * 500).width == 900
