"""Contact sheets: a few videos of a family as one picture, a row a video, time from left to right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.encode import as_colour
from reelwright.stages.synthesize.families.class_files import find_classes
from reelwright.stages.synthesize.families.table import Frames, fixed_labels
from reelwright.stages.synthesize.make import render_sample
from reelwright.stages.synthesize.samples import SamplePlan
from reelwright.storage.files import replacing

NUM_COLUMNS = 8
THUMB_PIXELS, GAP_PIXELS = 96, 2
BEHIND = 64  # grey level between the pictures


def write_sheet(path: Path, config: SynthesizeConfig, *, num_samples: int, classes: Path | None = None) -> None:
    """Render the first samples of a data set with these settings and write their sheet as PNG; nothing else is kept."""
    files = {} if classes is None else find_classes(classes)
    plan = SamplePlan(config, fixed_labels(config) or tuple(files))
    rows = []
    for step in range(1, num_samples + 1):
        sample = plan.sample(step)
        frames, _ = render_sample(config, sample, files.get(sample.label))
        rows.append(frames)
    with replacing(path) as temporary:
        contact_sheet(rows).save(temporary, format="png", optimize=True)


def contact_sheet(videos: list[Frames]) -> Image.Image:
    """Rows of 8 frames, evenly spread from first to last, of (T, H, W) or (T, H, W, 3) videos."""
    side = THUMB_PIXELS + GAP_PIXELS
    is_grey = all(frames.ndim == 3 for frames in videos)
    sheet = np.full((len(videos) * side - GAP_PIXELS, NUM_COLUMNS * side - GAP_PIXELS, 3), BEHIND, np.uint8)
    for row, frames in enumerate(videos):
        chosen = np.linspace(0, len(frames) - 1, NUM_COLUMNS).round().astype(int)
        for column, frame in enumerate(as_colour(frames[chosen])):
            thumb = Image.fromarray(frame).resize((THUMB_PIXELS, THUMB_PIXELS), Image.Resampling.BOX)
            top, left = row * side, column * side
            sheet[top : top + THUMB_PIXELS, left : left + THUMB_PIXELS] = np.asarray(thumb)
    return Image.fromarray(sheet[..., 0] if is_grey else sheet)
