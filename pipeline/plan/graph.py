"""The graph of a pipeline file: nodes, what each reads, an order in which they can run, and the plan of one node."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.config.seeds import base_name
from reelwright.stages.base.config import StageConfig
from reelwright.stages.base.work import VideoItem
from reelwright.storage.errors import ConfigError, nearest
from reelwright.storage.kinds import KINDS
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.ledger.records import Record

FRESH, STALE, WAITING = "up to date", "stale", "waiting"


def names_of(given: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several as a tuple: a text would be taken for its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


@dataclass(frozen=True)
class Node:
    """One use of a stage."""

    name: str
    config: StageConfig
    inputs: dict[str, tuple[str, ...]]  # input field -> names of nodes

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.config.stage

    @property
    def parents(self) -> tuple[str, ...]:
        """All nodes it reads, without repeats."""
        return tuple(dict.fromkeys(name for names in self.inputs.values() for name in names))


@dataclass(frozen=True)
class Graph:
    """Nodes by name, in an order in which every node comes after what it reads."""

    nodes: dict[str, Node]

    def upstream(self, names: Iterable[str]) -> set[str]:
        """``names`` and everything they depend on."""
        found: set[str] = set()
        open_names = list(names)
        while open_names:
            name = open_names.pop()
            if name not in found:
                found.add(name)
                open_names.extend(self.nodes[name].parents)
        return found

    def downstream(self, name: str) -> list[str]:
        """Nodes that depend on ``name``, directly or not, in order."""
        found = {name}
        for other in self.nodes.values():
            if found.intersection(other.parents):
                found.add(other.name)
        return [other for other in self.nodes if other in found and other != name]

    def named(self, name: str) -> list[str]:
        """The node of that name, and where it has several seeds, those of each. Raises ConfigError, as `check_name`."""
        return [other for other in self.nodes if name in {other, base_name(other)}] or [self.check_name(name)]

    def all_named(self, names: str | Iterable[str]) -> frozenset[str]:
        """The nodes of one name or several, as `named`."""
        return frozenset(node for name in names_of(names) for node in self.named(name))

    def selected(self, *, only: str | Iterable[str], until: str | Iterable[str]) -> frozenset[str]:
        """Names of the nodes that run: ``only`` those, else ``until`` those with what they depend on, else all."""
        return self.all_named(only) or frozenset(self.upstream(self.all_named(until)) or self.nodes)

    def check_name(self, name: str) -> str:
        """``name`` if there is such a node. Raises ConfigError that names the nearest."""
        if name not in self.nodes:
            raise ConfigError(f"no node {name!r}.{nearest(name, self.nodes)} There are: {', '.join(self.nodes)}")
        return name


def has_rows(node: Node) -> bool:
    """Whether it makes rows of single videos, which enter keys by how they are made, whatever videos they are of."""
    return KINDS[node.config.produces].is_rows


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """What is known of one node before it runs."""

    node: Node
    state: str  # FRESH, STALE, or WAITING: its key depends on a node or on videos that come first
    reasons: tuple[str, ...] = ()  # why it is not fresh, and how many videos are left alone
    material: Mapping[str, Any] | None = None  # what the spec key is the digest of; None while WAITING
    spec_key: str = ""  # of items; equals key for stages without items
    key: str = ""  # of the node: spec key and set of videos; empty while it is not known which videos these are
    wanted: tuple[VideoItem, ...] = ()  # all items
    todo: tuple[VideoItem, ...] = ()  # items without rows in the store
    failed: tuple[ItemRow, ...] = ()  # those of todo that were tried before
    quarantined: tuple[
        ItemRow, ...
    ] = ()  # items that failed so often that they are left alone, and skipped ones; not in todo
    record: Record | None = None  # of this key
    rows: Mapping[str, ItemRow] | None = None  # of its ledger; None: not read, as the record says that all is done
    lacks_group: bool = False  # its items are there, but not the zarr.json of their group

    @property
    def has_ledger(self) -> bool:
        """Whether rows of a ledger say what became of its videos."""
        return self.node.config.kind == "items" and self.node.config.stores

    @property
    def is_one_thing(self) -> bool:
        """Whether all videos together make something, for which the rows of each do not stand."""
        return self.node.config.kind != "items" or self.node.config.publishes

    @property
    def keeps_inputs(self) -> bool:
        """Whether what it read of the videos lies beside its record."""
        return self.node.config.kind == "run" or self.node.config.publishes

    @property
    def is_done(self) -> bool:
        """Whether nothing is to be done, noted or told of it: up to date, with a record, and no video without rows."""
        return self.state == FRESH and self.record is not None and (self.is_whole or not self.has_ledger)

    @property
    def outputs(self) -> dict[str, Any]:
        """What it made besides rows, as its record says: digest of weights, scores."""
        return {} if self.record is None else dict(self.record.outputs)

    @property
    def is_whole(self) -> bool:
        """Whether the record says that every item is done to its end, so that its rows need not be read."""
        is_left, record = bool(self.todo or self.quarantined), self.record
        return not is_left and record is not None and record.all_done and record.items.get("truncated") == 0

    @property
    def num_truncated(self) -> int:
        """Videos that have rows, but not to their end."""
        if self.rows is None:
            return 0 if self.record is None else self.record.items.get("truncated", 0)
        rows = (self.rows.get(item.digest) for item in self.wanted)
        return sum(row is not None and row.status == "truncated" for row in rows)

    @property
    def available(self) -> set[str]:
        """Digests of items that have rows, or will have when nothing fails that has not failed before."""
        failed = {row.digest for row in (*self.failed, *self.quarantined)}
        return {item.digest for item in self.wanted} - failed


def is_identified(plan: NodePlan) -> bool:
    """Whether it is known how a node stands in the keys of those that read it (`keys.identity`)."""
    if plan.state == WAITING or (plan.state == STALE and plan.node.config.kind == "run"):
        return False
    return has_rows(plan.node) or bool(plan.key)


def build_graph(file: PipelineFile) -> Graph:
    """Connect the nodes of a pipeline file.

    Raises ConfigError for an unknown node, a node of the wrong kind, a circle, or settings that do not fit each other.
    """
    configs = {name: _completed(name, config, file) for name, config in file.nodes.items()}
    nodes = {
        name: Node(name, config, {field: tuple(names) for field, names in config.inputs().items()})
        for name, config in configs.items()
    }
    for node in nodes.values():
        _check_inputs(node, nodes, file)
    sorter = graphlib.TopologicalSorter(
        {name: sorted(node.parents, key=list(nodes).index) for name, node in nodes.items()}
    )
    try:
        order = list(sorter.static_order())
    except graphlib.CycleError as error:
        raise ConfigError(
            f"{file.path}: nodes depend on each other in a circle: {' -> '.join(error.args[1])}"
        ) from None
    for node in nodes.values():
        node.config.check_inputs(
            {field: [nodes[name].config for name in names] for field, names in node.inputs.items()}
        )
    return Graph({name: nodes[name] for name in order})


def _completed(name: str, config: StageConfig, file: PipelineFile) -> StageConfig:
    """Fill inputs that follow from other nodes (predict reads what its run was trained on)."""
    return config.complete(file.nodes, where=f"{file.path}: stages.{name}")


def _check_inputs(node: Node, nodes: dict[str, Node], file: PipelineFile) -> None:
    for field, names in node.inputs.items():
        kinds = node.config.input_kinds(field)
        fitting = [other.name for other in nodes.values() if other.config.produces in kinds and other.name != node.name]
        for name in names:
            where = f"{file.path}: stages.{node.name}.{field}: {name!r}"
            allowed = f"Nodes that do: {', '.join(fitting) or 'none'}."
            if name not in nodes:
                raise ConfigError(f"{where} is no node.{nearest(name, fitting)} {allowed}")
            if nodes[name].config.produces not in kinds:
                raise ConfigError(
                    f"{where} makes {nodes[name].config.produces}; needed is {' or '.join(kinds)}. {allowed}"
                )
