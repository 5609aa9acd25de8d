"""What nodes left behind, as objects: a trained run, and a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.api.model import Model
from reelwright.pipeline.inspect.trained_model import pipeline_of_run
from reelwright.pipeline.plan.graph import names_of
from reelwright.pipeline.project import Project
from reelwright.stages.base.registry import load
from reelwright.storage.digests import readable
from reelwright.storage.errors import ConfigError, StoreError, nearest
from reelwright.storage.kinds import KINDS
from reelwright.storage.ledger.records import Record
from reelwright.storage.results.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOSS = "loss"
FRAME = "reelwright.stages.arrays.tables:frame_of_lines"  # imported when a table is asked for
PROBED = ("status", "duration_seconds", "num_frames", "fps", "width", "height", "codec")  # of a video, in tables


class Run:
    """A trained run: what it was told, how it went, and its best weights."""

    def __init__(self, folder: RunFolder, *, record: Record, project: Project | None) -> None:
        self.folder = folder
        self._record, self._project = record, project

    @property
    def node(self) -> str:
        """The name of the node that trained it."""
        return self._record.node

    @property
    def key(self) -> str:
        """What it is called in the store."""
        return self.folder.path.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder.path

    @property
    def weights(self) -> Path:
        """The best weights, a safetensors file."""
        return self.folder.weights

    @property
    def settings(self) -> dict[str, Any]:
        """What config.yaml says: task, classes, window, model and its options, optimizer, schedule, ..."""
        return self.folder.config()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores; empty where it learned without labels."""
        return tuple(self.settings.get("classes") or ())

    @property
    def metrics(self) -> dict[str, float]:
        """The best epoch's line: epoch, train_loss, val_loss, val_<metric>, ...; losses are means, shares in [0, 1]."""
        return dict(self._record.outputs.get("metrics", {}))

    def curves(self) -> Any:
        """A line an epoch: epoch, update, lr, train_loss, ..., val_<metric>, ... as a pandas DataFrame.

        Without pandas a `pyarrow.Table`. What an epoch did not measure is null.
        """
        lines = self.folder.metrics()
        names = list(dict.fromkeys(name for line in lines for name in line))
        return load(FRAME)(names, [[line.get(name) for name in names] for line in lines])

    def plot(self, *names: str, ax: Any = None) -> Figure:
        """Curves over epochs, a matplotlib figure; without names all losses.

        Raises ConfigError for a curve that there is not, UnusableMachineError without matplotlib.
        """
        lines = self.folder.metrics()
        known = list(
            dict.fromkeys(name for line in lines for name, value in line.items() if isinstance(value, int | float))
        )
        wrong = [name for name in names if name not in known]
        if wrong or not known:
            raise ConfigError(
                f"{self.node} has no curve {wrong[0] if wrong else ''!r}.{nearest(wrong[0], known) if wrong else ''} "
                f"It has: {', '.join(known)}"
            )
        chosen = names or tuple(name for name in known if name.endswith(_LOSS))
        nan = float("nan")
        draw = load("reelwright.stages.arrays.plots:draw_lines")
        curves = {name: [line.get(name, nan) for line in lines] for name in chosen}
        epochs = [line.get("epoch", place) for place, line in enumerate(lines)]
        figure: Figure = draw(epochs, curves, title=f"{self.node}: training", x_label="epoch", ax=ax)
        return figure

    def model(self, *, device: str = "auto", overrides: str | Sequence[str] = ()) -> Model:
        """The model, with all from a video to its scores as the project has it now; of a store's run, the run alone.

        It predicts with the defaults of predict, whatever predict nodes of the project set; ``overrides`` are its
        settings, as ``window.hop=2``. Raises ConfigError for a run that gives no scores.
        """
        project = self._project
        if project is None:
            return Model.load(self.path, device=device, overrides=overrides)
        return Model.of_pipeline(
            lambda videos: pipeline_of_run(project, self.node, videos, names_of(overrides)),
            device=device,
            name=self.node,
        )

    def __repr__(self) -> str:
        values = self.settings
        model = (values.get("model") or {}).get("name", values.get("encoder", "?"))
        best = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items() if name.startswith("val_"))
        return f"<run of {self.node}: {model}, task {values.get('task')}{f', {best}' if best else ''}>"

    def _repr_html_(self) -> str:
        rows = [*self.metrics.items(), ("trained", self._record.finished), ("folder", str(self.path))]
        shown: str = load("reelwright.stages.arrays.tables:html_table")(("", ""), rows, title=repr(self).strip("<>"))
        return shown


@dataclass(frozen=True, repr=False)
class Report:
    """What an evaluate, probe or render node wrote."""

    node: str
    folder: Path
    produces: str

    @property
    def page(self) -> Path:
        """The page that people look at, self-contained."""
        return self.folder / KINDS[self.produces].page

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json says; shares are in [0, 1], times in seconds. Raises StoreError for pictures."""
        path = self.folder / "metrics.json"
        if not path.is_file():
            raise StoreError(f"{self.node} made pictures and has no metrics; look at {self.page}")
        with readable(path):
            return dict(json.loads(path.read_text(encoding="utf-8")))

    def __repr__(self) -> str:
        return f"<report of {self.node}: {self.page}>"

    def _repr_html_(self) -> str:
        found = self.metrics if (self.folder / "metrics.json").is_file() else {}
        rows = [(name, value) for name, value in found.items() if isinstance(value, int | float | str)]
        shown: str = load("reelwright.stages.arrays.tables:html_table")(("", ""), rows, title=repr(self).strip("<>"))
        return shown
