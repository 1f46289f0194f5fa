"""A GPT's tokenizer: ``tokenizer.json``, or GPT-2's own ``vocab.json`` with ``merges.txt``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.tokenizers import BpeFilesTokenizer, JsonTokenizer, TokenFacts
from llm_run.core.errors import DataError
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llm_run.core.data.tokenizer import Tokenizer

    from .config import GptConfig

END = "<|endoftext|>"
"""The one special token of GPT-2: it stands between texts, and so before the first and behind the last."""
FACTS = TokenFacts(bos=END, eos=END, pad=END)
VOCABULARY = 50257


@hookimpl
def llm_run_tokenizer(config: GptConfig, directory: Path) -> Tokenizer:
    """Load whichever files are there; ``tokenizer.json`` first, as transformers does."""
    if (directory / "tokenizer.json").is_file():
        return JsonTokenizer(directory, facts=_facts(config, directory))
    if (directory / "vocab.json").is_file():
        return BpeFilesTokenizer(directory, facts=FACTS, specials=(END,))
    files = "One of these is read: tokenizer.json, vocab.json with merges.txt."
    if (directory / "sentencepiece.model").is_file():
        reason = "holds the tokenizer of a Chinese CPM, which cuts text into words by jieba first and is not supported"
        raise DataError(f"{directory}: {reason}. {files}")
    raise DataError(f"{directory}: holds no tokenizer of a gpt3. {files}")


def _facts(config: GptConfig, directory: Path) -> TokenFacts:
    """Return the family's special tokens, unless the vocabulary of a new, small model does without them."""
    if config.vocab_size >= VOCABULARY:
        return FACTS
    knows = JsonTokenizer(directory).token_id
    return FACTS if knows(END) is not None else TokenFacts()
