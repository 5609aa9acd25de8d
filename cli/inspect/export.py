"""The command export: what a node made, in the forms of other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from reelwright.cli.options import ConfigOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Data")(export)


def export(
    node: Annotated[str, typer.Argument(help="A node that makes predictions or embeddings.")],
    form: Annotated[
        str,
        typer.Option(
            "--to",
            help="Of predictions: mstcn (a label a frame, text), activitynet (segments, JSON). Of embeddings: npy (a "
            "file a video), webdataset (tar shards). Of outputs that predict keeps: npz (a file a video).",
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
