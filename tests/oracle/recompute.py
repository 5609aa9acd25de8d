"""What a pipeline says of features and labels, computed again: written from the documentation, apart from the code.

Nothing of the product is imported. Loops over rows, windows and classes, so that it can be read; numpy for the model.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FPS, HOP, LENGTH = 10, 2, 3  # of the features: a row a fifth of a second, each of 3 frames
SETS = ("multi_label", "heads")
NOTHING = -1


@dataclass(frozen=True)
class Row:
    """Where a row of features lies."""

    number: int

    @property
    def frames(self) -> range:
        return range(self.number * HOP, self.number * HOP + LENGTH)

    @property
    def start(self) -> float:
        return self.frames.start / FPS

    @property
    def stop(self) -> float:
        return self.frames.stop / FPS

    @property
    def middle(self) -> float:
        return (self.start + self.stop) / 2


@dataclass(frozen=True)
class Window:
    """Some rows of a video, in order."""

    rows: tuple[int, ...]

    @property
    def first(self) -> Row:
        return Row(self.rows[0])

    @property
    def last(self) -> Row:
        return Row(self.rows[-1])


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to learn and to predict, as its settings say."""

    task: str
    labels: Mapping[str, Any]  # the block
    train_window: Mapping[str, Any]
    predict_window: Mapping[str, Any] = field(default_factory=dict)
    of_window: str = "any"


