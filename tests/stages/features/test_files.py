"""Arrays come out of every kind of file as they went in, and nothing that would run code is read."""

from __future__ import annotations

import os
import pickle
import signal
import warnings

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from reelwright.stages.features import matlab
from reelwright.stages.features.files import choose, open_arrays
from reelwright.stages.features.members import take_apart
from reelwright.storage.errors import InputError, ItemError
from tests.stages.decode.test_pool import pids

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def write_h5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def write_matlab73(path, arrays):
    """As MATLAB writes version 7.3: HDF5 with the axes the other way round, and a header of 512 bytes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = values.T
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def csr(values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch: this layout is new
        return torch.from_numpy(values).to_sparse_csr()


WRITERS = {
    "a.npy": lambda path: np.save(path, ROWS),
    "a.npz": lambda path: np.savez_compressed(path, rows=ROWS),
    "a.pt": lambda path: torch.save(torch.from_numpy(ROWS), path),
    "a.pth": lambda path: torch.save({"rows": torch.from_numpy(ROWS).bfloat16()}, path),
    "sparse.pt": lambda path: torch.save(torch.from_numpy(ROWS).to_sparse(), path),
    "csr.pt": lambda path: torch.save(csr(ROWS), path),
    "float8.pt": lambda path: torch.save(torch.from_numpy(ROWS).to(torch.float8_e4m3fn), path),
    "gradient.pt": lambda path: torch.save(torch.from_numpy(ROWS).requires_grad_(), path),
    "sparse.mat": lambda path: scipy.io.savemat(path, {"rows": scipy.sparse.csc_matrix(ROWS)}),
    "a.h5": lambda path: write_h5(path, {"video/rows": ROWS}),
    "a.mat": lambda path: scipy.io.savemat(path, {"rows": ROWS}),
    "b.mat": lambda path: write_matlab73(path, {"rows": ROWS}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_reads_what_was_written(tmp_path, name):
    WRITERS[name](tmp_path / name)
    with open_arrays(tmp_path / name) as arrays:
        found = choose(arrays, None, besides=None, path=tmp_path / name)()
        np.testing.assert_array_equal(found, ROWS)


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def write_pickle(path):
    path.write_bytes(pickle.dumps(Payload()))


def write_external(path):
    np.save(path.with_name("other.npy"), ROWS)
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "rows")
        file.create_dataset("rows", (4, 3), "f4", external=[(str(path.with_name("other.npy")), 128, 48)])


HALF_A_HEADER = b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3".ljust(70)


def write_damaged_npz(path):
    np.savez_compressed(path, rows=np.random.default_rng(0).normal(size=(64, 64)))
    content = bytearray(path.read_bytes())
    content[200:260] = b"\xff" * 60
    path.write_bytes(content)


REFUSED = {
    "npy with objects": ("a.npy", lambda path: np.save(path, np.array([Payload()]), allow_pickle=True), "run code"),
    "npz with objects": ("a.npz", lambda path: np.savez(path, a=np.array([Payload()])), "run code"),
    "pt with objects": ("a.pt", lambda path: torch.save({"a": Payload()}, path), "nothing was loaded"),
    "pickle as pt": ("a.pt", write_pickle, "nothing was loaded|cannot be read"),
    "h5 that points elsewhere": ("a.h5", write_external, "holds 0 arrays"),
    "text as npy": ("a.npy", lambda path: path.write_text("hello"), "cannot be read"),
    "cut npz": ("a.npz", lambda path: path.write_bytes(b"PK\x03\x04"), "cannot be read"),
    "text as h5": ("a.h5", lambda path: path.write_text("hello"), "cannot be read"),
    "text as mat": ("a.mat", lambda path: path.write_text("hello"), "cannot be read"),
    "a video": ("a.mp4", lambda path: path.write_text("hello"), "no file of features"),
    "pt without values": ("a.pt", lambda path: torch.save(torch.zeros(4, 3, device="meta"), path), "cannot be read as"),
    "npz whose content is damaged": ("a.npz", write_damaged_npz, "cannot be read"),
    "npy with half a header": ("a.npy", lambda path: path.write_bytes(HALF_A_HEADER), "cannot be read"),
    "several": ("a.npz", lambda path: np.savez(path, x=ROWS, y=ROWS), "holds 2 arrays .'x', 'y'.: name one"),
    "not there": ("a.npy", lambda path: path.exists(), "cannot be read"),
}


@pytest.mark.parametrize(("name", "write", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path, capsys, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(ItemError, match=message), open_arrays(path) as arrays:
        choose(arrays, None, besides=None, path=path)()
    assert "executed" not in capsys.readouterr().out


def test_a_mat_that_crashes_its_reader_is_a_failure_and_the_next_one_is_read(tmp_path, monkeypatch):
    scipy.io.savemat(tmp_path / "a.mat", {"file": ROWS, "b": ROWS[:1], "text": "x"})
    reader = matlab.MatlabReader()
    assert sorted(reader.read(tmp_path / "a.mat")) == ["b", "file"]
    (first,) = pids(reader.pool)
    os.kill(first, signal.SIGKILL)
    np.testing.assert_array_equal(reader.read(tmp_path / "a.mat")["file"], ROWS)
    (second,) = pids(reader.pool)
    (tmp_path / "crashes.py").write_text("import os\n\n\ndef load(*, path):\n    os.abort()\n    yield\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.setattr(matlab, "FUNCTION", "crashes:load")
        other = matlab.MatlabReader()
        with pytest.raises(ValueError, match="it crashed its reader, so it is damaged"):
            other.read(tmp_path / "a.mat")
        other.pool.close()
    (tmp_path / "b.mat").write_text("hello" * 50)
    with pytest.raises(ValueError, match="Unknown mat file type"):
        reader.read(tmp_path / "b.mat")
    np.testing.assert_array_equal(reader.read(tmp_path / "a.mat")["file"], ROWS)
    assert pids(reader.pool) == [second]
    reader.pool.close()


def test_unknown_key_names_the_nearest(tmp_path):
    np.savez(tmp_path / "a.npz", features=ROWS, times=ROWS)
    with (
        pytest.raises(ItemError, match=r"no array 'feature'\. Did you mean 'features'"),
        open_arrays(tmp_path / "a.npz") as arrays,
    ):
        choose(arrays, "feature", besides=None, path=tmp_path / "a.npz")


def test_members_stay_inside_the_folder_and_are_written_once(tmp_path):
    write_h5(tmp_path / "all.h5", {"day1/cup": ROWS, "day2/cup": ROWS + 1})
    np.savez(tmp_path / "bad.npz", **{"../../escaped": ROWS})
    assert take_apart(tmp_path / "all.h5", tmp_path / "out" / "in") == (2, 2)
    assert take_apart(tmp_path / "all.h5", tmp_path / "out" / "in") == (2, 0)
    assert take_apart(tmp_path / "bad.npz", tmp_path / "out" / "in") == (1, 1)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.npy")) == [
        "_.._escaped.npy",
        "day1_cup.npy",
        "day2_cup.npy",
    ]
    assert not list(tmp_path.glob("*escaped*"))
    with pytest.raises(InputError, match=r"no array is named like 'x\*'. It has: day1/cup"):
        take_apart(tmp_path / "all.h5", tmp_path / "out", pattern="x*")


def test_what_goes_wrong_where_members_are_written_is_no_fault_of_the_file(tmp_path):
    np.savez(tmp_path / "all.npz", cup=ROWS)
    (tmp_path / "out").write_text("a file where the folder is to be")
    with pytest.raises(OSError, match="out"):
        take_apart(tmp_path / "all.npz", tmp_path / "out")
