"""A pipeline without a file: nodes put together for the videos or features that a person names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from reelwright.pipeline.config.overrides import BLOCKS, merge
from reelwright.pipeline.config.pipeline_file import PipelineFile, build_pipeline
from reelwright.storage.errors import ConfigError
from reelwright.storage.store import is_url
from reelwright.storage.tables.feature_files import is_feature_file
from reelwright.storage.tables.manifest import is_table_name, is_video_name
from reelwright.storage.tables.names import is_pattern


def adhoc_pipeline(
    command: str,
    videos: Mapping[str, Any],
    nodes: Mapping[str, Mapping[str, Any]],
    overrides: Sequence[str],
    *,
    labels: Mapping[str, Any] | None = None,
    path: Path | None = None,
    store: str | None = None,
) -> PipelineFile:
    """A checked pipeline that a command makes for itself; relative paths start at the working folder, or beside path.

    An override that begins with neither a node nor a block is a setting of the last node, which is what the command
    is for: ``epochs=5``. Raises ConfigError.
    """
    known = {*nodes, *BLOCKS}
    prefix = f"{list(nodes)[-1]}." if nodes else ""
    full = [entry if entry.split("=")[0].split(".")[0] in known else f"{prefix}{entry}" for entry in overrides]
    blocks = {"videos": videos, "labels": labels, "store": store, "stages": nodes}
    content = OmegaConf.create({name: block for name, block in blocks.items() if block is not None})
    path = path or Path.cwd() / f"reelwright-{command}.yaml"
    return build_pipeline(merge(content, full, path), path=path, overrides=full)


def videos_block(source: str, *, folder: str = "folder") -> dict[str, Any]:
    """The block ``videos:`` of a manifest, a folder of what ``folder`` says, one file, or a pattern.

    Raises ConfigError when there is no such thing.
    """
    if Path(source).is_dir():
        return {folder: source}
    if is_table_name(source):
        return {"manifest": source}
    if is_pattern(source) or Path(source).is_file():
        return {"glob": source}
    if is_url(source):
        return {"glob" if is_video_name(source) or is_feature_file(source) else folder: source}
    raise ConfigError(
        f"{source!r}: no such manifest (.csv, .tsv, .parquet), folder, file or pattern (such as 'clips/*.mp4')"
    )