# ---------------------------------------------------------------------------------------------------------- labels


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a labels block says: class names, and the lines of each video in the order of its table."""

    kind: str  # column, columns, segments, steps, times, frames
    classes: tuple[str, ...]
    heads: tuple[tuple[str, int], ...]
    background: int
    lines: Mapping[str, list[tuple[Any, ...]]]  # video -> (place, class id); of columns: one line of all ids

    def is_known(self, video: str) -> bool:
        return bool(self.lines.get(video)) or self.background != NOTHING

    def own(self, video: str) -> int:
        return self.lines[video][0][0] if self.kind == "column" and self.lines.get(video) else NOTHING

    def of_heads(self, video: str) -> list[int]:
        """Class ids, counted over all heads, of those that are known."""
        return [label for line in self.lines.get(video, []) for label in line if label != NOTHING]


def read_labels(folder: Path, block: Mapping[str, Any]) -> Labels:
    manifest = _table(folder / "videos.csv")
    if "column" in block:
        cells = {row["video_id"]: row[block["column"]] for row in manifest}
        names = tuple(block.get("classes") or sorted({cell for cell in cells.values() if cell}))
        lines = {video: [(names.index(cell),)] for video, cell in cells.items() if cell}
        return Labels(kind="column", classes=names, heads=(), background=NOTHING, lines=lines)
    if "columns" in block:
        return _head_labels(manifest, block["columns"])
    kind = next(kind for kind in ("segments", "steps", "rows") if kind in block)
    rows = _table(folder / block[kind])
    label = "step" if kind == "steps" else "label"
    names = tuple(block.get("classes") or sorted({row[label] for row in rows}))
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in rows:
        places: list[Any] = [float(row[name]) for name in row if name.endswith("_seconds")]
        places += [int(row["frame"])] if "frame" in row else []
        found[row["video_id"]].append((*places, names.index(row[label])))
    if kind == "rows":
        kind = "frames" if "frame" in rows[0] else "times"
    background = names.index(block["background"]) if block.get("background") else NOTHING
    return Labels(kind=kind, classes=names, heads=(), background=background, lines=found)


def _head_labels(manifest: Sequence[Mapping[str, str]], columns: Mapping[str, str]) -> Labels:
    own = {head: sorted({row[column] for row in manifest if row[column]}) for head, column in columns.items()}
    classes = [(head, name) for head, names in own.items() for name in names]
    lines = {
        row["video_id"]: [
            tuple(classes.index((head, row[column])) if row[column] else NOTHING for head, column in columns.items())
        ]
        for row in manifest
        if any(row[column] for column in columns.values())
    }
    names = tuple(f"{head}: {name}" for head, name in classes)
    heads = tuple((head, len(names)) for head, names in own.items())
    return Labels(kind="columns", classes=names, heads=heads, background=NOTHING, lines=lines)


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def label_of_row(labels: Labels, video: str, row: Row) -> int:
    """The class of a row; where nothing is said of it the background, if there is one."""
    lines = labels.lines.get(video, [])
    if labels.kind == "segments":
        covering = [line for line in lines if line[0] <= row.middle < line[1]]
        latest = [line for line in covering if line[0] == max(each[0] for each in covering)]
        return latest[-1][2] if latest else labels.background
    if labels.kind == "times":
        before = [line for line in lines if line[0] <= row.middle]
        latest = [line for line in before if line[0] == max(each[0] for each in before)]
        return latest[-1][1] if latest else labels.background
    if labels.kind == "frames":
        centre = row.frames[(len(row.frames) - 1) // 2]
        named = [label for frame, label in lines if frame == centre]
        return named[-1] if named else labels.background
    own = labels.own(video)
    return labels.background if own == NOTHING else own


def _groups(lines: Iterable[tuple[Any, ...]]) -> list[tuple[float, set[int]]]:
    """Times or frames in order, and the labels of each."""
    found: dict[float, set[int]] = defaultdict(set)
    for place, label in lines:
        found[place].add(label)
    return sorted(found.items())


def set_of_window(labels: Labels, video: str, window: Window | None) -> set[int]:
    """Labels that occur in a window; None: in the whole video."""
    lines = labels.lines.get(video, [])
    start, stop = (window.first.start, window.last.stop) if window else (-math.inf, math.inf)
    first, last = (window.first.frames.start, window.last.frames.stop) if window else (0, math.inf)
    if labels.kind == "segments":
        return {label for begin, end, label in lines if begin < stop and end > start}
    if labels.kind == "steps":
        return {label for time, label in lines if start <= time < stop}
    if labels.kind == "frames":
        return {label for frame, label in lines if first <= frame < last}
    if labels.kind == "times":
        groups = _groups(lines)
        ends = [*(time for time, _ in groups), math.inf][1:]
        held = [names for (time, names), end in zip(groups, ends, strict=True) if time < stop and end > start]
        return set().union(*held)
    return set(labels.of_heads(video))


def change_of_window(labels: Labels, video: str, window: Window | None) -> set[int]:
    """Labels that changed an odd number of times in a window."""
    lines = labels.lines.get(video, [])
    start, stop = (window.first.start, window.last.stop) if window else (-math.inf, math.inf)
    if labels.kind == "frames" and window:
        start, stop = window.first.frames.start, window.last.frames.stop
    changes: list[tuple[float, int]] = []
    if labels.kind == "segments":
        changes = [(place, line[2]) for line in lines for place in line[:2]]
    elif labels.kind == "steps":
        changes = [(line[0], line[1]) for line in lines]
    elif labels.kind in ("times", "frames"):
        groups = _groups(lines)
        for number in range(1, len(groups)):
            changes += [(groups[number][0], label) for label in groups[number][1] ^ groups[number - 1][1]]
    inside = [label for place, label in changes if start <= place < stop]
    return {label for label in inside if inside.count(label) % 2}


def target_of_window(case: Case, labels: Labels, video: str, window: Window | None) -> Any:
    """A class (NOTHING where unknown), a list of them (per_row), or a set of classes (None where unknown)."""
    if case.task == "heads":
        return set(labels.of_heads(video)) or None
    if case.task == "multi_label":
        find = change_of_window if case.of_window == "net_change" else set_of_window
        return find(labels, video, window) if labels.is_known(video) else None
    if case.task == "video" or window is None:
        return labels.own(video)
    of_rows = [label_of_row(labels, video, Row(number)) for number in window.rows]
    if case.task == "per_row":
        return of_rows
    if case.task == "last_row":
        return of_rows[-1]
    known = [label for label in of_rows if label != NOTHING]
    return min(set(known), key=lambda label: (-known.count(label), label)) if known else NOTHING


# --------------------------------------------------------------------------------------------------------- windows


def grid(num_rows: int, *, length: int, hop: int, dilation: int, pad: bool, to_end: bool) -> list[Window]:
    step = dilation
    span = (length - 1) * step + 1
    if num_rows < span:
        return [Window(tuple(range(0, num_rows, step))[:length])] if pad and num_rows else []
    starts = [start for start in range(0, num_rows, hop) if start + span <= num_rows]
    if to_end and starts[-1] + span < num_rows:
        starts.append(num_rows - span)
    return [Window(tuple(start + step * place for place in range(length))) for start in starts]


def clips(num_rows: int, *, kind: str, length: int, hop: int, dilation: int, segments: int, views: int) -> list[Window]:
    """Clips that stand for their video, those that show the same only once where there are several."""
    step = dilation
    if kind == "segments":
        found = [
            Window(_segment_rows(num_rows, (view + 0.5) / views, segments=segments, run=length // segments, step=step))
            for view in range(views)
        ]
    else:
        span = (length - 1) * step + 1
        starts = (
            _dense_starts(num_rows, length, step, views)
            if kind == "dense"
            else _spread_starts(num_rows - span, hop, views)
        )
        found = [Window(tuple(range(start, num_rows, step))[:length]) for start in starts]
    return list(dict.fromkeys(found)) if views > 1 else found


def _segment_rows(num_rows: int, shift: float, *, segments: int, run: int, step: int) -> tuple[int, ...]:
    places = max(num_rows - run * step + 1, 1)
    tick = places / segments
    rows: list[int] = []
    for number in range(segments):
        start = int(tick * shift + tick * number)
        rows += [min(start + place * step, start + (num_rows - 1 - start) // step * step) for place in range(run)]
    return tuple(rows)


def _dense_starts(num_rows: int, length: int, step: int, views: int) -> list[int]:
    room = max(math.ceil(num_rows / step) - length, 0)
    return [int(room / 2) * step] if views == 1 else [int(view * (room / (views - 1))) * step for view in range(views)]


def _spread_starts(last: int, least: int, views: int) -> list[int]:
    if last < 0:
        return [0]
    if last // least + 1 <= views:
        return [place * least for place in range(last // least + 1)]
    return [last // 2] if views == 1 else [round(float(place)) for place in np.linspace(0, last, views)]


def windows_of(case: Case, num_rows: int, *, training: bool) -> list[Window]:
    """The windows of predict, or those of validation."""
    trained = {"hop": 1, "dilation": 1, "pad": True, "sampling": "grid", **case.train_window}
    sampling, segments = trained.pop("sampling"), trained.pop("segments", None)
    asked = {"hop": 1, "pad": True, "to_end": True, "views": 1, **case.predict_window}
    shape = {"to_end": True, "views": 1, **trained} if training else {**trained, **asked}
    if sampling in ("segments", "dense", "multi_start"):
        names = ("length", "hop", "dilation", "views")
        chosen = {name: shape[name] for name in names}
        return clips(num_rows, kind=sampling, segments=segments or shape["length"], **chosen)
    names = ("length", "hop", "dilation", "pad", "to_end")
    return grid(num_rows, **{name: shape[name] for name in names})


# ---------------------------------------------------------------------------------------------------------- scores


def gru_logits(weights: Mapping[str, Any], rows_TD: Any) -> Any:
    """Logits (T, K) of a GRU of one layer with a linear head, row after row (Cho et al. 2014; torch's gates)."""
    state = np.zeros(weights["rnn.weight_hh_l0"].shape[1])
    logits = []
    for row in rows_TD.astype(np.float64):
        inner = weights["rnn.weight_ih_l0"] @ row + weights["rnn.bias_ih_l0"]
        before = weights["rnn.weight_hh_l0"] @ state + weights["rnn.bias_hh_l0"]
        (reset_x, update_x, new_x), (reset_h, update_h, new_h) = np.split(inner, 3), np.split(before, 3)
        reset, update = sigmoid(reset_x + reset_h), sigmoid(update_x + update_h)
        state = (1 - update) * np.tanh(new_x + reset * new_h) + update * state
        logits.append(weights["head.weight"] @ state + weights["head.bias"])
    return np.array(logits)


def sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-values))


