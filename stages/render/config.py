"""Settings of render: what is drawn, of which videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.fields import node_input, setting
from reelwright.storage.errors import ConfigError

OfRows = Literal["alignment", "correspondences", "similarity", "retrieval", "strip"]
OfPredictions = Literal["attention", "changes"]
What = OfRows | OfPredictions  # as in work.DRAWN
_OF_PAIRS = frozenset({"alignment", "correspondences", "similarity"})
_OF_PREDICTIONS = frozenset(get_args(OfPredictions))
_ROWS_ALONE = (
    *("output", "pairs", "num_pairs", "queries", "others", "normalize", "distance", "stride", "alignments"),
    *("rows", "depth", "strip_videos"),
)
_PREDICTIONS_ALONE = ("against", "videos", "worst", "best", "display", "sheet")


def _of_attention(config: RenderConfig) -> bool:
    return config.predictions is not None and "attention" in config.what


class RenderConfig(StageConfig):
    """Pictures and videos of rows or of predictions.

    Of rows (embeddings): aligned videos side by side, what matches what, how alike, what is retrieved. No labels are
    needed; where phases are known, they are drawn. Of predictions: attention over the frames, and how scores changed.
    """

    stage: ClassVar[str] = "render"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "table"
    produces: ClassVar[str] = "pictures"
    reads_labels: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...] | None] = ("what", "height")

    embeddings: str | None = node_input(None, kinds=("embeddings",))
    """The node whose rows are drawn; its frames are those that are stored, or the videos' files."""
    predictions: str | None = node_input(None, kinds=("predictions",))
    """Or the predict node whose attention is drawn, which keeps it (`keep: [attention]`)."""
    against: str | None = node_input(None, kinds=("predictions",))
    """Of predictions: another predict node, whose scores these are compared with (changes), as before an edit."""
    output: str | None = None
    """Which stored output, (D,) a row; null: the only one, or pooled where there are several."""
    what: tuple[What, ...] = Field(("alignment", "correspondences", "similarity", "retrieval", "strip"), min_length=1)
    """Of predictions, attention: an MP4 and a sheet of frames a video, with a heat map of attention in space and a bar
    of attention in time; changes: a table of each video's scores in `against` and here. Of rows, alignment: MP4s of two
    videos, and of one with `others`, side by side; correspondences: lines between the frames of two videos; similarity:
    how near each row of one is to each of the other; retrieval: frames that are most alike in other videos; strip: rows
    as colours over time."""
    splits: tuple[str, ...] = Field(("test",), min_length=1)
    """Videos that are drawn where none are named."""
    videos: tuple[str, ...] = setting((), when=_of_attention)
    """Of predictions: videos whose attention is drawn, by video_id and of any split; empty: the worst and the best."""
    worst: int = setting(3, when=_of_attention, ge=0)
    """Videos in which the true class has the lowest score, of those of `splits` with a known class; where none is
    known, those in which the answer has the lowest."""
    best: int = setting(3, when=_of_attention, ge=0)
    """Videos in which it has the highest."""
    display: Literal["normalised", "raw"] = setting("normalised", when=_of_attention)
    """Of attention in time. normalised: each window from 0 to 1 without its first and last place, which are shown as
    they are; raw: as the model gives it. Attention in space is shown as it is."""
    sheet: int = setting(16, when=_of_attention, ge=1, le=64)
    """Frames of each sheet, spread over the video."""
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
    distance: Literal["sqeuclidean", "euclidean", "cosine"] = "sqeuclidean"  # Between rows.
    stride: PositiveInt = 1
    """Every so many rows are aligned and shown: of long videos."""
    alignments: tuple[Literal["dtw", "nearest", "stretch"], ...] = setting(
        ("dtw", "nearest"), when=lambda config: config.of_pairs, min_length=1
    )
    """How videos are aligned: by dynamic time warping, nearest rows, or as if all took equally long."""
    height: int = setting(240, when=lambda config: "alignment" in config.what or _of_attention(config), ge=64, le=1080)
    """Of each video in a film, in pixels."""
    speed: PositiveFloat = setting(1.0, when=lambda config: "alignment" in config.what or _of_attention(config))
    """How many times as fast as it is the query, or the video, plays."""
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

    @model_validator(mode="before")
    @classmethod
    def _what_there_is(cls, values: Any) -> Any:
        """Without `what`, all that can be drawn."""
        if not isinstance(values, dict) or values.get("predictions") is None or "what" in values:
            return values
        return {**values, "what": ("attention", *(("changes",) if values.get("against") is not None else ()))}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.embeddings is None) == (self.predictions is None):
            given = "neither is given" if self.embeddings is None else "both are given"
            raise ValueError(f"rows of embeddings or attention of predictions are drawn, but {given}; name one node")
        of_rows = self.embeddings is not None
        source, others = ("embeddings", _PREDICTIONS_ALONE) if of_rows else ("predictions", _ROWS_ALONE)
        fields = type(self).model_fields
        wrong = [name for name in others if getattr(self, name) != fields[name].default]
        wrong += [name for name in self.what if (name in _OF_PREDICTIONS) == (source == "embeddings")]
        if wrong:
            raise ValueError(f"{wrong[0]} is not of {source}, which are drawn; leave it out")
        if ("changes" in self.what) != (self.against is not None):
            raise ValueError(
                "changes are of scores against those of another predict node; name it as against, or give neither"
            )
        if _of_attention(self) and not (self.videos or self.worst or self.best):
            raise ValueError("worst and best are 0 and no videos are named, so that no attention is drawn; set one")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.what)) < len(self.what):
            raise ValueError(f"what must not repeat, got {', '.join(self.what)}")
        same = next((query for query, key in self.pairs if query == key), None)
        if same is not None:
            raise ValueError(f"pairs: {same!r} is paired with itself; name two videos")
        return self

    def check_inputs(self, inputs: Mapping[str, Sequence[StageConfig]]) -> None:
        """Refuse attention of a predict node that keeps none."""
        for config in inputs.get("predictions", ()) if _of_attention(self) else ():
            kept = getattr(config, "keep", ())
            if not any(name == "attention" or name.startswith("attention.") for name in kept):
                raise ConfigError(
                    f"predictions: node {self.predictions!r} keeps no attention, which is to be drawn. Give it keep: "
                    "[attention]"
                )

    def named_splits(self) -> dict[str, tuple[tuple[str, ...], bool]]:
        """As of every stage."""
        return {"splits": (self.splits, not self.names_videos)}

    def named_videos(self) -> dict[str, tuple[str, ...]]:
        """As of every stage."""
        pairs = tuple(name for pair in self.pairs for name in pair)
        return {"pairs": pairs, "queries": self.queries, "videos": self.videos}

    @property
    def names_videos(self) -> bool:
        """Whether videos are named, which may be of any split."""
        return bool(self.pairs or self.queries or self.videos)

    def wanted_splits(self) -> tuple[str, ...] | None:
        """As of every stage."""
        return None if self.names_videos else self.splits
