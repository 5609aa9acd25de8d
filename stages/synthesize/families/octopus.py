"""Octopus videos: a few limbs that grow from near one point, thickened, with shapes on them or only their outline.

Source: davidsvy/fractal_video (domain notes, 3.6). Class files hold the splines' control values, where the published
ones hold pickled splines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.families.motion import draw_jitter, draw_profiles, interpolate, spline_through
from reelwright.stages.synthesize.families.painting import Shapes, paint, scaled_radius

Floats = NDArray[np.float64]
Pixels = NDArray[np.int64]
Frames = NDArray[np.uint8]

MIN_LIMBS, MAX_LIMBS = 3, 5
MIN_CONTROLS, MAX_CONTROLS = 3, 5
NUM_POINTS = 512  # of a limb
JOINT_SHARE = 0.15  # limbs are joined within their first points
JITTER, MARGIN = 0.03, 0.01
SHAPES_SHARE, COLOURS_SHARE, OUTLINE_SHARE, DRIFT_SHARE = 0.8, 0.8, 0.4, 0.3


def draw_class(rng: np.random.Generator, config: SynthesizeConfig, *, variation: int) -> dict[str, NDArray[Any]]:
    """A class: `interp` (F, n) profiles and `controls` (n, 2, 2, 5), the control values of limb, end and axis.

    Splines of 3 or 4 control values have NaN in the places that are left.
    """
    del config, variation
    num_limbs = int(rng.integers(MIN_LIMBS, MAX_LIMBS + 1))
    controls = np.full((num_limbs, 2, 2, MAX_CONTROLS), np.nan)
    for place in np.ndindex(controls.shape[:3]):
        count = int(rng.integers(MIN_CONTROLS, MAX_CONTROLS + 1))
        controls[place][:count] = rng.uniform(0.85, 1.15, size=count)
    return {"interp": draw_profiles(rng, num_limbs), "controls": controls}


def check(parameters: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError for parameters that do not fit together."""
    interp, controls = parameters["interp"], parameters["controls"]
    if interp.ndim != 2 or interp.shape[0] < 2 or interp.shape[1] < 1:
        raise ValueError(f"interp has the shape {interp.shape}: (frames, limbs) is needed")
    if controls.shape != (interp.shape[1], 2, 2, MAX_CONTROLS):
        raise ValueError(
            f"controls has the shape {controls.shape}: ({interp.shape[1]}, 2, 2, {MAX_CONTROLS}) is needed"
        )
    if np.isnan(controls[..., :MIN_CONTROLS]).any():
        raise ValueError(f"controls: a spline has fewer than {MIN_CONTROLS} values")


def render(
    parameters: Mapping[str, NDArray[Any]], *, rng: np.random.Generator, config: SynthesizeConfig, is_instance: bool
) -> Frames:
    """(F, size, size, 3) frames; thickness, colour and shapes are drawn anew for every video."""
    limbs = draw_limbs(rng, parameters, is_instance=is_instance)
    points = quantize(join_limbs(rng, limbs), size=config.size)
    colour = rng.integers(0, 256, size=3)
    body = _thicken(rng, _marked(points, config.size))
    video = body[..., None] * colour.astype(np.uint8)
    video = _with_shapes(rng, video, points, colour)
    video = _recoloured(rng, video, points)
    return _outlined(rng, video)


def draw_limbs(rng: np.random.Generator, parameters: Mapping[str, NDArray[Any]], *, is_instance: bool) -> Floats:
    """(n, F, 512, 2) points of every limb: a random part of each spline, moved from its start to its end."""
    profiles, controls = np.asarray(parameters["interp"], np.float64), np.asarray(parameters["controls"], np.float64)
    curves = np.empty((*controls.shape[:3], NUM_POINTS))
    for place in np.ndindex(controls.shape[:3]):
        part = np.linspace(rng.uniform(0.0, 0.1), rng.uniform(0.4, 0.6), NUM_POINTS)
        values = controls[place]
        curves[place] = spline_through(values[~np.isnan(values)], part)
    starts, ends = curves[:, 0].transpose(0, 2, 1), curves[:, 1].transpose(0, 2, 1)
    limbs = interpolate(starts, ends, profiles).swapaxes(0, 1)
    if is_instance:
        num_limbs, num_frames = limbs.shape[:2]
        jitter = [draw_jitter(rng, num_frames, eps=JITTER) for _ in range(2 * num_limbs)]
        limbs = limbs * np.stack(jitter, axis=1).T.reshape(num_limbs, 2, num_frames).swapaxes(1, 2)[:, :, None]
    return limbs


