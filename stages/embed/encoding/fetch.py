"""Fetch an encoder's pretrained weights from its hub into the store, once, so that runs need no network."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from reelwright.models.encoders.build import build_encoder
from reelwright.storage.errors import InputError
from reelwright.storage.files import SEAL, UNSEALED, replacing, seal
from reelwright.storage.store import Store


def fetch(encoder: str, store: Store) -> Path:
    """Put the pretrained weights of ``encoder`` (timm/NAME, hf-hub:ORG/NAME, torchvision/NAME) into the store.

    Returns the .safetensors file, with the classifier; one that is there already is kept. Raises InputError when the
    encoder is unknown, has no pretrained weights, or the hub cannot be reached.
    """
    path = store.weights(encoder)
    if store.backend.ensure_local(path):
        return path
    try:
        built = build_encoder(encoder, outputs=("logits",), pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"pretrained weights of {encoder!r} could not be fetched: {error}. Run once on a machine with a network "
            f"and copy {path.name} into {path.parent}, or give `weights` a .safetensors, .pth or .pt file, or none."
        ) from error
    tensors = {name: tensor.contiguous() for name, tensor in built.model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"encoder": encoder, SEAL: UNSEALED})
        seal(temporary)
    return path
