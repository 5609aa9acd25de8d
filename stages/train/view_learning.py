"""Learn from views of whole videos: which videos, how views are drawn, and what is measured without labels.

videos of train and val -> views (`VideoViews`) -> objective; on val its loss, or Kendall's tau of embedded videos
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from reelwright.models.contracts import Forward
from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo
from reelwright.models.metrics.probes.kendalls_tau import kendalls_tau
from reelwright.models.systems.carl import FrameModel
from reelwright.stages.base.devices import Upload
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.labelled import (
    KnownRows,
    beyond_warning,
    check_classes,
    distinct_videos,
    label_groups,
)
from reelwright.stages.datasets.sampling.two_views import ViewSampler
from reelwright.stages.datasets.sampling.windows import IntArray
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.embed.encoding.encoder import LoadedEncoder
from reelwright.stages.fit.loop.batches import Batch
from reelwright.stages.fit.network_config import ModelSettings, NetworkSettings
from reelwright.stages.fit.setup import Learning, TrainContext
from reelwright.stages.fit.validation import build_objective
from reelwright.stages.train.config import SHAPE_FIELDS, WindowSettings
from reelwright.stages.train.view_batches import VideoViews
from reelwright.storage.arrays.spans import row_labels
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.tables.annotations import UNKNOWN

TAU_VIDEOS, TAU_ROWS = 20, 512  # of val at most, evenly spaced: so an evaluation takes the same time whatever is there

MakeViews = Callable[..., VideoViews]  # (videos=positions among those with rows, and the fields of VideoViews)


@dataclass(frozen=True, kw_only=True)
class ViewVideos:
    """Videos that views are drawn of."""

    positions: tuple[int, ...]  # among those that have rows
    names: tuple[str, ...]
    labels: tuple[IntArray, ...] | None  # a class a row, where there are any
    groups: tuple[int, ...] | None  # of `one_label`


def view_labels(work: Work, config: NetworkSettings) -> LabelSpace:
    """The classes; none where nothing is learned from them. Raises InputError where they are needed and missing."""
    classes = tuple(work.payload["classes"]) if config.learns_labels else ()
    if not classes and config.classifies_rows:
        raise InputError(
            f"{work.node}: objective per_frame learns labels of rows, and there are none; give `labels:` or a label "
            "column in the manifest, or choose objective scl, tcc or tcn."
        )
    return LabelSpace(classes=classes, background=work.payload["background"] if classes else UNKNOWN)


def view_values(
    config: NetworkSettings, model: ModelSettings, *, output: str, input_dim: int, num_classes: int
) -> dict[str, Any]:
    """The part of config.yaml from which the model is built again; ``output`` is of the encoder that it sees.

    Where there are classes, they are predicted over windows of the same length.
    """
    assert config.views is not None
    length, is_classified = config.views.length, config.classifies_rows
    return {
        "task": "per_row" if is_classified else None,
        "views": config.view_facts(),
        "output": output,
        "window": WindowSettings(length=length, hop=length, dilation=config.views.stride).model_dump(
            include=set(SHAPE_FIELDS)
        ),
        **({"compares_views": True} if config.compares_views else {}),
        "model": {
            "name": model.name,
            "options": model.options(),
            "input_dim": input_dim,
            "num_outputs": num_classes if is_classified else None,
            "length": length,
            "per_row": True,
        },
    }


def start_resnet(model: FrameModel, loaded: LoadedEncoder, *, of: str, where: str) -> None:
    """Give the layers behind maps the weights of the encoder, that of node ``of``, that the maps are of.

    Raises ConfigError where it is another network.
    """
    try:
        model.load_resnet(loaded.encoder.model.state_dict())
    except ValueError as error:
        raise ConfigError(
            f"{where}: model.network is {model.options.network}, but the maps of {of} are of {loaded.name}: {error}"
        ) from error


def learn_views(
    work: Work,
    config: NetworkSettings,
    rows: KnownRows,
    labels: LabelSpace,
    *,
    task: Task | None,
    metric: str,
    make: MakeViews,
    num_contexts: int,
    context: TrainContext,
) -> Learning:
    """Views of the videos of train and val as ``make`` reads them, and the objective.

    Raises InputError where there is nothing to learn from.
    """
    note = context.reporter.note
    train, val = (
        _videos(work, config, rows, labels, splits=splits) for splits in (config.train_splits, config.val_splits)
    )
    counts = _counts(train, labels)
    objective = build_objective(config, task, counts=counts, device=context.device, plugins=work.plugins)
    assert config.views is not None
    sampler = ViewSampler(
        strategy=config.view_sampling,
        views=config.views,
        num_views=objective.num_views,
        num_contexts=num_contexts,
        seed=config.seed,
    )
    compares = 2 if config.objective is not None and config.objective.name in {"tcc", "simclr"} else 1
    common: dict[str, Any] = {"sampler": sampler, "batch_size": config.batch_size, "world": context.world}
    common["fewest"] = compares

    def batches(of: ViewVideos, **more: Any) -> VideoViews:
        named = {"videos": of.positions, "names": of.names, "labels": of.labels, "groups": of.groups}
        return make(**named, **common, **more)

    source = batches(train, drop_last=config.drop_last, draws=True)
    if source.num_batches == 0:
        raise InputError(f"{work.node}: no views to train on. {_why_none(config, source, compares)}")
    for line in _notes(work, config, rows, (train, val), sampler, source):
        note(line)
    if task is not None and (warning := check_classes(counts, labels, balanced_by=None)):
        note(warning)
    measured = batches(val) if val.positions else None
    if measured is not None and measured.num_batches == 0:
        note("warning: no video to validate on is long enough for a view, or they are too few to compare")
        measured = None
    if measured is not None and task is not None and not _counts(val, labels).any():
        note("warning: no row to validate on has a label, so there is no validation")
        measured = None
    tau = None
    if metric == "kendalls_tau" and measured is not None:
        if len(_tau_videos(measured)) < 2:
            raise InputError(
                f"{work.node}: metric kendalls_tau compares videos of val_splits that have more than a row, and there "
                f"are {len(_tau_videos(measured))}; add some, or leave metric out"
            )
        tau = partial(val_tau, batches=measured, context=context)
    if config.compares_views and measured is not None:
        measured = None
        note(
            "videos to validate on are "
            + ("ranked by kendalls_tau alone" if tau else "not used: the last weights count")
        )
    return Learning(
        train=source,
        unit="views",
        val=measured,
        objective=objective,
        task=task,
        metric=metric,
        evaluate=tau,
    )


def val_tau(forward: Forward, *, batches: VideoViews, context: TrainContext) -> dict[str, float]:
    """Kendall's tau of at most TAU_VIDEOS videos of TAU_ROWS rows, all pairs; 0 where all rows are alike."""
    found, upload = [], Upload(context.device)
    with torch.inference_mode():
        for video in _tau_videos(batches):
            batch = Batch(batches.whole(video, most=TAU_ROWS), torch.zeros(1)).to(upload)
            rows = forward(batch.inputs)["embedding"][0].float().cpu().numpy()
            found.append(EmbeddedVideo(name=str(video), rows=rows))
    return {"kendalls_tau": kendalls_tau(found)["kendalls_tau"] or 0.0}


