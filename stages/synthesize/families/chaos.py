"""The chaos game: points jump from map to map of an iterated function system; where they land is counted.

Many points move at once and few times each, which is the same picture as few points that move often: after about 20
steps a point has forgotten where it began. No compiler is needed because no point chooses its map by itself:

    every step   shuffle the points     7 2 9 0 4 8 1 5 3 6      one order, shared by all frames
                 cut them into blocks   7 2 9 0 4|8 1 5|3 6      as long as the maps' chances: one a frame
                 move a block           one small matrix product a map

A shuffled point falls into block i with the chance of map i, whatever came before, as in a game of one point. Block
lengths are rounded at random, so that even a chance below 1 / points comes true on average. Frames share start, order
and random numbers, so the grain of the picture moves with the shape instead of flickering.

Maps that expand on average have no attractor: their points run away. In a long game nothing of them is left to see, in
a short one a fog that thins out; where it is too thin at both ends the draw is rejected as degenerate (table.py).

Source: Barnsley, "Fractals Everywhere" (1988), chapter 3; counting as in davidsvy/fractal_video (domain notes, 3.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reelwright.stages.synthesize.families.ifs import map_probabilities
from reelwright.stages.synthesize.families.variations import VARIATIONS, Chosen

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

GROUP_POINTS = 128  # points that share the random numbers of a step (variations 13, 31, 44, 45)
MIN_EXTENT = 1e-6  # of a window: one that is a line is this wide
CHUNK_POINTS = 1 << 18  # jumps whose random numbers are held at once
_NOTHING_CHOSEN = Chosen(0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Game:
    """How long is played: ``num_points`` points, all ``num_iterations`` times; the first ``num_skipped`` do not count.

    Every frame is drawn from ``num_points * (num_iterations - num_skipped)`` points.
    """

    num_points: int
    num_iterations: int
    num_skipped: int


@dataclass(frozen=True)
class _Steps:
    """The random numbers of some steps in a row."""

    first: int
    orders: NDArray[np.int64]  # (S, P) permutations
    offsets: Floats  # (S,) how block lengths are rounded
    uniform: NDArray[np.float32]  # (S, 2, P)


def count_points(
    weights: Floats, *, borders: Floats, size: int, game: Game, variation: int, rng: np.random.Generator
) -> Counts:
    """(F, size, size) counts of points a pixel; rows go along x, columns along y.

    ``weights`` is (F, n, 6), ``borders`` (F, 4): x from, x to, y from, y to of the first and the last pixel's corner.
    Points outside, infinite or NaN are not counted. The same generator state gives the same counts.
    """
    start = rng.uniform(-1.0, 1.0, size=(2, game.num_points)).astype(np.float32)
    players = [
        _Player(weights[frame], borders=borders[frame], size=size, start=start, variation=variation)
        for frame in range(len(weights))
    ]
    # Points may run away: infinities are expected, and never counted.
    with np.errstate(all="ignore"):
        for steps in _chunks(rng, game):
            for player in players:
                player.play(steps, num_skipped=game.num_skipped)
    return np.stack([player.counts.reshape(size, size) for player in players])


def splat(counts: NDArray[Any]) -> NDArray[Any]:
    """Every point marks its pixel and the 8 around it: a 3 x 3 box sum of (..., h, w), nothing beyond the edges."""
    for axis in (-2, -1):
        counts = ndimage.correlate1d(counts, [1, 1, 1], axis=axis, mode="constant")
    return counts


class _Player:
    """The points of one frame and what they have hit so far."""

    def __init__(
        self, weights: Floats, *, borders: Floats, size: int, start: NDArray[np.float32], variation: int
    ) -> None:
        self.counts = np.zeros(size * size, np.int64)
        self._size = size
        self._maps = np.ascontiguousarray(weights.reshape(-1, 2, 3), np.float32)
        self._ends = np.cumsum(map_probabilities(weights)) * start.shape[1]
        low, high = borders[[0, 2], None], borders[[1, 3], None]
        # The low border is pixel 0, the high one the last pixel; + 1 as said in `_hit`.
        scale = (size - 1) / np.maximum(high - low, MIN_EXTENT)
        self._scale, self._shift = scale.astype(np.float32), (1 - low * scale).astype(np.float32)
        self._points, self._scaled = start.copy(), np.empty_like(start)
        self._shuffled = np.ones((3, start.shape[1]), np.float32)  # the third row takes the translation
        self._variation = VARIATIONS[variation]
        self._is_linear = variation == 0
        self._entries = self._maps[:, [0, 1, 0, 1], [1, 1, 2, 2]][..., None]  # b, d, tx, ty of each map
        self._entry_of_point = np.zeros((4, start.shape[1]), np.float32)

    def play(self, steps: _Steps, *, num_skipped: int) -> None:
        """Go on by some steps."""
        num_steps, num_points = steps.orders.shape
        hits = np.empty((max(0, min(num_steps, steps.first + num_steps - num_skipped)), num_points), np.int64)
        for index in range(num_steps):
            self._jump(steps.orders[index], float(steps.offsets[index]), steps.uniform[index])
            row = index - (num_steps - len(hits))
            if row >= 0:
                self._hit(hits[row])
        if len(hits):
            self.counts += np.bincount(hits.ravel(), minlength=self._size**2 + 1)[:-1]

    def _jump(self, order: NDArray[np.int64], offset: float, uniform: NDArray[np.float32]) -> None:
        np.take(self._points, order, axis=1, out=self._shuffled[:2], mode="clip")
        ends = [*(self._ends[:-1] + offset).astype(np.int64).tolist(), len(order)]
        start = 0
        for matrix, stop in zip(self._maps, ends, strict=True):
            if stop > start:
                np.matmul(matrix, self._shuffled[:, start:stop], out=self._points[:, start:stop])
            start = stop
        if not self._is_linear:
            chosen = self._choose(ends) if self._variation.needs == "chosen" else _NOTHING_CHOSEN
            x, y = self._points
            self._points[0], self._points[1] = self._variation.apply(x, y, chosen=chosen, uniform=uniform)

    def _choose(self, ends: list[int]) -> Chosen:
        """The entries of every point's map, for the variations that look at it."""
        start = 0
        for entries, stop in zip(self._entries, ends, strict=True):
            self._entry_of_point[:, start:stop] = entries
            start = stop
        return Chosen(*self._entry_of_point)

    def _hit(self, out: NDArray[np.int64]) -> None:
        """The pixel of every point, as row * size + column; size * size where it is outside."""
        np.multiply(self._points, self._scale, out=self._scaled)
        np.add(self._scaled, self._shift, out=self._scaled)
        # One too high, so that cutting off the fraction rounds down all that matters. Unsigned, what lies below 0 is
        # far above the size, as are NaN and infinity, which become the smallest whole number, the largest, or 0.
        pixels = self._scaled.astype(np.int32) - 1
        rows_inside, columns_inside = pixels.view(np.uint32) < self._size
        np.multiply(pixels[0], self._size, out=out)
        np.add(out, pixels[1], out=out)
        out[~(rows_inside & columns_inside)] = self._size**2


def _chunks(rng: np.random.Generator, game: Game) -> Iterator[_Steps]:
    length = max(1, CHUNK_POINTS // game.num_points)
    num_groups = -(-game.num_points // GROUP_POINTS)
    for first in range(0, game.num_iterations, length):
        count = min(length, game.num_iterations - first)
        orders = np.stack([rng.permutation(game.num_points) for _ in range(count)])
        groups = rng.random((count, 2, num_groups), dtype=np.float32)
        uniform = np.repeat(groups, GROUP_POINTS, axis=2)[..., : game.num_points]
        yield _Steps(first, orders, rng.random(count), uniform)