def softmax(values: Any) -> Any:
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def probabilities(case: Case, labels: Labels, logits: Any) -> Any:
    if case.task == "multi_label":
        return sigmoid(logits)
    if case.task == "heads":
        parts, start = [], 0
        for _, size in labels.heads:
            parts.append(softmax(logits[..., start : start + size]))
            start += size
        return np.concatenate(parts, axis=-1)
    return softmax(logits)


# --------------------------------------------------------------------------------------------------------- metrics


def average_precision(scores: Sequence[float], truth: Sequence[bool]) -> float | None:
    """Sum of precision times the recall gained, over thresholds at each different score; None without a positive."""
    if not any(truth):
        return None
    total, hits, seen, found = sum(truth), 0, 0, 0.0
    by_score: dict[float, list[bool]] = defaultdict(list)
    for score, is_true in zip(scores, truth, strict=True):
        by_score[float(score)].append(bool(is_true))
    for score in sorted(by_score, reverse=True):
        gained = sum(by_score[score])
        hits, seen = hits + gained, seen + len(by_score[score])
        found += hits / seen * gained / total
    return found


def ranked(scores: Sequence[float]) -> list[int]:
    """Classes, the likeliest first; equal scores by class."""
    return sorted(range(len(scores)), key=lambda place: (-float(scores[place]), place))


def mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def one_label_metrics(scores: Any, truth: Sequence[int], *, topk: Sequence[int] = (1, 5)) -> dict[str, Any]:
    pairs = [(list(row), label) for row, label in zip(scores, truth, strict=True) if label != NOTHING]
    num_classes = len(pairs[0][0])
    order = [(ranked(row), label) for row, label in pairs]
    confusion = [
        [sum(label == true and best[0] == named for best, label in order) for named in range(num_classes)]
        for true in range(num_classes)
    ]
    support = [sum(row) for row in confusion]
    predicted = [sum(row[named] for row in confusion) for named in range(num_classes)]
    hits = [confusion[label][label] for label in range(num_classes)]
    every = range(num_classes)
    per_class = {
        "support": support,
        "precision": [ratio(hits[k], predicted[k]) for k in every],
        "recall": [ratio(hits[k], support[k]) for k in every],
        "f1": [ratio(2 * hits[k], support[k] + predicted[k]) for k in every],
        "average_precision": [
            average_precision([row[k] for row, _ in pairs], [label == k for _, label in pairs]) for k in every
        ],
    }
    return {
        "num_entries": len(pairs),
        **{
            f"top{k}": mean(float(label in best[:k]) for best, label in order)
            for k in topk
            if k == 1 or k < num_classes
        },
        "mean_class_accuracy": mean(per_class["recall"]),
        "macro_f1": mean(per_class["f1"]),
        "mean_average_precision": mean(per_class["average_precision"]),
        "per_class": per_class,
        "confusion": confusion,
    }


def set_metrics(scores: Any, truth: Sequence[set[int]], known: Sequence[set[int]], *, threshold: float = 0.5) -> Any:
    """``known`` are the classes of which an entry says whether they are there."""
    num_classes = len(scores[0])
    cells = [
        [(float(row[k]), k in names) for row, names, said in zip(scores, truth, known, strict=True) if k in said]
        for k in range(num_classes)
    ]
    counts = [
        (
            sum(true and score >= threshold for score, true in column),
            sum(true for _, true in column),
            sum(score >= threshold for score, _ in column),
        )
        for column in cells
    ]
    precisions = [average_precision([s for s, _ in column], [t for _, t in column]) for column in cells]
    every = [cell for column in cells for cell in column]
    hits, support, predicted = (sum(count[place] for count in counts) for place in range(3))
    f1 = [ratio(2 * hit, true + named) for hit, true, named in counts]
    return {
        "num_entries": len(truth),
        "mean_average_precision": mean(precisions),
        "micro_average_precision": mean([average_precision([s for s, _ in every], [t for _, t in every])]),
        "macro_f1": mean(f1),
        "micro_f1": mean([ratio(2 * hits, support + predicted)]),
        "per_class": {
            "support": [count[1] for count in counts],
            "precision": [ratio(hit, named) for hit, _, named in counts],
            "recall": [ratio(hit, true) for hit, true, _ in counts],
            "f1": f1,
            "average_precision": precisions,
        },
    }


