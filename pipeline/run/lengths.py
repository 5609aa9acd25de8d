"""Rows that people bring against the labels of their frames: a video whose two lengths differ is told with numbers."""

from __future__ import annotations

from collections.abc import Iterator

from reelwright.pipeline.plan.graph import Node
from reelwright.pipeline.plan.plan import Planner
from reelwright.storage.tables.annotations import Annotation

_SHOWN = 3
_Frames = tuple[int, int]  # the fewest and the most that there may be


def length_notes(planner: Planner) -> tuple[str, ...]:
    """A line for each node whose rows stand for another number of frames than there are labels of."""
    found = (note for node in planner.graph.nodes.values() for note in _notes_of(node, planner))
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


def _notes_of(node: Node, planner: Planner) -> Iterator[str]:
    """Of the nodes that ``node`` reads, with the labels that it has."""
    dataset = planner.dataset_of(node)
    labelled = {
        video.video_id: frames
        for video in dataset.videos
        if (frames := labelled_frames(dataset.labels.of(video.video_id))) is not None
    }
    for name in node.parents if labelled else ():
        above = planner.plan(name)
        if above.node.config.num_frames(1) is None or not above.spec_key:
            continue
        rows = planner.rows(above)
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
            more = f"; and {len(differing) - _SHOWN:,} more" if len(differing) > _SHOWN else ""
            yield (
                f"warning: {name}: the rows of {len(differing):,} of {len(both):,} videos and their labels differ in "
                f"length: {'; '.join(differing[:_SHOWN])}{more}. What one has beyond the other is not used. Look at "
                f"fps, hop and length of {name}, or at the label table"
            )


def _text(frames: _Frames) -> str:
    return f"{frames[0]:,}" if frames[0] == frames[1] else f"{frames[0]:,} to {frames[1]:,}"
