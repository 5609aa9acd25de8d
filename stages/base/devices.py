"""The device that a setting names."""

from __future__ import annotations

import torch

from reelwright.storage.errors import ConfigError


def pick_device(name: str, *, num_processes: int = 1) -> torch.device:
    """Auto is the first GPU, else the CPU. Raises ConfigError for one that is not there, or not for each process."""
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"device: {name!r} is not known; allowed: auto, cpu, cuda, cuda:1.") from error
    found = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ConfigError(f"device: {name!r}, but this machine has {found} GPU(s). Use auto or cpu.")
    if device.type == "cuda" and num_processes > 1 and (device.index is not None or num_processes > found):
        raise ConfigError(
            f"processes: {num_processes} on device: {name!r}, but each takes a GPU of its own and {found} are here. "
            "Use device: auto with as many processes as GPUs, or device: cpu."
        )
    return device
