"""The finished nodes of a store and what rests on what: from a run back to its frames, forward to its scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from reelwright.pipeline.config.seeds import base_name
from reelwright.pipeline.plan.keys import reads, run_identity, started_from
from reelwright.pipeline.plan.reasons import TARGETS, flat
from reelwright.stages.base.registry import IMPORTS_RUN, produced_by
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError
from reelwright.storage.ledger.records import Record, check_schema, read_records
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import UNKNOWN

_SHOWN_KEY_DIGITS = 8


@dataclass(frozen=True)
class History:
    """All records of a store, found by whatever later keys name them by."""

    store: Store
    records: dict[str, Record] = field(default_factory=dict)  # by key

    @classmethod
    def of(cls, store: Store) -> History:
        """Read them all. Raises ConfigError for a store of a newer release."""
        check_schema(store)
        return cls(store, {record.key: record for record in read_records(store)})

    @cached_property
    def runs(self) -> list[Record]:
        """Trained models, oldest first."""
        found = (record for record in self.records.values() if produced_by(record.stage) == "run")
        return sorted(found, key=lambda record: (record.finished, record.key))

    @cached_property
    def by_name(self) -> dict[str, Record]:
        """Records by spec key, key, and the identity of a run's weights."""
        named = {record.spec_key: record for record in self.records.values()}
        named.update(self.records)
        for record in self.runs:  # a fine-tuned run finds the run it started from, which is older
            if "weights" in record.outputs:
                named[run_identity(record.outputs["weights"], _reads(record, named))] = record
        return named

    def find(self, prefix: str) -> Record:
        """The record whose key starts with ``prefix``. Raises ConfigError when there is none, or more than one."""
        found = [record for key, record in sorted(self.records.items()) if key.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        message = ", ".join(f"{short(record.key)} ({record.node})" for record in found[:10])
        raise ConfigError(
            f"key {prefix!r} fits {len(found)} records of the store{f': {message}. Give more digits' if found else ''}"
        )

    def parents(self, record: Record) -> Iterator[tuple[str, Record]]:
        """(input field, record) of what a record read and the store still knows; ``field[1]`` where there are more."""
        for name, values in sorted(record.material.get("inputs", {}).items()):
            if isinstance(values, list):
                known = [(place, self.by_name[value]) for place, value in enumerate(values) if value in self.by_name]
                for place, parent in known:
                    yield (f"{name}[{place}]" if len(values) > 1 else name), parent

    def settings(self, record: Record, path: str = "") -> dict[str, Any]:
        """Dotted name -> value of all settings behind a record, those of its inputs under the input's name."""
        found = dict(flat(record.material.get("spec", {}), path))
        found.update(flat({"plugins": record.material["plugins"]} if "plugins" in record.material else {}, path))
        if produced_by(record.stage) == "run":
            inputs = record.material.get("inputs", {})
            found.update({f"{path}{name}": inputs[name] for name in ("videos", "classes", "heads") if name in inputs})
            if inputs.get("background", UNKNOWN) != UNKNOWN:
                found[f"{path}background"] = inputs["classes"][inputs["background"]]
        found.update(flat({TARGETS: record.outputs[TARGETS]} if TARGETS in record.outputs else {}, path))
        for name, parent in self.parents(record):
            found.update(self.settings(parent, f"{path}{name}."))
        return found

    def sources(self, record: Record, path: str = "") -> dict[str, str]:
        """Dotted name -> digest of the files behind a record, such as weights, whose contents are in no setting."""
        inputs = record.material.get("inputs", {})
        found = {f"{path}{name}": value for name, value in inputs.items() if isinstance(value, str)}
        for name, parent in self.parents(record):
            found.update(self.sources(parent, f"{path}{name}."))
        return found

    def scores_of(self, run: Record) -> dict[str, dict[str, Any]]:
        """Headline scores of the records of scores that rest on a run, by node name; the newest where several do."""
        return {node: dict(record.outputs) for node, record in self._scores.get(run.key, {}).items()}

    def targets_of(self, run: Record) -> dict[str, str]:
        """By the same names, a digest of the contents and labels on which those scores are; empty where not noted."""
        return {node: self._targets(record) for node, record in self._scores.get(run.key, {}).items()}

    def _targets(self, scores: Record) -> str:
        splits = scores.material["spec"]["splits"]
        for _, parent in self.parents(scores):
            if produced_by(parent.stage) == "steps":
                inputs = parent.material["inputs"]
                return digest([inputs.get(name) for name in ("names and labels", "truth", "procedure")])
            if TARGETS in parent.outputs:
                return digest({split: parent.outputs[TARGETS].get(split) for split in splits})
        return str(scores.material["inputs"].get("names and labels", ""))  # of rows, which know no labels

    @cached_property
    def _scores(self) -> dict[str, dict[str, Record]]:
        found: dict[str, dict[str, Record]] = {}
        for record in sorted(self.records.values(), key=lambda record: record.finished):
            if produced_by(record.stage) == "scores":
                for run in self._runs_behind(record):
                    found.setdefault(run.key, {})[base_name(record.node)] = record
        return found

    def best(self, run: Record) -> tuple[str, float] | None:
        """The metric on val that chose the weights, and its best value; None without validation, or of a taken run."""
        if run.stage == IMPORTS_RUN:
            return None
        file = RunFolder(self.store.run(run.key))
        self.store.backend.pull(file.path, skip=_is_no_summary)
        summary = file.summary() if self.store.backend.has(file.weights) else {}
        return None if summary.get("best") is None else (f"val_{summary['metric']}", float(summary["best"]))

    def _runs_behind(self, record: Record) -> list[Record]:
        """The runs whose predictions a record reads, else those whose rows it reads; not what these started from.

        Rows that stand beside others only (of probe) are not what scores rest on.
        """
        read = [parent for name, parent in self.parents(record) if not name.startswith("beside")]
        parents = [(produced_by(parent.stage), parent) for parent in read]
        found = [parent for made, parent in parents if made == "run"]
        for kinds in ({"predictions", "steps"}, {"embeddings"}):
            found = found or [run for made, parent in parents if made in kinds for run in self._runs_behind(parent)]
        return found


def short(key: str) -> str:
    """The first digits of a key, as tables show it."""
    return key[:_SHOWN_KEY_DIGITS]


def _reads(record: Record, named: Mapping[str, Record]) -> dict[str, Any]:
    starts = started_from(record.stage, record.material["inputs"])
    return reads(record.material, [_reads(named[name], named) for name in starts if name in named])


def _is_no_summary(name: str) -> bool:
    return name != "summary.json"