def join_limbs(rng: np.random.Generator, limbs: Floats) -> Floats:
    """(F, n * 512, 2) points: limbs (n, F, 512, 2) moved so that each meets a random one near its beginning."""
    num_limbs, _, num_points, _ = limbs.shape
    centre = int(rng.integers(num_limbs))
    joints = (rng.uniform(0.0, JOINT_SHARE, size=num_limbs) * num_points).astype(np.int64)
    meeting = limbs[centre][:, joints[centre]]
    moved = [limb + (meeting - limb[:, joint])[:, None] for limb, joint in zip(limbs, joints, strict=True)]
    return np.concatenate(moved, axis=1)


def quantize(coords: Floats, *, size: int) -> Pixels:
    """Whole pixels (..., 2): each axis of the whole animation stretched to the canvas, with a margin of 1%."""
    axes = tuple(range(coords.ndim - 1))
    low, high = coords.min(axis=axes), coords.max(axis=axes)
    low, high = low - MARGIN * np.abs(low), high + MARGIN * np.abs(high)
    return np.asarray(np.clip(((coords - low) * (size / (high - low))).astype(np.int64), 0, size - 1))


def _marked(points: Pixels, size: int) -> NDArray[np.float32]:
    """(F, size, size) of 0 and 255."""
    canvas = np.zeros((len(points), size, size), np.float32)
    canvas[np.arange(len(points))[:, None], points[..., 0], points[..., 1]] = 255
    return canvas


def _thicken(rng: np.random.Generator, canvas: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(F, H, W) of 0 and 1: blurred by 3 to 8 pixels an axis, above a threshold of 3 to 9 that may drift, closed."""
    across, down = rng.integers(3, 9, size=2).tolist()
    first, last = rng.integers(3, 10, size=2).tolist()
    if rng.random() >= DRIFT_SHARE:
        last = first
    thresholds = np.around(np.linspace(first, last, len(canvas)))[:, None, None]
    for axis, sigma in ((1, down), (2, across)):
        canvas = ndimage.gaussian_filter1d(canvas, sigma, axis=axis, mode="mirror")
    body = (canvas > thresholds).astype(np.uint8)
    return np.asarray(ndimage.grey_closing(body, size=(1, 2, 2)))


def _with_shapes(rng: np.random.Generator, video: Frames, points: Pixels, colour: NDArray[np.int64]) -> Frames:
    """Mostly: 1 to 3 shapes of the body's colour that ride on points of it."""
    if rng.random() >= SHAPES_SHARE:
        return video
    shapes, places = _draw_shapes(rng, int(rng.integers(1, 4)), points, max_radius=27, size=video.shape[1])
    shapes = Shapes(shapes.num_corners, shapes.rotation, shapes.radius, np.tile(colour, (len(places), 1)))
    return np.stack([paint(frame, shapes, centres[places]) for frame, centres in zip(video, points, strict=True)])


def _recoloured(rng: np.random.Generator, video: Frames, points: Pixels) -> Frames:
    """Mostly: 2 to 5 coloured shapes, seen only where the body is."""
    if rng.random() >= COLOURS_SHARE:
        return video
    shapes, places = _draw_shapes(rng, int(rng.integers(2, 6)), points, max_radius=31, size=video.shape[1])
    black = np.zeros_like(video[0])
    painted = np.stack([paint(black, shapes, centres[places]) for centres in points])
    seen = painted.any(axis=-1, keepdims=True) & video.any(axis=-1, keepdims=True)
    return np.where(seen, painted, video)


def _draw_shapes(
    rng: np.random.Generator, count: int, points: Pixels, *, max_radius: int, size: int
) -> tuple[Shapes, NDArray[np.int64]]:
    """Shapes of 18 to ``max_radius`` pixels (at 256) and which points of the body they ride on."""
    shapes = Shapes(
        num_corners=rng.integers(2, 8, size=count),
        rotation=rng.integers(0, 360, size=count),
        radius=scaled_radius(rng.integers(18, max_radius + 1, size=count), size),
        colour=rng.integers(0, 256, size=(count, 3)),
    )
    return shapes, rng.integers(0, points.shape[1], size=count)


def _outlined(rng: np.random.Generator, video: Frames) -> Frames:
    """Sometimes: only edges, the largest minus the smallest value within 2 to 6 pixels, which may drift."""
    if rng.random() >= OUTLINE_SHARE:
        return video
    first, last = rng.integers(2, 7, size=2), rng.integers(2, 7, size=2)
    if rng.random() >= DRIFT_SHARE:
        last = first
    sides = np.around(np.linspace(first, last, len(video))).astype(int).tolist()
    return np.stack(
        [
            ndimage.maximum_filter(frame, size=(*side, 1)) - ndimage.minimum_filter(frame, size=(*side, 1))
            for frame, side in zip(video, sides, strict=True)
        ]
    )
