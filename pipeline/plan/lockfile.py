"""The lock file beside the pipeline file: what a finished pipeline was made of, to be committed with it.

`run` writes it when all nodes have finished and it differs; `run --frozen` refuses to differ from it. A run with
overrides (-S, -m) is an experiment: it leaves the lock alone. Two things are not known before work starts:

- Training is not bit-exact across machines. A node whose key is the locked one may train, wherever it has not been
  trained before. When its weights come out otherwise, that is a note; what reads them then has other keys than the
  locked ones, and is held to all of its entry but these: its settings, its other inputs, its videos.
- Which videos fail. Where the lock counts failed videos that were not tried here yet, the set of videos of the nodes
  behind is compared when they are about to run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.graph import FRESH, Graph, Node, NodePlan, has_rows, is_identified
from reelwright.pipeline.plan.keys import hub_file, identity, material, named_videos, source_digests
from reelwright.pipeline.plan.plan import Planner
from reelwright.pipeline.plan.reasons import MISSING, differing, flat, shown
from reelwright.stages.synthesize.source import SyntheticSet
from reelwright.storage.digests import digest
from reelwright.storage.errors import ConfigError
from reelwright.storage.files import write_text

_FORMAT = 1
_UNKNOWN: Any = object()  # in place of an input that is not known before other nodes have run
_COMPARED = ("stage", "stage_version", "settings", "plugins", "inputs", "spec", "key")
_FOLLOWING = frozenset({"spec", "key"})  # told only where nothing before them differs
_HEAD = (
    "# What the last finished run was made of; written by `reelwright run`, to be committed with the pipeline file.\n"
)
Difference = tuple[str, Any, Any]  # dotted name of the field, locked value, present value


def lock_path(file: PipelineFile) -> Path:
    """``reelwright.lock`` beside ``reelwright.yaml``."""
    return file.path.with_suffix(".lock")


def write_lock(planner: Planner) -> bool:
    """Write the lock file when every node has finished and it differs; returns whether it was written."""
    file, plans = planner.file, planner.plans()
    if file.overrides or not file.path.is_file() or not all(_finished(plan) for plan in plans):
        return False
    if _is_current(lock_path(file), plans, _made_videos(planner)):
        return False
    nodes = {plan.node.name: {**_entry(plan, planner), **_outcome(plan)} for plan in plans}
    body = yaml.safe_dump(
        {"format": _FORMAT, **_made_videos(planner), "nodes": nodes}, sort_keys=True, allow_unicode=True, width=120
    )
    write_text(lock_path(file), _HEAD + body)
    return True


class Frozen:
    """The lock that a run must not differ from."""

    def __init__(self, file: PipelineFile) -> None:
        self.path = lock_path(file)
        self._file = file
        content = _read_lock(self.path)
        self._nodes: dict[str, dict[str, Any]] = content["nodes"]
        self._videos = content.get("videos", MISSING)

    def check_settings(self, graph: Graph) -> None:
        """Compare what is known without the videos. Raises ConfigError that names every difference."""
        differences: list[Difference] = []
        for name in sorted({*self._nodes, *graph.nodes}):
            if name in self._nodes and name in graph.nodes:
                differences += self._compare(name, _settings(graph.nodes[name]))
            else:
                differences.append((name, name in self._nodes or "no such node", name in graph.nodes or "no such node"))
        self._refuse(differences)

    def check_videos(self, synthetic: SyntheticSet | None) -> None:
        """Compare what videos the pipeline makes for itself, before any is made. Raises ConfigError."""
        now = MISSING if synthetic is None else _plain_videos(synthetic)
        if now is not self._videos:
            self._refuse(list(differing(self._videos, now, "videos")))

    def check_plans(self, planner: Planner) -> None:
        """Compare keys and inputs as far as they are known before work starts. Raises ConfigError."""
        unsure = self._unsure(planner)
        self._refuse([entry for name in planner.graph.nodes for entry in self._check(name, planner, unsure)])

    def check_node(self, plan: NodePlan, planner: Planner) -> None:
        """Compare a node that is about to run. Raises ConfigError."""
        self._refuse(self._check(plan.node.name, planner, set()))

    def notes(self, planner: Planner) -> tuple[str, ...]:
        """Weights that came out otherwise than locked, and what follows from that."""
        message = []
        for name in planner.graph.nodes:
            weights, locked = self._weights(name, planner)
            if weights and locked and weights != locked:
                behind = ", ".join(planner.graph.downstream(name)) or "nothing"
                message.append(
                    f"{name}: its weights are {weights}, not {locked} as locked, since training is not bit-exact "
                    f"across machines; so the keys of what reads them are others, too: {behind}"
                )
        return tuple(message)

    def _check(self, name: str, planner: Planner, unsure: set[str]) -> list[Difference]:
        node, moved = planner.graph.nodes[name], self._moved(name, planner)
        present = _entry(planner.plan(name), planner)
        if name in unsure or moved.intersection(node.parents):
            present.pop("key", None)
        if name in unsure:
            present["inputs"]["videos"] = _UNKNOWN
        for field, parents in node.inputs.items():
            by_videos = any(not has_rows(planner.graph.nodes[parent]) for parent in parents)
            if moved.intersection(parents) or (by_videos and unsure.intersection(parents)):
                present["inputs"][field] = _UNKNOWN
        return list(self._compare(name, present))

    def _compare(self, name: str, present: Mapping[str, Any]) -> Iterator[Difference]:
        """Fields of ``present`` that the lock has otherwise; the key only where nothing else tells why."""
        locked = self._nodes[name]
        message = False
        for field in (field for field in _COMPARED if field in present):
            before, now = locked.get(field, MISSING), present[field]
            if field == "inputs" and isinstance(before, Mapping):
                unknown = {entry for entry, value in now.items() if value is _UNKNOWN}
                before, now = ({entry: side[entry] for entry in side if entry not in unknown} for side in (before, now))
            found = list(differing(before, now, f"{name}.{field}"))
            if found and not (message and field in _FOLLOWING):
                message = True
                yield from found

    def _moved(self, name: str, planner: Planner) -> set[str]:
        """Nodes before ``name`` that depend on weights which are not the locked ones, or made them."""
        moved: set[str] = set()
        upstream = planner.graph.upstream([name]) - {name}
        for other in (other for other in planner.graph.nodes if other in upstream):
            weights, locked = self._weights(other, planner)
            if (weights and locked and weights != locked) or moved.intersection(planner.graph.nodes[other].parents):
                moved.add(other)
        return moved

    def _weights(self, name: str, planner: Planner) -> tuple[str | None, str | None]:
        record = planner.plan(name).record
        locked = self._nodes.get(name, {}).get("outputs", {}).get("weights")
        return (record.outputs.get("weights") if record else None), locked

    def _unsure(self, planner: Planner) -> set[str]:
        """Nodes whose videos depend on which of those before them will fail."""
        unsure: set[str] = set()
        for plan in planner.plans():
            failed = self._nodes[plan.node.name].get("videos", {}).get("failed", 0)
            if failed and len(plan.failed) < len(plan.todo):
                unsure.update(planner.graph.downstream(plan.node.name))
        return unsure

    def _refuse(self, differences: list[Difference]) -> None:
        if differences:
            lines = [f"{path}: locked {shown(old)}, now {shown(new)}" for path, old, new in differences]
            message = "\n  ".join(lines)
            raise ConfigError(
                f"{self._file.path.name} differs from {self.path.name}:\n  {message}\n"
                "Undo the change, or run without --frozen, which writes the lock file anew"
            )


def _is_current(path: Path, plans: Sequence[NodePlan], videos: Mapping[str, Any]) -> bool:
    """Whether a lock says the same; equal keys say it of settings and inputs, which are long to compare."""
    try:
        content = _read_lock(path)
    except ConfigError:
        return False  # not there or damaged, by a merge for instance: it is written anew
    nodes = content["nodes"]
    if list(nodes) != sorted(plan.node.name for plan in plans) or content.get("videos") != videos.get("videos"):
        return False
    message = {plan.node.name: {"key": plan.key, **_outcome(plan)} for plan in plans}
    return all(
        {field: nodes[name].get(field) for field in ("key", "videos", "outputs")}
        == {"videos": None, "outputs": None, **now}
        for name, now in message.items()
    )


def _finished(plan: NodePlan) -> bool:
    """Whether all of a node's items were tried, and what is made of them is in place."""
    if not plan.node.config.stores:
        return plan.state == FRESH and bool(plan.key)
    settled = plan.state == FRESH or (bool(plan.todo) and len(plan.failed) == len(plan.todo))
    return settled and plan.record is not None


