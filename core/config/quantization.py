"""Options of quantization: of the tasks ``ptq`` and ``gptq``, and of integers that are made when a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from .option import ASKING, QUANTIZING, option


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantOptions:
    """How weights, and activations where asked for, become integers."""

    quant_type: str | None = option(
        None,
        "A8W8 (activations and weights), WINT8 or WINT4 (weights only; also weight_only_int8, weight_only_int4); "
        "default: A8W8 in ptq, WINT4 in gptq; generate, chat, evaluate, serve and export round weights when they "
        "load them, where it is given",
        tasks=(*QUANTIZING, *ASKING, "export"),
    )
    quant_group_size: int | None = option(
        None, "neighbouring inputs that share a scale: 32, 64, 128, or -1 for all; default: the largest that divides "
        "all layers in WINT4, -1 in WINT8", tasks=(*QUANTIZING, *ASKING, "export"),
    )  # fmt: skip
    quantize_lm_head: bool = option(
        False, "quantize the head as well, which is the largest matrix of a small model; where it is the embedding, "
        "the model gets a head of its own", tasks=(*QUANTIZING, *ASKING),
    )  # fmt: skip
    activations_int8: bool = option(
        False, "multiply integer weights by activations of 8 bits, by block of 32 as llama.cpp does, instead of 15: "
        "on a CPU, prompts and many requests at once take two thirds of the time; answers change a little",
        tasks=ASKING,
    )  # fmt: skip
    max_ppl_increase: float | None = option(
        None, "per cent that perplexity may rise; beyond, nothing is written", tasks=QUANTIZING
    )

    gptq_step: int = option(8, "batches that gptq learns from", tasks=("gptq",))
    gptq_act_order: bool = option(
        True, "round the columns of large inputs first", tasks=("gptq",), aliases=("desc_act",)
    )
    gptq_damping: float = option(
        0.01, "added to the diagonal of the Hessian, as a share of its mean", tasks=("gptq",), aliases=("damp_percent",)
    )

    awq: bool = option(
        False, "search scales and clipping by the activations before weights are rounded", tasks=("ptq",)
    )
    ptq_step: int = option(32, "batches that activations are measured on", tasks=("ptq",))
    activation_scale: str = option(
        "per_token", "scale of 8-bit activations: each token's own, found while it is computed, or one for all "
        "(per_tensor), measured beforehand, which some hardware needs and which costs accuracy", tasks=("ptq",),
        choices=("per_token", "per_tensor"),
    )  # fmt: skip
    shift: bool = option(False, "subtract the middle of each input before it is rounded", tasks=("ptq",))
    shift_all_linears: bool = option(
        False, "shift the inputs of layers without a norm before them as well", tasks=("ptq",),
        aliases=("shift_all_linear",),
    )  # fmt: skip
    shift_sampler: str = option(
        "ema", "the middle: half way between the extremes (none), or the moving average of the means (ema)",
        tasks=("ptq",), choices=("none", "ema"),
    )  # fmt: skip
    shift_step: int = option(32, "batches that shifts are found on", tasks=("ptq",))
    smooth: bool = option(False, "move large inputs into the weights, channel by channel", tasks=("ptq",))
    smooth_alpha: float | None = option(
        None, "how much is moved: from 0, nothing, to 1, all; default: what is best for each group of layers",
        tasks=("ptq",),
    )  # fmt: skip
    smooth_all_linears: bool = option(
        False, "smooth the inputs of layers without a norm before them as well", tasks=("ptq",)
    )
    smooth_sampler: str = option(
        "none", "tokens that the piecewise search looks at: of the last batch (none), of all (multi_step)",
        tasks=("ptq",), choices=("none", "multi_step"),
    )  # fmt: skip
    smooth_step: int = option(32, "batches that smoothing is found on", tasks=("ptq",))
    smooth_piecewise_search: bool = option(
        False, "search what is moved for pieces of inputs of like size, instead of smooth_alpha for all", tasks=("ptq",)
    )
    smooth_k_piece: int = option(3, "pieces of that search", tasks=("ptq",))
    smooth_search_piece: bool = option(False, "try fewer pieces as well, and keep the best", tasks=("ptq",))
