"""How what a report shows was made: the nodes behind it with their settings, and the videos that are not in it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.inputs import behind
from reelwright.stages.base.registry import config_model
from reelwright.stages.base.work import InputRef, Work, headroom_line
from reelwright.stages.evaluate.pages.markup import join, tag
from reelwright.stages.evaluate.pages.page import Section, Table
from reelwright.storage.ledger.items import WORK_STEPS, ItemLedger
from reelwright.storage.store import Store, is_url


def provenance_sections(work: Work) -> list[Section]:
    """The videos that were left out, where there are some, and the nodes behind the report."""
    return [*left_out_sections(work), _nodes(work)]


def provenance_facts(work: Work) -> dict[str, str]:
    """The seeds of the runs behind the report, and the day (UTC) on which it was written."""
    runs = [ref for ref in behind(work) if config_model(ref.stage, where=ref.node).kind == "run"]
    seeds = {ref.node: ref.config["seed"] for ref in runs if "seed" in ref.config}
    text = ", ".join(f"{seed} ({node})" if len(seeds) > 1 else str(seed) for node, seed in seeds.items())
    return {**({"seed": text} if seeds else {}), "written": time.strftime("%Y-%m-%d", time.gmtime())}


def file_address(path: str) -> str:
    """Where a browser finds a video on this machine; empty for one that is not there, in a bucket or in a folder."""
    there = Path(path)
    return there.as_uri() if not is_url(path) and there.is_absolute() and there.is_file() else ""


def left_out_notes(work: Work) -> Iterator[str]:
    """A line that says how many videos of the splits are in no number, and why the first is not."""
    for entry in list(work.payload.get("left_out", ()))[:1]:
        number = work.payload["num_left_out"]
        yield f"{_in_no_number(number)}: {entry['video_id']}{', ...' if number > 1 else ''} ({entry['why']})"


def left_out_sections(work: Work, *, title: str = "Left out") -> Iterator[Section]:
    """The videos of the splits that are in no number, and why, where there are some."""
    entries, number = work.payload.get("left_out", ()), work.payload.get("num_left_out", 0)
    if not entries:
        return
    rows = [[entry["video_id"], entry["split"], entry["why"]] for entry in entries]
    more = f" The first {len(entries):,} of them:" if number > len(entries) else ""
    text = f"{_in_no_number(number)} above.{more}"
    yield Section(title, [text, Table(columns=[("Video", "class"), ("Split", ""), ("Why", "")], rows=rows)])


def _in_no_number(number: int) -> str:
    return f"{'1 video of these splits is' if number == 1 else f'{number:,} videos of these splits are'} in no number"


def _nodes(work: Work) -> Section:
    """Settings are those that differ from what a node has unless told otherwise."""
    rows, store = [], Store.at(work.store)
    for ref in [*behind(work), InputRef(node=work.node, stage=work.stage, key=work.key, config=work.config)]:
        lines = [tag("div", tag("code", f"{name}: {value}")) for name, value in _settings(ref).items()]
        if headroom := _headroom(ref, store):
            lines.append(tag("div", headroom))
        rows.append([ref.node, ref.stage, join(*lines), tag("code", ref.key[:12])])
    text = "The nodes behind this report, and their settings as far as these differ from the defaults."
    columns = [("Node", "class"), ("Stage", ""), ("Settings", "settings"), ("Key", "")]
    return Section("How it was made", [text, Table(columns=columns, rows=rows)])


def _headroom(ref: InputRef, store: Store) -> str:
    """Where the time of its videos went, all of them, whenever they were done; "" where no step of it is timed."""
    if config_model(ref.stage, where=ref.node).kind != "items":
        return ""
    done = [row for row in ItemLedger(store.node(ref.key)).load().values() if row.is_done]
    return headroom_line(
        {f"{name}_seconds": sum(getattr(row, f"{name}_seconds") for row in done) for name in WORK_STEPS}
    )


def _settings(ref: InputRef) -> dict[str, str]:
    config = parse_config(config_model(ref.stage, where=ref.node), dict(ref.config), where=ref.node)
    changed: Mapping[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    return {name: _text(value) for name, value in changed.items()}


def _text(value: Any) -> str:
    """A setting as it stands in a pipeline file, on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()
