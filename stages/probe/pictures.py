"""Pictures of rows in the report of probe: colours over time, how alike videos are, frames that are retrieved."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from reelwright.models.metrics.probes.alignment import ALIGNMENTS
from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo
from reelwright.models.metrics.probes.frame_retrieval import Found, nearest_of_each, spread_rows
from reelwright.stages.base.work import VideoItem, Work
from reelwright.stages.evaluate.pages.page import Pair, Section
from reelwright.stages.evaluate.pages.palette import COLOURS, Palette
from reelwright.stages.evaluate.pages.thumbnails import inline
from reelwright.stages.probe.config import ProbeConfig
from reelwright.stages.probe.tasks import Probed
from reelwright.stages.show.frame_pictures import TILE, Tile, grid_of
from reelwright.stages.show.row_frames import Floats, RowFrames, payload_items, row_frames
from reelwright.stages.show.row_pictures import Alignment, similarity_picture, strips_picture
from reelwright.storage.store import Store

_MOST_ROWS = 1500  # of a video in a matrix of the report; longer ones are drawn with every so many rows
_PAIRS, _QUERIES, _DEPTH = 2, 4, 5
_METHODS = ("dtw", "nearest")

Retrieved = Sequence[tuple[EmbeddedVideo, int, Sequence[Found]]]  # query, its row, what was found


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
        query, key = (_thinned(video) for video in list(pairwise(videos))[place])
        rows = {method: ALIGNMENTS[method](query.rows, key.rows, distance=distance) for method in _METHODS}
        picture = similarity_picture(Alignment(query=query, key=key, rows=rows), distance=distance, title=node)
        yield inline(picture, alt=f"how alike {query.name} and {key.name} are, by {node}")


def _thinned(video: EmbeddedVideo) -> EmbeddedVideo:
    return video.every(-(-len(video) // _MOST_ROWS))


def _retrieval_section(
    work: Work, config: ProbeConfig, probed: Sequence[Probed], chosen: Mapping[str, Sequence[EmbeddedVideo]]
) -> Section:
    items = payload_items(work.payload)
    found: dict[str, Retrieved] = {}
    times: dict[VideoItem, set[float]] = defaultdict(set)
    for node, (query, *others) in chosen.items():
        found[node] = [
            (query, row, nearest_of_each(query, row, others, depth=_DEPTH, distance=config.distance))
            for row in spread_rows(len(query), _QUERIES)
        ]
        for _, row, entries in found[node]:
            times[items[query.name]].add(float(query.times[row]))
            for entry in entries:
                times[items[entry.video.name]].add(float(entry.video.times[entry.row]))
    wanted: dict[VideoItem, Floats] = {item: np.array(sorted(seconds)) for item, seconds in times.items()}
    behind, store = probed[0].reference, Store.at(work.store)
    with row_frames(wanted, behind=behind, store=store, height=TILE[1]) as frames:
        missing = [f"{name}: {each.note}" for name, each in frames.items() if not each.times]
        grids = [] if missing else [_grid(node, entries, frames) for node, entries in found.items()]
    text = (
        "Rows of one video (left), and the nearest row of each of the videos above, the nearest videos first. A green "
        "frame: of the same phase, a red one: of another."
    )
    title = "Retrieved frames"
    return Section(title, [*grids, text]) if grids else Section(title, [f"No frames to show. {'; '.join(missing[:3])}"])


def _grid(node: str, entries: Retrieved, frames: Mapping[str, RowFrames]) -> Markup:
    rows = [
        [Tile.of_row(query, row, frames), *(Tile.of_found(each, frames) for each in each_row)]
        for query, row, each_row in entries
    ]
    return inline(grid_of(rows, title=node), alt=f"frames retrieved by the rows of {node}", has_frames=True)