def _settings(node: Node) -> dict[str, Any]:
    spec = node.config.spec()
    return {
        "stage": node.stage,
        "stage_version": node.config.version,
        "settings": dict(flat(spec)),
        "spec": digest(spec),
    }


def _entry(plan: NodePlan, planner: Planner) -> dict[str, Any]:
    """What is known of a node: settings, key and inputs."""
    entry = {**_settings(plan.node), "inputs": _inputs(plan, planner)}
    plugins = {name: plugin.material() for name, plugin in planner.plugins.of(plan.node).items()}
    entry |= {"plugins": plugins} if plugins else {}
    return {**entry, "key": plan.key} if plan.key else entry


def _outcome(plan: NodePlan) -> dict[str, Any]:
    """Counts, and the digest of weights."""
    record = plan.record
    counts = dict(record.items) if record is not None and record.items else {"total": len(plan.wanted)}
    weights = record.outputs.get("weights") if record is not None else None
    return {
        **({"videos": counts} if plan.node.config.kind != "table" else {}),
        **({"outputs": {"weights": weights}} if weights is not None else {}),
    }


def _inputs(plan: NodePlan, planner: Planner) -> dict[str, Any]:
    """What entered the key, by field; fields that other nodes must run for are _UNKNOWN."""
    inputs = dict(plan.material["inputs"]) if plan.material is not None else _known_inputs(plan, planner)
    if plan.node.config.kind == "items":
        inputs["videos"] = digest(_videos(plan, planner))
    return inputs