def action_metrics(
    scores: Any, truth: Sequence[set[int]], heads: Sequence[tuple[str, int]], *, topk: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """Each head's numbers, and how often the right combination is among the likeliest products."""
    edges = np.cumsum([0, *(size for _, size in heads)]).tolist()
    parts = [range(start, stop) for start, stop in itertools.pairwise(edges)]
    own = [[next((k - part.start for k in names if k in part), NOTHING) for part in parts] for names in truth]
    found: dict[str, float] = {}
    for place, (name, _) in enumerate(heads):
        inner = [[float(row[k]) for k in parts[place]] for row in scores]
        numbers = one_label_metrics(inner, [labels[place] for labels in own], topk=topk)
        found |= {f"{name}_{metric}": value for metric, value in numbers.items() if isinstance(value, float)}
    ranks = []
    for row, labels in zip(scores, own, strict=True):
        if NOTHING not in labels:
            products = np.ones(())
            for part in parts:
                products = np.multiply.outer(products, np.array([row[k] for k in part], dtype=np.float64))
            mine = int(np.ravel_multi_index(labels, products.shape))
            ranks.append(ranked(products.ravel().tolist()).index(mine))
    return found | {f"action_top{k}": mean(float(rank < k) for rank in ranks) for k in topk}


def runs(labels: Sequence[int], background: int | None) -> list[tuple[int, int, int]]:
    """(label, start, stop) of every stretch of one label."""
    found: list[tuple[int, int, int]] = []
    for place, label in enumerate(labels):
        if found and found[-1][0] == label:
            found[-1] = (label, found[-1][1], place + 1)
        else:
            found.append((label, place, place + 1))
    return [run for run in found if run[0] != background]


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    table[:, 0], table[0, :] = np.arange(len(first) + 1), np.arange(len(second) + 1)
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            changed = table[i - 1, j - 1] + (first[i - 1] != second[j - 1])
            table[i, j] = min(changed, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return int(table[-1, -1])


def overlap_counts(named: Sequence[Any], true: Sequence[Any], share: float) -> tuple[int, int, int]:
    """Right, wrong and missed segments: each named one is right where it overlaps one of its label well enough."""
    taken: set[int] = set()
    for label, start, stop in named:
        unions = [
            (min(stop, b) - max(start, a)) / (max(stop, b) - min(start, a)) if label == other else 0.0
            for other, a, b in true
        ]
        if unions and max(unions) >= share:
            taken.add(unions.index(max(unions)))
    return len(taken), len(named) - len(taken), len(true) - len(taken)


def f1(right: int, wrong: int, missed: int) -> float:
    return 200 * right / (2 * right + wrong + missed) if right + wrong + missed else 100.0


def segment_metrics(videos: Sequence[tuple[Sequence[int], Sequence[int]]], background: int | None) -> dict[str, float]:
    """``videos`` are predicted and true labels of the rows of each."""
    known = [[(p, t) for p, t in zip(*video, strict=True) if t != NOTHING] for video in videos]
    known = [pairs for pairs in known if pairs]
    cut = [tuple(runs([pair[side] for pair in pairs], background) for side in (0, 1)) for pairs in known]
    right = [sum(p == t for p, t in pairs) for pairs in known]
    edits = []
    for named, true in cut:
        longest = max(len(named), len(true))
        distance = edit_distance([run[0] for run in named], [run[0] for run in true])
        edits.append(100 * (1 - distance / longest) if longest else 100.0)
    found = {
        "num_videos": float(len(known)),
        "num_rows": float(sum(map(len, known))),
        "frame_accuracy": 100 * sum(right) / sum(map(len, known)),
        "frame_accuracy_video_mean": mean(100 * hit / len(pairs) for hit, pairs in zip(right, known, strict=True)),
        "edit": mean(edits),
    }
    for percent in (10, 25, 50):
        counts = [overlap_counts(named, true, percent / 100) for named, true in cut]
        found[f"f1@{percent}"] = f1(*(sum(count[place] for count in counts) for place in range(3)))
        found[f"f1@{percent}_video_mean"] = mean(f1(*count) for count in counts)
    return found


# ------------------------------------------------------------------------------------------------ scores of a table


def scored_units(case: Case, labels: Labels, tables: Mapping[str, Any], *, threshold: float = 0.5) -> dict[str, Any]:
    """Metrics of `windows` or `rows`, `videos`, `segmental`, with chance; ``tables`` hold (video, scores, target)."""
    found: dict[str, Any] = {}
    main = "rows" if case.task == "per_row" else "windows"
    for unit in (main, "videos"):
        entries = [(scores, target) for _, scores, target in tables[unit] if target not in (None, NOTHING)]
        if entries:
            scores, truth = zip(*entries, strict=True)
            if case.task in SETS:
                heads = labels.heads if case.task == "heads" else ()
                found[unit] = _scores_of_sets(scores, truth, heads, threshold)
            else:
                found[unit] = _scores_of_labels(scores, truth)
    if case.task in ("per_row", "last_row"):
        videos: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for video, scores, target in tables[main]:
            videos[video][0].append(ranked(scores)[0])
            videos[video][1].append(target)
        known = [video for video in videos.values() if any(label != NOTHING for label in video[1])]
        if known:
            found["segmental"] = _segmental_with_chance(known)
    return found


def _scores_of_labels(scores: Any, truth: Sequence[int]) -> dict[str, Any]:
    num_classes = len(scores[0])
    shares = [truth.count(k) / len(truth) for k in range(num_classes)]
    chance = one_label_metrics([shares] * len(truth), truth)
    numbers = {name: value for name, value in chance.items() if isinstance(value, float)}
    return {
        **one_label_metrics(scores, truth),
        "chance": {"uniform": 1 / num_classes, "majority": max(shares), **numbers},
    }


def _scores_of_sets(
    scores: Any, truth: Sequence[set[int]], heads: Sequence[tuple[str, int]], threshold: float
) -> dict[str, Any]:
    every = set(range(len(scores[0])))
    edges = np.cumsum([0, *(size for _, size in heads)]).tolist()
    parts = [set(range(start, stop)) for start, stop in itertools.pairwise(edges)]
    known = [set().union(*(part for part in parts if part & names)) if parts else every for names in truth]
    shares = [sum(k in names for names in truth) / max(sum(k in said for said in known), 1) for k in range(len(every))]
    constant = [shares] * len(truth)
    chance = set_metrics(constant, truth, known, threshold=threshold)
    all_of_them = set_metrics([[1.0] * len(every)] * len(truth), truth, known, threshold=threshold)
    chance |= {name: all_of_them[name] for name in ("macro_f1", "micro_f1")}
    found = set_metrics(scores, truth, known, threshold=threshold)
    found["chance"] = {name: value for name, value in chance.items() if isinstance(value, float)}
    if parts and any(all(part & names for part in parts) for names in truth):
        found |= action_metrics(scores, truth, heads)
        as_stored = [[np.float32(share) for share in shares]] * len(truth)
        found["chance"] |= action_metrics(as_stored, truth, heads)
    return found


def _segmental_with_chance(videos: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Any]:
    known = [label for _, truth in videos for label in truth if label != NOTHING]
    commonest = min(set(known), key=lambda label: (-known.count(label), label))
    chance = segment_metrics([([commonest] * len(truth), truth) for _, truth in videos], None)
    names = ("frame_accuracy", "edit", "f1@10", "f1@25", "f1@50")
    return {**segment_metrics(videos, None), "chance": {name: chance[name] for name in names}}
