"""RandAugment for clips: what is drawn, how strongly and to which side, is the same for all frames of a clip.

    rand-m7-n4-mstd0.5-inc1     4 operations a clip at magnitude 7 +- 0.5, of the increasing set (see `config`)

Operations are timm's, on Pillow images; draws come from a generator that is given. Sources: Cubuk et al. 2020
(RandAugment), timm's auto_augment, CAST (1.3 of the domain reference).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP, rand_augment_choices

from reelwright.stages.augment.config import read_sections

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3) RGB

LARGEST = 10.0  # magnitude that levels are fractions of
UNIFORM_ABOVE = 100.0  # mstd from which on the magnitude is uniform
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Of the section w0; names without "Increasing".
_WEIGHTS_0 = {
    "Rotate": 0.3,
    "ShearX": 0.2,
    "ShearY": 0.2,
    "TranslateXRel": 0.1,
    "TranslateYRel": 0.1,
    **dict.fromkeys(("Color", "Sharpness", "AutoContrast"), 0.025),
    **dict.fromkeys(("Solarize", "SolarizeAdd", "Contrast", "Brightness", "Equalize"), 0.005),
}


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """What a text of the grammar says, or YAML."""

    names: tuple[str, ...]  # operations to draw from
    chances: tuple[float, ...] | None = None  # of each; None: all alike, with replacement
    magnitude: float = LARGEST
    num_operations: int = 2
    probability: float = 0.5
    magnitude_std: float = 0.0
    magnitude_max: float = LARGEST
    interpolation: str = "bicubic"  # or bilinear, or random: one of both a clip and operation
    fill: tuple[int, int, int] = (128, 128, 128)  # RGB of what moves in from outside


@dataclass(frozen=True)
class Operation:
    """One operation as drawn: a name of timm's with its arguments."""

    name: str
    arguments: tuple[float, ...]
    resample: Image.Resampling


def parse_rand_augment(
    text: str, *, interpolation: str = "bicubic", fill: tuple[int, int, int] = (128, 128, 128)
) -> RandAugment:
    """Read the grammar of `config`. Raises ValueError that names the section that cannot be read."""
    if interpolation not in (*RESAMPLING, "random"):
        raise ValueError(f"interpolation {interpolation!r} is not known; allowed: {', '.join(RESAMPLING)}, random.")
    given = read_sections(text)
    names, chances = _operations(given.get("t", given.get("w")), is_increasing=bool(given.get("inc", 0)))
    num_operations = int(given.get("n", 2))
    if chances is not None and num_operations > len(names):
        message = f"RandAugment {text!r}: n{num_operations} is more than the {len(names)} operations of its set."
        raise ValueError(message + " They are drawn without replacement.")
    std = float(given.get("mstd", 0.0))
    return RandAugment(
        names=names,
        chances=chances,
        magnitude=float(given.get("m", LARGEST)),
        num_operations=num_operations,
        probability=float(given.get("p", 0.5)),
        magnitude_std=math.inf if std > UNIFORM_ABOVE else std,
        magnitude_max=float(given.get("mmax", LARGEST)) or LARGEST,
        interpolation=interpolation,
        fill=fill,
    )


def draw_operations(how: RandAugment, generator: np.random.Generator) -> tuple[Operation, ...]:
    """What is done to one clip, in order; those that the coin left out are not in it."""
    count = len(how.names)
    chosen = generator.choice(count, how.num_operations, replace=how.chances is None, p=how.chances)
    drawn = [_draw(how.names[at], how, generator) for at in chosen]
    return tuple(operation for operation, is_done in drawn if is_done)


def apply_operations(
    frames: Frames, operations: tuple[Operation, ...], *, fill: tuple[int, int, int] = (128, 128, 128)
) -> Frames:
    """Carry out `operations` on every frame (T,H,W,3) uint8; same shape."""
    if not operations:
        return frames
    return np.stack([_apply(Image.fromarray(frame), operations, fill) for frame in frames])


