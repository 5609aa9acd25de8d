"""How probes are repeated: shares of the labelled videos, several draws of them, one probe for each action.

The public code of CARL takes the first videos of a list; here they are drawn, and the spread over draws is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo


@dataclass(frozen=True, kw_only=True)
class LabelFractions:
    """Which of the labelled training videos a probe learns from; values are checked where settings are read."""

    fractions: tuple[float, ...] = (0.1, 0.5, 1.0)
    """Shares of the videos, in (0, 1]; a probe for each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A draw for each; with one seed, what a smaller share has a larger one has too."""
    fewest: int = 1
    """No fewer videos than this are drawn, as far as there are so many."""
    compat: bool = False
    """The first videos as they are given, as the public code of CARL has it; seeds are not looked at."""

    def count(self, fraction: float, num_videos: int) -> int:
        """How many of so many videos: rounded down, but one at least; 0.29 of 100 are 29, not 28 (but in compat)."""
        share = fraction * num_videos
        return min(num_videos, max(self.fewest, int(share) if self.compat else math.floor(share + 1e-9)))

    def draws(self, fraction: float, num_videos: int, *, is_random: bool = False) -> list[tuple[int, list[int]]]:
        """(seed, ascending indexes of the videos) of every draw; one alone where all draws are the same.

        ``is_random``: what is measured uses the seed itself, so that equal draws are worth repeating.
        """
        number = self.count(fraction, num_videos)
        if self.compat or number == num_videos:
            return [(seed, list(range(number))) for seed in (self.seeds if is_random else self.seeds[:1])]
        permutations = [(seed, np.random.default_rng(seed).permutation(num_videos)) for seed in self.seeds]
        return [(seed, sorted(order[:number].tolist())) for seed, order in permutations]


Draw = Callable[[list[EmbeddedVideo], int], dict[str, float | None]]  # training videos, seed -> numbers


def over_fractions(
    measure: Draw, train: Sequence[EmbeddedVideo], how: LabelFractions, *, is_random: bool = False
) -> dict[str, Any]:
    """``measure`` for every fraction and draw (`LabelFractions.draws`).

    Returns of each of its numbers `NAME@10%` (for fraction .1), the mean over draws, `NAME_spread@10%`, the standard
    deviation over draws (n - 1; None for one draw), `NAME`, the mean at the last fraction, and `draws`: fraction, seed,
    names of the videos and numbers of each. A number that a draw does not have (None) is left out of the mean.
    """
    rows: list[dict[str, Any]] = [
        {"fraction": fraction, "seed": seed, "videos": [train[index].name for index in chosen]}
        | measure([train[index] for index in chosen], seed)
        for fraction in how.fractions
        for seed, chosen in how.draws(fraction, len(train), is_random=is_random)
    ]
    names = [name for name in rows[0] if name not in {"fraction", "seed", "videos"}]
    found: dict[str, Any] = {}
    for fraction in how.fractions:
        for name in names:
            values = [row[name] for row in rows if row["fraction"] == fraction and row[name] is not None]
            found[f"{name}@{100 * fraction:g}%"] = found[name] = float(np.mean(values)) if values else None
            found[f"{name}_spread@{100 * fraction:g}%"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {**found, "draws": rows}


def per_action(measure: Callable[..., Mapping[str, Any]], *groups: Sequence[EmbeddedVideo]) -> dict[str, Any]:
    """``measure(*groups)`` with the videos of one action alone, for each action that every group has.

    Returns the unweighted mean over actions of every number with a fraction (counts have no mean; None is left out),
    `num_actions`, `actions`: action -> what was measured, and `left_out`: actions that some group has no video of.
    Raises ValueError where no action is in every group.
    """
    present = [{video.action for video in group} for group in groups]
    actions = sorted(set.intersection(*present))
    if not actions:
        raise ValueError(f"no action is in all groups of videos; they have {[sorted(names) for names in present]}.")
    found = {
        action: dict(measure(*([video for video in group if video.action == action] for group in groups)))
        for action in actions
    }
    return {
        **_means(list(found.values())),
        "num_actions": len(actions),
        "actions": found,
        "left_out": sorted(set.union(*present) - set(actions)),
    }


def _means(results: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Means of what is a float, or None, in all results; of what only some have, over these."""
    names = dict.fromkeys(name for result in results for name in result)
    means: dict[str, float | None] = {}
    for name in names:
        values = [result[name] for result in results if name in result]
        if all(value is None or isinstance(value, float) for value in values):
            known = [value for value in values if value is not None]
            means[name] = float(np.mean(known)) if known else None
    return means
