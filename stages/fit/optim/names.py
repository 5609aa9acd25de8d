"""Which optimizers there are and which options each takes: timm's names, as text, so that a slip is reported at once.

A test compares the table with timm's own registry. Options of speed alone (foreach, capturable) are not listed:
the fastest form is chosen where there is one (`optimizer.fused`).
"""

from __future__ import annotations

from reelwright.storage.errors import nearest

LOOKAHEAD = "lookahead_"  # in front of any name: Zhang et al. 2019, k = 6 steps forward, half a step back

_COMMON = ("adamw", "sgd", "momentum", "adam", "lamb", "adafactor", "lion")  # sgd is nesterov

_TABLE = (
    ("adam adamw", "betas eps amsgrad"),
    ("sgd nesterov momentum", "momentum dampening nesterov"),
    ("sgdw nesterovw sgdc csgdw csgdc", "momentum dampening nesterov caution corrected_weight_decay"),
    ("sgdp csgdp", "momentum dampening nesterov eps delta wd_ratio caution"),
    ("adabelief radabelief", "betas eps amsgrad decoupled_decay fixed_decay rectify degenerated_to_sgd"),
    ("adadelta", "rho eps"),
    (
        "adafactor cadafactor",
        "eps eps_scale clip_threshold decay_rate betas scale_parameter warmup_init min_dim_size_to_factor caution",
    ),
    (
        "adafactorbv adafactorbvc cadafactorbv cadafactorbvc",
        (
            "min_dim_size_to_factor decay_rate decay_offset beta2_cap momentum eps clipping_threshold unscaled_wd "
            "caution corrected_weight_decay"
        ),
    ),
    ("adagrad", "lr_decay initial_accumulator_value eps"),
    ("adamax radamlegacy", "betas eps"),
    ("adamc adamwlegacy cadamc cadamw", "betas eps amsgrad caution corrected_weight_decay clipping_threshold"),
    ("adamp cadamp", "betas eps delta wd_ratio nesterov caution"),
    (
        "muon nmuon adamuon nadamuon",
        (
            "momentum nesterov ns_steps ns_coefficients eps safety_factor adjust_lr_fn conv_mode normalize_spatial "
            "adamw_lr fallback_lr_scale betas algo scale_eps"
        ),
    ),
    ("adan adanw cadan cadanw", "betas eps no_prox caution"),
    (
        "adopt adoptc adoptw cadopt cadoptc cadoptw",
        "betas eps clip_exp decoupled corrected_weight_decay caution",
    ),
    (
        "lamb lambc lambcd lambcw lambw clamb clambw",
        (
            "bias_correction betas eps grad_averaging max_grad_norm trust_clip always_adapt caution decoupled_decay "
            "corrected_weight_decay"
        ),
    ),
    ("laprop lapropc claprop", "betas eps caution corrected_weight_decay"),
    ("lion lionc clion clionc", "betas caution corrected_weight_decay"),
    ("mars cmars", "betas eps gamma mars_type optimize_1d lr_1d_factor betas_1d caution"),
    ("nadamw nadamc cnadamw cnadamc", "betas eps caution corrected_weight_decay clipping_threshold"),
    ("nadam", "betas eps momentum_decay decoupled_weight_decay"),
    ("nadamlegacy", "betas eps schedule_decay"),
    ("radam radamw", "betas eps decoupled_weight_decay"),
    ("novograd novogradc novogradw", "betas eps grad_averaging amsgrad decoupled_decay corrected_weight_decay"),
    ("rmsprop", "alpha eps momentum centered"),
    (
        "rmsproptf rmsproptfc rmsproptfw crmsproptf",
        "alpha eps momentum centered decoupled_decay corrected_weight_decay lr_in_momentum caution",
    ),
    (
        "kron kronc kronw",
        (
            "momentum preconditioner_update_probability max_size_triangular min_ndim_triangular memory_save_mode "
            "momentum_into_precond_update precond_lr precond_init_scale decoupled_decay corrected_weight_decay flatten "
            "flatten_start_dim flatten_end_dim stochastic_weight_decay deterministic"
        ),
    ),
    ("lars larc nlars nlarc", "momentum dampening nesterov trust_coeff eps trust_clip always_adapt"),
    ("madgrad madgradw", "momentum eps decoupled_decay"),
    # these want NVIDIA's apex or bitsandbytes
    ("fusedsgd bnbsgd bnbsgd8bit", "momentum nesterov"),
    ("fusedadam fusedadamw fusedlamb fusednovograd", "betas eps"),
    ("bnbadam bnbadam8bit bnbadamw bnbadamw8bit bnbademamix bnbademamix8bit bnblion bnblion8bit", "betas eps"),
)

OPTIONS: dict[str, tuple[str, ...]] = {
    name: tuple(options.split()) for names, options in _TABLE for name in names.split()
}

UNFIT = {"adahessian": "it needs second derivatives, which attention kernels do not have; take adamw"}


def check_optimizer(name: str, options: dict[str, object], fields: tuple[str, ...]) -> None:
    """ValueError, naming the nearest, for an unknown optimizer or an option it does not take.

    ``fields`` are settings beside the options, which are not looked at but may be the nearest name; momentum is one
    only of those that take it.
    """
    base = name.removeprefix(LOOKAHEAD)
    if base in UNFIT:
        raise ValueError(f"optimizer {base!r} cannot be used: {UNFIT[base]}")
    if base not in OPTIONS:
        known = f"Common: {', '.join(_COMMON)}; or {LOOKAHEAD}NAME."
        raise ValueError(f"optimizer {name!r} is not known.{nearest(base, (*_COMMON, *OPTIONS))} {known}")
    for option in options:
        if option not in OPTIONS[base]:
            known = f"Options of {base}: {', '.join(OPTIONS[base])}."
            allowed = (*OPTIONS[base], *(field for field in fields if field != "momentum"))
            raise ValueError(f"{option!r} is no option of {base}.{nearest(option, allowed)} {known}")
