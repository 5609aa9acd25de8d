"""Nodes of several seeds or folds: one a seed or a fold, of all that read it too, and a summary of their scores.

    train: {uses: train, seeds: [0, 3]}     train@0 -> predict@0 -> scores@0 -+
                                            train@3 -> predict@3 -> scores@3 -+-> scores: mean, standard deviation

    train: {uses: train, folds: all}        train@anna  (learns from all splits but anna) -> predict -> scores of anna

Each node has the key that it would have if it stood in the file by itself with that `seed`, or those splits: what is
there stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reelwright.stages.base.config import StageConfig, parse_config
from reelwright.stages.base.registry import config_model, summary_stage
from reelwright.storage.errors import ConfigError

SEEDS, SEED, FOLDS = "seeds", "seed", "folds"
BETWEEN = "@"
_LEARNT, _CHOSEN, _MEASURED = "train_splits", "val_splits", "splits"

Seeds = tuple[int, ...] | tuple[str, ...]  # or folds, the splits that are held out in turn


def base_name(node: str) -> str:
    """The name that a node has in the file: ``train@3`` -> ``train``."""
    return node.partition(BETWEEN)[0]


def seeds_of(block: Mapping[str, Any], model: type[StageConfig], *, where: str) -> tuple[int, ...] | None:
    """The seeds that a node of the file asks for; None where it asks for none, or its stage has `seeds` of its own.

    Raises ConfigError for what is no number or list of seeds, and for a stage without `seed`.
    """
    given = block.get(SEEDS)
    if given is None or SEEDS in model.model_fields:
        return None
    if SEED not in model.model_fields:
        raise ConfigError(
            f"{where}.{SEEDS}: {model.stage} has no seed. Give {SEEDS} to the node above it that has one (train, for "
            "instance); what reads that node is done for each of its seeds"
        )
    if SEED in block:
        raise ConfigError(
            f"{where}: {SEED}: {block[SEED]} and {SEEDS}: {given}; give one of the two ({SEEDS}: 4 are 0, 1, 2 and 3; "
            f"{SEEDS}: [0, 7] are these)"
        )
    listed = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    is_list = isinstance(listed, list) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in listed)
    if not is_list or not listed or min(listed) < 0 or len(set(listed)) < len(listed):
        raise ConfigError(
            f"{where}.{SEEDS}: {given!r} is not allowed: how many (4: 0, 1, 2 and 3), or a list of different numbers "
            "from 0 on ([0, 7])"
        )
    return tuple(listed)


def folds_of(
    block: Mapping[str, Any], model: type[StageConfig], *, splits: Sequence[str], where: str
) -> tuple[str, ...] | None:
    """The folds that a node of the file asks for: splits each of which is held out once; None where it asks for none.

    Raises ConfigError for what is no list of two or more of the ``splits``, and where other settings say otherwise.
    """
    given = block.get(FOLDS)
    if given is None:
        return None
    if model.kind != "run" or _LEARNT not in model.model_fields:
        raise ConfigError(
            f"{where}.{FOLDS}: {model.stage} does not learn from videos. Give {FOLDS} to the node that does (as "
            "train); what reads that node is done for each of its folds"
        )
    for other in (SEEDS, _LEARNT):
        if block.get(other) is not None:
            raise ConfigError(
                f"{where}: {FOLDS} and {other}: give one of the two ({FOLDS} learn from all folds but one)"
            )
    listed = list(splits) if given == "all" else given
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"{where}.{FOLDS}: {given!r} is not allowed: all (of videos.splits), or a list of two or more of these"
        )
    wrong = [name for name in names if name not in splits or not name.replace("_", "").replace("-", "").isalnum()]
    if wrong:
        raise ConfigError(
            f"{where}.{FOLDS}: {wrong[0]!r} is none of videos.splits ({', '.join(splits)}), or has other letters than "
            "letters, digits, _ and -. Say which splits there are, as in "
            f"videos: {{splits: [{', '.join(names)}]}}, and which column of the manifest has them, as in "
            "videos: {split_column: subject}"
        )
    held = [name for name in block.get(_CHOSEN) or () if name in names]
    if held:
        raise ConfigError(
            f"{where}.{_CHOSEN}: {held[0]} is a fold; what chooses the weights must not be what is scored"
        )
    return tuple(names)


def spread(nodes: Mapping[str, StageConfig], asked: Mapping[str, Seeds], *, where: str) -> dict[str, StageConfig]:
    """The nodes with one a seed in place of each that has several, or reads one that has.

    Raises ConfigError where a node and what it reads have other seeds: a node of seed 3 reads those of seed 3.
    """
    reads = {name: [parent for names in config.inputs().values() for parent in names] for name, config in nodes.items()}
    seeds = _seeds_of_all(nodes, asked, reads, where=where)
    _check(nodes, asked, seeds, where=where)
    found: dict[str, StageConfig] = {}
    for name, config in nodes.items():
        if name not in seeds:
            found[name] = _reading(config, {parent: _of_seeds(parent, seeds[parent]) for parent in seeds})
            continue
        for seed in seeds[name]:
            one = _reading(config, {parent: [_of_seed(parent, seed)] for parent in seeds})
            changed = _varied(one, seed, seeds[name], is_own=name in asked)
            found[_of_seed(name, seed)] = one.model_copy(update=changed) if changed else one
        stage = summary_stage(config.produces)
        if stage is not None:
            values = {config.produces: _of_seeds(name, seeds[name])}
            found[name] = parse_config(config_model(stage, where=name), values, where=f"{where}: stages.{name}")
    return found


def _seeds_of_all(
    nodes: Mapping[str, StageConfig], asked: Mapping[str, Seeds], reads: Mapping[str, list[str]], *, where: str
) -> dict[str, Seeds]:
    """Seeds by node, of those that have several: their own, or those of what they read; a summary reads them all."""
    seeds, before = dict(asked), -1
    while before < len(seeds):
        before = len(seeds)
        for name, config in nodes.items():
            if config.stage == summary_stage(config.produces):
                continue
            for parent in reads[name]:
                if parent in seeds and seeds.setdefault(name, seeds[parent]) != seeds[parent]:
                    raise ConfigError(
                        f"{where}: stages.{name} has seeds {_listed(seeds[name])}, but {parent}, which it reads, has "
                        f"{_listed(seeds[parent])}; a node of a seed (or fold) reads the one of the same seed, so give "
                        "both the same, or leave them out here"
                    )
    return seeds


def _check(
    nodes: Mapping[str, StageConfig], asked: Mapping[str, Seeds], all_seeds: Mapping[str, Seeds], *, where: str
) -> None:
    """Raise ConfigError for a node whose seed changes nothing, and one of a fold that says its splits itself."""
    for name, seeds in all_seeds.items():
        config = nodes[name]
        own = set() if isinstance(seeds[0], int) or name in asked else config.model_fields_set
        if not set(getattr(config, _CHOSEN, ())) & set(seeds):
            own = own - {_CHOSEN}
        given = next((field for field in _splits_of_fold(config) if field in own), None)
        if given is not None:
            raise ConfigError(
                f"{where}: stages.{name}.{given}: it reads a node of the folds {_listed(seeds)}, each of which is held "
                f"out once: that says {given}; leave it out"
            )
    of_seeds = [name for name, seeds in asked.items() if isinstance(seeds[0], int)]
    idle = next((name for name in of_seeds if not nodes[name].counts(SEED)), None)
    if idle is not None:
        raise ConfigError(
            f"{where}: stages.{idle}.{SEEDS}: its settings draw nothing with a seed, so all would be the same. Leave "
            f"{SEEDS} out, or give it to the node that trains"
        )


def _varied(config: StageConfig, seed: int | str, seeds: Seeds, *, is_own: bool) -> dict[str, Any]:
    """What a node of one seed has of its own; of a fold all that learn, and what scores or draws: what is held out."""
    if isinstance(seed, int):
        return {SEED: seed} if is_own else {}
    chosen = getattr(config, _CHOSEN, ()) if _CHOSEN in config.model_fields_set else ()
    others = tuple(name for name in seeds if name != seed)
    values = {_LEARNT: others, _CHOSEN: chosen, _MEASURED: (seed,)}
    return {name: values[name] for name in _splits_of_fold(config)}


def _splits_of_fold(config: StageConfig) -> tuple[str, ...]:
    """The settings that say of which splits a node learns, or which it scores or draws."""
    known = {"run": (_LEARNT, _CHOSEN), "scores": (_LEARNT, _MEASURED), "pictures": (_MEASURED,)}
    names = known.get(config.produces, ())
    return tuple(name for name in names if name in type(config).model_fields)


def _reading(config: StageConfig, names: Mapping[str, list[str]]) -> StageConfig:
    """The settings with other names of the nodes that they read."""
    changed: dict[str, Any] = {}
    for field, read in config.inputs().items():
        if not any(name in names for name in read):
            continue
        renamed = [other for name in read for other in names.get(name, [name])]
        is_one = isinstance(getattr(config, field), str)
        changed[field] = renamed[0] if is_one else type(getattr(config, field))(renamed)
    return config.model_copy(update=changed) if changed else config


def _of_seed(name: str, seed: int | str) -> str:
    return f"{name}{BETWEEN}{seed}"


def _of_seeds(name: str, seeds: Seeds) -> list[str]:
    return [_of_seed(name, seed) for seed in seeds]


def _listed(seeds: Seeds) -> str:
    return ", ".join(map(str, seeds))
