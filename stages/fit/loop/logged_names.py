"""What loggers call a run, its settings and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def run_name(about: Mapping[str, Any]) -> str:
    """What people call a run: its node and the settings that are changed most, ``train@1: gru, lr 0.001, seed 1``."""
    optimizer = about.get("optimizer") or {}
    parts = {
        "": (about.get("model") or {}).get("name"),
        "lr": optimizer.get("lr"),
        "batch": about.get("batch_size"),
        "seed": about.get("seed"),
    }
    given = {word: value for word, value in parts.items() if value is not None}
    shown = [f"{word} {f'{value:g}' if isinstance(value, float) else value}".strip() for word, value in given.items()]
    return f"{about.get('node', 'train')}: {', '.join(shown)}" if shown else str(about.get("node", "train"))


def tags_of(about: Mapping[str, Any]) -> dict[str, str]:
    """By which runs are found: those of one node that differ by seeds (train@0, train@1) are a group."""
    node = str(about.get("node", "train"))
    model = str((about.get("model") or {}).get("name", ""))
    stage, key = str(about.get("stage", "")), str(about.get("key", ""))
    return {"group": node.partition("@")[0], "node": node, "stage": stage, "model": model, "key": key}


def tag(name: str) -> str:
    """`val_loss` stands under `val/loss`."""
    return name.replace("_", "/", 1) if name.startswith(("train_", "val_")) else name


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `optimizer.lr`: MLflow knows no nesting and at most 500 letters."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)[:500]
    return flat
