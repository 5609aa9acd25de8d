"""Settings of render: what is drawn, of which videos."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.base.config import node_input, setting
from reelwright.stages.base.stage_config import StageConfig

What = Literal["alignment", "correspondences", "similarity", "retrieval", "strip"]  # as in work.DRAWN
_OF_PAIRS = frozenset({"alignment", "correspondences", "similarity"})


class RenderConfig(StageConfig):
    """Pictures and videos of rows: aligned videos side by side, what matches what, how alike, what is retrieved.

    No labels are needed; where phases are known, they are drawn.
    """

    stage: ClassVar[str] = "render"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "table"
    produces: ClassVar[str] = "pictures"
    reads_labels: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...] | None] = ("what", "height")

    embeddings: str = node_input(kinds=("embeddings",))
    """The node whose rows are drawn; its frames are those that are stored, or the videos' files."""
    output: str | None = None
    """Which stored output, (D,) a row; null: the only one, or pooled where there are several."""
    what: tuple[What, ...] = Field(("alignment", "correspondences", "similarity", "retrieval", "strip"), min_length=1)
    """alignment: MP4s of two videos, and of one with `others`, side by side. correspondences: lines between the frames
    of two videos. similarity: how near each row of one is to each of the other. retrieval: frames that are most alike
    in other videos. strip: rows as colours over time."""
    splits: tuple[str, ...] = Field(("test",), min_length=1)
    """Videos that are drawn where none are named."""
    pairs: tuple[tuple[str, str], ...] = ()
    """[query, key] by video_id, of any split; empty: the first `num_pairs` neighbours by name."""
    num_pairs: PositiveInt = setting(1, when=lambda config: config.of_pairs and not config.pairs)
    """Pairs that are drawn where none are named."""
    queries: tuple[str, ...] = ()
    """Videos, by video_id and of any split, that are shown with others and whose frames are searched in all others;
    empty: the first one by name."""
    others: int = setting(5, when=lambda config: "alignment" in config.what, ge=1, le=11)
    """Videos beside each query: the next ones by name."""

    normalize: bool = True
    """Rows are brought to unit length first, as CARL's are."""
    distance: Literal["sqeuclidean", "euclidean", "cosine"] = "sqeuclidean"
    stride: PositiveInt = 1
    """Every so many rows are aligned and shown: of long videos."""
    alignments: tuple[Literal["dtw", "nearest", "stretch"], ...] = setting(
        ("dtw", "nearest"), when=lambda config: config.of_pairs, min_length=1
    )
    """How videos are aligned: by dynamic time warping, nearest rows, or as if all took equally long."""
    height: int = setting(240, when=lambda config: "alignment" in config.what, ge=64, le=1080)
    """Of each video in an alignment, in pixels."""
    speed: PositiveFloat = setting(1.0, when=lambda config: "alignment" in config.what)
    """How many times as fast as it is the query plays."""
    rows: int = setting(6, when=lambda config: "retrieval" in config.what, ge=1, le=40)
    """Rows of each query whose like are retrieved, spread over the video."""
    depth: int = setting(5, when=lambda config: "retrieval" in config.what, ge=1, le=18)
    """Videos of which the nearest row is shown."""
    strip_videos: int = setting(20, when=lambda config: "strip" in config.what, ge=1, le=200)
    """Videos whose rows are shown as colours."""

    @property
    def of_pairs(self) -> bool:
        """Whether any picture is of two videos."""
        return bool(_OF_PAIRS & set(self.what))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.what)) < len(self.what):
            raise ValueError(f"what must not repeat, got {', '.join(self.what)}")
        same = next((query for query, key in self.pairs if query == key), None)
        if same is not None:
            raise ValueError(f"pairs: {same!r} is paired with itself; name two videos")
        return self

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of every stage."""
        return {"splits": (self.splits, not self.names_videos)}

    def named_videos(self) -> dict[str, tuple[str, ...]]:
        """As of every stage."""
        return {"pairs": tuple(name for pair in self.pairs for name in pair), "queries": self.queries}

    @property
    def names_videos(self) -> bool:
        """Whether videos are named, which may be of any split."""
        return bool(self.pairs or self.queries)

    def wanted_splits(self) -> tuple[str, ...] | None:
        """As of every stage."""
        return None if self.names_videos else self.splits
