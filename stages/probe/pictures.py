"""Pictures of rows in the report of probe: colours over time, how alike videos are, frames that are retrieved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup

from reelwright.models.metrics.probes.alignment import ALIGNMENTS
from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo
from reelwright.stages.base.work import Work
from reelwright.stages.evaluate.pages.frame_source import payload_items
from reelwright.stages.evaluate.pages.page import Pair, Section
from reelwright.stages.evaluate.pages.palette import COLOURS, Palette
from reelwright.stages.evaluate.pages.thumbnails import inline
from reelwright.stages.probe.config import ProbeConfig
from reelwright.stages.probe.tasks import Probed
from reelwright.stages.show.frame_pictures import TILE, grid_of, retrieved, times_of
from reelwright.stages.show.row_frames import row_frames
from reelwright.stages.show.row_pictures import Alignment, similarity_picture, strips_picture
from reelwright.storage.store import Store

_MOST_ROWS = 1500  # of a video in a matrix of the report; longer ones are drawn with every so many rows
_PAIRS, _QUERIES, _DEPTH = 2, 4, 5
_METHODS = ("dtw", "nearest")


def pictures_section(work: Work, config: ProbeConfig, probed: Sequence[Probed]) -> list[Section]:
    """The sections with pictures; without frames those of retrieved frames are left out, and it is said why."""
    chosen = {each.reference.node: _shown(each.videos, config) for each in probed}
    strips = [
        inline(strips_picture(videos, title=node), alt=f"principal components of the rows of {node} over time")
        for node, videos in chosen.items()
    ]
    text = (
        "The first three principal components of the rows as red, green and blue, over time: rows of like colour are "
        "alike. Below, where they are known, the phases."
    )
    classes = work.payload["classes"]
    has_phases = any(video.has_labels for videos in chosen.values() for video in videos)
    legend = [Palette(classes).legend(range(min(len(COLOURS), len(classes))))] if has_phases else []
    sections = [Section("Rows over time", [*strips, text, *legend])]
    pairs = min(_PAIRS, *(len(videos) - 1 for videos in chosen.values()))
    if pairs > 0:
        matrices = [Pair(list(_matrices(chosen, place, config.distance))) for place in range(pairs)]
        text = "Bright rows are near each other. White: dynamic time warping; dots: the nearest rows."
        sections.append(Section("How alike two videos are", [*matrices, text]))
        sections.append(_retrieval_section(work, config, probed, chosen))
    return sections


def _shown(videos: Sequence[EmbeddedVideo], config: ProbeConfig) -> list[EmbeddedVideo]:
    """The first ones by name; of one action, that of most videos, where each is measured by itself."""
    if config.per_action:
        (action, _), *_ = Counter(sorted(video.action for video in videos if video.action)).most_common(1)
        videos = [video for video in videos if video.action == action]
    return sorted(videos, key=lambda video: video.name)[: config.report_videos]


def _matrices(chosen: Mapping[str, Sequence[EmbeddedVideo]], place: int, distance: str) -> Iterator[Markup]:
    for node, videos in chosen.items():
        pair = list(pairwise(videos))[place]
        query, key = (video.every(-(-len(video) // _MOST_ROWS)) for video in pair)
        rows = {method: ALIGNMENTS[method](query.rows, key.rows, distance=distance) for method in _METHODS}
        picture = similarity_picture(Alignment(query=query, key=key, rows=rows), distance=distance, title=node)
        yield inline(picture, alt=f"how alike {query.name} and {key.name} are, by {node}")


def _retrieval_section(
    work: Work, config: ProbeConfig, probed: Sequence[Probed], chosen: Mapping[str, Sequence[EmbeddedVideo]]
) -> Section:
    found = {
        node: retrieved(query, others, rows=_QUERIES, depth=_DEPTH, distance=config.distance)
        for node, (query, *others) in chosen.items()
    }
    times = times_of([entry for entries in found.values() for entry in entries])
    items = payload_items(work.payload)
    wanted = {items[name]: seconds for name, seconds in times.items()}
    with row_frames(wanted, behind=probed[0].reference, store=Store.at(work.store), height=TILE[1]) as frames:
        missing = [f"{name}: {each.note}" for name, each in frames.items() if not each.times]
        grids = [
            inline(grid_of(entries, frames, title=node), alt=f"frames retrieved by the rows of {node}", has_frames=True)
            for node, entries in (() if missing else found.items())
        ]
    text = (
        "Rows of one video (left), and the nearest row of each of the videos above, the nearest videos first. A green "
        "frame: of the same phase, a red one: of another."
    )
    title = "Retrieved frames"
    return Section(title, [*grids, text]) if grids else Section(title, [f"No frames to show. {'; '.join(missing[:3])}"])
