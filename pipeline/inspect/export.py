"""Export what a node made: find its rows or predictions, hand them to the writer of the form asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.plan.graph import names_of
from reelwright.stages.base.registry import load
from reelwright.storage.bucket.remote import list_names
from reelwright.storage.bucket.transfer import replacing_at
from reelwright.storage.errors import ConfigError, StoreError, nearest
from reelwright.storage.files import replacing_folder, write_json
from reelwright.storage.kinds import KINDS
from reelwright.storage.store import is_url
from reelwright.storage.tables.annotations import UNKNOWN

if TYPE_CHECKING:
    from reelwright.pipeline.plan.graph import NodePlan
    from reelwright.pipeline.plan.plan import Planner
    from reelwright.pipeline.project import Project

# form -> what it is made of, and its writer
FORMS: dict[str, tuple[str, str]] = {
    "mstcn": ("predictions", "reelwright.stages.export.predictions:export_mstcn"),
    "activitynet": ("predictions", "reelwright.stages.export.predictions:export_activitynet"),
    "csv": ("predictions", "reelwright.stages.export.predictions:export_csv"),
    "npy": ("embeddings", "reelwright.stages.export.embeddings:export_npy"),
    "parquet": ("embeddings", "reelwright.stages.export.embeddings:export_parquet"),
    "zarr": ("embeddings", "reelwright.stages.export.embeddings:export_zarr"),
    "webdataset": ("embeddings", "reelwright.stages.export.embeddings:export_webdataset"),
    "npz": ("attention", "reelwright.stages.export.embeddings:export_npz"),
}
NOTE = "export.json"  # says what a folder holds; only a folder with it is replaced


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is exported, and how."""

    node: str
    form: str  # one of FORMS
    folder: str | Path  # or a URL
    splits: tuple[str, ...] = ()  # empty: all
    output: str = "pooled"  # of embeddings
    background: str | None = None  # of activitynet
    per_row: bool = False  # of mstcn
    shard_bytes: int | None = None  # of webdataset; None: the writer's default

    def __post_init__(self) -> None:
        """One split is a list of one: a text would be taken for its letters."""
        object.__setattr__(self, "splits", names_of(self.splits))


def export_node(project: Project, request: ExportRequest) -> int:
    """Write the export into a folder of its own, which appears when it is whole; returns the number of videos.

    Raises ConfigError when the form does not fit the node or the folder holds something else, StoreError when the node
    has not run.
    """
    check_export(request)
    planner = project.planner(read=True)
    planner.graph.check_name(request.node)
    plan = planner.plan(request.node)
    made_of, writer = FORMS[request.form]
    made = (plan.node.config.produces, *plan.node.config.also_produces)
    if made_of not in made:
        fitting = ", ".join(form for form, (kind, _) in FORMS.items() if kind in made)
        raise ConfigError(
            f"{request.node} makes {' and '.join(made)}; {request.form} is made of {made_of}. "
            f"Forms: {fitting or 'none'}"
        )
    if plan.record is None or not plan.key:
        raise StoreError(
            f"{request.node} has nothing for its present settings: {'; '.join(plan.reasons)}. Run it first"
        )
    place = str(request.folder)
    export = _WRITERS[made_of]
    with replacing_at(place, last=NOTE) if is_url(place) else replacing_folder(Path(place)) as temporary:
        count = export(planner, plan, request, load(writer), temporary)
        if not count:
            raise StoreError(f"{request.node} has no video in the splits {', '.join(request.splits) or '(all)'}")
        note = {"form": request.form, "node": request.node, "key": plan.key, "videos": count}
        write_json(temporary / NOTE, note)
    return count


def check_export(request: ExportRequest) -> None:
    """Raise ConfigError for a form that is not known, a folder that holds something else, and the working folder."""
    if request.form not in FORMS:
        raise ConfigError(
            f"--to {request.form!r}: no such form.{nearest(request.form, FORMS)} Known: {', '.join(FORMS)}"
        )
    place = str(request.folder)
    if is_url(place):
        names = list_names(place)
        if names and NOTE not in names:
            raise ConfigError(f"{place} holds objects that are no export of ours; give an empty place, or a new one")
        return
    folder = Path(place)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder that is not there yet")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / NOTE).is_file():
        raise ConfigError(f"{folder} holds files that are no export of ours; give an empty folder, or a new one")
    check_own_folder(folder)


def check_own_folder(folder: Path) -> None:
    """Raise ConfigError for the working folder and those above: what is written takes the place of a whole folder."""
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"{folder} is the working folder, or lies above it, and would be replaced as a whole; give a folder of its "
            f"own, such as {folder / 'out'}"
        )


def _predictions(planner: Planner, plan: NodePlan, request: ExportRequest, write: Any, folder: Path) -> int:
    options = load("reelwright.stages.export.predictions:PredictionExport")(
        splits=frozenset(request.splits) or None,
        background=request.background,
        per_row=request.per_row,
        paths={video.video_id: video.path for video in planner.dataset.videos},
    )
    place = planner.file.store.predictions(plan.key)
    planner.file.store.backend.pull(place)
    return int(write(KINDS["predictions"].open(place), folder, options))


def _embeddings(planner: Planner, plan: NodePlan, request: ExportRequest, write: Any, folder: Path) -> int:
    try:
        store = KINDS["embeddings"].open(planner.file.store.embeddings(plan.spec_key))
    except StoreError as error:
        raise StoreError(
            f"{request.node} has no rows of any video, as where every one failed (`reelwright logs`), so nothing "
            f"was written: {error}"
        ) from error
    options = (
        {} if request.shard_bytes is None or request.form != "webdataset" else {"shard_bytes": request.shard_bytes}
    )
    videos = _videos(planner, present=set(store.digests()), splits=request.splits)
    return int(write(store, videos, folder, output=request.output, **options))


def _window_outputs(planner: Planner, plan: NodePlan, request: ExportRequest, write: Any, folder: Path) -> int:
    store = KINDS["attention"].open(planner.file.store.attention(plan.spec_key))
    return int(write(store, _videos(planner, present=set(store.digests()), splits=request.splits), folder))


_WRITERS = {"predictions": _predictions, "embeddings": _embeddings, "attention": _window_outputs}


def _videos(planner: Planner, *, present: set[str], splits: Sequence[str]) -> list[Any]:
    """The videos that have rows, in the order of the manifest."""
    dataset = planner.dataset
    make = load("reelwright.stages.export.embeddings:ExportedVideo")
    return [
        make(
            video_id=video.video_id,
            digest=digest,
            split=video.split,
            label=video.label if annotation.label == UNKNOWN else dataset.labels.classes[annotation.label],
        )
        for video, digest, annotation in dataset.named(present)
        if not splits or video.split in splits
    ]
