"""Readers of video files, image folders and stored frames by backend name; a backend is imported when asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelwright.stages.decode.processes.wire import NO_BACKEND
from reelwright.storage.errors import ConfigError, ItemError

if TYPE_CHECKING:
    from reelwright.stages.decode.config import DecodeConfig
    from reelwright.stages.decode.reader import Reader

ON_GPU = "torchcodec-cuda"  # frames differ a little from those of BACKENDS, and so do their keys
BACKENDS = {"decord": "DecordReader", "torchcodec": "TorchcodecReader", "pyav": "PyavReader"}


def installed(backend: str) -> bool:
    """Whether the package of ``backend`` is there (it is not imported)."""
    return find_spec({"pyav": "av"}.get(backend, backend)) is not None


def backend_order(backend: str, *, is_range: bool = False) -> list[str]:
    """The backends to try, first to last.

    `auto` is PyAV, which takes every file and is the fastest through our stream (make bench). decord comes after it,
    for files on which FFmpeg's newer decoder hangs or dies, but not for a range of a video's rows that ends before it
    does: decord decodes ahead, up to the end of the file while its frames are taken slowly. torchcodec is tried only
    where it is asked for: it brings torch (300 MB, seconds) into every decoding process. Raises ConfigError when the
    one asked for is not installed, or needs a GPU and there is none.
    """
    if backend == "auto":
        return [name for name in ("pyav", "decord") if installed(name) and not (is_range and name == "decord")]
    package = backend.removesuffix("-cuda")
    if not installed(package):
        known = ", ".join(name for name in BACKENDS if installed(name))
        raise ConfigError(f"backend {backend!r} is not installed: pip install {package}, or use one of: auto, {known}.")
    if backend == ON_GPU:
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(
                f"backend {backend!r} decodes on a GPU, but torch finds none here. Set backend: torchcodec, or auto."
            )
    return [backend, *(name for name in ("pyav", "decord") if name != backend and installed(name))]


def open_reader(
    path: Path,
    config: DecodeConfig,
    *,
    backend: str,
    num_threads: int = 1,
    digest: str = "",
    index_folder: Path | None = None,
    is_doubted: bool = False,
) -> Reader:
    """Open a file with ``backend``, or a folder of images or of stored frames.

    digest, index_folder: the content of the file, and where indexes are kept by content; none: the file is read for it.
    is_doubted: its frames are those that decode, whatever packets say.
    Raises ItemError when it cannot be opened; another backend may where the cause is `backend_unsuited`,
    `backend_failed` or `backend_missing`.
    """
    if path.is_dir():
        from reelwright.stages.decode.readers.images import ImagesReader, list_images
        from reelwright.stages.decode.readers.stored import StoredReader, is_stored

        if is_stored(path):
            return StoredReader(path)
        images = list_images(path, template=config.image_tmpl, start=config.image_start)
        return ImagesReader(images, fps=config.image_fps)
    from reelwright.stages.decode.readers.proven import COLOURS_OF_GPU, CheckedReader, refuse_unproven
    from reelwright.stages.decode.readers.pyav import PyavReader
    from reelwright.stages.decode.timing.packets import index_of

    index = index_of(path, digest=digest, folder=index_folder)
    index = index.doubted() if is_doubted else index
    stretch = index.pixel_aspect if config.square_pixels else 1.0
    if backend == "pyav":
        return PyavReader(path, index, num_threads=num_threads, stretch=stretch)
    package = backend.removesuffix("-cuda")
    refuse_unproven(package, index, stretch=stretch)
    try:
        module = import_module(f"reelwright.stages.decode.readers.{package}")
        reader: Any = getattr(module, "CudaReader" if backend == ON_GPU else BACKENDS[backend])
    except (ImportError, OSError) as error:  # shared libraries of the backend are missing on this machine
        raise ItemError(NO_BACKEND, f"cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    most = COLOURS_OF_GPU if backend == ON_GPU else 0.0
    return CheckedReader(reader(path, index, num_threads=num_threads), path, index, most_difference=most)
