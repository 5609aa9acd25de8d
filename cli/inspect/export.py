"""The commands report, export and export-model: what a node made, to look at, for other programs, to take elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelwright.cli.completion import complete_node
from reelwright.cli.format import bytes_text
from reelwright.cli.options import ConfigOption, SetOption, on_this_machine
from reelwright.storage.errors import ConfigError, StoreError
from reelwright.storage.files import folder_bytes
from reelwright.storage.kinds import KINDS

if TYPE_CHECKING:
    from reelwright.pipeline.project import Project


def export(
    node: Annotated[
        str, typer.Argument(help="A node that makes predictions or embeddings.", autocompletion=complete_node)
    ],
    form: Annotated[
        str,
        typer.Option(
            "--to",
            help="Of predictions: mstcn (a label a frame, text), activitynet (segments, JSON), csv (path, label, three "
            "best classes of a video). Of embeddings: npy, parquet or zarr (a file a video), webdataset (tar). "
            "Of outputs that predict keeps: npz (a file a video).",
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="A new folder or URL (s3://...), or one that an export made.")],
    splits: Annotated[list[str] | None, typer.Option("--split", help="Only this split. Repeatable.")] = None,
    output: Annotated[str, typer.Option("--output", help="Of embeddings: which stored output.")] = "pooled",
    background: Annotated[
        str | None, typer.Option("--background", help="activitynet: class that makes no segment.")
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", help="mstcn: a line a row instead of a line a frame.")] = False,
    shard_megabytes: Annotated[int, typer.Option("--shard-megabytes", min=1, help="webdataset: size of a tar.")] = 256,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write what a node made in a form that other programs read; the same content gives the same bytes."""
    from reelwright.pipeline.inspect.export import ExportRequest, export_node
    from reelwright.pipeline.project import Project

    request = ExportRequest(
        node=node,
        form=form,
        folder=out,
        splits=tuple(splits or ()),
        output=output,
        background=background,
        per_row=rows,
        shard_bytes=shard_megabytes << 20,
    )
    count = export_node(Project.open(config, overrides=overrides or ()), request)
    typer.echo(f"{node}: {count} videos as {form} in {out}")


def export_model(
    node: Annotated[str, typer.Argument(help="A train or finetune node.", autocompletion=complete_node)],
    out: Annotated[Path, typer.Option("--out", help="A new folder, or one that export-model made.")],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also model.onnx: what is behind the encoder, rows in, probabilities out.")
    ] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write a trained model, with all from a video to its scores, into one folder that works on any machine.

    `reelwright predict --run FOLDER --videos DIR --out scores.parquet` predicts with it.
    """
    from reelwright.pipeline.inspect.trained_model import export_model as write
    from reelwright.pipeline.project import Project

    out = on_this_machine(out) or out
    write(Project.open(config, overrides=overrides or ()), node, out, onnx=onnx)
    typer.echo(
        f"{node}: {out} ({bytes_text(folder_bytes(out))}); predict --run {out} --videos DIR --out scores.parquet"
    )


def report(
    node: Annotated[
        str | None,
        typer.Argument(help="An evaluate, probe or render node; default: all of them.", autocompletion=complete_node),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Print where the reports lie; exit code 1 when one is not there."""
    from reelwright.pipeline.project import Project

    project = Project.open(config, overrides=overrides or ())
    names = [name for name, settings_ in project.file.nodes.items() if KINDS[settings_.produces].page]
    if not node and not names:
        raise ConfigError(f"{project.file.path}: no node uses evaluate, probe or render, so there is no report")
    missing = []
    for name in [node] if node else names:
        try:
            typer.echo(f"{name}: {report_file(project, name)}")
        except StoreError as error:
            missing.append(str(error))
    if missing:
        raise StoreError("\n  ".join(missing))


def report_file(project: Project, name: str) -> Path:
    """What there is to look at of a node: its page, or its numbers where none was asked for.

    Raises StoreError when it is not there.
    """
    folder, config = project.report(name), project.file.nodes[name]
    kind = KINDS[config.produces]
    file = folder / (kind.page if config.spec().get("report", True) else kind.marker)
    if not file.is_file():
        raise StoreError(f"{file} is gone. `reelwright run --force {name}` writes it again")
    return file