def _videos(plan: NodePlan, planner: Planner) -> list[Any]:
    """What of the videos is in the key of a node with items."""
    if plan.node.config.publishes:
        dataset = planner.dataset_of(plan.node)
        return [named_videos(dataset, plan.node, plan.wanted), list(dataset.labels.classes)]
    return sorted(item.digest for item in plan.wanted)


def _known_inputs(plan: NodePlan, planner: Planner) -> dict[str, Any]:
    node = plan.node
    parents = {name: planner.plan(name) for name in node.parents}
    open_parents = {name for name, parent in parents.items() if not is_identified(parent)}
    known = {field: names for field, names in node.inputs.items() if not open_parents.intersection(names)}
    identities = {name: identity(parents[name], planner.plan) for names in known.values() for name in names}
    hub = hub_file(node, planner.file)
    is_fetched = hub is None or hub.is_file()
    sources = source_digests(node, planner.file, planner.known) if is_fetched else {}
    made_of = material(
        dataclasses.replace(node, inputs=known),
        planner.dataset_of(node),
        plan.wanted,
        identities=identities,
        sources=sources,
    )
    unknown = [field for field, names in node.inputs.items() if open_parents.intersection(names)]
    unknown += [] if is_fetched else ["weights", *node.config.sources()]
    return {**made_of["inputs"], **dict.fromkeys(unknown, _UNKNOWN)}


def _made_videos(planner: Planner) -> dict[str, Any]:
    """The entry of videos that the pipeline makes for itself; none of others."""
    synthetic = planner.dataset.synthetic
    return {} if synthetic is None else {"videos": _plain_videos(synthetic)}


def _plain_videos(synthetic: SyntheticSet) -> dict[str, Any]:
    made_of = synthetic.material
    return {
        "stage": made_of["stage"],
        "stage_version": made_of["version"],
        "settings": dict(flat(made_of["spec"])),
        "class_files": made_of["inputs"]["class_files"],
        "samples": synthetic.config.samples,
        "key": synthetic.key,
    }


def _read_lock(path: Path) -> dict[str, Any]:
    """What is in a lock file. Raises ConfigError when it is not there or not readable."""
    if not path.is_file():
        raise ConfigError(f"{path}: no lock file, which --frozen needs. Run once without --frozen, and commit the file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not readable ({error}). Mend it, or run without --frozen") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("nodes"), dict):
        raise ConfigError(f"{path}: not a lock file of format {_FORMAT}. Run without --frozen, which writes it anew")
    return content
