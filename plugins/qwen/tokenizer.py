"""A qwen's tokenizer: ``qwen.tiktoken`` (generation 1), ``tokenizer.json``, or ``vocab.json`` with ``merges.txt``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.tokenizers import BpeFilesTokenizer, JsonTokenizer, TiktokenTokenizer, TokenFacts
from llm_run.core.errors import DataError
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llm_run.core.data.tokenizer import Tokenizer

    from .config import QwenConfig

# https://huggingface.co/Qwen/Qwen-7B/blob/main/tokenization_qwen.py; the later generations cut text in the same way.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)))
FACTS = TokenFacts(eos="<|endoftext|>", pad="<|endoftext|>", stop=("<|im_end|>",))
RANKS = 151643
"""Tokens of the published vocabulary, which all generations share, before the special ones."""


@hookimpl
def llm_run_tokenizer(config: QwenConfig, directory: Path) -> Tokenizer:
    """Load whichever file is there, the special tokens as the generation's files state them."""
    facts = FACTS if config.vocab_size >= RANKS else TokenFacts()
    if (directory / "tokenizer.json").is_file():
        return JsonTokenizer(directory, facts=facts)
    if (directory / "vocab.json").is_file():
        return BpeFilesTokenizer(directory, facts=facts, pattern=PATTERN, specials=SPECIALS[:3], normalize=True)
    if (path := directory / "qwen.tiktoken").is_file():
        return TiktokenTokenizer(path, pattern=PATTERN, specials=SPECIALS, facts=FACTS, normalize=True)
    files = "tokenizer.json, vocab.json with merges.txt, qwen.tiktoken"
    raise DataError(f"{directory}: holds no tokenizer of a qwen. One of these is read: {files}.")
