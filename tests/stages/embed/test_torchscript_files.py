"""TorchScript archives are read as data: OpenAI's CLIP of a small size, and what is refused."""

import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from reelwright.models.blocks.weights import load_weights
from reelwright.models.encoders.build import build_encoder
from reelwright.stages.embed.encoding.weight_files import read_weights
from reelwright.storage.errors import InputError


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 2)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x):
        return self.ln_1(x)


class Transformer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.resblocks = nn.Sequential(Block(width), Block(width))

    def forward(self, x):
        return self.resblocks(x)


class Visual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 16, 16, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(5, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width)
        self.proj = nn.Parameter(torch.randn(width, 4))

    def forward(self, x):
        tokens = self.conv1(x).flatten(2).transpose(1, 2)
        return self.ln_post(self.transformer(self.ln_pre(tokens))) @ self.proj + self.class_embedding.mean()


class Clip(nn.Module):
    """Names of OpenAI's network; what it computes is of no interest here."""

    def __init__(self, width=8):
        super().__init__()
        self.visual = Visual(width)
        self.token_embedding = nn.Embedding(7, 4)
        self.logit_scale = nn.Parameter(torch.ones([]))
        self.register_buffer("steps", torch.arange(6).reshape(2, 3).T)  # its numbers do not lie in order

    def forward(self, x):
        return self.visual(x) * self.logit_scale


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    torch.manual_seed(0)
    model, path = Clip().eval().half(), tmp_path_factory.mktemp("clip") / "ViT-B-16.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch no longer likes what OpenAI used
        torch.jit.save(torch.jit.trace(model.float(), torch.zeros(1, 3, 32, 32)).half(), path)
    return model.half().state_dict(), path


def test_every_tensor_is_read_as_it_is(archive):
    state, path = archive
    found = read_weights(path)
    assert set(found) == set(state)
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_clip_is_loaded_into_timms_network(archive):
    state, path = archive
    arguments = {"embed_dim": 8, "depth": 2, "num_heads": 2, "img_size": 32}
    encoder = build_encoder("timm/vit_base_patch16_clip_quickgelu_224", model_args=arguments)
    load_weights(encoder, encoder.public_names(read_weights(path)), ignore=("head.*",))
    own = encoder.model.state_dict()
    assert torch.equal(own["cls_token"][0, 0], state["visual.class_embedding"].float())
    name = "visual.transformer.resblocks.1.attn.in_proj_weight"
    assert torch.equal(own["blocks.1.attn.qkv.weight"], state[name].float())
    assert torch.equal(own["norm.weight"], state["visual.ln_post.weight"].float())


def copied(path, target, **replaced):
    """The archive with other content under the last part of some names."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, replaced.get(name.split("/", 1)[-1].replace(".", "_"), source.read(name)))
    return target


class _Calls:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"data_pkl": pickle.dumps(_Calls(), protocol=2)}, r"hold more than modules .*refers to __builtin__.print"),
        ({"data_pkl": b"\x80\x02c__builtin__\neval\n."}, "hold more than modules .*refers to __builtin__.eval"),
        ({"data_pkl": b"\x80\x02ctorch._utils\n_rebuild_parameter\nq"}, "no readable TorchScript archive"),
        ({"byteorder": b"big"}, "big-endian"),
        ({"data_pkl": b""}, "no readable TorchScript archive"),
    ],
    ids=["call", "name", "cut", "byte order", "empty"],
)
def test_what_is_refused(archive, tmp_path, capsys, replaced, message):
    with pytest.raises(InputError, match=message):
        read_weights(copied(archive[1], tmp_path / "w.pt", **replaced))
    assert not capsys.readouterr().out


def test_a_cut_storage_is_refused(archive, tmp_path):
    with zipfile.ZipFile(archive[1]) as source:
        name = max(source.namelist(), key=lambda each: source.getinfo(each).file_size * ("/data/" in each))
        root = name.split("/", 1)[0]
        content = {each: source.read(each) for each in source.namelist()}
    content[name] = content[name][:-2]
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as copy:
        for each, value in content.items():
            copy.writestr(each, value)
    with pytest.raises(InputError, match=f"storage {name.removeprefix(f'{root}/data/')} has"):
        read_weights(tmp_path / "w.pt")
