"""The non-linear variations of fractal flames: what is done to all points after the affine step.

Numbers and formulas of Draves and Reckase, "The Fractal Flame Algorithm" (2003), appendix, with the changes of
davidsvy/fractal_video (domain notes, 3.4): horseshoe and spherical have a small constant against division by 0, cosine
is tamed by tanh, noise has a sine in both places. r is the distance from the origin, theta = atan2(y, x).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[Any]
Pair = tuple[Points, Points]

TINY = 1e-7


@dataclass(frozen=True)
class Chosen:
    """Entries b, d, tx, ty of the map that was chosen: scalars, or an array with a value a point."""

    b: Any
    d: Any
    tx: Any
    ty: Any


@dataclass(frozen=True)
class Variation:
    """``function(x, y)`` gives new points; `needs` says what else it takes: `chosen` maps or `uniform` numbers."""

    name: str
    function: Callable[..., Pair]
    needs: str = ""

    def apply(self, x: Points, y: Points, *, chosen: Chosen, uniform: Points) -> Pair:
        """New points; ``uniform`` is (2, ...) random numbers in [0, 1). Points may become infinite or NaN."""
        if self.needs == "chosen":
            return self.function(x, y, chosen)
        return self.function(x, y, uniform) if self.needs == "uniform" else self.function(x, y)


def _swirl(x: Points, y: Points) -> Pair:
    square = x * x + y * y
    sin, cos = np.sin(square), np.cos(square)
    return x * sin - y * cos, x * cos + y * sin


def _spherical(x: Points, y: Points) -> Pair:
    square = x * x + y * y + TINY
    return x / square, y / square


def _horseshoe(x: Points, y: Points) -> Pair:
    r = _radius(x, y) + TINY
    return (x - y) * (x + y) / r, 2 * x * y / r


def _handkerchief(x: Points, y: Points) -> Pair:
    r, theta = _radius(x, y), np.arctan2(y, x)
    return r * np.sin(theta + r), r * np.cos(theta - r)


def _heart(x: Points, y: Points) -> Pair:
    r = _radius(x, y)
    turn = np.arctan2(y, x) * r
    return r * np.sin(turn), -r * np.cos(turn)


def _disc(x: Points, y: Points) -> Pair:
    share, turn = np.arctan2(y, x) / np.pi, np.pi * _radius(x, y)
    return share * np.sin(turn), share * np.cos(turn)


def _spiral(x: Points, y: Points) -> Pair:
    r = _radius(x, y)
    return (x / r + np.sin(r)) / r, (y / r - np.cos(r)) / r


def _diamond(x: Points, y: Points) -> Pair:
    r = _radius(x, y)
    return y / r * np.cos(r), x / r * np.sin(r)


def _ex(x: Points, y: Points) -> Pair:
    r, theta = _radius(x, y), np.arctan2(y, x)
    p, q = np.sin(theta + r) ** 3, np.cos(theta - r) ** 3
    return r * (p + q), r * (p - q)


def _julia(x: Points, y: Points, uniform: Points) -> Pair:
    root = np.sqrt(_radius(x, y))
    half = np.arctan2(y, x) / 2 + np.where(uniform[0] < 0.5, 0.0, np.pi).astype(x.dtype)
    return root * np.cos(half), root * np.sin(half)


def _fisheye(x: Points, y: Points) -> Pair:
    scale = 2 / (_radius(x, y) + 1)
    return scale * y, scale * x


def _exponential(x: Points, y: Points) -> Pair:
    scale, turn = np.exp(x - 1), np.pi * y
    return scale * np.cos(turn), scale * np.sin(turn)


def _power(x: Points, y: Points) -> Pair:
    r = _radius(x, y)
    sin = y / r
    scale = r**sin
    return scale * (x / r), scale * sin


def _cosine(x: Points, y: Points) -> Pair:
    scale, turn = np.tanh(y), np.pi * x
    return scale * np.cos(turn), -scale * np.sin(turn)


def _rings(x: Points, y: Points, chosen: Chosen) -> Pair:
    r, k = _radius(x, y), chosen.tx**2
    scale = np.mod(r + k, 2 * k) - k + r * (1 - k)
    return scale * (x / r), scale * (y / r)


def _fan(x: Points, y: Points, chosen: Chosen) -> Pair:
    r, theta = _radius(x, y), np.arctan2(y, x)
    half = np.pi * chosen.tx**2 / 2
    turned = np.where(np.mod(theta + chosen.ty, 2 * half) > half, theta - half, theta + half)
    return r * np.cos(turned), r * np.sin(turned)


def _eyefish(x: Points, y: Points) -> Pair:
    scale = 2 / (_radius(x, y) + 1)
    return scale * x, scale * y


def _bubble(x: Points, y: Points) -> Pair:
    scale = 4 / (x * x + y * y + 4)
    return scale * x, scale * y


def _noise(x: Points, y: Points, uniform: Points) -> Pair:
    scale = uniform[0] * np.sin(2 * np.pi * uniform[1]).astype(x.dtype)
    return scale * x, scale * y


def _rays(x: Points, y: Points, uniform: Points) -> Pair:
    scale = np.tan(np.pi * uniform[0]).astype(x.dtype) / (x * x + y * y)
    return scale * np.cos(x), scale * np.sin(y)


def _blade(x: Points, y: Points, uniform: Points) -> Pair:
    turn = _radius(x, y) * uniform[0]
    sin, cos = np.sin(turn), np.cos(turn)
    return x * (cos + sin), x * (cos - sin)


def _cross(x: Points, y: Points) -> Pair:
    scale = 1 / np.abs(x * x - y * y)
    return scale * x, scale * y


def _radius(x: Points, y: Points) -> Points:
    return np.asarray(np.sqrt(x * x + y * y))


def _tan(x: Points) -> Points:
    """Sin / cos: three times as fast as np.tan for float32."""
    return np.asarray(np.sin(x) / np.cos(x))


VARIATIONS: dict[int, Variation] = {
    0: Variation("linear", lambda x, y: (x, y)),
    1: Variation("sinusoidal", lambda x, y: (np.sin(x), np.sin(y))),
    2: Variation("spherical", _spherical),
    3: Variation("swirl", _swirl),
    4: Variation("horseshoe", _horseshoe),
    5: Variation("polar", lambda x, y: (np.arctan2(y, x) / np.pi, _radius(x, y) - 1)),
    6: Variation("handkerchief", _handkerchief),
    7: Variation("heart", _heart),
    8: Variation("disc", _disc),
    9: Variation("spiral", _spiral),
    10: Variation("hyperbolic", lambda x, y: (y / (x * x + y * y), x)),
    11: Variation("diamond", _diamond),
    12: Variation("ex", _ex),
    13: Variation("julia", _julia, "uniform"),
    14: Variation("bent", lambda x, y: (x + np.minimum(x, 0), y - np.minimum(y, 0) / 2)),
    15: Variation("waves", lambda x, y, c: (x + c.b * np.sin(y / c.tx**2), y + c.d * np.sin(x / c.ty**2)), "chosen"),
    16: Variation("fisheye", _fisheye),
    17: Variation(
        "popcorn", lambda x, y, c: (x + c.tx * np.sin(_tan(3 * y)), y + c.ty * np.sin(_tan(3 * x))), "chosen"
    ),
    18: Variation("exponential", _exponential),
    19: Variation("power", _power),
    20: Variation("cosine", _cosine),
    21: Variation("rings", _rings, "chosen"),
    22: Variation("fan", _fan, "chosen"),
    27: Variation("eyefish", _eyefish),
    28: Variation("bubble", _bubble),
    29: Variation("cylinder", lambda x, y: (np.sin(x), y)),
    31: Variation("noise", _noise, "uniform"),
    42: Variation("tangent", lambda x, y: (np.sin(x) / np.cos(y), _tan(y))),
    44: Variation("rays", _rays, "uniform"),
    45: Variation("blade", _blade, "uniform"),
    48: Variation("cross", _cross),
}
