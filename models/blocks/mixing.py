"""Mixup and cutmix of a batch, in pixels and in stored rows: what is drawn once holds for all frames of a clip.

Sample i is mixed with sample B - 1 - i, as in timm and in the papers' code. Each sample keeps a *share* of itself:

    mixup            one share for all its values           x = share * x[i] + (1 - share) * x[partner]
    cutmix, clips    0 inside a box of pixels, else 1       the box is the same in every frame
    cutmix, rows     0 inside a stretch of time, else 1

and its targets are mixed by the mean of that share, counted exactly: a box over the border is smaller than drawn, and
padded rows take no part. Sources: Zhang et al. 2018 (mixup), Yun et al. 2019 (cutmix), timm's Mixup (modes, min-max).
Shape letters: B batch, T rows or frames of a window, D features, C channels, H height, W width, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.models.losses.classification import IGNORED

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class MixDistribution:
    """What a `Mix` is drawn from: how much, and how often; values are checked where settings are read."""

    mixup_alpha: float = 0.8
    # Share ~ Beta(alpha, alpha); 0: no mixup.
    cutmix_alpha: float = 1.0
    # The same of cutmix.
    cutmix_minmax: tuple[float, float] | None = None
    # Side of the box as share of the picture's, drawn from this range instead of from cutmix_alpha.
    probability: float = 1.0
    # Of mixing at all.
    switch_probability: float = 0.5
    # Of cutmix where both could be.
    mode: str = "batch"
    # What is drawn once: for the batch, for each pair, or for each sample (elem).

    @property
    def can_cut(self) -> bool:
        """Whether there is cutmix; with mixup too, switch_probability says how often."""
        return self.cutmix_alpha > 0 or self.cutmix_minmax is not None


@dataclass(frozen=True)
class Mix:
    """What was drawn for a batch: S is 2 for a box (height, width), 1 for a stretch of time."""

    share: npt.NDArray[np.float64]  # (B,) of mixup; 1 where cut or not mixed
    start: Integers  # (B,S) the box, half-open; empty where nothing is cut
    stop: Integers  # (B,S)


def draw_mix(
    settings: MixDistribution, batch_size: int, *, extent: Sequence[int], generator: np.random.Generator
) -> Mix:
    """What to do with a batch of clips, `extent` (H, W), or of windows of rows, `extent` (T,).

    A batch of an odd size leaves the sample in its middle as it is, mixed with itself.
    """
    num_draws = {"batch": 1, "pair": (batch_size + 1) // 2, "elem": batch_size}[settings.mode]
    is_cut = _which_are_cut(settings, num_draws, generator)
    share = np.where(is_cut, _beta(settings.cutmix_alpha, num_draws, generator), 1.0)
    start, stop = _boxes(settings, share, extent, generator)
    mixup_share = np.where(is_cut, 1.0, _beta(settings.mixup_alpha, num_draws, generator))
    is_mixed = generator.random(num_draws) < settings.probability
    position = np.arange(batch_size)
    taken = {"batch": position * 0, "pair": np.minimum(position, position[::-1]), "elem": position}[settings.mode]
    stop = np.where((is_mixed & is_cut)[:, None], stop, start)
    return Mix(np.where(is_mixed, mixup_share, 1.0)[taken], start[taken], stop[taken])


def cut_box(share: npt.ArrayLike, centre: npt.ArrayLike, *, extent: Sequence[int]) -> tuple[Integers, Integers]:
    """Start and stop (N,S) of boxes around `centre` (N,S) that leave about `share` (N,), clipped to `extent`.

    Along each of S axes it reaches half of int(extent * (1 - share) ** (1 / S)), rounded down, to either side, as in
    the paper's code.
    """
    sides = np.array(extent) * (1 - np.asarray(share, dtype=np.float64)[..., None]) ** (1 / len(extent))
    cut, middle = sides.astype(np.int64), np.asarray(centre, dtype=np.int64)
    return np.clip(middle - cut // 2, 0, extent), np.clip(middle + cut // 2, 0, extent)


def mix_clips(x: Tensor, mix: Mix) -> tuple[Tensor, Tensor]:
    """Mix x_BCHW or x_BTCHW; also the share (B,) float32 that each sample keeps of itself.

    Padded frames are mixed like all others: they repeat the last real frame, and the mask stays that of the sample.
    """
    extent = tuple(x.shape[-mix.start.shape[1] :])
    kept_BHW = _kept(mix, extent, x.device)
    weight = kept_BHW.reshape(len(x), *[1] * (x.ndim - 1 - len(extent)), *kept_BHW.shape[1:])
    return _blend(x, weight), kept_BHW.expand(len(x), *extent).flatten(1).mean(1)


def mix_rows(x_BTD: Tensor, mask_BT: Tensor, mix: Mix) -> tuple[Tensor, Tensor]:
    """Mix rows (B,T,...) that are real in both windows; also the share (B,T) float32 of itself that each row keeps.

    The mask stays that of the sample; its padded rows, and real ones beside padding, keep what they hold.
    """
    kept_BT = _kept(mix, tuple(x_BTD.shape[1:2]), x_BTD.device).expand(mask_BT.shape)
    share_BT = torch.where(mask_BT & mask_BT.flip(0), kept_BT, torch.ones_like(kept_BT))
    weight = share_BT.reshape(*share_BT.shape, *[1] * (x_BTD.ndim - 2))
    return torch.where(weight == 1, x_BTD, _blend(x_BTD, weight)), share_BT


def window_share(share_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The share (B,) that a window keeps of itself: the mean over its real rows."""
    return (share_BT * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)


