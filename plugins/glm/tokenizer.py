"""A GLM's tokenizers: SentencePiece (Chinese) or GPT-2's byte-level BPE (English), and its prompts with a blank."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llm_run.core.data.tokenizers import BpeFilesTokenizer, SentencePieceTokenizer, TokenFacts
from llm_run.core.data.tokenizers.special import SpecialTokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.hookspecs import hookimpl

from .config import BLANKS, SOP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llm_run.core.data.tokenizer import Tokenizer

    from .config import GlmConfig

SENTENCE_PIECE = "cog-pretrain.model"
FACTS = TokenFacts(
    bos=SOP, eos="<|endofpiece|>", pad="<|endoftext|>", stop=("<|endofpiece|>", "<|endoftext|>"),
    prefix=("[CLS]",), suffix=("<|endoftext|>", SOP), further=BLANKS,
)  # fmt: skip
# In the order of their ids. Source: THUDM/SwissArmyTransformer, sat/tokenization/glm/tokenization.py
CHINESE = ("<|endoftext|>", "[SEP]", "[CLS]", "[MASK]", "[UNK]", "[UNUSED1]", "<|startofpiece|>", "<|endofpiece|>",
           "[sMASK]", "[gMASK]")  # fmt: skip
ENGLISH = ("<|endoftext|>", "<|startofpiece|>", "<|endofpiece|>", "[CLS]", "[MASK]", "[SEP]", "[UNK]", "[gMASK]",
           "[sMASK]")  # fmt: skip


BLANK = re.compile(r"\s*(" + "|".join(map(re.escape, BLANKS)) + ")")


@hookimpl
def llm_run_tokenizer(config: GlmConfig, directory: Path) -> Tokenizer:
    """Load whichever files are there.

    Raises:
        DataError: none is, one is malformed, or the tokens are not where the model's configuration has them.
    """
    tokenizer: GlmSentencePiece | GlmBpe
    if (directory / SENTENCE_PIECE).is_file():
        tokenizer = GlmSentencePiece(directory / SENTENCE_PIECE, facts=FACTS, appended=CHINESE, legacy=True)
    elif (directory / "vocab.json").is_file():
        tokenizer = GlmBpe(directory, facts=FACTS, specials=ENGLISH)
    else:
        files = f"{SENTENCE_PIECE}, or vocab.json with merges.txt"
        raise DataError(f"{directory}: holds no tokenizer of a glm. These files are read: {files}.")
    # A smaller model is a new one that will grow to the vocabulary (tiny): its ids say nothing yet.
    if config.vocab_size >= tokenizer.vocab_size and tokenizer.token_id(SOP) != config.sop_id:
        raise DataError(f"{directory}: {SOP} is token {tokenizer.token_id(SOP)}, but config.json says sop_token_id "
                        f"{config.sop_id}. Are tokenizer and model of one release?")  # fmt: skip
    # Hugging Face's tokenizer_config.json calls <|endoftext|> the end, but what fills a blank ends otherwise.
    tokenizer.eos_id = tokenizer.token_id("<|endofpiece|>")
    return tokenizer


class BlankFilling(SpecialTokenizer):
    """What sets a GLM's tokenizer apart: blanks are part of the language that its prompts are written in."""

    def encode(
        self, text: str, *, allow_special: bool = False, plain_spans: Sequence[tuple[int, int]] = ()
    ) -> list[int]:
        """Return the ids of ``text``; see ``Tokenizer.encode``. A blank is a blank whoever wrote it."""
        if not allow_special:
            text = BLANK.sub(r"\1", text)
            borders = [0, *(place for match in BLANK.finditer(text) for place in match.span()), len(text)]
            plain_spans = list(zip(borders[::2], borders[1::2], strict=True))
        return super().encode(text, allow_special=True, plain_spans=plain_spans)

    def prompt(self, ids: list[int]) -> list[int]:
        """Put ``[CLS]`` before a prompt, ``[gMASK]`` after one without a blank, then what opens the answer."""
        blanks = [number for blank in BLANKS if (number := self.token_id(blank)) is not None]
        has_blank = any(number in blanks for number in ids)
        return super().prompt(ids if has_blank else [*ids, *blanks[-1:]])


class GlmSentencePiece(BlankFilling, SentencePieceTokenizer):
    """``cog-pretrain.model`` of the Chinese models."""


class GlmBpe(BlankFilling, BpeFilesTokenizer):
    """GPT-2's files, of the English models."""
