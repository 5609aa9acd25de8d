"""`init_from`: a run starts from the weights of another one or of a file, and tells what it took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reelwright.models.blocks.init_from import InitReport, start_from
from reelwright.models.blocks.weights import remap_state_dict
from reelwright.models.contracts import ClipModel
from reelwright.models.systems.carl import PUBLIC_NAMES, FrameModel
from reelwright.models.systems.embedding_head import NETWORK
from reelwright.stages.base.inputs import unchanged_file, unchanged_run
from reelwright.stages.base.work import Work
from reelwright.stages.embed.encoding.clip_models import WHOLE
from reelwright.stages.embed.encoding.weight_files import read_weights
from reelwright.stages.fit.config import LearningSettings
from reelwright.stages.fit.run_models import TEMPORAL
from reelwright.storage.errors import InputError
from reelwright.storage.store import Store

_ENCODER = "spatial."  # of the encoder in a finetune or pretrain run
_BASE = "backbone.base."  # of the ResNet in front of the layers that a model of CARL's learns


def init_weights(
    module: nn.Module, work: Work, config: LearningSettings, *, classes: tuple[str, ...]
) -> dict[str, Any] | None:
    """Start ``module`` from ``init_from``; returns what became of every tensor, and None without it.

    Raises InputError for a file that is not there or weights of another model, StoreError for a run that has not ended.
    """
    if config.init_from is None:
        return None
    references = work.inputs.get("init_from", ())
    if references:
        with unchanged_run(Store.at(work.store), references[0]) as run:
            run.weights_digest()
            state, source = read_weights(run.weights), f"run {references[0].node}"
        same_classes = list(run.config().get("classes", ())) == list(classes)
    else:
        path = Path(config.init_from)
        with unchanged_file(path, work.spec.get("inputs", {}).get("init_from")):
            state, source = read_weights(path), path.name
        same_classes = True  # a file does not say
    report = _start(module, state, work, config, same_classes=same_classes, source=source)
    return {"source": source, "line": f"init_from {source}: {report.line()}", **report.plain()}


def _start(
    module: nn.Module,
    state: dict[str, Tensor],
    work: Work,
    config: LearningSettings,
    *,
    same_classes: bool,
    source: str,
) -> InitReport:
    is_replaced = config.init_head == "replace" or (config.init_head == "auto" and not same_classes)
    try:
        own = _own_names(state, module)
        return start_from(module, own, replace_heads=is_replaced, keep_heads=config.init_head == "keep")
    except ValueError as error:
        raise InputError(f"{work.node}: init_from {source}: {error}") from error


def _own_names(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """A temporal model takes its part of a finetune run's weights; a joint model takes a temporal run's as its part.

    Of a run that compared views (simclr, moco, byol) the network is taken. CARL's models take the names of its public
    code too; the base of its ResNet is the encoder of a joint model. A clip model takes public checkpoints and image
    networks as it knows them, also out of a run whose encoder they are.
    """
    for model, prefix in ((module, ""), (getattr(module, "model", None), WHOLE)):
        if isinstance(model, ClipModel):
            return {f"{prefix}{name}": value for name, value in _of_clip_model(state, model).items()}
    if isinstance(getattr(module, "temporal", module), FrameModel):
        state = remap_state_dict(state, prefix=None, key_map=PUBLIC_NAMES)
    own = module.state_dict()
    if any(name.startswith(NETWORK) for name in state) and not any(name.startswith(NETWORK) for name in own):
        state = {name.removeprefix(NETWORK): value for name, value in state.items()}
    is_joint = any(name.startswith(TEMPORAL) for name in own)
    was_joint = any(name.startswith((TEMPORAL, _ENCODER)) for name in state)
    if was_joint and not is_joint and not any(name.startswith(_ENCODER) for name in own):
        return {name.removeprefix(TEMPORAL): value for name, value in state.items() if name.startswith(TEMPORAL)}
    if is_joint and not was_joint:
        return {
            f"spatial.model.{name.removeprefix(_BASE)}" if name.startswith(_BASE) else f"{TEMPORAL}{name}": value
            for name, value in state.items()
        }
    return state


def _of_clip_model(state: dict[str, Tensor], model: ClipModel) -> dict[str, Tensor]:
    for prefix in (WHOLE, f"{_ENCODER}model."):
        if any(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            break
    return model.public_state(state)