def rand_augment(frames: Frames, how: RandAugment, generator: np.random.Generator) -> Frames:
    """Draw for one clip and carry it out on all of its frames (T,H,W,3) uint8."""
    return apply_operations(frames, draw_operations(how, generator), fill=how.fill)


def _apply(image: Image.Image, operations: tuple[Operation, ...], fill: tuple[int, int, int]) -> Frames:
    for operation in operations:
        function: Callable[..., Image.Image] = NAME_TO_OP[operation.name]
        arguments = operation.arguments
        if operation.name.startswith("Posterize"):
            arguments = (max(1, arguments[0]),)  # Pillow refuses 0 bits, a black frame
        image = function(image, *arguments, fillcolor=fill, resample=operation.resample)
    return np.asarray(image)


def _draw(name: str, how: RandAugment, generator: np.random.Generator) -> tuple[Operation, bool]:
    # Everything is drawn whether it is used or not: what one operation draws never shifts the next one's.
    coin, uniform, sign, filter_coin = generator.random(4)
    noise = generator.standard_normal()
    magnitude = how.magnitude * uniform if math.isinf(how.magnitude_std) else how.magnitude + noise * how.magnitude_std
    magnitude = min(max(magnitude, 0.0), how.magnitude_max)
    chosen = how.interpolation if how.interpolation in RESAMPLING else ("bilinear", "bicubic")[int(filter_coin < 0.5)]
    arguments = level_arguments(name, magnitude, is_negated=bool(sign < 0.5))
    return Operation(name, arguments, RESAMPLING[chosen]), bool(coin < how.probability)


def level_arguments(name: str, magnitude: float, *, is_negated: bool = False) -> tuple[float, ...]:
    """Arguments of a timm operation at a magnitude; `is_negated` takes the other side, where there are two."""
    return LEVELS[name](magnitude / LARGEST, -1 if is_negated else 1) if name in LEVELS else ()


def _signed(most: float) -> Callable[[float, int], tuple[float, ...]]:
    return lambda level, sign: (sign * level * most,)


def _between(low: float, high: float) -> Callable[[float, int], tuple[float, ...]]:
    return lambda level, _sign: (min(max(low + (high - low) * level, low), high),)


_ENHANCERS = ("Color", "Contrast", "Brightness", "Sharpness")
LEVELS: dict[str, Callable[[float, int], tuple[float, ...]]] = {
    "Rotate": _signed(30.0),
    "ShearX": _signed(0.3),
    "ShearY": _signed(0.3),
    "TranslateXRel": _signed(0.45),
    "TranslateYRel": _signed(0.45),
    "Posterize": lambda level, _: (int(level * 4),),
    "PosterizeIncreasing": lambda level, _: (4 - int(level * 4),),
    "Solarize": lambda level, _: (min(256, int(level * 256)),),
    "SolarizeIncreasing": lambda level, _: (256 - min(256, int(level * 256)),),
    "SolarizeAdd": lambda level, _: (min(128, int(level * 110)),),
    **dict.fromkeys(_ENHANCERS, lambda level, _: (level * 1.8 + 0.1,)),
    **{f"{name}Increasing": lambda level, sign: (max(0.1, 1.0 + sign * level * 0.9),) for name in _ENHANCERS},
    "Desaturate": _between(0.5, 1.0),
    "GaussianBlur": _between(0.1, 2.0),
}


def _operations(chosen: Any, *, is_increasing: bool) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    table = rand_augment_choices(chosen or "", increasing=is_increasing)
    if chosen == "0":
        plain = {name: name.removesuffix("Increasing") for name in table}
        table = {name: _WEIGHTS_0[known] for name, known in plain.items() if known in _WEIGHTS_0}
    if isinstance(table, dict):
        total = sum(table.values())
        return tuple(table), tuple(weight / total for weight in table.values())
    return tuple(table), None
