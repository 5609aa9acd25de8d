"""The videos that a pipeline makes for itself: the key of the set, where it lies, and what of it is there.

The key follows from the settings and the seed, a video's digest from that key and its name: both are known without
reading a file, and are the same on every machine. How many there are, and of which split, is in no key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reelwright.stages.synthesize.config import (
    ACTIONS,
    LABEL_PARTS,
    NUM_PERLIN_CLASSES,
    PROCEDURE,
    PROCEDURE_VERSION,
    VERSION,
    SourceConfig,
)
from reelwright.stages.synthesize.ledger import Made, Present, label_parts, listed
from reelwright.storage.digests import digest, item_key
from reelwright.storage.store import Store
from reelwright.storage.tables.manifest import ManifestVideo

STAGE = "synthesize"


@dataclass(frozen=True)
class SyntheticSet:
    """What `videos.synthesize` asks for, in a store."""

    config: SourceConfig
    store: Store
    classes: Mapping[str, str]  # name -> digest of the class files that are named; empty: none are
    class_folder: Path | None  # where class files are, or will be drawn

    @cached_property
    def material(self) -> dict[str, Any]:
        """What the key is the digest of."""
        version = PROCEDURE_VERSION if self.config.family == PROCEDURE else VERSION
        spec = {**self.config.content(), "num_classes": self.config.num_classes}
        return {"stage": STAGE, "version": version, "spec": spec, "inputs": {"class_files": dict(self.classes)}}

    @cached_property
    def key(self) -> str:
        """The name of the set."""
        return digest(self.material)

    @property
    def class_key(self) -> str:
        """The name of the set of drawn classes; the set's own where none are drawn."""
        return _class_key(self.config) if self.config.num_classes else self.key

    @property
    def keys(self) -> set[str]:
        """What of the store it needs."""
        return {self.key, self.class_key}

    @property
    def folder(self) -> Path:
        """Where the videos lie, as the command writes them."""
        return self.store.synthetic(self.key)

    @cached_property
    def place(self) -> str:
        """The same, as people and other machines call it: in a bucket its URL."""
        return self.store.backend.name_of(self.folder)

    @cached_property
    def made(self) -> dict[str, Made]:
        """What is finished of what is asked for, by name, in the order of samples; those given up too."""
        if self.config.family == PROCEDURE:
            found = listed(self.folder)
            return {name: found[name] for name in _procedure_names(self.config) if name in found}
        by_number = {_number(name): made for name, made in listed(self.folder).items()}
        numbers = range(1, self.config.samples + 1)
        return {by_number[number].name: by_number[number] for number in numbers if number in by_number}

    @property
    def videos(self) -> list[ManifestVideo]:
        """The finished videos, with labels and splits."""
        good = ((row, made) for row, made in enumerate(self.made.values(), start=1) if not made.problem)
        return [
            ManifestVideo(
                made.name,
                f"{self.place}/{made.paths[0]}",
                self._split(made),
                made.label,
                row,
                label_parts(made.label, LABEL_PARTS.get(self.config.family, ())),
            )
            for row, made in good
        ]

    @property
    def num_to_make(self) -> int:
        """How many samples are not there."""
        present = Present.of(self.folder)
        gone = sum(not present.has(made.paths[0]) for made in self.made.values() if made.paths)
        return self.config.samples - len(self.made) + gone

    @property
    def given_up(self) -> tuple[Made, ...]:
        """Samples of which every draw was degenerate."""
        return tuple(made for made in self.made.values() if made.problem)

    def digest_of(self, name: str) -> str:
        """How a video stands in the keys of what is made of it."""
        return item_key(self.key, name)

    def _split(self, made: Made) -> str:
        if self.config.family == PROCEDURE:
            return made.name.partition("_")[0]
        actions = self.config.actions
        fixed = {"perlin": NUM_PERLIN_CLASSES, ACTIONS: len(actions.verbs) * len(actions.nouns)}
        num_classes = fixed.get(self.config.family, self.config.num_classes)
        return self.config.split_of((_number(made.name) - 1) // (num_classes or len(self.classes) or 1))


def synthetic_set(
    config: SourceConfig, *, store: Store, classes: Mapping[str, str], folder: Path | None
) -> SyntheticSet:
    """The set that ``config`` asks for; ``classes`` and ``folder`` are of `class_files` where that is given."""
    drawn = store.synthetic(_class_key(config)) if config.num_classes else None
    return SyntheticSet(config, store, classes, folder or drawn)


def _class_key(config: SourceConfig) -> str:
    spec = {**config.content(), "num_classes": config.num_classes}
    return digest({"stage": STAGE, "version": VERSION, "spec": spec, "inputs": {"made": "classes"}})


def _procedure_names(config: SourceConfig) -> Iterator[str]:
    num_train = config.samples - config.num_val - config.num_test
    for split, count in (("train", num_train), ("val", config.num_val), ("test", config.num_test)):
        yield from (f"{split}_{index:02d}" for index in range(count))


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].split("-")[0])
