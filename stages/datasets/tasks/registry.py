"""The table of tasks, as text: what settings and tables must know of a task before anything of it is imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TaskTraits:
    """Where a task is found, as ``module:name``, and what kind of labels it is of."""

    task: str
    of_video: bool = False  # its targets are the video's own, so that a clip may stand for it
    of_rows: bool = False  # its targets are made of labels of rows
    per_row: bool = False  # it answers every row of a window
    of_last_row: bool = False  # a window speaks for its last row
    of_sets: bool = False  # its targets are the sets of labels that occur in windows
    has_heads: bool = False  # its targets are a class of each of several heads

    @property
    def is_sequence(self) -> bool:
        """Whether there is one label a row, so that the order of labels can be scored."""
        return self.per_row or self.of_last_row


TASKS: dict[str, TaskTraits] = {
    "video": TaskTraits(task="reelwright.stages.datasets.tasks.task:VideoTask", of_video=True),
    "last_row": TaskTraits(task="reelwright.stages.datasets.tasks.task:LastRowTask", of_rows=True, of_last_row=True),
    "majority": TaskTraits(task="reelwright.stages.datasets.tasks.task:MajorityTask", of_rows=True),
    "per_row": TaskTraits(task="reelwright.stages.datasets.tasks.task:PerRowTask", of_rows=True, per_row=True),
    "multi_label": TaskTraits(task="reelwright.stages.datasets.tasks.sets:MultiLabelTask", of_sets=True),
    "heads": TaskTraits(task="reelwright.stages.datasets.tasks.sets:HeadsTask", of_video=True, has_heads=True),
}
