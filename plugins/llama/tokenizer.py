"""A llama's tokenizer: ``tokenizer.json`` (llama 3, SmolLM, and most others today) or SentencePiece (llama 1 and 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.tokenizers import JsonTokenizer, SentencePieceTokenizer, TokenFacts
from llm_run.core.errors import DataError
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llm_run.core.data.tokenizer import Tokenizer

    from .config import LlamaConfig

SENTENCE_PIECE = ("tokenizer.model", "sentencepiece.bpe.model")
"""As Hugging Face and Meta call it, and as PaddleNLP does."""
LLAMA_2 = TokenFacts(bos="<s>", eos="</s>", prefix=("<s>",))
LLAMA_3 = TokenFacts(bos="<|begin_of_text|>", eos="<|end_of_text|>", stop=("<|eot_id|>",))
LLAMA_3_VOCABULARY = 128256


@hookimpl
def llm_run_tokenizer(config: LlamaConfig, directory: Path) -> Tokenizer:
    """Load whichever file is there; ``tokenizer.json`` first, as transformers does."""
    if (directory / "tokenizer.json").is_file():
        facts = LLAMA_3 if config.vocab_size == LLAMA_3_VOCABULARY else TokenFacts()
        return JsonTokenizer(directory, facts=facts)
    for name in SENTENCE_PIECE:
        if (directory / name).is_file():
            # Meta's own code puts a space before the text that follows <s>.
            return SentencePieceTokenizer(directory / name, facts=LLAMA_2, legacy=True)
    files = ", ".join(("tokenizer.json", *SENTENCE_PIECE))
    raise DataError(f"{directory}: holds no tokenizer of a llama. One of these files is read: {files}.")
