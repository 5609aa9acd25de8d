"""Settings of the videos and labels blocks: where the videos are and what is known of them."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from reelwright.stages.base.config import Settings
from reelwright.stages.base.fields import execution
from reelwright.stages.synthesize.config import SourceConfig


class VideosConfig(Settings):
    """Where the videos are: one of manifest, folder, features, glob, synthesize.

    Relative paths start at the pipeline file.
    """

    manifest: str | None = None
    """A .csv, .tsv or .parquet table with the columns path and, if wanted, video_id, split, label and more. This,
    folder, features, glob and root may be URLs (s3://bucket/...)."""
    folder: str | None = None
    """A folder: every video file below it; train/, val/, test/ on top are the splits."""
    features: str | None = None
    """A folder of files of features (.npy .npz .pt .h5 .mat), each standing for its video; splits as for folder."""
    glob: str | None = None
    """A pattern such as clips/**/*.mp4, or one that names folders of numbered images."""
    synthesize: SourceConfig | None = None
    """Videos that are made, in the store; `reelwright settings synthesize` lists what can be asked for."""
    root: str | None = None
    """Where relative paths of the manifest and the glob start; null: the manifest's, the pipeline file's for a glob."""
    split: str = "train"
    """Split of videos for which none is given."""
    split_column: str = "split"
    """Column of the manifest that has the split, as one with the people for `folds`."""
    splits: tuple[str, ...] = ("train", "val", "test")
    """Splits that may occur."""
    digest: Literal["full", "quick"] = "full"
    """How contents are told apart; quick reads 3 MiB of each file, for huge sets."""
    missing: Literal["error", "skip"] = "error"
    """What to do with rows whose file is not there."""
    workers: PositiveInt | None = execution(None)
    """Probing (and, of synthesize, making) processes; null: one for each CPU core, at most 8."""
    timeout_seconds: PositiveFloat = execution(120.0)
    """Time limit for probing one video."""
    quarantine_after: PositiveInt | None = execution(3)
    """Failed attempts of a video at one node, over all runs, after which it is left alone; null: never."""
    max_failed: float = execution(0.5, ge=0, le=1)
    """Share of the videos that may fail before a node that learns or concludes from all of them refuses to go on
    without these; it warns of any. 1: goes on with whatever is left."""

    @model_validator(mode="after")
    def _one_source(self) -> VideosConfig:
        sources = ("manifest", "folder", "features", "glob", "synthesize")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(sources)}, not {' and '.join(given) or 'none'}")
        without = [name for name in ("root", "split", "digest", "missing") if name in self.model_fields_set]
        if self.synthesize is not None and without:
            raise ValueError(f"{without[0]} has no meaning for videos that are made; leave it out")
        if self.root is not None and self.manifest is None and self.glob is None:
            raise ValueError(f"root is where paths of a manifest or glob start, not of {given[0]}; leave it out")
        if "split_column" in self.model_fields_set and self.manifest is None:
            raise ValueError("split_column is a column of the manifest, and there is none; leave it out")
        return self


class LabelsConfig(Settings):
    """What is known of the videos: one of column, columns, segments, steps and rows; a column beside a table too."""

    column: str | None = None
    """A column of the manifest with the video's own label. Beside segments, steps or rows: the action that these are
    of, for `per_action` of probe and `views.one_label`; its names are no classes."""
    columns: dict[str, str] | None = None
    """Columns of the manifest with several labels of the video, by head: {verb: verb_class, noun: noun_class}."""
    segments: str | None = None
    """A table video_id, start_seconds, stop_seconds, label; half-open; later starts win where segments overlap.
    synthesize: that of the procedure videos which the pipeline makes; the same for steps."""
    steps: str | None = None
    """A table video_id, time_seconds, step of completions."""
    rows: str | None = None
    """A table video_id, frame, label of single frames; or video_id, time_seconds, label, where a label holds until the
    next time. Of two lines of one frame or time the later one wins; for task multi_label both count."""
    classes: PositiveInt | tuple[str, ...] | dict[str, PositiveInt | tuple[str, ...]] | None = None
    """Class names in the order of their ids, or a number K: classes are named 0 to K - 1; null: all names that occur,
    sorted. Of columns by head: {verb: 97, noun: 300}, null for heads that are not named."""
    background: str | None = None
    """Class of time that no segment or row covers, of videos without any line too; null: such rows have no label."""
    directed: bool | None = execution(None)
    """Whether a mirror image (left and right) may be of another class, so that flips are refused in training; null:
    where two classes differ by left and right alone, as turn_left and turn_right."""
    time_origin: Literal["container", "first_frame"] = "container"
    """Where the seconds of a table count from: presentation times, as the video has them, or its first frame."""
    max_unmatched: float = execution(0.5, ge=0, le=1)
    """Share of the video ids in a table that no video may have before this is an error; each run warns of any. 1: the
    table may be of other videos."""
    max_unlabelled: float = execution(1.0, ge=0, le=1)
    """Share of the videos of a split that may have no label before this is an error; each run warns of any."""

    @property
    def column_beside(self) -> str | None:
        """The column where it stands beside a table; None where it is the only source, or there is none."""
        return self.column if self.segments or self.steps or self.rows else None

    @model_validator(mode="after")
    def _one_source(self) -> LabelsConfig:
        names = ("column", "columns", "segments", "steps", "rows")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1 and not (len(given) == 2 and self.column_beside):
            raise ValueError(
                f"give exactly one of {', '.join(names)}, not {' and '.join(given) or 'none'}; a column may stand "
                "beside segments, steps or rows"
            )
        if self.column is not None and not self.column_beside and self.background is not None:
            raise ValueError("background is of time that nothing covers; a column labels whole videos, leave it out")
        return self

    @model_validator(mode="after")
    def _heads_have_names(self) -> LabelsConfig:
        if self.columns is None:
            if isinstance(self.classes, dict):
                raise ValueError("classes by head are of columns; give a list of names or a number of classes")
            return self
        wrong = [name for name in self.columns if not name.isidentifier() or name == "action"]
        if wrong or not self.columns:
            raise ValueError(
                f"columns: heads are named with letters, digits and underscores, and not 'action', which stands for "
                f"all heads at once; not {', '.join(map(repr, wrong)) or 'none'}"
            )
        if self.background is not None or not isinstance(self.classes, dict | None):
            raise ValueError(
                "columns have classes of their own, head by head; leave background out, and give classes by head or not"
            )
        for name in self.classes or {}:
            if name not in self.columns:
                raise ValueError(f"classes: {name!r} is no head of columns, which has {', '.join(self.columns)}")
        return self

    def class_names(self, head: str | None = None) -> tuple[str, ...] | None:
        """The names that are set, of a head where there are several; None: those that occur."""
        given = self.classes if head is None else (self.classes or {}).get(head)  # type: ignore[union-attr]
        assert not isinstance(given, dict)
        return tuple(str(number) for number in range(given)) if isinstance(given, int) else given
