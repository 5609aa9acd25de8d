"""Which videos a node reads, and what its key is the digest of: stage, version, spec, inputs, plug-ins.

Sources (weights files, trained weights) enter by content; frames, embeddings and predictions by the key they were made
with, so that recomputing them on another machine re-trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.plan.graph import Graph, Node, has_rows
from reelwright.stages.base.plugins import Plugin, find_plugin
from reelwright.stages.base.registry import config_model, stage_plugin
from reelwright.stages.base.work import VideoItem
from reelwright.storage.digests import digest, set_digest, stage_key
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.tables.annotations import Annotation
from reelwright.storage.tables.text_tables import read_columns

if TYPE_CHECKING:
    from reelwright.pipeline.config.pipeline_file import PipelineFile
    from reelwright.pipeline.plan.dataset import Dataset
    from reelwright.pipeline.plan.graph import NodePlan
    from reelwright.storage.ledger.digest_cache import KnownFiles

_VIDEOS = "videos"  # input of a run: what it learned from, which nothing that reads its weights looks at

# [video_id, video digest, split, annotation as plain data]
Named = list[Any]


def wanted_items(dataset: Dataset, node: Node, available: Iterable[set[str]]) -> tuple[VideoItem, ...]:
    """Usable videos whose digest every input has (``available``), in the splits of the node, each content once."""
    digests = set(dataset.items).intersection(*available)
    splits = node.config.wanted_splits()
    if splits is not None:
        digests = {found for video, found, _ in dataset.named(digests) if video.split in splits}
    if len(digests) == len(dataset.items):
        return dataset.all_items
    return tuple(item for found, item in dataset.items.items() if found in digests)


def named_videos(dataset: Dataset, node: Node, wanted: Iterable[VideoItem]) -> list[Named]:
    """The rows of the manifest behind ``wanted``, in the splits of the node, by video_id whatever their order.

    Without the label of a video that stands beside those of its rows, where the node does not read it.
    """
    splits, is_read = node.config.wanted_splits(), bool(node.config.video_label_setting)
    rows = [
        [video.video_id, found, video.split, annotation.plain(has_video_label=is_read)]
        for video, found, annotation in dataset.named({item.digest for item in wanted})
        if splits is None or video.split in splits
    ]
    return sorted(rows, key=itemgetter(0))


def samples(dataset: Dataset, node: Node, wanted: Iterable[VideoItem]) -> list[Named]:
    """What a run learns from: one row for each content, split and annotation, whatever the names and their order.

    Where it learns without labels, annotations are empty.
    """
    distinct: dict[str, Named] = {}
    for named in named_videos(dataset, node, wanted):
        entry = named if node.config.learns_labels else [*named[:-1], Annotation().plain()]
        distinct.setdefault(digest(entry[1:]), entry)
    return [distinct[name] for name in sorted(distinct)]


def material(
    node: Node,
    dataset: Dataset,
    wanted: tuple[VideoItem, ...],
    *,
    identities: Mapping[str, str],
    sources: Mapping[str, str],
    plugins: Mapping[str, Plugin] = MappingProxyType({}),
) -> dict[str, Any]:
    """What the spec key is the digest of. ``identities`` are of nodes it reads, by name; ``plugins`` are by field."""
    inputs: dict[str, Any] = {
        name: [identities[parent] for parent in names] for name, names in node.inputs.items() if names
    }
    inputs.update(sources)
    if node.config.kind == "run":
        inputs[_VIDEOS] = digest([entry[1:] for entry in samples(dataset, node, wanted)])
        inputs.update(_labels(dataset) if node.config.learns_labels else {})
    if node.config.reads_labels:
        inputs["names and labels"] = digest([named_videos(dataset, node, wanted), _labels(dataset)])
    made_of = {"stage": node.stage, "version": node.config.version, "spec": node.config.spec(), "inputs": inputs}
    named = {name: plugin.material() for name, plugin in plugins.items()}
    return {**made_of, "plugins": named} if named else made_of


def identity(plan: NodePlan, plan_of: Callable[[str], NodePlan]) -> str:
    """How a node stands in the keys of those that read it."""
    if has_rows(plan.node):
        return plan.spec_key
    if plan.node.config.kind == "run":
        assert plan.record is not None
        return run_identity(plan.record.outputs["weights"], _reads(plan, plan_of))
    return plan.key


def run_identity(weights: str, read: Mapping[str, Any]) -> str:
    """How a run stands in the keys of those that read it: its weights' digest, and what they expect (`reads`)."""
    return digest({"weights": weights, "reads": read})


