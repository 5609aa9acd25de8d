"""ST-ABN: a 3D ResNet with an attention branch, from frames to logits and attention in space and time.

    frames -> stem, layers 1 to 3 -> x -> attention branch -> S, M -> gate -> layer 4 -> mean -> logits

Mitsuhara et al. 2021 (ST-ABN: Visual Explanation Taking into Account Spatio-temporal Information for Video
Recognition), section 3, and its public code. Shape letters: B batch, T frames, C channels, H height, W width, K
classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Self

from torch import Tensor, nn

from reelwright.models.blocks.activation_checkpointing import recompute
from reelwright.models.blocks.attention_branch import (
    AttentionBranch,
    AttentionGate,
    edited,
    mean_over_time,
    named_outputs,
)
from reelwright.models.blocks.inflated_resnet import (
    inflated_kernels,
    inflated_resnet,
    num_channels,
    through_blocks,
    without_stride,
)
from reelwright.models.blocks.weights import remap_state_dict
from reelwright.models.clip_options import StAbnOptions
from reelwright.models.contracts import ClipModel, ClipSizes, Inputs, Part
from reelwright.models.encoders.base import DataConfig
from reelwright.models.option_checks import check_positive

PUBLIC_NAMES = {
    r"^backbone\.": "",
    r"^(conv1|bn1)\.": r"resnet.stem.\1.",
    r"^(layer[1-4])\.": r"resnet.\1.",
    r"^att_layer4\.": "branch.trunk.",
    r"^bn_att\.": "branch.norm.",
    r"^att_conv\.": "branch.evidence.",
    r"^bn_att2\.": "branch.evidence_norm.",
    r"^t_att_conv\.": "branch.time_conv.",
    r"^t_bn_att\.": "branch.time_norm.",
    r"^t_att_conv2\.": "branch.time.mix.",
    r"^fc1\.": "branch.time.hidden.",
    r"^fc2\.": "branch.time.out.",
    r"^t_att_conv3\.": "gate.fuse.",
    r"^bn_att4\.": "gate.norm.",
    r"^att_conv2\.": "branch.classes.",
    r"^att_conv3\.": "branch.space_conv.",
    r"^bn_att3\.": "branch.space_norm.",
}
# Names of the backbone in checkpoints of the public code -> names here, for `key_map` (weights.remap_state_dict).


class StAbn(ClipModel):
    """Two classifiers: the attention branch, whose maps are looked at, and the perception branch, which answers."""

    data_config = DataConfig(
        size=(224, 224),
        resize=256,
        interpolation="bilinear",
        antialias=False,
        crop="center",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        clip_length=32,
    )

    def __init__(self, *, length: int, num_outputs: int, options: StAbnOptions | None = None) -> None:
        """`length` T of the clips, which is fixed where attention in time is dense; K is `num_outputs`."""
        super().__init__()
        for name, value in {"length": length, "num_outputs": num_outputs}.items():
            check_positive(name, value)
        options = options or StAbnOptions()
        channels, features = num_channels(options.depth, 3), num_channels(options.depth, 4)
        self.resnet = inflated_resnet(options.depth)
        trunk = inflated_resnet(options.depth)["layer4"]
        assert isinstance(trunk, nn.Sequential)
        self.branch = AttentionBranch(
            without_stride(trunk),
            num_features=features,
            num_outputs=num_outputs,
            length=length,
            time=options.time,
            space=options.space,
            dropout=options.dropout,
        )
        self.gate = AttentionGate(channels, version=options.version)
        self.dropout, self.head = nn.Dropout(options.dropout), nn.Linear(features, num_outputs)

    @classmethod
    def of(cls, sizes: ClipSizes, options: StAbnOptions) -> Self:
        """See ClipModel. Raises ValueError for logits of every frame."""
        if sizes.per_row:
            raise ValueError("st_abn answers for a window, not for each of its frames.")
        return cls(length=sizes.length, num_outputs=sizes.num_outputs, options=options)

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """The stem and each layer of the ResNet is a layer; the branch counts as layer 4, which is its copy."""
        order = ("stem", "layer1", "layer2", "layer3", "layer4")
        layers = {name: order.index(name.split(".")[1]) for name, _ in self.named_parameters() if "resnet." in name}
        last = {name: len(order) - 1 for name, _ in self.named_parameters() if name.startswith(("branch.", "gate."))}
        return {"": Part(layers={**layers, **last, "head.weight": len(order), "head.bias": len(order)})}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Have the blocks of all layers and of the branch computed again in the backward pass instead of kept."""
        assert enable
        for layer in (*map(self._layer, ("layer1", "layer2", "layer3", "layer4")), self.branch.trunk):
            for block in layer:
                recompute(block)

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See ClipModel: a checkpoint of the public code, or a 2D ResNet of the same depth, which is inflated.

        Of a ResNet (its names are torchvision's and timm's) the branch gets nothing, as in the public code.
        """
        return inflated_kernels(remap_state_dict(state, prefix=None, key_map=PUBLIC_NAMES), self.state_dict())

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """`logits` and `aux.attention_logits` (B,K), `attention.space` (B,T,H/16,W/16), `attention.time` (B,T).

        In: normalised `frames` (B,T,3,H,W) and `mask` (B,T). Both kinds of attention lie in (0, 1). Raises ValueError
        for clips of another length than dense attention in time was learned for.
        """
        mask_BT = batch["mask"]
        frames = batch["frames"].masked_fill(~mask_BT[:, :, None, None, None], 0.0)
        x_BCTHW = self.resnet["stem"](frames.transpose(1, 2))
        for name in ("layer1", "layer2", "layer3"):
            x_BCTHW = through_blocks(self._layer(name), x_BCTHW, mask_BT)
        attention = edited(self.branch(x_BCTHW, mask_BT), batch)
        seen_BCT = through_blocks(self._layer("layer4"), self.gate(x_BCTHW, attention), mask_BT).mean(dim=(3, 4))
        return named_outputs(self.head(self.dropout(mean_over_time(seen_BCT, mask_BT))), attention)

    def _layer(self, name: str) -> nn.Sequential:
        found = self.resnet[name]
        assert isinstance(found, nn.Sequential)
        return found
