"""Options of the training tasks, by the seed's names."""

from __future__ import annotations

from dataclasses import dataclass

from .option import ADAPTING, ASKING, NOISY, QUANTIZING, TRAINING, option

UNFROZEN = tuple(task for task in TRAINING if task not in ADAPTING)
"""Tasks that train the model itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How the model is trained."""

    output_dir: str | None = option(
        None, "folder for checkpoints, logs, results and the trained model", tasks=(*TRAINING, "evaluate", *QUANTIZING)
    )
    overwrite_output_dir: bool = option(False, "start anew in a folder that holds another run", tasks=TRAINING)
    do_train: bool = option(True, "train; with false only do_eval is done", tasks=TRAINING)
    do_eval: bool = option(False, "evaluate, at the end and as evaluation_strategy or eval_steps say", tasks=TRAINING)
    seed: int = option(42, "seed of weights, dropout, data order and sampling", tasks=(*TRAINING, *ASKING, *QUANTIZING))

    per_device_train_batch_size: int = option(8, "samples a process handles at once", tasks=(*TRAINING, *QUANTIZING))
    per_device_eval_batch_size: int = option(8, "the same, in evaluation", tasks=(*TRAINING, "evaluate", *QUANTIZING))
    gradient_accumulation_steps: int = option(1, "micro-batches summed into one optimizer step", tasks=TRAINING)
    num_train_epochs: float = option(
        3.0, "passes over the data, where max_steps does not say otherwise", tasks=TRAINING
    )
    max_steps: int = option(-1, "optimizer steps; overrides num_train_epochs where > 0", tasks=TRAINING)

    learning_rate: float = option(5e-5, "peak learning rate", tasks=TRAINING)
    embedding_learning_rate: float | None = option(
        None, "peak learning rate of the token embedding, which is trained rarely; default: learning_rate",
        tasks=UNFROZEN,
    )  # fmt: skip
    head_learning_rate: float | None = option(
        None, "peak learning rate of the output head, where it is not the embedding; default: learning_rate",
        tasks=UNFROZEN,
    )  # fmt: skip
    min_learning_rate: float = option(0.0, "learning rate at the end of linear and cosine schedules", tasks=TRAINING)
    lr_scheduler_type: str = option(
        "linear", "shape of the learning rate", tasks=TRAINING,
        choices=("linear", "cosine", "constant", "constant_with_warmup", "polynomial"),
    )  # fmt: skip
    warmup_steps: int = option(0, "steps of linear warm-up; overrides warmup_ratio where > 0", tasks=TRAINING)
    warmup_ratio: float = option(0.0, "share of all steps that warm up", tasks=TRAINING)
    decay_steps: int | None = option(
        None, "step at which the minimum is reached; default: the last one", tasks=TRAINING
    )
    num_cycles: float = option(0.5, "half-waves of the cosine schedule", tasks=TRAINING)
    lr_end: float = option(1e-7, "last learning rate of the polynomial schedule", tasks=TRAINING)
    power: float = option(1.0, "exponent of the polynomial schedule", tasks=TRAINING)
    weight_decay: float = option(0.0, "decoupled weight decay, on matrices only", tasks=TRAINING)
    adam_beta1: float = option(0.9, "decay of the first moment", tasks=TRAINING)
    adam_beta2: float = option(0.999, "decay of the second moment", tasks=TRAINING)
    adam_epsilon: float = option(1e-8, "added to the root of the second moment", tasks=TRAINING)
    max_grad_norm: float = option(1.0, "gradients are scaled down to this global norm; 0 turns it off", tasks=TRAINING)
    max_skipped_steps: int = option(
        5, "steps in a row with non-finite loss or gradients before training stops", tasks=TRAINING
    )

    neftune: bool | None = option(
        None, "train with noise on the embedded tokens (NEFTune); default: where neftune_noise_alpha is above 0",
        tasks=NOISY,
    )  # fmt: skip
    neftune_noise_alpha: float | None = option(
        None, "strength of that noise, divided by the root of tokens times hidden size as in the paper; with neftune, "
        "the default is 5", tasks=NOISY,
    )  # fmt: skip

    dpo_loss: str = option(
        "sigmoid", "what is learnt from a pair of answers", tasks=("dpo",),
        choices=("sigmoid", "ipo", "hinge", "simpo", "kto_pair"), aliases=("loss_type", "pref_loss"),
    )  # fmt: skip
    dpo_beta: float = option(
        0.1, "how strongly answers count against the reference model; simpo wants 2 or more", tasks=("dpo",),
        aliases=("beta", "pref_beta"),
    )  # fmt: skip
    dpo_label_smoothing: float = option(
        0.0, "probability that a record has its two answers the wrong way round; for sigmoid and simpo",
        tasks=("dpo",), aliases=("label_smoothing",),
    )  # fmt: skip
    simpo_gamma: float = option(0.5, "reward margin that simpo asks for", tasks=("dpo",))

    bf16: bool = option(False, "compute in bfloat16 on GPU, with float32 master weights", tasks=TRAINING)
    fp16: bool = option(
        False, "compute in float16 on GPU, with float32 master weights and loss scaling", tasks=TRAINING
    )
    scale_loss: float = option(32768.0, "first loss scale of fp16", tasks=TRAINING)
    recompute: bool = option(False, "recompute activations in the backward pass to save memory", tasks=TRAINING)
    recompute_granularity: str = option(
        "full", "what is recomputed: whole blocks, their attention part, or its core", tasks=TRAINING,
        choices=("full", "full_attn", "core_attn"),
    )  # fmt: skip

    evaluation_strategy: str = option(
        "no", "when to evaluate while training", tasks=TRAINING, choices=("no", "steps", "epoch"),
        aliases=("eval_strategy",),
    )  # fmt: skip
    eval_steps: int | None = option(None, "steps between evaluations; default: logging_steps", tasks=TRAINING)
    max_evaluate_steps: int = option(
        -1, "batches of one evaluation; -1 for all (at most 32 in ptq and gptq)",
        tasks=(*TRAINING, "evaluate", *QUANTIZING),
    )  # fmt: skip
    load_best_model_at_end: bool = option(
        False, "write the model of the best evaluation, not of the last step; its checkpoint is saved and kept",
        tasks=TRAINING,
    )  # fmt: skip
    metric_for_best_model: str = option(
        "loss", "figure of evaluation that decides which one is the best, with or without eval_ before it",
        tasks=TRAINING,
    )  # fmt: skip
    greater_is_better: bool | None = option(
        None, "whether the best evaluation has the largest figure; default: not for a loss or ppl, else yes",
        tasks=TRAINING,
    )  # fmt: skip
    early_stopping_patience: int | None = option(
        None, "stop after this many evaluations in a row that are no better than the best one", tasks=TRAINING
    )
    logging_steps: int = option(500, "steps between log lines", tasks=TRAINING)
    logging_first_step: bool = option(False, "log step 1 as well", tasks=TRAINING)
    save_strategy: str = option("steps", "when to save checkpoints", tasks=TRAINING, choices=("no", "steps", "epoch"))
    save_steps: int = option(500, "steps between checkpoints", tasks=TRAINING)
    save_total_limit: int | None = option(
        None, "checkpoints to keep; the newest valid one always stays", tasks=TRAINING
    )
    save_rehearsal: bool = option(True, "save and reload once before the first step", tasks=TRAINING)
    resume_from_checkpoint: str | None = option(
        None, "checkpoint folder to go on from; default: the newest valid one in output_dir", tasks=TRAINING
    )
    disable_tqdm: bool = option(False, "no progress bar", tasks=("*",))
    report_to: str = option("none", "also log to", tasks=TRAINING, choices=("none", "tensorboard", "visualdl"))
