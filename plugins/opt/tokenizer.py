"""An OPT's tokenizer: ``tokenizer.json``, or ``vocab.json`` with ``merges.txt``: GPT-2's merges under other ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.tokenizers import BpeFilesTokenizer, JsonTokenizer, TokenFacts
from llm_run.core.errors import DataError
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llm_run.core.data.tokenizer import Tokenizer

    from .config import OptConfig

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
"""In the order of their ids, from 0."""
FACTS = TokenFacts(bos="</s>", eos="</s>", pad="<pad>", prefix=("</s>",))
"""A text begins, and ends, with what stands between texts in training. ``<s>`` is of no use."""
VOCABULARY = 50265


@hookimpl
def llm_run_tokenizer(config: OptConfig, directory: Path) -> Tokenizer:
    """Load whichever files are there; ``tokenizer.json`` first, as transformers does."""
    if (directory / "tokenizer.json").is_file():
        return JsonTokenizer(directory, facts=_facts(config, directory))
    if (directory / "vocab.json").is_file():
        return BpeFilesTokenizer(directory, facts=FACTS, specials=SPECIALS)
    files = "tokenizer.json, vocab.json with merges.txt"
    raise DataError(f"{directory}: holds no tokenizer of an opt. One of these is read: {files}.")


def _facts(config: OptConfig, directory: Path) -> TokenFacts:
    """Return the family's special tokens, unless the vocabulary of a new, small model does without them."""
    if config.vocab_size >= VOCABULARY:
        return FACTS
    knows = JsonTokenizer(directory).token_id
    return FACTS if all(knows(token) is not None for token in SPECIALS) else TokenFacts()
