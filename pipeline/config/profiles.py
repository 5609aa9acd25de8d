"""The user's profiles (one block a cluster), and what a command, a pipeline file and a profile say together.

# ~/.config/reelwright/clusters.yaml, or the file that $REELWRIGHT_CLUSTERS names
snellius: {executor: slurm, partition: gpu, account: abc, gpus: 1, memory: 60GB, time: "08:00:00"}
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reelwright.pipeline.config.cluster import ClusterSettings
from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.stages.base.config import parse_config
from reelwright.storage.errors import ConfigError, nearest

VARIABLE = "REELWRIGHT_CLUSTERS"


def profiles_path() -> Path:
    """The file of profiles, whether it is there or not."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "reelwright" / "clusters.yaml"


def cluster_settings(file: PipelineFile, given: Mapping[str, Any]) -> ClusterSettings:
    """What holds: options of the command (``given``), over the file's `cluster:` block, over the profile.

    Raises ConfigError for an unknown profile or key, with file, key, value and what is allowed.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    block = dict(file.cluster)
    if chosen.get("scheduler") is not None and "executor" not in chosen:
        chosen["executor"] = "dask"
    name = chosen.get("profile", block.get("profile"))
    where = f"{file.path}: cluster"
    parse_config(ClusterSettings, {**block, **chosen}, where=where)  # its own mistakes are told as its own
    layers = [layer for layer in (_profile(name), block, chosen) if layer]
    merged = _merged(layers) if len(layers) > 1 else dict(*layers)
    settings = parse_config(ClusterSettings, merged, where=where)
    if settings.scheduler is not None and settings.executor != "dask":
        raise ConfigError(f"{where}: scheduler is for executor: dask, not for {settings.executor}. Remove one of them.")
    return settings


def _merged(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    merged = OmegaConf.to_container(OmegaConf.merge(*layers))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def _profile(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    path = profiles_path()
    if not path.is_file():
        raise ConfigError(
            f"cluster.profile {name!r}: there is no file of profiles, {path}. Write one, or leave it out."
        )
    from reelwright.pipeline.config.overrides import merge, read_yaml

    known = merge(read_yaml(path), (), path)
    if name not in known:
        listed = ", ".join(sorted(str(key) for key in known))
        hint = nearest(name, [str(key) for key in known])
        raise ConfigError(f"cluster.profile {name!r}: {path} has no such block.{hint} It has: {listed}")
    values = known[name]
    if not isinstance(values, dict) or "profile" in values:
        raise ConfigError(f"{path}: {name}: write settings of a cluster, without `profile`")
    parse_config(ClusterSettings, values, where=f"{path}: {name}")
    return {str(key): value for key, value in values.items()}
