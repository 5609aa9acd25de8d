"""The videos that a pipeline makes for itself: what is asked for, and why some of it is to be made."""

from __future__ import annotations

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.reasons import differing, shown
from reelwright.stages.synthesize.source import SyntheticSet
from reelwright.storage.errors import InputError
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.records import last_record

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


def why_to_make(file: PipelineFile, wanted: SyntheticSet) -> list[str]:
    """What is otherwise than when this pipeline file made videos last, and how many are to be made."""
    last = last_record(file.store.project(file.path), NODE)
    found = () if last is None else differing(last.material, wanted.material)
    reasons = [f"{path.removeprefix('spec.')}: {shown(old)} -> {shown(new)}" for path, old, new in found]
    reasons += ["never ran"] if last is None else []
    return [*reasons, f"{wanted.num_to_make:,} of {wanted.config.samples:,} to make"]
