"""Checkpoints of CAST's public code, by the names of our model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from reelwright.models.blocks.weights import remap_state_dict

PUBLIC_NAMES = {
    r"^(module|backbone|encoder)\.": "",
    r"^blocks\.(\d+)\.clip_ln_([12])\.": r"space.model.blocks.\1.norm\2.",
    r"^blocks\.(\d+)\.clip_attn\.in_proj_": r"space.model.blocks.\1.attn.qkv.",
    r"^blocks\.(\d+)\.clip_attn\.out_proj\.": r"space.model.blocks.\1.attn.proj.",
    r"^blocks\.(\d+)\.clip_mlp\.c_fc\.": r"space.model.blocks.\1.mlp.fc1.",
    r"^blocks\.(\d+)\.clip_mlp\.c_proj\.": r"space.model.blocks.\1.mlp.fc2.",
    r"^blocks\.(\d+)\.(norm[12]|attn|mlp)\.": r"time.model.blocks.\1.\2.",
    r"^blocks\.(\d+)\.S_Adapter\.D_": r"blocks.\1.adapters.space_attention.",
    r"^blocks\.(\d+)\.T_Adapter\.D_": r"blocks.\1.adapters.time_attention.",
    r"^blocks\.(\d+)\.S_MLP_Adapter\.D_": r"blocks.\1.adapters.space_mlp.",
    r"^blocks\.(\d+)\.T_MLP_Adapter\.D_": r"blocks.\1.adapters.time_mlp.",
    r"\.cross_s_(down|up)\.": r".exchange.\1.space.",
    r"\.cross_t_(down|up)\.": r".exchange.\1.time.",
    r"\.ln_s_cross\.": ".exchange.norm.space.",
    r"\.ln_t_cross\.": ".exchange.norm.time.",
    r"\.t2s_cross\.clip_time_pos$": ".exchange.cross.space.query_pos",
    r"\.t2s_cross\.vmae_time_pos$": ".exchange.cross.space.key_pos",
    r"\.s2t_cross\.vmae_space_pos$": ".exchange.cross.time.query_pos",
    r"\.s2t_cross\.clip_space_pos$": ".exchange.cross.time.key_pos",
    r"\.t2s_cross\.t2s_": ".exchange.cross.space.",
    r"\.s2t_cross\.(s2t|t2s)_": ".exchange.cross.time.",
    r"^clip_conv1\.": "space.model.patch_embed.proj.",
    r"^clip_class_embedding$": "space.model.cls_token",
    r"^clip_positional_embedding$": "space.model.pos_embed",
    r"^clip_ln_pre\.": "space.model.norm_pre.",
    r"^clip_ln_post\.": "head.space_norm.",
    r"^patch_embed\.": "time.model.patch_embed.",
    r"^vmae_fc_norm\.": "head.time_norm.",
    r"^noun_last_Adapter\.D_": "head.space_adapter.",
    r"^verb_last_Adapter\.D_": "head.time_adapter.",
    r"^head_verb\.": "head.heads.verb.",
    r"^head_noun\.": "head.heads.noun.",
}
# Names of the public code -> ours; `head` is that of the only head, or of noun where there is a `head_verb`.
_LACK_AXES = ("space.model.cls_token", "space.model.pos_embed")  # in front, in OpenAI's form


def from_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of the public code by our names; one that has these already stays as it is.

    Raises ValueError where two entries would get one name.
    """
    has_verb = any(name.endswith("head_verb.weight") for name in state)
    head = {r"^head\.(weight|bias)$": r"head.heads.noun.\1" if has_verb else r"head.heads.classes.\1"}
    if not any("clip_" in name or "S_Adapter" in name for name in state):
        return dict(state)
    found = remap_state_dict(state, prefix=None, key_map={**PUBLIC_NAMES, **head})
    for name in _LACK_AXES:
        while name in found and found[name].ndim < 3:
            found[name] = found[name][None]
    return found
