"""What a node's key is the digest of: stage, version, spec, and its inputs.

Sources (weights files, trained weights) enter by content; frames, embeddings and predictions by the key they were made
with, so that recomputing them on another machine re-trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.graph import Node
from reelwright.pipeline.selection import named_videos, samples
from reelwright.stages.work import VideoItem
from reelwright.storage.digests import digest, set_digest, stage_key
from reelwright.storage.errors import InputError

if TYPE_CHECKING:
    from reelwright.pipeline.dataset import Dataset
    from reelwright.pipeline.file import PipelineFile
    from reelwright.pipeline.plan import NodePlan
    from reelwright.storage.known import KnownFiles

_READ_BY_USERS = (  # of a run's spec: what its weights expect
    *("task", "labels_of_window", "window", "output", "model"),
    *("encoder", "model_args", "preprocess", "embed_dim"),  # of pretrain
)
_ONLY_TRAINING = frozenset(
    {"videos", "temporal", "frames", "init_from"}
)  # inputs of a run that its weights do not expect


def material(
    node: Node,
    dataset: Dataset,
    wanted: tuple[VideoItem, ...],
    *,
    identities: Mapping[str, str],
    sources: Mapping[str, str],
) -> dict[str, Any]:
    """What the spec key is the digest of. ``identities`` are those of the nodes it reads, by name."""
    inputs: dict[str, Any] = {
        name: [identities[parent] for parent in names] for name, names in node.inputs.items() if names
    }
    inputs.update(sources)
    if node.config.kind == "run":
        inputs["videos"] = digest([entry[1:] for entry in samples(dataset, node, wanted)])
        inputs["classes"] = list(dataset.labels.classes)
        inputs["background"] = dataset.background
    if node.config.reads_labels:
        inputs["names and labels"] = digest([named_videos(dataset, node, wanted), list(dataset.labels.classes)])
    return {"stage": node.stage, "version": node.config.version, "spec": node.config.spec(), "inputs": inputs}


def identity(plan: NodePlan, plan_of: Callable[[str], NodePlan]) -> str:
    """How a node stands in the keys of those that read it."""
    if plan.node.config.produces in {"frames", "embeddings"}:
        return plan.spec_key
    if plan.node.config.produces == "run":
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
        named = named_videos(dataset, node, wanted)
        inputs = {"spec": spec_key, "videos": named, "classes": list(dataset.labels.classes)}
    return stage_key(node.stage, node.config.version, {}, inputs)


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


def hub_file(node: Node, file: PipelineFile) -> Path | None:
    """Where the pretrained weights of a node lie once they are fetched; None when it takes none from a hub."""
    name = node.config.hub_weights()
    return None if name is None else file.store.weights(name)


def reads(made_of: Mapping[str, Any], temporal: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run made of ``made_of`` expects of its input, besides its weights; how it was trained is left out.

    ``temporal`` is the same of the runs it started from.
    """
    spec, inputs = made_of["spec"], made_of["inputs"]
    kept = {name: spec[name] for name in _READ_BY_USERS if name in spec}
    named = {name: value for name, value in inputs.items() if name not in _ONLY_TRAINING}
    return {**kept, "inputs": named, "temporal": list(temporal)}


def _reads(plan: NodePlan, plan_of: Callable[[str], NodePlan]) -> dict[str, Any]:
    assert plan.material is not None
    return reads(plan.material, [_reads(plan_of(parent), plan_of) for parent in plan.node.inputs.get("temporal", ())])