def node_key(node: Node, dataset: Dataset, spec_key: str, wanted: tuple[VideoItem, ...]) -> str:
    """The spec key; of nodes with items, with the set of videos; where tables are published, names and labels too."""
    if node.config.kind != "items":
        return spec_key
    inputs: dict[str, Any] = {"spec": spec_key, "videos": set_digest(item.digest for item in wanted)}
    if node.config.publishes:
        inputs = {"spec": spec_key, "videos": named_videos(dataset, node, wanted), **_labels(dataset)}
    return stage_key(node.stage, node.config.version, {}, inputs)


def _labels(dataset: Dataset) -> dict[str, Any]:
    """What is known of labels besides those of each video."""
    heads = {"heads": [list(head) for head in dataset.labels.heads]} if dataset.labels.heads else {}
    return {"classes": list(dataset.labels.classes), "background": dataset.background, **heads}


def source_digests(node: Node, file: PipelineFile, known: KnownFiles) -> dict[str, str]:
    """Content digests of the files a node names. Raises InputError when one is not there."""
    paths = {name: file.resolve(path) for name, path in node.config.sources().items()}
    hub = hub_file(node, file)
    if hub is not None:
        paths["weights"] = hub
    for name, path in paths.items():
        if not path.is_file():
            raise InputError(f"{file.path}: stages.{node.name}.{name}: no such file: {path}")
    return {name: known.digest(path) for name, path in paths.items()}


def listed_videos(node: Node, file: PipelineFile) -> dict[str, list[str]]:
    """Field -> names of the videos in the table that it names, each once. Raises InputError for one without them."""
    sources = node.config.sources()
    return {
        name: list(dict.fromkeys(read_columns(file.resolve(sources[name]), required=["video_id"]).cells["video_id"]))
        for name in node.config.files_with_videos()
    }


def listed_contents(node: Node, file: PipelineFile, dataset: Dataset) -> dict[str, str]:
    """Field -> digest of which contents those names stand for, so that a video that is renamed is not taken for it."""
    return {
        f"videos of {name}": digest([[video_id, dataset.digests.get(video_id)] for video_id in sorted(video_ids)])
        for name, video_ids in listed_videos(node, file).items()
    }


def hub_file(node: Node, file: PipelineFile) -> Path | None:
    """Where the pretrained weights of a node lie once they are fetched; None when it takes none from a hub."""
    name = node.config.hub_weights()
    return None if name is None else file.store.weights(name)


def reads(made_of: Mapping[str, Any], started: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run made of ``made_of`` expects of its input, besides its weights; how it was trained is left out.

    ``started`` is the same of the runs it started from (`started_from`).
    """
    model = config_model(made_of["stage"], where="a run")
    inputs = {name: value for name, value in made_of["inputs"].items() if name != _VIDEOS and not model.used(name)}
    expected = {**model.expected(made_of["spec"]), "inputs": inputs, "temporal": list(started)}
    plugins = model.expected(made_of.get("plugins", {}))
    return {**expected, "plugins": plugins} if plugins else expected


def started_from(stage: str, inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """Those of the inputs of a run whose expectations are its own too."""
    model = config_model(stage, where="a run")
    return [value for name, values in inputs.items() if model.used(name) == "start" for value in values]


def _reads(plan: NodePlan, plan_of: Callable[[str], NodePlan]) -> dict[str, Any]:
    assert plan.material is not None
    starts = started_from(plan.node.stage, plan.node.inputs)
    return reads(plan.material, [_reads(plan_of(parent), plan_of) for parent in starts])


@dataclass(frozen=True)
class NodePlugins:
    """The plug-ins that the nodes of a file name, looked at once: a whole run goes by what was planned."""

    file: PipelineFile
    graph: Graph
    _found: dict[str, Plugin] = field(default_factory=dict)  # by use

    def of(self, node: Node) -> dict[str, Plugin]:
        """Field -> the plug-in that a node names; its stage's too. Raises ConfigError where one is not found."""
        place, found = "uses", {}
        try:
            own = stage_plugin(node.stage)
            if own is not None:
                found["stage"] = self._found.setdefault(f"stages:{node.stage}", own)
            for place, use in node.config.plugins().items():
                if use.key not in self._found:
                    self._found[use.key] = find_plugin(use.group, use.name, folder=self.file.folder)
                found[place] = self._found[use.key]
        except ConfigError as error:
            raise ConfigError(f"{self.file.path}: stages.{node.name}.{place}: {error}") from None
        return found

    def behind(self, node: Node) -> dict[str, Any]:
        """Those of a node and of all that it rests on, for its unit of work."""
        nodes = [self.graph.nodes[name] for name in self.graph.upstream([node.name])]
        uses = [(use, node, place) for node in nodes for place, use in node.config.plugins().items()]
        return {use.key: self.of(node)[place].plain() for use, node, place in uses}
