"""What is done to clips as they are read, on bytes: RandAugment and a random crop, as AugmentSettings have them."""

from __future__ import annotations

from reelwright.stages.augment.config import AugmentSettings
from reelwright.stages.augment.rand_augment import parse_rand_augment, rand_augment
from reelwright.stages.augment.resized_crop import ClipTransform, CropSettings, build_crop
from reelwright.stages.datasets.sampling.generators import generator_at
from reelwright.stages.decode.geometry import Geometry
from reelwright.storage.errors import ConfigError


def clip_transforms(settings: AugmentSettings, geometry: Geometry, *, seed: int) -> tuple[ClipTransform, ...]:
    """What is done to clips as they are read: RandAugment, unless it comes last, then a random crop.

    Raises ConfigError for a RandAugment whose set of operations is too small.
    """
    redraw = None if settings.rand_augment_last else build_redraw(settings, seed=seed)
    crop = None
    if settings.crop_scale is not None:
        crop = build_crop(CropSettings(area=settings.crop_scale, aspect=settings.crop_aspect), geometry, seed=seed)
    return tuple(transform for transform in (redraw, crop) if transform is not None)


def build_redraw(settings: AugmentSettings, *, seed: int) -> ClipTransform | None:
    """RandAugment of clips; None where there is none. Raises ConfigError as `clip_transforms`."""
    if settings.rand_augment is None:
        return None
    try:
        how = parse_rand_augment(
            settings.rand_augment,
            interpolation=settings.rand_augment_interpolation,
            fill=settings.rand_augment_fill,
        )
    except ValueError as error:
        raise ConfigError(f"augment.rand_augment: {error}") from error
    return lambda frames, epoch, place: rand_augment(
        frames, how, generator_at(seed, "rand_augment", epoch=epoch, place=place)
    )
