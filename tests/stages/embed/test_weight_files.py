"""Weights are data: read as tensors, refused when they are anything else."""

import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file

from reelwright.stages.embed.encoding import weight_files
from reelwright.stages.embed.encoding.weight_files import read_weights
from reelwright.storage.errors import InputError

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


@pytest.mark.parametrize(
    "saved",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE},
        {"module": STATE, "optimizer": {"lr": 0.1}},
        {"model": STATE, "epoch": 3, "scaler": {}, "args": argparse.Namespace(lr=0.1, betas=(0.9, 0.999))},
    ],
    ids=["plain", "state_dict", "model", "module", "args"],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torch_file(tmp_path, saved, suffix):
    path = tmp_path / f"w{suffix}"
    torch.save(saved, path)
    found = read_weights(path)
    assert found.keys() == STATE.keys()
    assert torch.equal(found["conv.weight"], STATE["conv.weight"])


def test_a_damaged_directory_of_the_file_is_told(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(STATE, path)
    content = path.read_bytes()
    place = content.rfind(b"PK\x01\x02")  # begins an entry of the zip file's directory
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    with pytest.raises(InputError, match="no readable torch file"):
        read_weights(path)


def test_safetensors_file(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert torch.equal(read_weights(tmp_path / "w.safetensors")["conv.bias"], torch.ones(2))


def test_a_file_replaced_while_it_is_read(tmp_path, monkeypatch):
    path, other = tmp_path / "w.pt", tmp_path / "other.pt"
    torch.save(STATE, path)
    torch.save({"conv.bias": torch.zeros(2)}, other)
    read = weight_files.READERS[".pt"]

    def replaced(path):
        found = read(path)
        other.replace(path)
        return found

    monkeypatch.setitem(weight_files.READERS, ".pt", replaced)
    with pytest.raises(InputError, match=r"w\.pt changed while it was read, so nothing of it was kept; run again"):
        read_weights(path)


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    "wrap", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))], ids=["zip", "pickle"]
)
@pytest.mark.filterwarnings("ignore:.*weights_only.*")
def test_code_is_not_executed(tmp_path, wrap):
    trace, path = tmp_path / "executed", tmp_path / "evil.pth"
    wrap({"conv.weight": torch.zeros(1), "evil": _Evil(trace)}, path)
    with pytest.raises(InputError, match=r"'evil.pth' hold more than tensors.*nothing was loaded"):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"", r"are no readable torch file|hold more than tensors"),
        ("w.safetensors", b"\xff" * 16, "are no readable safetensors file"),
        ("w.onnx", b"x", r"suffix '.onnx' is not known; allowed: .safetensors, .pth, .pt"),
    ],
    ids=["empty", "garbage", "suffix"],
)
def test_unreadable_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("saved", [[1, 2], {"epoch": 3}, {}], ids=["list", "numbers", "empty"])
def test_no_state_dict(tmp_path, saved):
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(InputError, match="hold no state dict"):
        read_weights(tmp_path / "w.pt")
