"""How one option is declared: its default, its help, the tasks that read it, and the names it also answers to."""

from __future__ import annotations

import dataclasses
from typing import Any

ADAPTING = ("lora", "prefix_tuning")
"""Training tasks that leave the model as it is and train an addition to it."""
RECORDS = ("sft", *ADAPTING, "dpo")
"""Training tasks that read records of conversations."""
TRAINING = ("pretrain", *RECORDS)
NOISY = tuple(task for task in RECORDS if task != "dpo")
"""Those of them that may add noise to embeddings."""
DECODING = ("generate", "chat")
ANSWERING = (*DECODING, "evaluate")
"""Tasks whose options say how long answers are."""
ASKING = (*ANSWERING, "serve")
"""Tasks that load a model to ask it something."""
QUANTIZING = ("ptq", "gptq")
SHARING = (*TRAINING, "generate", "serve", *QUANTIZING)
"""Tasks that may share a model's matrices between processes."""
ALL = ("*",)
"""Read whatever the task is."""


def option(
    default: Any,
    help: str,
    *,
    tasks: tuple[str, ...] = ALL,
    aliases: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one field of an option group.

    Args:
        default: the value where nobody says otherwise; lists are given as tuples.
        help: one sentence for ``--help`` and the docs, with the unit.
        tasks: the tasks that read the option; elsewhere a flag is refused and a file's key is noted.
        aliases: names of other toolchains or older versions, accepted with a note.
        choices: the allowed words of a string option.
    """
    metadata = {"help": help, "tasks": tasks, "aliases": aliases, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)
