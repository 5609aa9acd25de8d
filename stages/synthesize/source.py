"""The videos that a pipeline makes for itself: the key of the set, where it lies, and what of it is there.

The key follows from the settings and the seed, a video's digest from that key and its name: both are known without
reading a file, and are the same on every machine. How many there are, and of which split, is in no key. What was made
is listed in the item ledger of the key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from reelwright.stages.base.registry import load
from reelwright.stages.base.work import VideoItem, Work
from reelwright.stages.synthesize.config import (
    ACTIONS,
    LABEL_PARTS,
    NUM_PERLIN_CLASSES,
    PROCEDURE,
    PROCEDURE_VERSION,
    VERSION,
    SourceConfig,
    label_parts,
)
from reelwright.storage.digests import digest, item_key
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store
from reelwright.storage.tables.manifest import ManifestVideo

STAGE = "synthesize"
DEGENERATE = "degenerate"  # every draw of a sample is: it would be so again


@dataclass(frozen=True)
class SyntheticSet:
    """What `videos.synthesize` asks for, in a store."""

    config: SourceConfig
    store: Store
    classes: Mapping[str, str]  # name -> digest of the class files that are named; empty: none are
    class_folder: Path | None = None  # where these are

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
    def folder(self) -> Path:
        """Where the videos lie, as the command writes them."""
        return self.store.output("videos", self.key)

    @cached_property
    def place(self) -> str:
        """The same, as people and other machines call it: in a bucket its URL."""
        return self.store.backend.name_of(self.folder)

    @cached_property
    def rows(self) -> dict[str, ItemRow]:
        """What was tried so far, by name: more perhaps than is asked for. Files of classes have no name."""
        return {row.name: row for row in ItemLedger(self.store.node(self.key)).load().values() if row.name}

    @cached_property
    def made(self) -> dict[str, ItemRow]:
        """What was tried of what is asked for, by name, in the order of samples."""
        if self.config.family == PROCEDURE:
            return {name: self.rows[name] for name in procedure_names(self.config) if name in self.rows}
        by_number = {number_of(name): row for name, row in self.rows.items()}
        numbers = range(1, self.config.samples + 1)
        return {by_number[number].name: by_number[number] for number in numbers if number in by_number}

    @property
    def videos(self) -> list[ManifestVideo]:
        """The finished videos, with labels and splits."""
        good = ((number, row) for number, row in enumerate(self.made.values(), start=1) if row.is_done)
        label_of, parts = _label_of, LABEL_PARTS.get(self.config.family, ())
        if self.config.family == PROCEDURE:
            variant_of = load("reelwright.stages.synthesize.procedures.write:variant_of")
            label_of = partial(variant_of, settings=self.config.procedure)
        return [
            ManifestVideo(
                row.name,
                f"{self.place}/{row.file}",
                self._split(row.name),
                label_of(row.name),
                number,
                label_parts(label_of(row.name), parts),
            )
            for number, row in good
        ]

    @property
    def num_to_make(self) -> int:
        """How many samples are not there."""
        return self.config.samples - len(self.made) + len(self._gone(self.made.values()))

    @property
    def given_up(self) -> tuple[ItemRow, ...]:
        """Samples that were tried without success."""
        return tuple(row for row in self.made.values() if not row.is_done)

    def lacks(self, *, again: bool) -> bool:
        """Whether there is anything to make; with ``again`` also what failed and may not do so once more."""
        return bool(self.num_to_make) or (again and any(row.cause != DEGENERATE for row in self.given_up))

    def settled(self, *, again: bool) -> set[str]:
        """Names of what is not to be made: it is there, or was tried without success (with ``again``: degenerate)."""
        tried = {name for name, row in self.rows.items() if row.is_done or not again or row.cause == DEGENERATE}
        return tried - self._gone(self.rows.values())

    def digest_of(self, name: str) -> str:
        """How a video stands in the keys of what is made of it."""
        return item_key(self.key, name)

    def work(self, items: tuple[VideoItem, ...], *, node: str, workers: int | None) -> Work:
        """The unit of work that makes ``items``; ``workers`` are its processes, None: as many as suit the machine."""
        config = {**self.config.model_dump(mode="json"), "workers": workers}
        return Work(
            node=node,
            stage=STAGE,
            key=self.key,
            config={**config, "class_files": None if self.class_folder is None else str(self.class_folder)},
            spec=self.material,
            store=self.store.place,
            inputs={},
            items=items,
        )

    def _gone(self, rows: Iterable[ItemRow]) -> set[str]:
        """Names of those whose file is not there any more; a bucket is listed once."""
        done, backend = [row for row in rows if row.is_done], self.store.backend
        if backend.url is None:
            folder = self.folder
            return {row.name for row in done if not os.path.exists(folder / row.file)}  # noqa: PTH110 - 100,000
        present = {name for name, _ in backend.entries(self.folder)} if done else set()
        return {row.name for row in done if row.file not in present}

    def _split(self, name: str) -> str:
        if self.config.family == PROCEDURE:
            return name.partition("_")[0]
        actions = self.config.actions
        fixed = {"perlin": NUM_PERLIN_CLASSES, ACTIONS: len(actions.verbs) * len(actions.nouns)}
        num_classes = fixed.get(self.config.family, self.config.num_classes)
        return self.config.split_of((number_of(name) - 1) // (num_classes or len(self.classes) or 1))


def procedure_names(config: SourceConfig) -> Iterator[str]:
    """Names of the procedure videos that are asked for."""
    num_train = config.samples - config.num_val - config.num_test
    for split, count in (("train", num_train), ("val", config.num_val), ("test", config.num_test)):
        yield from (f"{split}_{index:02d}" for index in range(count))


def _label_of(name: str) -> str:
    return name.rpartition("/")[0]


def number_of(name: str) -> int:
    """The number of a sample, from 1; not of procedures."""
    return int(name.rpartition("/")[2].split("-")[0])
