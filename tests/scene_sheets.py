"""Contact sheets of scene augmentations: python -m tests.scene_sheets [FOLDER], by default docs/pictures/scene.

A sheet has two clips, frames from left to right, each as it is read and below as it is seen in training, at the full
strength that the curriculum ends with. The batch is of fractals and octopuses, and each clip may be behind another.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from reelwright.stages.augment.scene.augmentation import EpochSteps, SceneAugmentation
from reelwright.stages.augment.scene.config import SceneSettings
from reelwright.stages.show.pictures import FAINT, INK, PAPER, font
from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.encode import as_colour
from reelwright.stages.synthesize.make import render_sample
from reelwright.stages.synthesize.samples import SamplePlan

SIDE, LENGTH, STRIDE = 112, 8, 2
THUMB, GAP, LEFT, TOP = 84, 2, 40, 24  # pixels
NUM_COLOURS = 128
FOLDER = Path(__file__).parents[1] / "docs" / "pictures" / "scene"
VIDEOS = (("fractal", 7), ("octopus", 4), ("fractal", 4), ("octopus", 2))  # family, and number of the video
SHOWN = (0, 1)  # clips of the batch

_OFF: dict[str, Any] = {"background": None, "foreground": None, "camera": None, "curriculum_epochs": 0}
_CAMERA: dict[str, Any] = {"shift": None, "zoom": None, "shake": None, "perspective": None}
_ALWAYS = {"probability": 1}
# Name of the sheet -> the settings that show this alone.
SHEETS: dict[str, dict[str, Any]] = {
    "background-static": {**_OFF, "background": {"dynamic": 0, "shift": None, "maximum": 0}},
    "background-dynamic": {**_OFF, "background": {"dynamic": 1, "maximum": 0}},
    "background-shift": {**_OFF, "background": {"dynamic": 0, "shift": _ALWAYS, "maximum": 0}},
    "foreground-scale": {**_OFF, "foreground": {"scale": {"clone": 0}, "shift": None}},
    "foreground-clone": {**_OFF, "foreground": {"scale": {"clone": 1}, "shift": None}},
    "foreground-shift": {**_OFF, "foreground": {"scale": None, "shift": _ALWAYS}},
    "camera-shift": {**_OFF, "camera": {**_CAMERA, "shift": _ALWAYS}},
    "camera-zoom": {**_OFF, "camera": {**_CAMERA, "zoom": _ALWAYS}},
    "camera-shake": {**_OFF, "camera": {**_CAMERA, "shake": _ALWAYS}},
    "camera-perspective": {**_OFF, "camera": {**_CAMERA, "perspective": _ALWAYS}},
    "reverse": {**_OFF, "reverse": 1},
    "easy-key": {"curriculum_epochs": 0},
    "all": {"curriculum_epochs": 0},
}
SEED = 5


def made_clips() -> Tensor:
    """Clips (B, T, 3, H, W) in [0, 1] of synthetic videos."""
    clips = []
    for family, step in VIDEOS:
        config = SynthesizeConfig.model_validate({"family": family, "size": SIDE})
        frames, _ = render_sample(config, SamplePlan(config).sample(step), None)
        clips.append(as_colour(frames[: LENGTH * STRIDE : STRIDE]))
    return torch.from_numpy(np.stack(clips)).movedim(-1, 2).float() / 255


def sheet(name: str, clips: Tensor) -> Image.Image:
    """The sheet of one augmentation. Of easy-key the rows are a clip as query and as key."""
    num_views = 2 if name == "easy-key" else 1
    steps = EpochSteps(num_batches=1, clips_per_batch=len(clips))
    scene = SceneAugmentation(SceneSettings(**SHEETS[name]), seed=SEED, steps=steps, num_views=num_views)
    if num_views == 1:
        seen = scene(clips, epoch=0, places=[*range(len(clips))])
        rows = [row for at in SHOWN for row in (("read", clips[at]), ("seen", seen[at]))]
    else:
        seen = scene(clips.repeat_interleave(2, 0), epoch=0, places=[*range(2 * len(clips))])
        rows = [row for at in SHOWN for row in (("query", seen[2 * at]), ("key", seen[2 * at + 1]))]
    return drawn(name.replace("-", " "), rows)


def drawn(title: str, rows: list[tuple[str, Tensor]]) -> Image.Image:
    """Rows of frames with what they are, under a title."""
    step = THUMB + GAP
    image = Image.new("RGB", (LEFT + LENGTH * step, TOP + len(rows) * step + GAP), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((GAP, 4), title, INK, font=font())
    for number, (what, frames) in enumerate(rows):
        top = TOP + number * step
        draw.text((GAP, top + THUMB // 2 - 8), what, FAINT, font=font(11))
        levels = (frames * 255).round().byte().movedim(1, -1).numpy()
        for column, frame in enumerate(levels):
            thumb = Image.fromarray(frame).resize((THUMB, THUMB), Image.Resampling.BOX)
            image.paste(thumb, (LEFT + column * step, top))
    return image


def write(folder: Path, clips: Tensor) -> None:
    """All sheets, as PNG of few colours."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHEETS:
        sheet(name, clips).quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, made_clips())
