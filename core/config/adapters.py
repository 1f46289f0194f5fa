"""Options of adapters: small trained additions to a frozen model."""

from __future__ import annotations

from dataclasses import dataclass

from .option import ASKING, option

TRAINED = ("lora", "dpo")
"""Tasks that train a LoRA adapter, the second where it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterOptions:
    """What is added to the model, and where an adapter lies."""

    lora_path: str | None = option(
        None, "folder of an adapter (PEFT's layout or PaddleNLP's): training goes on from it (in dpo, with use_lora, "
        "the model with it is the reference), the other tasks use it",
        tasks=(*TRAINED, "merge_lora", "export", *ASKING),
    )  # fmt: skip
    use_lora: bool = option(
        False, "train a LoRA adapter instead of the model, which without it is the reference: no second model is held",
        tasks=("dpo",),
    )  # fmt: skip
    lora_rank: int = option(8, "rank of the added product", tasks=TRAINED, aliases=("lora_r",))
    lora_alpha: float | None = option(
        None, "the product is scaled by alpha / rank; default: twice the rank", tasks=TRAINED
    )
    lora_dropout: float = option(0.0, "share of the adapters' inputs that is set to 0 in training", tasks=("lora",))
    lora_target_modules: tuple[str, ...] = option(
        (), "linear layers to adapt: last names (q_proj), regular expressions on whole names, or all; "
        "default: those of the family", tasks=TRAINED, aliases=("lora_target", "target_modules"),
    )  # fmt: skip
    rslora: bool = option(
        False, "scale by alpha / sqrt(rank), which keeps large ranks trainable", tasks=TRAINED, aliases=("use_rslora",)
    )
    use_dora: bool = option(False, "train the length of each column as well (DoRA)", tasks=TRAINED, aliases=("dora",))
    pissa: bool = option(
        False, "begin with the largest singular values of each matrix instead of with nothing (PiSSA)", tasks=TRAINED
    )
    weight_quantize_algo: str | None = option(
        None, "keep the frozen model as codes, rounded when it is loaded (QLoRA): 4-bit NormalFloat, or integers; a "
        "directory that ptq or gptq wrote is kept as codes without it", tasks=TRAINED,
        choices=("nf4", "weight_only_int8", "weight_only_int4"),
    )  # fmt: skip
    weight_blocksize: int | None = option(
        None, "neighbouring weights that share a scale; default: 64 in nf4, in weight_only_int4 the largest of 32, 64 "
        "and 128 that divides all layers, in weight_only_int8 a row", tasks=TRAINED,
        aliases=("qlora_weight_blocksize",),
    )  # fmt: skip
    weight_double_quant: bool = option(
        False, "round the scales of nf4 to 8 bits as well: 4.13 bits a weight instead of 4.5", tasks=TRAINED,
        aliases=("qlora_weight_double_quant",),
    )  # fmt: skip
    prefix_path: str | None = option(
        None,
        "folder of a tuned prefix (PEFT's layout or PaddleNLP's) that every text begins with",
        tasks=(*ASKING, "export"),
    )
    num_prefix_tokens: int = option(128, "virtual tokens of the prefix", tasks=("prefix_tuning",))
    prefix_projection: bool = option(
        False, "make the prefix from an embedding of its tokens by two matrices, which are not kept",
        tasks=("prefix_tuning",),
    )  # fmt: skip
    prefix_projection_hidden_size: int | None = option(
        None, "numbers between the two matrices; default: the model's hidden size", tasks=("prefix_tuning",)
    )
    loraplus_lr_ratio: float = option(
        1.0, "learning rate of the second matrices over that of the first (LoRA+); its authors use 16", tasks=TRAINED,
        aliases=("lora_plus_scale", "lora_plus_ratio"),
    )  # fmt: skip
