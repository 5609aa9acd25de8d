"""What is most likely wrong with videos and labels: what fits nothing, has none, lies outside, is in two splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.graph import NodePlan
from reelwright.stages.base.config import StageConfig
from reelwright.storage.errors import InputError, nearest
from reelwright.storage.ledger.digest_cache import VideoProbe
from reelwright.storage.ledger.items import DONE, ItemRow
from reelwright.storage.tables.annotations import UNKNOWN, Annotation

_LISTED = 10  # names in a message
_FEW = 3  # the same, of what takes half a line
_COMPARED = 1000  # names that another may have been meant for: comparing takes time
_ABOUT_SECONDS = 0.5  # by which times may be off that only decoding tells
_SLACK_SECONDS = 0.1  # at least, and at least a frame: labels are rounded, and a first frame seldom comes at 0
_Frames = tuple[int, int]  # the fewest and the most that there may be


def data_warnings(dataset: Dataset, splits: Collection[str] | None = None) -> tuple[str, ...]:
    """One text for each kind of thing that is most likely wrong, with the videos it is about; nothing is read.

    ``splits`` are those whose labels are used, None: all; of others, no label is missed.
    """
    return (*_unmatched(dataset), *_unlabelled(dataset, splits), *_outside(dataset), *_in_several_splits(dataset))


def warnings_by_use(dataset: Dataset, read: Iterable[tuple[StageConfig, Dataset]]) -> tuple[str, ...]:
    """`data_warnings` of the videos and of those that nodes ``read`` with labels of their own, each once.

    Where some have their own, labels are missed in those splits alone whose labels are read.
    """
    found: dict[int, tuple[Dataset, list[StageConfig]]] = {id(dataset): (dataset, [])}
    for config, own in read:
        found.setdefault(id(own), (own, []))[1].append(config)
    is_one = len(found) == 1
    texts = (data_warnings(each, None if is_one else _labelled_splits(configs)) for each, configs in found.values())
    return tuple(dict.fromkeys(text for some in texts for text in some))


def _labelled_splits(configs: Iterable[StageConfig]) -> frozenset[str] | None:
    """The splits whose labels one of the nodes reads; None: all."""
    splits: set[str] = set()
    for config in configs:
        if (config.kind == "run" and config.learns_labels) or config.reads_labels or config.publishes:
            wanted = config.wanted_splits()
            if wanted is None:
                return None
            splits.update(wanted)
    return frozenset(splits)


def check_shares(dataset: Dataset) -> None:
    """Raise InputError where more labels fit no video, or more videos have no label, than the settings allow."""
    settings, labels = dataset.label_settings, dataset.labels
    if settings is None or not dataset.videos:
        return
    if len(labels.unmatched) > settings.max_unmatched * labels.num_named:
        raise InputError(
            f"{_unmatched_text(dataset)} That is more than the share labels.max_unmatched, {settings.max_unmatched:g}: "
            "write the ids as in the manifest, or raise it (1: the table may be of any videos)"
        )
    for split, (bare, total) in _bare_videos(dataset).items():
        if len(bare) > settings.max_unlabelled * total:
            raise InputError(
                f"{_unlabelled_text(split, bare, total)} That is more than the share labels.max_unlabelled, "
                f"{settings.max_unlabelled:g}: label them, take them out of the manifest, or raise it"
            )


def no_video_label(config: StageConfig, dataset: Dataset) -> Iterator[str]:
    """The setting of a node that needs labels of videos, where none of its videos has one of its own."""
    setting, splits = config.video_label_setting, config.wanted_splits()
    videos = [video for video in dataset.videos if setting and (splits is None or video.split in splits)]
    known = (dataset.labels.of(video.video_id) for video in videos)
    if videos and not any(each.video_label or each.label != UNKNOWN for each in known):
        yield (
            f"{setting}: none of the {len(videos):,} videos has a label of its own; name a column of the manifest that "
            "has it in labels.column, beside labels of rows or alone"
        )


def _unmatched(dataset: Dataset) -> Iterator[str]:
    if dataset.labels.unmatched:
        yield f"{_unmatched_text(dataset)} Their labels are not used; write ids as in the manifest"


def _unmatched_text(dataset: Dataset) -> str:
    labels = dataset.labels
    bare = [video.video_id for video in dataset.videos if not labels.of(video.video_id).is_known][:_COMPARED]
    shown = [f"{name!r}{_hint(name, bare)}" for name in labels.unmatched[:_LISTED]]
    return (
        f"labels: {len(labels.unmatched):,} of the {labels.num_named:,} video ids in the table are not in the "
        f"manifest: {_listed(shown, len(labels.unmatched))}."
    )


def _hint(name: str, bare: Sequence[str]) -> str:
    """The video that an id was meant for, most likely: one that has no label."""
    hint = nearest(name, bare)
    return f" ({hint.strip()})" if hint else ""


def _bare_videos(dataset: Dataset) -> dict[str, tuple[list[str], int]]:
    """Split -> its videos without a label, and how many it has; none where a background stands for what is not said."""
    if dataset.label_settings is None or dataset.background != UNKNOWN:
        return {}
    labelled = {name for name, annotation in dataset.labels.by_video.items() if annotation.is_known}
    bare: dict[str, list[str]] = defaultdict(list)
    for video in dataset.videos:
        if video.video_id not in labelled:
            bare[video.split].append(video.video_id)
    totals = Counter(video.split for video in dataset.videos) if bare else Counter()
    return {split: (names, totals[split]) for split, names in bare.items()}


def _unlabelled(dataset: Dataset, splits: Collection[str] | None) -> Iterator[str]:
    bare_videos = _bare_videos(dataset).items()
    for split, (bare, total) in ((split, found) for split, found in bare_videos if splits is None or split in splits):
        yield f"{_unlabelled_text(split, bare, total)} They are neither learned from nor scored"


def _unlabelled_text(split: str, bare: Sequence[str], total: int) -> str:
    shown = _listed([repr(name) for name in bare[:_LISTED]], len(bare))
    return f"labels: {len(bare):,} of the {total:,} videos of split {split} have no label: {shown}."


@dataclass(frozen=True)
class _Outside:
    """Labels of one video that lie outside its own time."""

    video_id: str
    labels: tuple[tuple[float, float], ...]  # start and stop in seconds, equal where a label is of one moment
    start_seconds: float  # of the video
    stop_seconds: float
    counts_from_0: bool  # they would fit if the video began at 0

    @property
    def text(self) -> str:
        """The first of them, and where the video is."""
        start, stop = self.labels[0]
        when = f"{start:.1f} s" if start == stop else f"{start:.1f} to {stop:.1f} s"
        more = f" and {len(self.labels) - 1:,} more" if len(self.labels) > 1 else ""
        return f"{self.video_id!r} ({when}{more}; the video is {self.start_seconds:.1f} to {self.stop_seconds:.1f} s)"


def _outside(dataset: Dataset) -> Iterator[str]:
    settings = dataset.label_settings
    if settings is None or (settings.segments, settings.steps, settings.rows) == (None, None, None):
        return
    measured = list(_measured(dataset))
    found = [entry for labelled in measured if (entry := _outside_of(*labelled)) is not None]
    moved = [entry for entry in found if entry.counts_from_0]
    for start in dict.fromkeys(round(entry.start_seconds, 1) for entry in moved):
        names = [entry.video_id for entry in moved if round(entry.start_seconds, 1) == start]
        shown = _listed([repr(name) for name in names[:_LISTED]], len(names))
        yield (
            f"labels: the video's own times start at {start:.1f} s; labels seem to count from 0: {shown}. "
            "Set labels.time_origin: first_frame to count them from the first frame"
        )
    others = [entry for entry in found if not entry.counts_from_0]
    if others:
        count = sum(len(entry.labels) for entry in others)
        shown = _listed([entry.text for entry in others[:_LISTED]], len(others))
        yield (
            f"labels: {count:,} labels of {len(others):,} videos lie wholly or partly outside their video's own time: "
            f"{shown}. There is no row outside, so that part is never used; look at the table, its unit (seconds) and "
            "its ids"
        )
    frames = [text for labelled in measured if (text := _frames_behind_the_end(*labelled))]
    if frames:
        shown = _listed(frames[:_LISTED], len(frames))
        yield f"labels: frames that their videos do not have: {shown}. Frames count from 0; look at the table"


def _measured(dataset: Dataset) -> Iterator[tuple[str, Annotation, VideoProbe]]:
    """Labelled videos whose own time is known, with what is known of them."""
    for name, annotation in dataset.labels.by_video.items():
        probe = dataset.probes.get(dataset.digests.get(name) or "")
        if probe is not None and probe.status in DONE and probe.duration_seconds > 0:
            yield name, annotation, probe


def _outside_of(name: str, annotation: Annotation, probe: VideoProbe) -> _Outside | None:
    if probe.is_of_images:
        return None
    first, last = probe.start_seconds, probe.start_seconds + probe.duration_seconds
    slack = max(_SLACK_SECONDS, 1 / probe.fps if probe.fps > 0 else 0.0, 0.0 if probe.is_exact else _ABOUT_SECONDS)
    spans = [(start, stop) for start, stop, _ in annotation.segments]
    spans += [(time, time) for time, _ in (*annotation.steps, *annotation.times)]
    outside = tuple((start, stop) for start, stop in spans if start < first - slack or stop > last + slack)
    if not outside:
        return None
    fits_at_0 = first > slack and all(stop <= probe.duration_seconds + slack for _, stop in spans)
    return _Outside(name, outside, first, last, fits_at_0)


def _frames_behind_the_end(name: str, annotation: Annotation, probe: VideoProbe) -> str:
    numbers = [frame for frame, _ in annotation.frames if frame >= probe.num_frames > 0]
    more = f" and {len(numbers) - 1:,} more" if len(numbers) > 1 else ""
    return f"{name!r} (frame {min(numbers)}{more} of {probe.num_frames:,} frames)" if numbers else ""


def _in_several_splits(dataset: Dataset) -> Iterator[str]:
    counts = Counter(dataset.digests.values())
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for video in dataset.videos if len(counts) < len(dataset.videos) else ():
        digest = dataset.digests[video.video_id]
        if digest is not None and counts[digest] > 1:
            places[digest].append((video.video_id, video.split))
    leaks = [found for found in places.values() if len({split for _, split in found}) > 1]
    if leaks:
        shown = [" = ".join(f"{name!r} ({split})" for name, split in found) for found in leaks[:_LISTED]]
        yield (
            f"videos: {len(leaks):,} contents are in several splits: {_listed(shown, len(leaks))}. Scores of a split "
            "that was learned from say little; take the copies out (`reelwright data show` lists all)"
        )


def length_notes(
    read: Iterable[tuple[Dataset, Sequence[NodePlan]]], *, rows_of: Callable[[NodePlan], Mapping[str, ItemRow]]
) -> tuple[str, ...]:
    """A line for each node whose rows stand for another number of frames than there are labels of.

    ``read`` has for each node the videos, with the labels that it learns from, and the nodes that it reads.
    """
    found = (note for dataset, plans in read for note in _length_notes(dataset, plans, rows_of))
    return tuple(dict.fromkeys(found))


def labelled_frames(annotation: Annotation) -> _Frames | None:
    """How many frames a video has whose labels go through all of it; None where they do not.

    Labels of frames 0, 4 and 8: 9 to 12. Counted from 1, as 1, 2, 3: 3 or 4.
    """
    frames = [frame for frame, _ in annotation.frames]
    if len(frames) < 2 or frames[0] > 1:
        return None
    step = frames[1] - frames[0]
    if step < 1 or frames != list(range(frames[0], frames[-1] + 1, step)):
        return None
    return frames[-1] + 1 - frames[0], frames[-1] + step


def _length_notes(
    dataset: Dataset, plans: Sequence[NodePlan], rows_of: Callable[[NodePlan], Mapping[str, ItemRow]]
) -> Iterator[str]:
    counted = [plan for plan in plans if plan.spec_key and plan.node.config.num_frames(1) is not None]
    labelled = {
        video.video_id: frames
        for video in (dataset.videos if counted else ())
        if (frames := labelled_frames(dataset.labels.of(video.video_id))) is not None
    }
    for above in counted if labelled else ():
        rows = rows_of(above)
        both = {
            video_id: (rows[digest].rows, frames)
            for video_id, frames in labelled.items()
            if (digest := dataset.digests[video_id] or "") in rows and rows[digest].is_done
        }
        differing = [
            f"{video_id} has {num_rows:,} rows, so {_text(given)} frames, and labels of {_text(frames)}"
            for video_id, (num_rows, frames) in both.items()
            if (given := above.node.config.num_frames(num_rows)) is not None
            and (given[1] < frames[0] or frames[1] < given[0])
        ]
        if differing:
            more = f"; and {len(differing) - _FEW:,} more" if len(differing) > _FEW else ""
            yield (
                f"warning: {above.node.name}: the rows of {len(differing):,} of {len(both):,} videos and their labels "
                f"differ in length: {'; '.join(differing[:_FEW])}{more}. What one has beyond the other is not used. "
                f"Look at fps, hop and length of {above.node.name}, or at the label table"
            )


def _text(frames: _Frames) -> str:
    return f"{frames[0]:,}" if frames[0] == frames[1] else f"{frames[0]:,} to {frames[1]:,}"


def _listed(shown: Iterable[str], total: int) -> str:
    listed = list(shown)
    more = f" and {total - len(listed):,} more" if total > len(listed) else ""
    return f"{', '.join(listed)}{more}"
