"""Fractal videos and images: the points of a moving iterated function system, in grey.

Source: davidsvy/fractal_video (domain notes, 3.4). Class files have the published names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families.chaos import Game, count_points, splat
from reelwright.stages.synthesize.families.ifs import (
    WEIGHTS_PER_MAP,
    MovingMaps,
    draw_moving_maps,
    draw_still_weights,
    jitter_weights,
)
from reelwright.stages.synthesize.family_settings import (
    MIXED_NON_LINEAR,
    MIXED_VARIATIONS,
    VARIATION_NUMBERS,
    FractalConfig,
)

Parameters = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]


def draw_variation(rng: np.random.Generator, variations: tuple[int, ...]) -> int:
    """One of ``variations``; -1 stands for half linear, half one of seven that look well."""
    if variations == (MIXED_VARIATIONS,):
        return 0 if rng.random() < 0.5 else int(rng.choice(MIXED_NON_LINEAR))
    return int(rng.choice(variations))


def draw_class(rng: np.random.Generator, config: SynthesizeConfig, *, variation: int) -> dict[str, NDArray[Any]]:
    """Parameters of a class: of a video, or the weights (16, n, 6) of a set of images."""
    if config.is_still:
        return {"var": np.array(variation), "weights": draw_still_weights(rng)}
    maps = draw_moving_maps(rng)
    return {
        "var": np.array(variation),
        "interp": maps.profiles,
        "angle": maps.angle,
        "sigma": maps.sigma[..., None] * np.eye(2),
        "delta": maps.delta[..., None] * np.eye(2),
        "bias": maps.bias,
        "is_constant": np.array(maps.is_constant),
    }


def check(parameters: Parameters) -> None:
    """Raise ValueError for parameters that are incomplete or do not fit together."""
    if int(parameters["var"]) not in VARIATION_NUMBERS:
        raise ValueError(f"var is {parameters['var']}: no such variation")
    if "weights" in parameters:
        shape = parameters["weights"].shape
        if len(shape) != 3 or shape[2] != WEIGHTS_PER_MAP or 0 in shape:
            raise ValueError(f"weights has the shape {shape}: (images, maps, 6) is needed")
        return
    num_frames, num_maps = parameters["interp"].shape
    shapes = {
        "angle": (2, num_maps, 2),
        "sigma": (2, num_maps, 2, 2),
        "delta": (2, num_maps, 2, 2),
        "bias": (2, num_maps, 2),
        "is_constant": (),
    }
    for name, shape in shapes.items():
        if parameters[name].shape != shape:
            raise ValueError(f"{name} has the shape {parameters[name].shape}: {shape} goes with interp")
    if num_frames < 2 or num_maps < 1:
        raise ValueError(f"interp has the shape {(num_frames, num_maps)}: at least 2 frames and 1 map are needed")


def weights_of(parameters: Parameters, *, linear_motion: bool) -> Floats:
    """(F, n, 6) weights of every frame or image of a class."""
    if "weights" in parameters:
        return np.asarray(parameters["weights"], np.float64)
    maps = MovingMaps(
        profiles=np.asarray(parameters["interp"], np.float64),
        angle=np.asarray(parameters["angle"], np.float64),
        sigma=np.diagonal(parameters["sigma"], axis1=-2, axis2=-1).astype(np.float64),
        delta=np.diagonal(parameters["delta"], axis1=-2, axis2=-1).astype(np.float64),
        bias=np.asarray(parameters["bias"], np.float64),
        is_constant=bool(parameters["is_constant"]),
    )
    return maps.weights(linear_motion=linear_motion)


def render(
    parameters: Parameters, *, rng: np.random.Generator, config: SynthesizeConfig, is_instance: bool
) -> NDArray[np.uint8]:
    """(F, size, size) grey frames. Raises ValueError where the class is of images and a video is asked for, or back."""
    if ("weights" in parameters) != config.is_still:
        made, asked = ("videos", "images") if config.is_still else ("images", "videos")
        raise ValueError(f"the class is one of {made}, and {asked} are asked for")
    weights = weights_of(parameters, linear_motion=config.fractal.linear_motion)
    if is_instance:
        weights = jitter_weights(rng, weights)
    variation = int(parameters["var"])
    counts = count_points(
        weights,
        borders=find_borders(weights, config=config.fractal, variation=variation, rng=rng),
        size=config.size,
        game=Game(
            num_points=config.fractal.num_points,
            num_iterations=config.fractal.num_iterations,
            num_skipped=config.fractal.num_skipped,
        ),
        variation=variation,
        rng=rng,
    )
    return np.rint(255 * brightness(splat(counts), per_frame=config.is_still)).astype(np.uint8)


def find_borders(weights: Floats, *, config: FractalConfig, variation: int, rng: np.random.Generator) -> Floats:
    """(F, 4) view window: one for a whole video, from its first and last frame; each image its own."""
    searched = weights if config.still else weights[[0, -1]]
    game = Game(
        num_points=config.num_points, num_iterations=config.num_window_iterations, num_skipped=config.num_skipped
    )
    counts = count_points(
        searched,
        borders=search_borders(len(searched)),
        size=config.window_size,
        game=game,
        variation=variation,
        rng=rng,
    )
    boxes = np.array([bounding_box(canvas, keep=config.window_keep) for canvas in splat(counts) > 0])
    if config.still:
        return image_borders(boxes, size=config.window_size)
    return video_borders(boxes, size=config.window_size, num_frames=len(weights))


def brightness(counts: NDArray[Any], *, per_frame: bool) -> Floats:
    """(F, H, W) in [0, 1]: the logarithm of 1 + count over its largest value, in the video or in each frame.

    Where next to nothing was hit (a largest value below 1) it is not raised to 1.
    """
    logs = np.log1p(counts.astype(np.float64))
    return np.asarray(logs / np.maximum(1.0, logs.max(axis=(1, 2) if per_frame else None, keepdims=True)))


SEARCH_LIMIT = 6.0  # fractals are looked for in [-6, 6] x [-6, 6]
PAD_SHARE = 0.1

Box = tuple[int, int, int, int]  # first row, last row, first column, last column, all of them inside


def search_borders(num_frames: int) -> NDArray[np.float64]:
    """(F, 4) borders of the square that is searched."""
    return np.tile([-SEARCH_LIMIT, SEARCH_LIMIT], (num_frames, 2))


def bounding_box(canvas: NDArray[np.bool_], *, keep: float) -> Box:
    """The box of an (h, w) canvas that is left when the emptiest edge line goes until ``keep`` of the set pixels stay.

    Of equally empty lines the first row goes before the last row, the first column, the last column. The whole canvas
    for ``keep`` 1, and where so few pixels are set that none would have to stay.
    """
    top, bottom, left, right = 0, canvas.shape[0] - 1, 0, canvas.shape[1] - 1
    count = int(np.count_nonzero(canvas))
    wanted = int(keep * count)
    if keep >= 1 or wanted == 0:
        return top, bottom, left, right
    while count > wanted:
        inside = canvas[top : bottom + 1, left : right + 1]
        lines = [int(np.count_nonzero(line)) for line in (inside[0], inside[-1], inside[:, 0], inside[:, -1])]
        emptiest = int(np.argmin(lines))
        count -= lines[emptiest]
        top, bottom = top + (emptiest == 0), bottom - (emptiest == 1)
        left, right = left + (emptiest == 2), right - (emptiest == 3)
    return top, bottom, left, right


def video_borders(boxes: NDArray[Any], *, size: int, num_frames: int) -> NDArray[np.float64]:
    """(F, 4) borders, the same for every frame: the union of the (2, 4) boxes of first and last frame, padded.

    ``size`` is the side of the canvas the boxes were found on, in pixels over `search_borders`.
    """
    first, last = boxes.min(axis=0), boxes.max(axis=0)
    union = np.array([[first[0], last[1], first[2], last[3]]])
    return np.repeat(image_borders(union, size=size), num_frames, axis=0)


def image_borders(boxes: NDArray[Any], *, size: int) -> NDArray[np.float64]:
    """(F, 4) borders, each frame's own, from (F, 4) boxes: padded by 10% an axis (half pixels go to the even one)."""
    boxes = boxes.astype(np.int64)
    pad = np.round(PAD_SHARE * (boxes[:, 1::2] - boxes[:, ::2])).astype(np.int64)
    low, high = np.clip(boxes[:, ::2] - pad, 0, size - 1), np.clip(boxes[:, 1::2] + pad, 0, size - 1)
    pixels = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    return np.asarray(SEARCH_LIMIT * (2 * pixels / (size - 1) - 1))