def mix_targets(soft: Tensor, share: Tensor) -> Tensor:
    """Mix shares of classes (..., K) as the inputs were, with `share` (B,), or (B,T) where every row has a target.

    All zeros, which is unknown, where either of what is mixed is unknown.
    """
    weight = _beside(share, soft)
    is_known = soft.ne(0).any(-1, keepdim=True)
    is_valid = (is_known | (weight == 0)) & (is_known.flip(0) | (weight == 1))
    return _blend(soft, weight) * is_valid


def mix_labels(labels: Tensor, share: Tensor) -> Tensor:
    """Mix labels in [0, 1] (..., K) of multi-label targets as `mix_targets` does; -1 where either label is unknown."""
    weight = _beside(share, labels)
    is_known = labels != IGNORED
    is_valid = (is_known | (weight == 0)) & (is_known.flip(0) | (weight == 1))
    return torch.where(is_valid, _blend(labels, weight), torch.full_like(labels, IGNORED))


def _which_are_cut(settings: MixDistribution, count: int, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    coin = generator.random(count) < settings.switch_probability
    return coin if settings.mixup_alpha and settings.can_cut else np.full(count, settings.can_cut)


def _beta(alpha: float, count: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    return generator.beta(alpha, alpha, count) if alpha else np.ones(count)


def _boxes(
    settings: MixDistribution, share: npt.NDArray[np.float64], extent: Sequence[int], generator: np.random.Generator
) -> tuple[Integers, Integers]:
    shape = (len(share), len(extent))
    if settings.cutmix_minmax is None:
        return cut_box(share, generator.integers(0, extent, size=shape), extent=extent)
    low, high = ((np.array(extent) * bound).astype(np.int64) for bound in settings.cutmix_minmax)
    sides = generator.integers(low, np.maximum(high, low + 1), size=shape)
    start = generator.integers(0, np.array(extent) - sides + 1)
    return start, start + sides


def _kept(mix: Mix, extent: tuple[int, ...], device: torch.device) -> Tensor:
    """Share that each sample keeps at each place: float32 (B, *extent), or (B, 1...) where nothing is cut."""
    share = torch.from_numpy(mix.share.astype(np.float32)).to(device).reshape(-1, *[1] * len(extent))
    if (mix.start == mix.stop).all():
        return share
    is_inside = torch.ones_like(share, dtype=torch.bool)
    for axis, size in enumerate(extent):
        shape = [-1 if position == axis else 1 for position in range(len(extent))]
        place = torch.arange(size, device=device).reshape(1, *shape)
        start, stop = (torch.from_numpy(bounds[:, axis]).to(device) for bounds in (mix.start, mix.stop))
        is_inside = is_inside & (place >= start.reshape(share.shape)) & (place < stop.reshape(share.shape))
    return torch.where(is_inside, 0.0, share)


def _blend(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted with the flipped batch, in the type of `x`."""
    weight = weight.to(x.dtype)
    return x * weight + x.flip(0) * (1 - weight)


def _beside(share: Tensor, values: Tensor) -> Tensor:
    if share.ndim >= values.ndim:
        message = f"shares {tuple(share.shape)} are finer than targets {tuple(values.shape)}; use window_share first."
        raise ValueError(message)
    return share.reshape(*share.shape, *[1] * (values.ndim - share.ndim))