def _tau_videos(batches: VideoViews) -> list[int]:
    long = np.flatnonzero(np.asarray(batches.rows_of_videos) > 1)
    return long[np.unique(np.linspace(0, len(long) - 1, TAU_VIDEOS).astype(int))].tolist() if len(long) else []


def _videos(
    work: Work, config: NetworkSettings, rows: KnownRows, labels: LabelSpace, *, splits: Sequence[str]
) -> ViewVideos:
    """The videos of some splits that have rows; without labels each content once."""
    place = {digest: position for position, digest in enumerate(rows.digests)}
    wanted = [video for video in distinct_videos(work.payload, splits=splits) if video.digest in place]
    if not config.learns_labels:
        wanted = list({video.digest: video for video in wanted}.values())
    assert config.views is not None
    positions = tuple(place[video.digest] for video in wanted)
    of_rows = None
    if labels.classes:
        of_rows = tuple(
            row_labels(video.annotation, rows.spans[position], background=labels.background)
            for video, position in zip(wanted, positions, strict=True)
        )
    return ViewVideos(
        positions=positions,
        names=tuple(video.video_id for video in wanted),
        labels=of_rows,
        groups=label_groups(wanted, where=work.node) if config.views.one_label else None,
    )


def _counts(videos: ViewVideos, labels: LabelSpace) -> IntArray:
    known = [each[each != UNKNOWN] for each in videos.labels or ()]
    every = np.concatenate(known) if known else np.zeros(0, dtype=np.int64)
    return np.bincount(every, minlength=len(labels.classes)).astype(np.int64)


def _why_none(config: NetworkSettings, batches: VideoViews, compares: int) -> str:
    rows = batches.rows_of_videos
    if not rows:
        return f"No video of the splits {', '.join(config.train_splits)} has rows; look at train_splits."
    if config.drop_last and len(rows) >= compares:
        return f"drop_last leaves no batch: {config.batch_size} videos make one. Lower batch_size."
    if compares > 1:
        name = config.objective.name if config.objective is not None else ""
        return f"Objective {name} compares videos (with one_label, those of one label); {len(rows)} are too few."
    return f"The {len(rows)} videos have fewer than {batches.sampler.least_rows} rows."


def _notes(
    work: Work,
    config: NetworkSettings,
    rows: KnownRows,
    data: tuple[ViewVideos, ViewVideos],
    sampler: ViewSampler,
    source: VideoViews,
) -> list[str]:
    """What is learned from, and what is amiss."""
    train, val = data
    lines = [f"{len(train.positions)} videos to train on, {len(val.positions)} to validate on"]
    counts = dict(zip(train.names, source.rows_of_videos, strict=True))
    too_short = [name for name, count in counts.items() if count < sampler.least_rows]
    if too_short:
        lines.append(
            f"warning: {len(too_short)} video(s) have fewer than {sampler.least_rows} rows and are left out: "
            f"{', '.join(too_short[:5])}"
        )
    padded = [name for name, count in counts.items() if sampler.least_rows <= count < sampler.full_rows]
    if padded:
        lines.append(
            f"{len(padded)} of {len(counts)} videos to train on are shorter than a view of {sampler.full_rows} "
            f"rows and are padded: {', '.join(padded[:5])}"
        )
    if train.labels is not None and config.classifies_rows:
        num_rows = sum(map(len, train.labels))
        unknown = sum(int((labels == UNKNOWN).sum()) for labels in train.labels)
        if unknown == num_rows:
            raise InputError(f"{work.node}: none of the {num_rows} rows to train on has a label; look at the labels.")
        if unknown:
            lines.append(f"{unknown} of {num_rows} rows to train on have no label and are not learned from")
        videos = distinct_videos(work.payload, splits=(*config.train_splits, *config.val_splits))
        lines += beyond_warning(videos, rows)
    return lines
