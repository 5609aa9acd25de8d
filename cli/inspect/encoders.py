"""The command encoders: which there are, how large, how fast here, and whether their weights are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelwright.cli.format import print_json, table_text
from reelwright.cli.options import ConfigOption, JsonOption

if TYPE_CHECKING:
    from reelwright.models.encoders.listing import EncoderFacts
    from reelwright.storage.store import Store


def encoders(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]...", help="Parts of the name, such as resnet 18; none: counts."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many are shown with what they are.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List encoders: what `encoder:` of embed and pretrain takes.

    With parts of a name: parameters, features (D of `pooled`), what it sees, whether pretrained weights are in the
    store or at a hub, and the rows a second that were measured on this machine.
    """
    from reelwright.models.encoders.listing import encoder_facts, encoder_names

    found = encoder_names(tuple(words or ()))
    if not words:
        _print_counts(found)
        return
    shown = [encoder_facts(name) for name in found[:limit]]
    store = _store(config)
    rates = _rates(store.root / "tuning") if store is not None else {}
    rows = [
        {
            "encoder": facts.name,
            "kind": facts.kind,
            "parameters": facts.num_parameters,
            "embed_dim": facts.dim,
            "sees": " x ".join(map(str, ((facts.clip_length,) if facts.kind == "video" else ()) + facts.size)),
            "weights": _weights(facts, store),
            "rows_per_second": rates.get(_network(facts.name)),
        }
        for facts in shown
    ]
    if as_json:
        print_json(rows)
        return
    header = ("encoder", ">parameters", ">features", ">sees", "weights", ">rows/s here")
    cells = [
        (
            str(row["encoder"]),
            f"{facts.num_parameters / 1e6:.1f} M",
            str(row["embed_dim"]),
            str(row["sees"]),
            str(row["weights"]),
            "" if row["rows_per_second"] is None else f"{row['rows_per_second']:.0f}",
        )
        for row, facts in zip(rows, shown, strict=True)
    ]
    typer.echo(table_text(header, cells) if cells else f"no encoder has {' and '.join(words)} in its name")
    if len(found) > limit:
        typer.echo(f"\nand {len(found) - limit} more: give more of the name, or --limit")


def _print_counts(names: list[str]) -> None:
    what = {
        "timm": "images; with weights NAME.TAG",
        "frames": "clips, frame by frame, with what timm has",
        "torchvision": "clips",
        "tsm": "clips: temporal shifts in timm's ResNets and MobileNetV2s",
        "x3d": "clips; weights from a file",
        "videomae": "clips; weights from a file",
    }
    counts = {library: sum(name.startswith(f"{library}/") for name in names) for library in what}
    rows = [(f"{library}/NAME", str(counts[library] or counts["timm"]), text) for library, text in what.items()]
    typer.echo(table_text(("encoder", ">names", "sees"), rows))
    typer.echo(
        "\nhf-hub:ORG/NAME takes timm's networks from a hub. Parts of a name show more, as in: encoders dinov2 small"
    )


def _store(config: Path | None) -> Store | None:
    """The store of the pipeline file; None where there is none."""
    from reelwright.pipeline.config.pipeline_file import DEFAULT_NAMES, find_pipeline_file, load_pipeline

    if config is None and not any(Path(name).is_file() for name in DEFAULT_NAMES):
        return None
    return load_pipeline(find_pipeline_file(config)).store


def _weights(facts: EncoderFacts, store: Store | None) -> str:
    if store is not None and store.weights(facts.name).is_file():
        return "in the store"
    return "at the hub" if facts.is_published else "from a file"


def _rates(folder: Path) -> dict[str, float]:
    """Network -> the best rate that was measured in this store; damaged files are only a cache."""
    rates: dict[str, float] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            rate = float(values["choice"]["rows_per_second"])
            name = _network(values["encoder"])
            rates[name] = max(rate, rates.get(name, 0.0))
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return rates


def _network(name: str) -> str:
    """The name without the tag of its weights, which make no difference to how fast it is."""
    return name.partition(".")[0]
