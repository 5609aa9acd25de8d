"""Phase classification: a simple classifier on rows, learnt from few labelled videos.

Dwibedi et al. 2019, "Temporal Cycle-Consistency Learning", section 4.2 (SVM); Chen et al. 2022, "Frame-wise Action
Representations for Long Videos via Sequence Contrastive Learning" (CARL; its public code has logistic regression).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, recall_score
from sklearn.svm import SVC

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo, Floats, Integers, labelled_only
from reelwright.models.metrics.probes.probe_protocol import LabelFractions, over_fractions

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression(max_iter=100_000),  # multinomial, L2 with C=1, lbfgs
    "svm": lambda: SVC(kernel="rbf"),  # C=1, gamma 1 / (D variance of the rows)
    "svm_linear": lambda: SVC(kernel="linear"),
}


def phase_classification(
    train: Sequence[EmbeddedVideo],
    validation: Sequence[EmbeddedVideo],
    *,
    classifier: str = "logistic",
    labels: LabelFractions | None = None,
) -> dict[str, Any]:
    """Learn the labels of rows from shares of ``train``, and measure them on ``validation``; labelled rows alone.

    Returns what `over_fractions` makes of `accuracy` (of all validation rows alike, in [0, 1]), `video_accuracy` (mean
    of the videos' own), `class_recall` (mean over the labels that validation has), `macro_f1`, `wrong_rows` and
    `wrong_seconds` (mistaken rows of a video and the time they take, means over videos; None where a validation video
    has no times) and `train_accuracy`; with `classifier`, `chance` (share of the commonest label of validation) and
    `num_validation_videos`, and `videos`: of each its rows and how many are right, mean over draws of the last share.
    Where the drawn videos have one label only, that is what is predicted.
    Raises ValueError for an unknown classifier, or when no training or no validation video has a label.
    """
    if classifier not in CLASSIFIERS:
        raise ValueError(f"classifier {classifier!r} is not known; choose one of {', '.join(CLASSIFIERS)}.")
    train = labelled_only(train, what="phase classification, training")
    timed = {id(video): video.seconds_per_row for video in validation}
    known = [(video.labelled(), timed[id(video)]) for video in validation if video.has_labels]
    labelled_only(validation, what="phase classification, validation")
    target_N = np.concatenate([video.label_of_rows for video, _ in known])

    right: list[list[int]] = []  # rows of each validation video, by draw

    def measure(chosen: list[EmbeddedVideo], _seed: int) -> dict[str, float | None]:
        rows_ND, labels_N = joined(chosen)
        model = _fitted(classifier, rows_ND, labels_N)
        predicted = [model.predict(video.rows) for video, _ in known]
        right.append(
            [int((each == video.label_of_rows).sum()) for each, (video, _) in zip(predicted, known, strict=True)]
        )
        return {
            "train_accuracy": float((model.predict(rows_ND) == labels_N).mean()),
            **_scores(predicted, known, target_N),
        }

    how = labels or LabelFractions()
    found = over_fractions(measure, train, how)
    last = [each for each, draw in zip(right, found["draws"], strict=True) if draw["fraction"] == how.fractions[-1]]
    return {
        "classifier": classifier,
        **found,
        "videos": [
            {"video": video.name, "num_rows": len(video), "right_rows": float(mean)}
            for (video, _), mean in zip(known, np.mean(last, axis=0), strict=True)
        ],
        "chance": float(np.bincount(target_N).max() / len(target_N)),
        "num_validation_videos": len(known),
    }


def joined(videos: Sequence[EmbeddedVideo]) -> tuple[Floats, Integers]:
    """Rows (N, D) and labels (N,) of all videos."""
    return np.concatenate([video.rows for video in videos]), np.concatenate([v.label_of_rows for v in videos])


def _fitted(classifier: str, rows_ND: Floats, labels_N: Integers) -> Any:
    is_one = bool((labels_N == labels_N[0]).all())
    model = DummyClassifier(strategy="most_frequent") if is_one else CLASSIFIERS[classifier]()
    return model.fit(rows_ND, labels_N)


def _scores(
    predicted: Sequence[Integers], known: Sequence[tuple[EmbeddedVideo, float | None]], target_N: Integers
) -> dict[str, float | None]:
    predicted_N = np.concatenate(predicted)
    wrong = [
        (int((found != video.label_of_rows).sum()), len(video), seconds)
        for found, (video, seconds) in zip(predicted, known, strict=True)
    ]
    seconds = [number * each for number, _, each in wrong if each is not None]
    present = np.unique(target_N)
    either = np.union1d(target_N, predicted_N)
    return {
        "accuracy": float((predicted_N == target_N).mean()),
        "video_accuracy": float(np.mean([1 - number / length for number, length, _ in wrong])),
        "class_recall": float(recall_score(target_N, predicted_N, labels=present, average="macro", zero_division=0)),
        "macro_f1": float(f1_score(target_N, predicted_N, labels=either, average="macro", zero_division=0)),
        "wrong_rows": float(np.mean([number for number, _, _ in wrong])),
        "wrong_seconds": float(np.mean(seconds)) if len(seconds) == len(wrong) else None,
    }
