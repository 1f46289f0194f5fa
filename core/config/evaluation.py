"""Options of evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from .option import NOISY, option

BENCHMARKS = ("multiple_choice", "multiple_choice_letter", "gsm8k")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What a model is measured by, besides its loss."""

    eval_with_do_generation: bool = option(
        False,
        "also answer the evaluation records, greedily, and measure bleu4, rouge1, rouge2 and rougel; answers are kept "
        "in predictions*.jsonl (PaddleNLP's README has it the other way round, its code does this, without the loss)",
        tasks=(*NOISY, "evaluate"),
    )
    benchmark: str | None = option(
        None, "questions of data_file: multiple_choice scores the text of each option, multiple_choice_letter its "
        "letter, gsm8k the number that a worked-out answer ends in",
        tasks=("evaluate",), choices=BENCHMARKS,
    )  # fmt: skip
    num_fewshot: int = option(
        0, "first questions of data_file that are shown with their answers before each other question",
        tasks=("evaluate",),
    )  # fmt: skip
    stride: int | None = option(
        None, "tokens that the window on input_path's text moves by; default: half of max_length", tasks=("evaluate",)
    )
