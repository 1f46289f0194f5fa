"""A ChatGLM2's tokenizer: SentencePiece, with special tokens behind its pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.tokenizers import SentencePieceTokenizer, TokenFacts
from llm_run.core.errors import DataError
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llm_run.core.data.tokenizer import Tokenizer

    from .config import ChatGlm2Config

FILE = "tokenizer.model"
FACTS = TokenFacts(eos="</s>", pad="<unk>", prefix=("[gMASK]", "sop"))
SPECIALS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
"""Of ChatGLM3; a ChatGLM2 leaves their ids unused."""


@hookimpl
def llm_run_tokenizer(config: ChatGlm2Config, directory: Path) -> Tokenizer:
    """Load the one file that there is."""
    if not (directory / FILE).is_file():
        raise DataError(f"{directory}: holds no tokenizer of a chatglm2. This file is read: {FILE}.")
    # The published code encodes what follows a special token by itself, with the space that opens a text.
    return SentencePieceTokenizer(directory / FILE, facts=FACTS, appended=(*SPECIALS, *ROLES), legacy=True)
