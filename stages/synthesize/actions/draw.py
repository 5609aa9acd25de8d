"""Actions: one object (the noun) does one thing (the verb) during a part of the clip, among others that lie still.

Verb and noun are independent, and verbs have a direction: a mirror image, or a video played backwards, is of another
class. The label is VERB-NOUN, as `turn_left-striped_star`. What is where in each frame is known (`truth_of`).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reelwright.stages.synthesize.actions.pen import SUPERSAMPLING, Point, Thing, draw_thing, extent, textured
from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.family_settings import ActionsConfig

_PLACES = 200  # tries to find a free place for something
_GAP = 0.01  # of the side, between things
_DARK = (16, 16, 16)
_TEXTURE_GRIDS = ((4, 90), (9, 50), (23, 30))  # cells across, grey levels of their range


@dataclass(frozen=True)
class Pose:
    """What has changed of the acting object at a time."""

    shift: Point = (0.0, 0.0)
    turn: float = 0.0  # degrees, counter-clockwise
    scale: float = 1.0
    opacity: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All of a video but the noise."""

    verb: str
    actor: Thing
    others: tuple[Thing, ...]
    amount: float  # of the verb, 0 to 1 of what it may be
    start: float  # of the action, in frames
    stop: float
    jitter: NDArray[np.float64]  # (T, 2) shift of the camera, fractions of the side
    num_cycles: int  # of shake


@dataclass(frozen=True)
class FrameTruth:
    """What is true of a frame; the box is (left, top, right, bottom) in pixels, None where nothing of it is seen."""

    box: tuple[float, float, float, float] | None
    is_acting: bool


def labels(config: SynthesizeConfig) -> list[str]:
    """Names of the classes: each verb with each noun."""
    return ["-".join(each) for each in product(config.actions.verbs, config.actions.nouns)]


def parameters_of(label: str) -> dict[str, NDArray[Any]]:
    """The class of a label."""
    return {"label": np.array(label)}


def render(
    parameters: Mapping[str, NDArray[Any]], *, rng: np.random.Generator, config: SynthesizeConfig, is_instance: bool
) -> NDArray[np.uint8]:
    """(T, size, size, 3) frames; every video is an instance of its label."""
    del is_instance
    scene = draw_scene(rng, config.actions, label=str(parameters["label"]))
    margin = math.ceil(SUPERSAMPLING * config.size * config.actions.jitter) + 1
    table = _background(rng, SUPERSAMPLING * config.size + 2 * margin, is_dark=config.actions.ground == "dark")
    return np.stack(
        [_frame(rng, scene, table, index, margin=margin, config=config) for index in range(config.actions.num_frames)]
    )


def truth_of(rng: np.random.Generator, config: SynthesizeConfig, *, label: str) -> list[FrameTruth]:
    """What is true of each frame of the video that `render` makes with an equal generator."""
    scene = draw_scene(rng, config.actions, label=label)
    return [_truth(scene, index, size=config.size) for index in range(config.actions.num_frames)]


def draw_scene(rng: np.random.Generator, config: ActionsConfig, *, label: str) -> Scene:
    """Everything but background and noise; things do not touch each other, wherever the verb takes the actor."""
    verb, noun = label.split("-", 1)
    amount = float(rng.uniform())
    actor = _thing(rng, noun, config.radius)
    reach = _reach(verb, amount, actor.radius)
    centre = _place(rng, [], radius=actor.radius, reach=reach)
    actor = replace(actor, centre=centre or actor.centre)
    taken = [(*_middle(actor.centre, reach), actor.radius + max(map(abs, reach)) / 2)]
    others: list[Thing] = []
    rest = [name for name in config.nouns if name != noun] or list(config.nouns)
    for _ in range(config.num_distractors):
        other = _thing(rng, rest[int(rng.integers(len(rest)))], config.radius)
        place = _place(rng, taken, radius=other.radius, reach=(0.0, 0.0, 0.0, 0.0))
        if place is not None:
            others.append(replace(other, centre=place))
            taken.append((*place, other.radius))
    length = float(rng.uniform(*config.acting)) * config.num_frames
    start = float(rng.uniform(0, config.num_frames - length))
    return Scene(
        verb=verb,
        actor=actor,
        others=tuple(others),
        amount=amount,
        start=start,
        stop=start + length,
        jitter=_camera(rng, config),
        num_cycles=int(rng.integers(2, 5)),
    )


def pose_at(scene: Scene, index: int) -> Pose:
    """What the verb has made of the actor in frame ``index``."""
    done = min(max((index - scene.start) / (scene.stop - scene.start), 0.0), 1.0)
    way = done * done * (3 - 2 * done)
    verb, much = scene.verb, scene.amount
    if verb in _DIRECTIONS:
        x, y = _DIRECTIONS[verb]
        distance = _distance(much) * way
        return Pose(shift=(x * distance, y * distance))
    if verb == "shake":
        swing = math.sin(math.tau * scene.num_cycles * done) * (0.03 + 0.03 * much)
        return Pose(shift=(swing, 0.0))
    if verb == "jump":
        return Pose(shift=(0.0, -_distance(much) * math.sin(math.pi * way)))
    if verb in {"turn_left", "turn_right"}:
        return Pose(turn=(1 if verb == "turn_left" else -1) * (80 + 80 * much) * way)
    if verb in {"grow", "shrink"}:
        last = _growth(much) if verb == "grow" else 1 / _growth(much)
        return Pose(scale=last**way)
    return Pose(opacity=way if verb == "appear" else 1 - way)


