"""What is up to date, what is not, and why: the plan of one node, from keys alone.

    settings, sources, inputs -> material -> key -> record there?  items done?  ->  fresh | stale (reasons) | waiting

Nothing here depends on times, and nothing is run. Where an input is stale, the plan assumes that its new items will
succeed, so that it tells beforehand what a run will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelwright.pipeline.dataset import Dataset
from reelwright.pipeline.file import PipelineFile
from reelwright.pipeline.graph import Graph, Node
from reelwright.pipeline.reasons import explain_difference
from reelwright.stages.work import InputRef, VideoItem, Work
from reelwright.storage.digests import digest, stage_key
from reelwright.storage.errors import InputError
from reelwright.storage.items import ItemLedger, ItemRow
from reelwright.storage.known import KnownFiles
from reelwright.storage.records import Record, last_record, read_record

FRESH, STALE, WAITING = "up to date", "stale", "waiting"


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """What is known of one node before it runs."""

    node: Node
    state: str  # FRESH, STALE, or WAITING: its key depends on a node that must run first
    reasons: tuple[str, ...] = ()  # why it is not fresh
    material: Mapping[str, Any] | None = None  # what the spec key is the digest of; None while WAITING
    spec_key: str = ""  # of items; equals key for stages without items
    key: str = ""  # of the node: spec key and set of videos
    wanted: tuple[VideoItem, ...] = ()  # all items
    todo: tuple[VideoItem, ...] = ()  # items without rows in the store
    failed: tuple[ItemRow, ...] = ()  # items that were tried and have no rows
    record: Record | None = None  # of this key

    @property
    def available(self) -> set[str]:
        """Digests of items that have rows, or will have when nothing fails that has not failed before."""
        failed = {row.digest for row in self.failed}
        return {item.digest for item in self.wanted} - failed


@dataclass
class Planner:
    """Plans nodes of one pipeline file; plans are remembered until `forget`."""

    file: PipelineFile
    graph: Graph
    dataset: Dataset
    known: KnownFiles
    forced: frozenset[str] = frozenset()
    _plans: dict[str, NodePlan] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        """Where the newest records of this pipeline file lie."""
        return self.file.store.project(self.file.path)

    def forget(self) -> None:
        """Look at the store anew."""
        self._plans.clear()

    def plan(self, name: str) -> NodePlan:
        """The plan of one node."""
        if name not in self._plans:
            self._plans[name] = self._plan(self.graph.nodes[name])
        return self._plans[name]

    def plans(self) -> list[NodePlan]:
        """All plans, in running order."""
        return [self.plan(name) for name in self.graph.nodes]

    def samples(self, plan: NodePlan) -> list[Any]:
        """What a run learns from: [video digest, split, annotation], whatever the names and their order."""
        return self._samples(plan.node, plan.wanted)

    def work(self, plan: NodePlan, items: tuple[VideoItem, ...] | None = None) -> Work:
        """The unit of work of a node that is ready, as plain data; ``items`` of it, or all that are to be done."""
        config = plan.node.config.model_dump(mode="json")
        config.update({name: str(self.file.resolve(path)) for name, path in plan.node.config.sources().items()})
        assert plan.material is not None
        return Work(
            node=plan.node.name,
            stage=plan.node.stage,
            key=plan.spec_key,
            config=config,
            spec=dict(plan.material),
            store=str(self.file.store.root),
            inputs=self._input_refs(plan.node),
            items=plan.todo if items is None else items,
            payload=self._payload(plan),
        )

    # -- one node ------------------------------------------------------------------------------------------------

    def _plan(self, node: Node) -> NodePlan:
        parents = {name: self.plan(name) for name in node.parents}
        unmet = self._unmet(node, parents)
        if unmet:
            return NodePlan(node=node, state=WAITING, reasons=unmet, wanted=self._wanted(node, parents))
        material = self._material(node, parents)
        spec_key = digest(material)
        wanted = self._wanted(node, parents)
        key = self._node_key(node, spec_key, wanted)
        record = read_record(self.file.store, key)
        if node.config.kind == "items":
            return self._plan_items(node, material, spec_key, key, wanted, record)
        return self._plan_whole(node, material, spec_key, key, wanted, record)

    def _plan_items(
        self,
        node: Node,
        material: dict[str, Any],
        spec_key: str,
        key: str,
        wanted: tuple[VideoItem, ...],
        record: Record | None,
    ) -> NodePlan:
        if not getattr(node.config, "materialize", True):
            return NodePlan(
                node=node, state=FRESH, material=material, spec_key=spec_key, key=key, wanted=wanted, record=record
            )
        done, rows = self._done(node, spec_key)
        forced = node.name in self.forced
        todo = wanted if forced else tuple(item for item in wanted if item.digest not in done)
        failed = tuple(rows[item.digest] for item in todo if item.digest in rows and not rows[item.digest].is_done)
        published = not node.config.publishes or self.published(node, key)
        reasons: list[str] = ["forced"] if forced else []
        if todo or not published:
            reasons += self._differences(node, material, wanted)
            reasons += self._item_reasons(wanted, todo, failed, done)
            if not todo and not reasons:
                reasons.append("names or labels changed" if self._last(node) else "never ran")
        return NodePlan(
            node=node,
            state=STALE if reasons else FRESH,
            reasons=tuple(dict.fromkeys(reasons)),
            material=material,
            spec_key=spec_key,
            key=key,
            wanted=wanted,
            todo=todo,
            failed=failed,
            record=record,
        )

    def _plan_whole(
        self,
        node: Node,
        material: dict[str, Any],
        spec_key: str,
        key: str,
        wanted: tuple[VideoItem, ...],
        record: Record | None,
    ) -> NodePlan:
        reasons: list[str] = []
        if node.name in self.forced:
            reasons.append("forced")
        elif record is None:
            reasons = self._differences(node, material, wanted) or [
                "never ran" if self._last(node) is None else "never ran with these inputs"
            ]
        elif not self._output_exists(node, key):
            reasons.append("its output is gone from the store")
        return NodePlan(
            node=node,
            state=STALE if reasons else FRESH,
            reasons=tuple(reasons),
            material=material,
            spec_key=spec_key,
            key=key,
            wanted=wanted,
            record=record,
        )

    # -- keys ----------------------------------------------------------------------------------------------------

    def _unmet(self, node: Node, parents: Mapping[str, NodePlan]) -> tuple[str, ...]:
        """Why the key cannot be known yet: an input that is digested (weights) is not there."""
        reasons = [f"waits for {name}" for name, plan in parents.items() if plan.state == WAITING]
        reasons += [
            f"waits for {name}"
            for name, plan in parents.items()
            if plan.state == STALE and plan.node.config.produces == "run"
        ]
        hub = node.config.hub_weights()
        if hub is not None and not self.file.store.weights(hub).is_file():
            reasons.append(f"weights of {hub} are not fetched yet")
        return tuple(reasons)

    def _material(self, node: Node, parents: Mapping[str, NodePlan]) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            name: [self._identity(parents[parent]) for parent in names] for name, names in node.inputs.items() if names
        }
        inputs.update(self._source_digests(node))
        if node.config.kind == "run":
            inputs["videos"] = digest(self._samples(node, self._wanted(node, parents)))
            inputs["classes"] = list(self.dataset.labels.classes)
            inputs["background"] = self.dataset.background
        return {"stage": node.stage, "version": node.config.version, "spec": node.config.spec(), "inputs": inputs}

    def _identity(self, plan: NodePlan) -> str:
        """How an input stands in a key: derived things by the key they were made with, weights by content."""
        if plan.node.config.produces in {"frames", "embeddings"}:
            return plan.spec_key
        if plan.node.config.produces == "run":
            assert plan.record is not None
            assert plan.material is not None
            return digest({"weights": plan.record.outputs["weights"], "reads": self._reads(plan)})
        return plan.key

    def _reads(self, plan: NodePlan) -> dict[str, Any]:
        """What a run expects of its input, besides its weights; how it was trained is left out."""
        assert plan.material is not None
        spec, inputs = plan.material["spec"], plan.material["inputs"]
        kept = {name: spec[name] for name in ("task", "window", "output", "model") if name in spec}
        named = {name: value for name, value in inputs.items() if name not in {"videos", "temporal", "frames"}}
        temporal = [self._reads(self.plan(parent)) for parent in plan.node.inputs.get("temporal", ())]
        return {**kept, "inputs": named, "temporal": temporal}

    def _source_digests(self, node: Node) -> dict[str, str]:
        paths = {name: self.file.resolve(path) for name, path in node.config.sources().items()}
        hub = node.config.hub_weights()
        if hub is not None:
            paths["weights"] = self.file.store.weights(hub)
        for name, path in paths.items():
            if not path.is_file():
                raise InputError(f"{self.file.path}: stages.{node.name}.{name}: no such file: {path}")
        return {name: self.known.digest(path) for name, path in paths.items()}

    def _node_key(self, node: Node, spec_key: str, wanted: tuple[VideoItem, ...]) -> str:
        """The spec key with the set of videos; where tables are published, with their names and labels too."""
        if node.config.kind != "items":
            return spec_key
        videos: list[Any] = sorted(item.digest for item in wanted)
        inputs: dict[str, Any] = {"spec": spec_key, "videos": videos}
        if node.config.publishes:
            inputs = {"spec": spec_key, "videos": self._named(node, wanted), "classes": list(self.dataset.labels.classes)}
        return stage_key(node.stage, node.config.version, {}, inputs)

    # -- videos --------------------------------------------------------------------------------------------------

    def _wanted(self, node: Node, parents: Mapping[str, NodePlan]) -> tuple[VideoItem, ...]:
        available = set(self.dataset.items)
        for plan in parents.values():
            if plan.node.config.produces in {"frames", "embeddings"}:
                available &= plan.available
        splits = node.config.wanted_splits()
        if splits is not None:
            named = self.dataset.named(available)
            available = {digest_ for video, digest_, _ in named if video.split in splits}
        return tuple(item for digest_, item in self.dataset.items.items() if digest_ in available)

    def _named(self, node: Node, wanted: tuple[VideoItem, ...]) -> list[list[Any]]:
        splits = node.config.wanted_splits()
        named = self.dataset.named({item.digest for item in wanted})
        return [
            [video.video_id, digest_, video.split, annotation.plain()]
            for video, digest_, annotation in named
            if splits is None or video.split in splits
        ]

    def _samples(self, node: Node, wanted: tuple[VideoItem, ...]) -> list[Any]:
        """What a run learns from: content, split and targets, whatever the names and their order."""
        samples = {digest(entry[1:]): entry[1:] for entry in self._named(node, wanted)}
        return [samples[name] for name in sorted(samples)]

    def _payload(self, plan: NodePlan) -> dict[str, Any]:
        payload: dict[str, Any] = {"classes": list(self.dataset.labels.classes), "background": self.dataset.background}
        if plan.node.config.kind == "run":
            seen: set[str] = set()
            videos = []
            for video_id, digest_, split, annotation in self._named(plan.node, plan.wanted):
                sample = digest([digest_, split, annotation])
                if sample not in seen:
                    seen.add(sample)
                    videos.append({"video_id": video_id, "digest": digest_, "split": split, "annotation": annotation})
            return {**payload, "videos": sorted(videos, key=lambda entry: (entry["digest"], entry["split"]))}
        if plan.node.config.kind == "items" and not plan.node.config.publishes:
            return payload
        paths = {video.video_id: str(video.path) for video in self.dataset.videos}
        return {
            **payload,
            "videos": [
                {
                    "video_id": video_id,
                    "digest": digest_,
                    "split": split,
                    "annotation": annotation,
                    "path": paths[video_id],
                    "duration_seconds": self.dataset.items[digest_].duration_seconds,
                }
                for video_id, digest_, split, annotation in self._named(plan.node, plan.wanted)
            ],
        }

    # -- what is there already -----------------------------------------------------------------------------------

    def _done(self, node: Node, spec_key: str) -> tuple[set[str], dict[str, ItemRow]]:
        rows = ItemLedger(self.file.store.node(spec_key)).load()
        present = self._present(node, spec_key)
        return {name for name, row in rows.items() if row.is_done and name in present}, rows

    def _present(self, node: Node, spec_key: str) -> set[str]:
        """Digests whose data lie in the store: what was removed by hand is not taken for done."""
        store = self.file.store
        folders = {"frames": store.frames, "embeddings": store.embeddings, "predictions": store.predictions}
        folder = folders[node.config.produces](spec_key)
        return {path.name.split(".")[0] for path in folder.iterdir()} if folder.is_dir() else set()

    def _output_exists(self, node: Node, key: str) -> bool:
        store = self.file.store
        path = {"run": store.run(key) / "model.safetensors", "scores": store.report(key) / "metrics.json"}[
            node.config.produces
        ]
        return path.is_file()

    def published(self, node: Node, key: str) -> bool:
        """Whether the tables of a node that publishes are in place."""
        del node
        return (self.file.store.predictions(key) / "windows.parquet").is_file()

    def _input_refs(self, node: Node) -> dict[str, tuple[InputRef, ...]]:
        return {
            name: tuple(self._input_ref(self.plan(parent)) for parent in names) for name, names in node.inputs.items()
        }

    def _input_ref(self, plan: NodePlan) -> InputRef:
        config = plan.node.config.model_dump(mode="json")
        config.update({name: str(self.file.resolve(path)) for name, path in plan.node.config.sources().items()})
        key = plan.key if plan.node.config.produces == "predictions" else plan.spec_key
        return InputRef(
            node=plan.node.name, stage=plan.node.stage, key=key, config=config, inputs=self._input_refs(plan.node)
        )

    # -- reasons -------------------------------------------------------------------------------------------------

    def _last(self, node: Node) -> Record | None:
        return last_record(self.project, node.name)

    def _differences(self, node: Node, material: dict[str, Any], wanted: tuple[VideoItem, ...]) -> list[str]:
        last = self._last(node)
        if last is None:
            return []
        samples = self._samples(node, wanted) if node.config.kind == "run" else []
        return explain_difference(
            last.material, material, node=node, samples=samples, store=self.file.store, last_key=last.key
        )

    @staticmethod
    def _item_reasons(
        wanted: tuple[VideoItem, ...], todo: tuple[VideoItem, ...], failed: tuple[ItemRow, ...], done: set[str]
    ) -> list[str]:
        if not todo:
            return []
        reasons = []
        if len(failed) < len(todo):
            fresh = len(todo) - len(failed)
            kept = any(item.digest in done for item in wanted)
            reasons.append(
                f"{fresh:,} of {len(wanted):,} videos to do" if kept else f"nothing done yet of {len(wanted):,} videos"
            )
        if failed:
            reasons.append(f"failed: {len(failed)}")
        return reasons
