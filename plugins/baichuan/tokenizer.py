"""A baichuan's tokenizer: SentencePiece, without a space in front of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.tokenizers import SentencePieceTokenizer, TokenFacts
from llm_run.core.errors import DataError
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llm_run.core.data.tokenizer import Tokenizer

    from .config import BaichuanConfig

FILES = ("tokenizer.model", "sentencepiece.bpe.model")
"""As Hugging Face calls it, and as PaddleNLP does."""
TURNS = ("<reserved_102>", "<reserved_103>", "<reserved_106>", "<reserved_107>")
"""Pieces like any other in the file; but they open the turns of a chat, so no text may spell them."""


@hookimpl
def llm_run_tokenizer(config: BaichuanConfig, directory: Path) -> Tokenizer:
    """Load the one file that there is; a vocabulary of another family has no turns to protect."""
    for path in (directory / name for name in FILES):
        if path.is_file():
            content = path.read_bytes()
            turns = tuple(token for token in TURNS if token.encode() in content)
            facts = TokenFacts(bos="<s>", eos="</s>", pad="<unk>", prefix=(), further=turns)
            return SentencePieceTokenizer(path, facts=facts)
    files = ", ".join(FILES)
    raise DataError(f"{directory}: holds no tokenizer of a baichuan. One of these files is read: {files}.")
