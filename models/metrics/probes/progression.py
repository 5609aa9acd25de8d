"""Phase progression: how much of the video lies between a row and the end of each phase, by linear regression.

Dwibedi et al. 2019, "Temporal Cycle-Consistency Learning", section 4.2; the public code calls it event completion.
Shape letters: T rows of a video, N rows of all, D size, E events: the last rows of phases 0 .. K - 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from reelwright.models.metrics.probes.embedded_videos import (
    UNKNOWN,
    EmbeddedVideo,
    Floats,
    Integers,
    count_classes,
    labelled_only,
)
from reelwright.models.metrics.probes.probe_protocol import LabelFractions, over_fractions


def progression_targets(labels_T: Integers, *, num_classes: int, compat: bool = False) -> Floats:
    """(t - last row of the phase) / T for each row t and phase 0 .. num_classes - 2: (T, E), in (-1, 1).

    A phase that the video does not have is NaN; ``compat`` raises IndexError for it, as the public code does.
    """
    times_T, num_rows = np.arange(len(labels_T), dtype=np.float64), len(labels_T)
    target_TE = np.full((num_rows, max(0, num_classes - 1)), np.nan)
    for phase in range(num_classes - 1):
        places = np.flatnonzero(labels_T == phase)
        if len(places):
            target_TE[:, phase] = (times_T - places[-1]) / num_rows
        elif compat:
            raise IndexError(
                f"phase {phase} is not in a video of {num_rows} rows; compat needs all phases in all videos."
            )
    return target_TE


def phase_progression(
    train: Sequence[EmbeddedVideo],
    validation: Sequence[EmbeddedVideo],
    *,
    num_classes: int | None = None,
    labels: LabelFractions | None = None,
    compat: bool = False,
) -> dict[str, Any]:
    """Regress the progress of each phase but the last on rows, one linear regression each; labels are in order of time.

    A row without a label is left out, but the time it takes counts: t and T are those of the whole video. ``compat``
    counts labelled rows only, and raises IndexError for a video without some phase; otherwise that video says nothing
    of that phase, and a phase that no drawn training video or no validation video has is left out of the means.
    ``num_classes`` is one more than the largest label when None.

    Returns what `over_fractions` makes of `r2` (coefficient of determination on validation, mean over phases; at most
    1), `train_r2`, `error_rows` and `error_seconds` (absolute error of the time to the end of the phase, mean over rows
    and phases; of validation; in seconds None where a validation video has no times), `num_phases`.
    Raises ValueError when no training or no validation video has labels, or there are fewer than two classes.
    """
    labelled_only(train, what="phase progression, training")
    labelled_only(validation, what="phase progression, validation")
    num_classes = count_classes(train, validation) if num_classes is None else num_classes
    if num_classes < 2:
        raise ValueError(f"phase progression needs two phases or more, got {num_classes}.")
    known = [video for video in train if video.has_labels]
    targets = {id(video): _targets(video, num_classes, compat) for video in known}
    tested = [video for video in validation if video.has_labels]
    test_ND, test_NE = _joined(tested, [_targets(video, num_classes, compat) for video in tested])
    counts = [int((video.label_of_rows != UNKNOWN).sum()) for video in tested]
    rows_N = np.repeat([float(len(video)) for video in tested], counts)
    # NaN where a video has no times.
    seconds_N = rows_N * np.repeat(np.array([video.seconds_per_row for video in tested], np.float64), counts)

    def measure(chosen: list[EmbeddedVideo], _seed: int) -> dict[str, float | None]:
        rows_ND, target_NE = _joined(chosen, [targets[id(video)] for video in chosen])
        scores = [
            _one_phase(rows_ND, target_NE[:, phase], test_ND, test_NE[:, phase], rows_N, seconds_N)
            for phase in range(target_NE.shape[1])
        ]
        defined = [score for score in scores if score is not None]
        means = np.mean(defined, axis=0).tolist() if defined else [np.nan] * 4
        names = ("train_r2", "r2", "error_rows", "error_seconds")
        return {
            **{name: None if np.isnan(value) else value for name, value in zip(names, means, strict=True)},
            "num_phases": float(len(defined)),
        }

    return over_fractions(measure, known, labels or LabelFractions(compat=compat))


def _targets(video: EmbeddedVideo, num_classes: int, compat: bool) -> Floats:
    """Of the rows that have a label."""
    is_known_T = video.label_of_rows != UNKNOWN
    if compat:
        return progression_targets(video.label_of_rows[is_known_T], num_classes=num_classes, compat=True)
    target_TE = progression_targets(video.label_of_rows, num_classes=num_classes)
    known: Floats = target_TE[is_known_T]
    return known


def _joined(videos: Sequence[EmbeddedVideo], targets: Sequence[Floats]) -> tuple[Floats, Floats]:
    rows_ND: Floats = np.concatenate([video.labelled().rows for video in videos])
    return rows_ND, np.concatenate(targets)


def _one_phase(
    rows_ND: Floats, target_N: Floats, test_ND: Floats, test_N: Floats, rows_N: Floats, seconds_N: Floats
) -> tuple[float, float, float, float] | None:
    """R2 of training and of validation, errors in rows and in seconds; None for a phase that one of them has not."""
    is_train, is_test = ~np.isnan(target_N), ~np.isnan(test_N)
    if is_train.sum() < 2 or is_test.sum() < 2:  # R2 needs two rows
        return None
    model = LinearRegression().fit(rows_ND[is_train], target_N[is_train])
    predicted = model.predict(test_ND[is_test])
    error = np.abs(predicted - test_N[is_test])
    return (
        float(r2_score(target_N[is_train], model.predict(rows_ND[is_train]))),
        float(r2_score(test_N[is_test], predicted)),
        float((error * rows_N[is_test]).mean()),
        float((error * seconds_N[is_test]).mean()),
    )
