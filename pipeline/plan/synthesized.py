"""Videos that the pipeline makes for itself (`videos.synthesize`): what is there of them, and what is to be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.reasons import differing, shown
from reelwright.stages.synthesize.source import SyntheticSet, synthetic_set
from reelwright.storage.errors import InputError
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.records import last_record
from reelwright.storage.tables.manifest import ManifestVideo

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
    return synthetic_set(config, store=file.store, classes=classes, folder=folder)


def synthetic_digests(wanted: SyntheticSet | None, videos: Sequence[ManifestVideo]) -> dict[str, str] | None:
    """What stands for the contents of synthetic videos, by path; None for others."""
    return None if wanted is None else {video.path: wanted.digest_of(video.video_id) for video in videos}


def why_to_make(file: PipelineFile, wanted: SyntheticSet) -> list[str]:
    """What is otherwise than when this pipeline file made videos last, and how many are to be made."""
    last = last_record(file.store.project(file.path), NODE)
    reasons = ["never ran"] if last is None else differences(last.material, wanted.material)
    return [*reasons, f"{wanted.num_to_make:,} of {wanted.config.samples:,} to make"]


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """``seed: 1 -> 2``, a line each."""
    return [
        f"{path.removeprefix('spec.')}: {shown(before)} -> {shown(after)}"
        for path, before, after in differing(old, new)
    ]
