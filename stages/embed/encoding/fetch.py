"""Fetch an encoder's pretrained weights from its hub into the store, once, so that runs need no network."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants
from safetensors.torch import save_file

from reelwright.models.encoders.build import build_encoder
from reelwright.storage.digests import SEAL, UNSEALED, seal
from reelwright.storage.errors import InputError
from reelwright.storage.files import replacing
from reelwright.storage.store import Store

_LIMIT_SECONDS = 5.0  # for the hub to answer at all
_TORCH_HUB = "https://download.pytorch.org"  # where torchvision's weights lie


def fetch(encoder: str, store: Store) -> Path:
    """Put the pretrained weights of ``encoder`` (timm/NAME, hf-hub:ORG/NAME, torchvision/NAME) into the store.

    Returns the .safetensors file, with the classifier; one that is there already is kept. Raises InputError when the
    encoder is unknown, has no pretrained weights, or the hub cannot be reached.
    """
    path = store.weights(encoder)
    if store.backend.ensure_local(path):
        return path
    try:
        with _unreachable_is_said_at_once(encoder):
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


@contextlib.contextmanager
def _unreachable_is_said_at_once(encoder: str) -> Iterator[None]:
    """Where its hub does not answer, take what was downloaded before or fail: the clients would try for minutes."""
    is_of_torch = encoder.startswith("torchvision/")
    if _answers(_TORCH_HUB if is_of_torch else constants.ENDPOINT):
        yield
        return
    offline, limit = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    try:
        constants.HF_HUB_OFFLINE = True
        socket.setdefaulttimeout(1.0)  # of torch.hub, which has none of its own
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        socket.setdefaulttimeout(limit)


def _answers(url: str, *, limit_seconds: float = _LIMIT_SECONDS) -> bool:
    """Whether a server says anything within the limit, an error or a certificate that we do not know too."""
    found: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - one of two addresses
        try:
            with urllib.request.urlopen(request, timeout=limit_seconds):  # noqa: S310 - as above
                found.append(True)
        except urllib.error.HTTPError:
            found.append(True)
        except urllib.error.URLError as error:
            found.append(isinstance(error.reason, ssl.SSLError))
        except OSError:
            found.append(False)

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no limit
    asking.start()
    asking.join(limit_seconds)
    return found == [True]
