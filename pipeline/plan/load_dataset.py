"""Reading the videos and labels that a pipeline file names, with the digests that are known already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.data_warnings import check_shares
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.reasons import differing, shown
from reelwright.stages.index.config import LabelsConfig
from reelwright.stages.synthesize.source import STAGE, SyntheticSet
from reelwright.storage.errors import ConfigError, InputError, nearest
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes
from reelwright.storage.ledger.records import last_record, older_note
from reelwright.storage.store import is_url
from reelwright.storage.tables.annotations import UNKNOWN, Annotation
from reelwright.storage.tables.feature_files import scan_features
from reelwright.storage.tables.labels import (
    LabelSet,
    labels_from_column,
    labels_from_columns,
    labels_from_table,
    with_video_labels,
)
from reelwright.storage.tables.manifest import (
    ManifestVideo,
    check_videos,
    read_manifest,
    scan_folder,
    scan_glob,
    scan_url,
)


def load_dataset(file: PipelineFile, known: KnownFiles | None = None) -> Dataset:
    """Read manifest and labels and look up what the store knows of the files: ``known``, where it was just read.

    Raises InputError that lists all problems with row numbers.
    """
    file.store.backend.check_readable()
    older = older_note(file.store)
    known = known or KnownFiles(file.store.files)
    synthetic = synthetic_set_of(file, known)
    left_out: list[str] = []
    videos, source = (synthetic.videos, synthetic.place) if synthetic is not None else _read_videos(file, left_out)
    quick = file.videos.digest == "quick"
    paths = [video.path for video in videos]
    known.look([path for path in paths if "://" in path and is_url(path)])
    digests = known.get_all(paths, quick=quick)  # a file that is not there has none
    missing = [
        video for video, digest in zip(videos, digests, strict=True) if digest is None and known.is_missing(video.path)
    ]
    is_skipped = file.videos.missing == "skip" or synthetic is not None  # `run` makes them
    if videos or synthetic is None:
        gone = () if is_skipped else missing
        check_videos(videos, source=source, splits=file.videos.splits, missing=gone, left_out=left_out)
    digest_of = {video.video_id: digest for video, digest in zip(videos, digests, strict=True)}
    for video in missing:
        del digest_of[video.video_id]
    present = [video for video in videos if video.video_id in digest_of] if missing else videos
    probes = KnownProbes(file.store.videos)
    dataset = Dataset(
        videos=tuple(present),
        labels=LabelSet((), {}),
        background=UNKNOWN,
        digests=digest_of,
        probes=probes.load(),
        files=known,
        quarantine_after=file.videos.quarantine_after,
        synthetic=synthetic,
        notes=(*([older] if older else ()), *left_out, *known.notes, *probes.notes),
        absent=frozenset(video.video_id for video in missing),
    )
    return with_labels(dataset, file, file.labels)


def _read_videos(file: PipelineFile, left_out: list[str]) -> tuple[list[ManifestVideo], str]:
    """The rows of the manifest, and what it is called in messages; why files are no videos goes to ``left_out``."""
    settings = file.videos
    root = file.place(settings.root or ".")
    if settings.manifest is not None:
        written = file.place(settings.manifest)
        root = root if settings.root else written.rpartition("/")[0]
        videos = read_manifest(
            file.local(settings.manifest), root=root, default_split=settings.split, split_column=settings.split_column
        )
        return videos, written
    if settings.folder is not None and is_url(settings.folder):
        return scan_url(settings.folder, default_split=settings.split, left_out=left_out), settings.folder
    if settings.folder is not None:
        source = file.resolve(settings.folder)
        return scan_folder(source, default_split=settings.split, left_out=left_out), str(source)
    if settings.features is not None:
        place = file.place(settings.features)
        return scan_features(place, default_split=settings.split, left_out=left_out), place
    pattern = str(settings.glob)
    return scan_glob(pattern, root=root, default_split=settings.split, left_out=left_out), pattern


def with_labels(dataset: Dataset, file: PipelineFile, settings: LabelsConfig | None) -> Dataset:
    """The same videos with other labels, as a node may have its own. Raises as `load_dataset` does."""
    if settings is None or not dataset.videos:  # none: synthetic ones that are still to be made
        return replace(dataset, labels=LabelSet((), {}), background=UNKNOWN, label_settings=settings)
    beside = settings.column_beside  # read by itself
    labels = _read_labels(file, settings.model_copy(update={"column": None}) if beside else settings, dataset)
    labels = with_video_labels(labels, dataset.videos, column=beside) if beside else labels
    background = _background(file, settings, labels)
    if settings.time_origin == "first_frame":
        labels = replace(labels, by_video=dict(_counted_from_first_frame(labels, dataset)))
    labelled = replace(dataset, labels=labels, background=background, label_settings=settings)
    check_shares(labelled)
    return labelled


def _counted_from_first_frame(labels: LabelSet, dataset: Dataset) -> Iterator[tuple[str, Annotation]]:
    """Annotations in presentation time, of times that count from the first frame, as far as its time is known."""
    for video_id, annotation in labels.by_video.items():
        probe = dataset.probes.get(dataset.digests[video_id] or "")
        yield video_id, annotation.later(probe.start_seconds) if probe is not None else annotation


def _read_labels(file: PipelineFile, settings: LabelsConfig, dataset: Dataset) -> LabelSet:
    videos, synthetic = dataset.videos, dataset.synthetic
    if settings.columns is not None:
        named = {head: settings.class_names(head) for head in settings.columns}
        return labels_from_columns(videos, columns=settings.columns, classes=named)
    classes = settings.class_names()
    if settings.column is not None:
        return labels_from_column(videos, column=settings.column, classes=classes)
    kind = next(kind for kind in ("segments", "steps", "rows") if getattr(settings, kind) is not None)
    written = getattr(settings, kind)
    path = file.local(written)
    if synthetic is not None and written == STAGE:
        path = synthetic.folder / f"{kind}.csv"
        file.store.backend.pull_file(path)
        if not path.exists():
            raise ConfigError(
                f"{file.path}: labels.{kind}: {synthetic.config.family} videos have no {kind}. Use column: label"
            )
    return labels_from_table(path, kind=kind, videos=videos, classes=classes, absent=dataset.absent)


def _background(file: PipelineFile, settings: LabelsConfig, labels: LabelSet) -> int:
    name = settings.background
    if name is None:
        return UNKNOWN
    if name not in labels.classes:
        hint = nearest(name, labels.classes)
        raise ConfigError(
            f"{file.path}: labels.background: {name!r} is no class.{hint} Known: {', '.join(labels.classes)}"
        )
    return labels.classes.index(name)


NODE = "videos"  # under this name its record lies beside those of the nodes


def synthetic_set_of(file: PipelineFile, known: KnownFiles) -> SyntheticSet | None:
    """What `videos.synthesize` asks for; None where the videos come from elsewhere. Raises InputError."""
    config = file.videos.synthesize
    if config is None:
        return None
    if config.into != "files":
        file.store.check_local(f"videos.synthesize.into: {config.into}")
    folder = None if config.class_files is None else file.resolve(config.class_files)
    paths = [] if folder is None else sorted(folder.glob("*.npz"))
    if folder is not None and not paths:
        raise InputError(f"{file.path}: videos.synthesize.class_files: no class file (*.npz) in {folder}")
    classes = {path.stem: known.digest(path) for path in paths}
    return SyntheticSet(config, file.store, classes, folder)


def synthetic_digests(wanted: SyntheticSet | None, videos: Sequence[ManifestVideo]) -> dict[str, str] | None:
    """What stands for the contents of synthetic videos, by path; None for others."""
    return None if wanted is None else {video.path: wanted.digest_of(video.video_id) for video in videos}


def why_to_make(file: PipelineFile, wanted: SyntheticSet) -> list[str]:
    """What is otherwise than when this pipeline file made videos last, and how many are to be made."""
    last = last_record(file.store.project(file.path), NODE)
    found = () if last is None else differing(last.material, wanted.material)
    reasons = [f"{path.removeprefix('spec.')}: {shown(old)} -> {shown(new)}" for path, old, new in found]
    reasons += ["never ran"] if last is None else []
    return [*reasons, f"{wanted.num_to_make:,} of {wanted.config.samples:,} to make"]
