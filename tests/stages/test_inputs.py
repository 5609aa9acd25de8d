"""Files that settings name are read as their digest in the key says, or the node fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reelwright.stages.base.inputs import unchanged_sources
from reelwright.stages.base.work import InputRef, Work
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import InputError


def times_work(path, *, digest):
    return Work(
        node="feats",
        stage="features",
        key="k",
        config={"times": str(path)},
        spec={"inputs": {} if digest is None else {"times": digest}},
        store=str(path.parent / "store"),
        inputs={},
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("video_id,start_seconds\na,0\n")
    path.with_name("other.csv").write_text("video_id,start_seconds\na,1\n")
    return path


def swap(path):
    other, spare = path.with_name("other.csv"), path.with_name("spare.csv")
    path.rename(spare)
    other.rename(path)
    spare.rename(other)


@pytest.mark.parametrize("is_known", [True, False], ids=["digest in the key", "put together by hand"])
def test_a_file_that_stays_is_read(path, is_known):
    with unchanged_sources(times_work(path, digest=file_digest(path) if is_known else None)):
        assert path.read_text()


def test_a_file_replaced_before_it_is_read(path):
    work = times_work(path, digest=file_digest(path))
    swap(path)
    with (
        pytest.raises(InputError, match=r"times\.csv changed after the plan was made.*run again"),
        unchanged_sources(work),
    ):
        pytest.fail("it must not be read")


@pytest.mark.parametrize("is_same", [True, False])
def test_weights_of_an_input_are_those_of_its_key(path, is_same):
    """The encoder of an embed node that another node reads (experts, spatial)."""
    given = {"frames": "frames", "encoder": "timm/test_vit", "weights": str(path)}
    embed = InputRef(node="space", stage="embed", key="e", config=given, files={"weights": file_digest(path)})
    work = replace(times_work(path, digest=None), config={"fps": 1}, inputs={"experts": (embed,)})
    if is_same:
        with unchanged_sources(work, of=embed):
            assert path.read_text()
        return
    swap(path)
    with pytest.raises(InputError, match=r"times\.csv changed after the plan was made of it.*run again"):
        encoder_of(work, embed)


def read_swapped(work, path):
    with unchanged_sources(work):
        swap(path)
        assert path.read_text().endswith("a,1\n")
        swap(path)


def test_a_file_replaced_and_put_back_while_it_is_read(path):
    work = times_work(path, digest=file_digest(path))
    with pytest.raises(InputError, match=r"times\.csv changed while it was read"):
        read_swapped(work, path)


def test_a_file_that_is_gone(path):
    work = times_work(path, digest=file_digest(path))
    path.unlink()
    with pytest.raises(InputError, match=r"times\.csv cannot be read: No such file"), unchanged_sources(work):
        pytest.fail("it must not be read")
