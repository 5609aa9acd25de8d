"""What is asked of a run that makes rows of rows: the pieces that it sees of a video, and what it gives of each row."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import NonNegativeInt, PositiveInt, model_validator

from reelwright.stages.base.config import Settings, StageConfig
from reelwright.storage.errors import ConfigError

EMBEDDING = "pooled"  # how the embedding of a row is stored: as the rows of encoders are, so that they can be joined


class PieceSettings(Settings):
    """Where a video is too long to be seen whole: pieces of it that overlap, of equal length.

    In the middle half of an overlap the rows of one piece go over into those of the next; what lies nearer to the end
    of a piece than a quarter of the overlap is of no row.
    """

    length: PositiveInt | None = None
    """The most rows that the run sees at once; null: 4,096, or as many as are 256 MB where rows are large (maps)."""
    overlap: NonNegativeInt | None = None
    """The fewest rows that a piece shares with the next, at most half of it; null: a quarter of it."""

    @model_validator(mode="after")
    def _half_at_most(self) -> PieceSettings:
        if self.length is not None and self.overlap is not None and 2 * self.overlap > self.length:
            raise ValueError(f"overlap {self.overlap} is more than half of length {self.length}")
        return self


def model_output(name: str) -> str:
    """How a run's model calls the output that is stored as ``name``."""
    return "embedding" if name == EMBEDDING else name


def check_row_outputs(wanted: Collection[str], known: Collection[str], *, run: str) -> None:
    """Raise ConfigError where one of the stored outputs is not among those that a run's model gives of each row."""
    missing = [name for name in wanted if model_output(name) not in known]
    if missing:
        stored = [EMBEDDING if name == "embedding" else name for name in known]
        can = f"Of each row it gives {', '.join(stored)}" if stored else "It gives answers for windows, none for rows"
        raise ConfigError(
            f"outputs: {missing[0]}: the model of run {run!r} gives no {model_output(missing[0])} of each row "
            f"(B, T, E). {can}. Name a run whose model embeds rows (carl), or set outputs to what there is of rows"
        )


def check_clip_outputs(wanted: Collection[str], known: Collection[str], *, run: str) -> None:
    """Raise ConfigError where one of the stored outputs is not among those that a run's model gives of a clip."""
    missing = [name for name in wanted if model_output(name) not in known or name.startswith("attention")]
    if missing:
        usable = [name for name in known if name in {"logits", "embedding"}]
        stored = [EMBEDDING if name == "embedding" else name for name in usable]
        raise ConfigError(
            f"outputs: {missing[0]}: run {run!r} has a model that sees clips of frames itself and gives no "
            f"{model_output(missing[0])} of a clip. Of each clip there is {', '.join(stored) or 'nothing to store'}; "
            "set outputs to that, or predict with the run"
        )


def check_encoder_of(run: StageConfig, outputs: Collection[str], *, name: str) -> None:
    """Raise ConfigError where the run ``name`` has no encoder of frames, or gives no ``outputs`` of clips."""
    of_clips = getattr(run, "clip_outputs", None)
    if of_clips is not None:
        check_clip_outputs(outputs, of_clips, run=name)
    learnt = run.inputs().get("embeddings", [])
    if learnt:
        raise ConfigError(
            f"run: {name!r} learnt from embeddings and has no encoder of its own; name a finetune or pretrain node. To "
            f"make rows of its own, give embeddings: [{', '.join(learnt)}]"
        )
