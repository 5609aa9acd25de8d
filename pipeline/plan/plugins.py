"""The plug-ins that the nodes of a pipeline file name, looked at once, so that a whole run goes by what was planned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.graph import Graph, Node
from reelwright.stages.base.plugins import Plugin, find_plugin
from reelwright.stages.base.registry import stage_plugin
from reelwright.storage.errors import ConfigError


@dataclass(frozen=True)
class NodePlugins:
    """Those of one pipeline file."""

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
