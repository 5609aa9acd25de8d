"""What is up to date, what is not, and why: the plan of one node, from keys alone.

    settings, sources, inputs -> material -> key -> record there?  items done?  ->  fresh | stale (reasons) | waiting

Nothing here depends on times, and nothing is run. Where an input is stale, the plan assumes that its new items will
succeed, so that it tells beforehand what a run will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan import keys
from reelwright.pipeline.plan.data_warnings import check_shares, warnings_by_use
from reelwright.pipeline.plan.dataset import Dataset, with_labels
from reelwright.pipeline.plan.graph import FRESH, STALE, WAITING, Graph, Node, NodePlan, has_rows, is_identified
from reelwright.pipeline.plan.reasons import (
    InputVideo,
    explain_difference,
    input_videos,
    item_reasons,
    read_input_videos,
    rows_field,
    video_differences,
    why_no_record,
)
from reelwright.stages.index.config import LabelsConfig
from reelwright.storage.digests import digest
from reelwright.storage.kinds import KINDS
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.ledger.records import Record, last_record, read_record


@dataclass
class Planner:
    """Plans nodes of one pipeline file, each once: until it is planned anew (`renew`), or all are (`forget`)."""

    file: PipelineFile
    graph: Graph
    dataset: Dataset
    forced: frozenset[str] = frozenset()
    _plans: dict[str, NodePlan] = field(default_factory=dict)
    _relabelled: dict[str, Dataset] = field(default_factory=dict)  # by their settings as JSON, in order

    def __post_init__(self) -> None:
        """Raises InputError where more labels fit no video, or more videos have none, than the settings allow."""
        check_shares(self.dataset)

    @property
    def known(self) -> KnownFiles:
        """Content digests of files, those of weights too."""
        return self.dataset.files

    @property
    def project(self) -> Path:
        """Where the newest records of this pipeline file lie."""
        return self.file.store.project(self.file.path)

    def dataset_of(self, node: Node) -> Dataset:
        """The videos with the labels that the node learns from: its own, or those of the pipeline."""
        settings = node.config.own_labels
        if settings is None:
            return self.dataset
        assert isinstance(settings, LabelsConfig)
        name = settings.model_dump_json()  # not the settings: columns are a mapping, whose order makes other labels
        if name not in self._relabelled:
            self._relabelled[name] = with_labels(self.dataset, self.file, settings)
            check_shares(self._relabelled[name])
        return self._relabelled[name]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is most likely wrong with the videos, their labels, and those of single nodes."""
        read = ((node.config, self.dataset_of(node)) for node in self.graph.nodes.values())
        return warnings_by_use(self.dataset, read)

    @cached_property
    def plugins(self) -> keys.NodePlugins:
        """What plug-ins the nodes name, as they were when first looked at."""
        return keys.NodePlugins(self.file, self.graph)

    def forget(self) -> None:
        """Look at the store anew."""
        self._plans.clear()

    def renew(self, name: str, rows: Mapping[str, ItemRow] | None = None) -> NodePlan:
        """Look anew at what the store has of a node; those below are planned anew where they find it otherwise.

        Its key stays, unless a file enters it: where a node above came out otherwise, this plan is gone already.
        ``rows`` are those of its ledger, where they were read just now.
        """
        node, before = self.graph.nodes[name], self._plans.pop(name, None)
        has_files = bool(node.config.sources()) or keys.hub_file(node, self.file) is not None
        if before is None or before.material is None or has_files:
            plan = self._plan(node, rows)
        else:
            plan = self._checked(before, rows)
        self._plans[name] = plan
        if before is None or self._seen_below(before) != self._seen_below(plan):
            for below in self.graph.downstream(name):
                self._plans.pop(below, None)
        return plan

    def _seen_below(self, plan: NodePlan) -> tuple[str | None, set[str]]:
        """What nodes that read this one are planned with: how it stands in their keys, and which items it has."""
        return keys.identity(plan, self.plan) if is_identified(plan) else None, plan.available

    def rows(self, plan: NodePlan) -> Mapping[str, ItemRow]:
        """The rows of a node's ledger, read now where planning had no need of them."""
        return ItemLedger(self.file.store.node(plan.spec_key)).load() if plan.rows is None else plan.rows

    def plan(self, name: str) -> NodePlan:
        """The plan of one node."""
        if name not in self._plans:
            self._plans[name] = self._plan(self.graph.nodes[name])
        return self._plans[name]

    def plans(self) -> list[NodePlan]:
        """All plans, in running order."""
        return [self.plan(name) for name in self.graph.nodes]

    def _plan(self, node: Node, rows: Mapping[str, ItemRow] | None = None) -> NodePlan:
        parents = {name: self.plan(name) for name in node.parents}
        rows_of = [plan.available for plan in parents.values() if has_rows(plan.node)]
        wanted = keys.wanted_items(self.dataset, node, rows_of)
        if unmet := self._unmet(node, parents):
            return NodePlan(node=node, state=WAITING, reasons=unmet, wanted=wanted)
        identities = {name: keys.identity(plan, self.plan) for name, plan in parents.items()}
        dataset, plugins = self.dataset_of(node), self.plugins.of(node)
        sources = keys.source_digests(node, self.file, self.known) | keys.listed_contents(node, self.file, dataset)
        made = keys.material(node, dataset, wanted, identities=identities, sources=sources, plugins=plugins)
        spec_key = digest(made)
        key = "" if self._not_known(node) else keys.node_key(node, dataset, spec_key, wanted)
        plan = NodePlan(node=node, state=FRESH, material=made, spec_key=spec_key, key=key, wanted=wanted)
        return self._checked(plan, rows)

    def _checked(self, plan: NodePlan, rows: Mapping[str, ItemRow] | None) -> NodePlan:
        """The plan of a node whose key is known, with what the store has of it now."""
        record, config = read_record(self.file.store, plan.key) if plan.key else None, plan.node.config
        plan = replace(plan, state=FRESH, reasons=(), record=record, rows=rows)
        if config.kind != "items":
            return self._checked_whole(plan)
        return self._checked_items(plan) if config.stores else plan

    def _checked_items(self, plan: NodePlan) -> NodePlan:
        """The plan with what is done of its items, and why the rest is not."""
        listed = self._listed(plan)
        present = set.intersection(*listed.values())
        done, known = self._done(plan, present)
        rows = known or {}
        lacks_group = bool(done) and any(KINDS[kind].is_rows and "zarr" not in names for kind, names in listed.items())
        forced = plan.node.name in self.forced
        is_done = len(done) == len(plan.wanted) and known is None
        rest = () if is_done else tuple(item for item in plan.wanted if item.digest not in done)
        left = () if forced else tuple(row for item in rest if (row := self._quarantined(rows.get(item.digest))))
        alone = {row.digest for row in left}
        todo = plan.wanted if forced else tuple(item for item in rest if item.digest not in alone) if alone else rest
        failed = tuple(rows[item.digest] for item in todo if item.digest in rows and not rows[item.digest].is_done)
        reasons: list[str] = ["forced"] if forced else []
        not_known = self._not_known(plan.node)
        if todo or not (not_known or self._is_in_place(plan)):
            differences = self.differences(plan)
            last = self.last(plan.node)
            known_record = plan.record or (last if last is not None and last.key == plan.key else None)
            reasons += differences
            reasons += item_reasons(
                num_wanted=len(plan.wanted),
                num_fresh=0 if forced else len(todo) - len(failed),
                num_failed=len(failed),
                is_known_spec=last is not None and last.spec_key == plan.spec_key and not differences,
                is_known_set=known_record is not None and known_record.all_done,
                field=rows_field(plan.node),
            )
            if not todo:
                reasons += self._unpublished(plan, last)
            if not reasons:
                reasons.append("never ran" if last is None else "names or labels changed")
        reasons += ["the settings of its group (zarr.json) are gone from the store"] if lacks_group else []
        reasons += not_known
        state = STALE if reasons else FRESH
        skipped = sum(row.status == "skipped" for row in left)
        reasons += [f"skipped: {skipped}"] if skipped else []
        reasons += [f"quarantined: {len(left) - skipped}"] if len(left) > skipped else []
        return replace(
            plan,
            state=state,
            reasons=tuple(dict.fromkeys(reasons)),
            todo=todo,
            failed=failed,
            quarantined=left,
            rows=known,
            lacks_group=lacks_group,
        )

    def _quarantined(self, row: ItemRow | None) -> ItemRow | None:
        """The row of an item that is left alone: it failed often enough, or the stage has no use for it."""
        if row is None or row.is_done:
            return None
        return row if row.status == "skipped" or self.dataset.is_quarantined(row.attempts) else None

    def _checked_whole(self, plan: NodePlan) -> NodePlan:
        """The plan of a run or a table, which is there or not."""
        reasons: list[str] = []
        if plan.node.name in self.forced:
            reasons.append("forced")
        elif plan.record is None:
            reasons = self.differences(plan) or [why_no_record(self.last(plan.node), plan.key)]
        elif not self._is_in_place(plan):
            reasons.append("its output is gone from the store")
        return replace(plan, state=STALE if reasons else FRESH, reasons=tuple(reasons))

    def _unmet(self, node: Node, parents: Mapping[str, NodePlan]) -> tuple[str, ...]:
        """Why the key cannot be known yet: an input that is digested (weights) is not there."""
        reasons = [f"waits for {name}" for name, plan in parents.items() if not is_identified(plan)]
        if node.config.kind == "run" or node.config.reads_labels or node.config.files_with_videos():
            reasons += self._not_known(node)
        hub = keys.hub_file(node, self.file)
        if hub is not None and not self.file.store.backend.ensure_local(hub):
            reasons.append(f"weights of {node.config.hub_weights()} are not fetched yet")
        return tuple(reasons)

    def _not_known(self, node: Node) -> tuple[str, ...]:
        """Why it is not known which videos a node reads."""
        return self.dataset.not_known(node.config.wanted_splits())

    def _listed(self, plan: NodePlan) -> dict[str, set[str]]:
        """Names, without their endings, of what lies where the items of a node do, by kind of output."""
        store, config = self.file.store, plan.node.config
        places = {kind: store.output(kind, plan.spec_key) for kind in (config.produces, *config.also_produces)}
        return {kind: {name.partition(".")[0] for name in store.backend.names(place)} for kind, place in places.items()}

    def _done(self, plan: NodePlan, present: set[str]) -> tuple[set[str], Mapping[str, ItemRow] | None]:
        """Digests of items that are done; what was removed from the store by hand is not taken for done."""
        wanted = {item.digest for item in plan.wanted}
        if plan.record is not None and plan.record.all_done and wanted <= present:
            return wanted, plan.rows  # the record is of this very set of videos: its rows need not be read
        rows = self.rows(plan)
        return {name for name, row in rows.items() if row.is_done and name in present}, rows

    def all_tried(self, plan: NodePlan, rows: Mapping[str, ItemRow]) -> bool:
        """Whether every item of a node is done or has failed, by the ``rows`` of its ledger now."""
        done, _ = self._done(replace(plan, rows=rows), set.intersection(*self._listed(plan).values()))
        failed = {digest for digest, row in rows.items() if not row.is_done}
        return {item.digest for item in plan.wanted} <= done | failed

    def is_made(self, plan: NodePlan) -> bool:
        """Whether a node of a known key has finished, and what it made as a whole is in place."""
        return plan.record is not None and self._is_in_place(plan)

    def _is_in_place(self, plan: NodePlan) -> bool:
        """Whether what a node makes as a whole is there: all but rows of single videos."""
        return not plan.is_one_thing or self.file.store.backend.has(self._marker(plan))

    def _marker(self, plan: NodePlan) -> Path:
        """What says that the output of a node is there as a whole."""
        produces = plan.node.config.produces
        return self.file.store.output(produces, plan.key) / KINDS[produces].marker

    def last(self, node: Node) -> Record | None:
        """The newest record of a node, whatever its key."""
        return last_record(self.project, node.name)

    def differences(self, plan: NodePlan) -> list[str]:
        """What is otherwise than in the last run of the node; empty when there was none."""
        last = self.last(plan.node)
        if last is None or plan.material is None:
            return []
        return explain_difference(
            last.material,
            plan.material,
            node=plan.node,
            videos=lambda: (self.inputs_before(plan), self.inputs_now(plan)),
            streamed=lambda name: [] if self.graph.nodes[name].config.stores else self.differences(self.plan(name)),
        )

    def inputs_now(self, plan: NodePlan) -> list[InputVideo]:
        """What a run learns from, or a prediction is published of, as the videos and labels are now."""
        choose = keys.samples if plan.node.config.kind == "run" else keys.named_videos
        return input_videos(choose(self.dataset_of(plan.node), plan.node, plan.wanted))

    def inputs_before(self, plan: NodePlan) -> list[InputVideo]:
        """The same of the last run; empty when there was none."""
        last = self.last(plan.node)
        return [] if last is None else read_input_videos(self.file.store, last.key)

    def _unpublished(self, plan: NodePlan, last: Record | None) -> list[str]:
        """Why tables are to be written though the scores of all videos are there."""
        if last is None:
            return []
        if last.key == plan.key:
            return ["its tables are gone from the store"]
        before, now = self.inputs_before(plan), self.inputs_now(plan)
        return video_differences(before, now, field=rows_field(plan.node), with_names=True)
