"""The map of embeddings in the report: rows of the scored videos in a plane, coloured by label or state.

PCA needs nothing more; t-SNE and UMAP keep neighbours together and say nothing of distances.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.systems.step_states import WRONG, action_of, component_of
from reelwright.stages.base.registry import config_model
from reelwright.stages.base.work import InputRef, Reporter, Work
from reelwright.stages.evaluate.config import EvaluateConfig, MapSettings
from reelwright.stages.evaluate.pages.markup import figure, tag
from reelwright.stages.evaluate.pages.page import Section
from reelwright.stages.evaluate.pages.palette import Palette
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, StoreError
from reelwright.storage.store import Store

Floats = npt.NDArray[np.float64]
LabelAt = Callable[[float], str]  # seconds -> label
LabelsOf = Callable[[set[str]], Mapping[str, LabelAt]]  # digests -> labels of each
UNKNOWN_LABEL = "not known"
_SIDE = 560  # pixels of the map
_INSTALLED, _ABSENT, _WRONG = "1", "0", "x"


def embedding_map(
    store: EmbeddingStore, labels: Mapping[str, LabelAt], *, settings: MapSettings
) -> tuple[Floats, list[str]] | None:
    """Places (N, 2) in [0, 1] of rows spread evenly over the videos of ``labels`` (by digest), and their labels.

    None where no video has rows. Raises ConfigError for umap where it is not installed.
    """
    digests = chosen_videos(store, list(labels), settings=settings)
    rows: list[npt.NDArray[Any]] = []
    names: list[str] = []
    each = settings.rows // max(1, len(digests))
    for digest in digests:
        found = store.rows(digest)
        spans, count = found.spans, found.num_rows
        picked = np.unique(np.linspace(0, count - 1, min(each, count)).round().astype(int))
        rows.append(found.take(settings.output, picked).reshape(len(picked), -1).astype(np.float64))
        middle = (spans.start_seconds[picked] + spans.stop_seconds[picked]) / 2
        names += [labels[digest](seconds) for seconds in middle.tolist()]
    if len(names) < 3:
        return None
    places = METHODS[settings.method](np.concatenate(rows), settings.seed)
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-12), names


def chosen_videos(store: EmbeddingStore, digests: Sequence[str], *, settings: MapSettings) -> list[str]:
    """Those of ``digests`` that have rows; where they are more than ``settings.rows``, so many, evenly spread."""
    present = set(store.digests())
    found = [digest for digest in digests if digest in present]
    if len(found) <= settings.rows:
        return found
    return [found[place * len(found) // settings.rows] for place in range(settings.rows)]


def states_over_time(initial: Sequence[int], steps: Sequence[tuple[float, int]]) -> LabelAt:
    """The state that holds at a time, a letter for each component: 1, 0, or x where it is installed wrongly."""
    state = [_INSTALLED if value else _ABSENT for value in initial]
    times, states = [], ["".join(state)]
    for seconds, step in sorted(steps):
        action = action_of(step)
        state[component_of(step)] = _WRONG if action == WRONG else _INSTALLED if action == 0 else _ABSENT
        times.append(seconds)
        states.append("".join(state))
    return lambda seconds: states[bisect_right(times, seconds)]


def labels_of_rows(starts: Sequence[float], labels: Sequence[str | None]) -> LabelAt:
    """The label of the row that began last; ``starts`` ascending."""
    ordered = list(starts)

    def at(seconds: float) -> str:
        place = bisect_right(ordered, seconds) - 1
        return (labels[place] if place >= 0 else None) or UNKNOWN_LABEL

    return at


def map_section(places: Floats, labels: Sequence[str], *, method: str, node: str) -> Section:
    """The map as a part of a page."""
    names = sorted(set(labels))
    background = names.index(UNKNOWN_LABEL) if UNKNOWN_LABEL in names else None
    palette = Palette(names, background=background)
    number = {name: index for index, name in enumerate(names)}
    spots = [
        tag(
            "circle",
            tag("title", label),
            cx=round(8 + x * (_SIDE - 16), 1),
            cy=round(_SIDE - 8 - y * (_SIDE - 16), 1),
            r=3,
            fill=palette.fill(number[label]),
            fill_opacity=0.7,
        )
        for (x, y), label in zip(places.tolist(), labels, strict=True)
    ]
    frame = tag("rect", x=0.5, y=0.5, width=_SIDE - 1, height=_SIDE - 1, rx=6, fill="none", class_="grid")
    look = {"class_": "chart", "viewBox": f"0 0 {_SIDE} {_SIDE}", "style": f"max-width:{_SIDE}px"}
    name = f"{method} of {len(labels)} embeddings, coloured by label"
    chart = figure(name, frame, *spots, is_titled=False, **look)
    text = f"{TITLES[method]} of {len(labels):,} rows of {node}, spread evenly over the videos. One spot is one row."
    return Section("Embeddings", [text, palette.legend(range(len(names))), palette.definitions(), chart])


def drawn_map(
    work: Work, digests: Sequence[str], labels_of: LabelsOf, *, config: EvaluateConfig, reporter: Reporter
) -> Section | None:
    """The part of the page for ``embeddings``, or the rows that the predictions were made of.

    ``labels_of`` is asked for the labels of those of ``digests`` that are drawn, and of no other. Nothing where no
    video has rows; where no node was named, also where the output is not there.
    """
    settings, inputs = config.map, work.inputs
    if settings is None or not config.report:
        return None
    is_named = bool(inputs.get("embeddings"))
    reference = inputs["embeddings"][0] if is_named else _rows_behind(inputs["predictions"][0])
    if reference is None:
        return None
    try:
        store = EmbeddingStore(Store.at(work.store).embeddings(reference.key))
        outputs = store.spec.get("outputs", ())
    except StoreError as error:
        if is_named:
            raise
        reporter.note(f"no map of embeddings is drawn: {error}")
        return None
    if not is_named and settings.output not in outputs:
        reporter.note(f"{reference.node} has no output {settings.output}: no map of embeddings is drawn")
        return None
    chosen = chosen_videos(store, digests, settings=settings)
    found = embedding_map(store, labels_of(set(chosen)), settings=settings)
    return None if found is None else map_section(*found, method=settings.method, node=reference.node)


def _rows_behind(predictions: InputRef) -> InputRef | None:
    """The stored rows that a predict node read itself; None where it read frames."""
    found = (ref for refs in predictions.inputs.values() for ref in refs)
    return next((ref for ref in found if config_model(ref.stage, where=ref.node).produces == "embeddings"), None)


def _pca(rows_ND: Floats, seed: int) -> Floats:
    from sklearn.decomposition import PCA

    found: Floats = PCA(n_components=2, random_state=seed).fit_transform(rows_ND)
    return found


def _tsne(rows_ND: Floats, seed: int) -> Floats:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(rows_ND) - 1) / 3)
    found: Floats = TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(rows_ND)
    return found


def _umap(rows_ND: Floats, seed: int) -> Floats:
    if find_spec("umap") is None:
        raise ConfigError("map.method: umap needs the package umap-learn; install it, or choose pca or tsne")
    reducer = import_module("umap").UMAP(n_neighbors=30, min_dist=0.3, metric="cosine", random_state=seed)
    found: Floats = reducer.fit_transform(rows_ND)
    return found


TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
METHODS: dict[str, Callable[[Floats, int], Floats]] = {"pca": _pca, "tsne": _tsne, "umap": _umap}