_DIRECTIONS = {"move_left": (-1, 0), "move_right": (1, 0), "move_up": (0, -1), "move_down": (0, 1)}


def _distance(much: float) -> float:
    return 0.2 + 0.15 * much


def _growth(much: float) -> float:
    return 1.5 + 0.5 * much


def _reach(verb: str, much: float, radius: float) -> tuple[float, float, float, float]:
    """How far the actor goes beyond its place: left, up, right, down."""
    if verb in _DIRECTIONS:
        x, y = _DIRECTIONS[verb]
        return tuple(_distance(much) * max(0, side) for side in (-x, -y, x, y))  # type: ignore[return-value]
    if verb == "jump":
        return (0.0, _distance(much), 0.0, 0.0)
    around = {"shake": 0.03 + 0.03 * much, "grow": radius * (_growth(much) - 1)}.get(verb, 0.0)
    return (around, around if verb == "grow" else 0.0, around, around if verb == "grow" else 0.0)


def _thing(rng: np.random.Generator, noun: str, radius: tuple[float, float]) -> Thing:
    hue, lightness = rng.uniform(), rng.uniform()
    colour = _hsv(float(hue), 0.55 + 0.35 * float(rng.uniform()), 0.65 + 0.3 * float(lightness))
    second = _hsv(float(hue + rng.uniform(0.3, 0.7)) % 1, 0.5, 0.2 + 0.25 * float(rng.uniform()))
    return Thing(noun, (0.5, 0.5), float(rng.uniform(*radius)), float(rng.uniform(0, 360)), colour, second)


def _hsv(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    """8-bit RGB; all arguments 0 to 1."""
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))
    return (red, green, blue)


def _place(
    rng: np.random.Generator,
    taken: list[tuple[float, float, float]],
    *,
    radius: float,
    reach: tuple[float, float, float, float],
) -> Point | None:
    """A place inside the picture, and apart from circles (x, y, radius); None where none was found."""
    left, up, right, down = reach
    for _ in range(_PLACES):
        x = float(rng.uniform(radius + left, 1 - radius - right))
        y = float(rng.uniform(radius + up, 1 - radius - down))
        if all((x - a) ** 2 + (y - b) ** 2 > (radius + other + _GAP) ** 2 for a, b, other in taken):
            return (x, y)
    return None


def _middle(centre: Point, reach: tuple[float, float, float, float]) -> Point:
    left, up, right, down = reach
    return (centre[0] + (right - left) / 2, centre[1] + (down - up) / 2)


def _camera(rng: np.random.Generator, config: ActionsConfig) -> NDArray[np.float64]:
    """(T, 2) smooth shifts, at most ``jitter`` of the side."""
    phases, periods = rng.uniform(0, math.tau, size=4).tolist(), rng.uniform(6.0, 20.0, size=4).tolist()
    waves = [
        [math.sin(math.tau * index / period + phase) for phase, period in zip(phases, periods, strict=True)]
        for index in range(config.num_frames)
    ]
    return config.jitter * np.array([[(a + b) / 2, (c + d) / 2] for a, b, c, d in waves])


def _background(rng: np.random.Generator, side: int, *, is_dark: bool) -> Image.Image:
    """A texture: coloured noise at three sizes; or one dark grey."""
    if is_dark:
        return Image.new("RGB", (side, side), _DARK)
    base = rng.integers(70, 150, size=3)
    canvas = np.broadcast_to(base, (side, side, 3)).astype(np.int16)
    for cells, levels in _TEXTURE_GRIDS:
        grid = rng.integers(0, levels, size=(cells, cells, 3), dtype=np.uint8)
        fine = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
        canvas = canvas + np.asarray(fine, np.int16) - levels // 2
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def _frame(
    rng: np.random.Generator, scene: Scene, table: Image.Image, index: int, *, margin: int, config: SynthesizeConfig
) -> NDArray[np.uint8]:
    """One frame; draws noise from ``rng``."""
    side = SUPERSAMPLING * config.size
    x, y = (round(float(shift) * side) for shift in scene.jitter[index])
    canvas = table.crop((margin - x, margin - y, margin - x + side, margin - y + side))
    shift = (x / side, y / side)
    for thing in scene.others:
        draw_thing(canvas, textured(thing), thing.centre, shift=shift)
    pose, actor = pose_at(scene, index), scene.actor
    centre = (actor.centre[0] + pose.shift[0], actor.centre[1] + pose.shift[1])
    seen = textured(actor, turn=pose.turn, scale=pose.scale)
    draw_thing(canvas, seen, centre, shift=shift, opacity=pose.opacity)
    pixels = np.asarray(canvas.reduce(SUPERSAMPLING), np.float32)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(config.actions.noise)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def _truth(scene: Scene, index: int, *, size: int) -> FrameTruth:
    pose, actor = pose_at(scene, index), scene.actor
    is_acting = scene.start <= index <= scene.stop
    if pose.opacity <= 0:
        return FrameTruth(None, is_acting)
    left, top, right, bottom = extent(actor, turn=pose.turn, scale=pose.scale)
    # As the camera is moved: by whole pixels of the larger canvas.
    side = SUPERSAMPLING * size
    x, y = (round(float(shift) * side) / side for shift in scene.jitter[index])
    x, y = x + actor.centre[0] + pose.shift[0], y + actor.centre[1] + pose.shift[1]
    box = [size * min(max(value, 0.0), 1.0) for value in (x + left, y + top, x + right, y + bottom)]
    return FrameTruth((box[0], box[1], box[2], box[3]), is_acting)
