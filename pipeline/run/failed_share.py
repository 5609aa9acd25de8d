"""Whether enough videos are left to learn or conclude from, after those that failed upstream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reelwright.pipeline.plan.graph import NodePlan
from reelwright.pipeline.plan.plan import Planner
from reelwright.storage.errors import StageError


@dataclass(frozen=True, kw_only=True)
class FailedVideos:
    """Videos that a node was to read and cannot."""

    num_videos: int  # with those that failed
    failed: dict[str, str]  # video_id -> where and why

    def __str__(self) -> str:
        return f"{len(self.failed):,} of {self.num_videos:,} videos failed ({self.share:.0%})"

    @property
    def share(self) -> float:
        """Of the videos, in [0, 1]."""
        return len(self.failed) / max(1, self.num_videos)


def failed_videos(plan: NodePlan, planner: Planner) -> FailedVideos:
    """The videos in the node's splits that failed in a node above, or could not even be opened."""
    splits = plan.node.config.wanted_splits()
    wanted = {item.digest for item in plan.wanted}
    reasons = {digest: reason for digest, reason in _reasons(plan, planner) if digest not in wanted}
    digests = planner.dataset.digests
    videos = [
        (video.video_id, digest)
        for video in planner.dataset.videos
        if ((digest := digests[video.video_id] or "") in wanted or digest in reasons)
        and (splits is None or video.split in splits)
    ]
    failed = {video_id: reasons[digest] for video_id, digest in videos if digest in reasons}
    return FailedVideos(num_videos=len(videos), failed=failed)


def check_share(plan: NodePlan, planner: Planner) -> str:
    """A warning where a node goes on without videos that failed, else an empty text.

    Nodes that do each video for itself are not meant. Raises StageError when more than `videos.max_failed` failed.
    """
    if plan.node.config.kind == "items" and not plan.node.config.publishes:
        return ""
    found, allowed = failed_videos(plan, planner), planner.file.videos.max_failed
    if not found.failed:
        return ""
    video_id, reason = next(iter(found.failed.items()))
    if found.share > allowed:
        raise StageError(
            f"{found}, and videos.max_failed allows {allowed:.0%}; {video_id} in {reason}. `reelwright logs` lists "
            f"them all. Repair or remove them and run again; to go on with the other "
            f"{found.num_videos - len(found.failed):,}, set videos.max_failed: 1"
        )
    return f"warning: goes on without those that failed: {found}; {video_id} in {reason}"


def _reasons(plan: NodePlan, planner: Planner) -> Iterator[tuple[str, str]]:
    """(content digest, node and cause) of what failed above a node."""
    dataset = planner.dataset
    for video in dataset.unusable:
        digest = dataset.digests[video.video_id] or ""
        yield digest, f"videos: {dataset.probes[digest].message}"
    for name in planner.graph.upstream([plan.node.name]) - {plan.node.name}:
        above = planner.plan(name)
        for row in (*above.failed, *above.quarantined):
            if row.status != "skipped":  # nothing is wrong with those: the stage has no use for them
                yield row.digest, f"{name}: {row.message}"
