"""ChatGLM-6B's tokenizer: SentencePiece, with tokens of its own for line ends, tabs and runs of spaces."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from llm_run.core.data.tokenizers import SentencePieceTokenizer, TokenFacts
from llm_run.core.errors import DataError
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llm_run.core.data.tokenizer import Tokenizer

    from .config import ChatGlmConfig

FILE = "ice_text.model"
FACTS = TokenFacts(
    bos="<sop>", eos="<eop>", pad="<pad>", stop=("<eop>",), prefix=(), suffix=("[gMASK]", "<sop>"),
    further=("[MASK]", "[sMASK]"),
)  # fmt: skip
IMAGE_TOKENS = 20000
"""Ids before the text in the first release of the model."""
LONGEST_BLANK = 80
LAYOUT = {"<n>": "\n", "<|tab|>": "\t", **{f"<|blank_{size}|>": " " * size for size in range(2, LONGEST_BLANK + 1)}}
"""Text of a token, and what it stands for."""
TOKENS = {text: token for token, text in LAYOUT.items()}
SPELLING = re.compile("|".join(map(re.escape, LAYOUT)))
BREAK = re.compile(f"\n|\t| {{2,{LONGEST_BLANK}}}")


@hookimpl
def llm_run_tokenizer(config: ChatGlmConfig, directory: Path) -> Tokenizer:
    """Load the one file that there is."""
    if not (directory / FILE).is_file():
        raise DataError(f"{directory}: holds no tokenizer of a chatglm. This file is read: {FILE}.")
    return IceTokenizer(config, directory / FILE)


class IceTokenizer(SentencePieceTokenizer):
    """``ice_text.model``, whose ids begin at 0, or after the image tokens."""

    def __init__(self, config: ChatGlmConfig, path: Path) -> None:
        """Load the tokenizer of ``config``.

        Raises:
            DataError: the file is malformed, or is not the one that the model was made with.
        """
        super().__init__(path, facts=FACTS, legacy=True)
        self._pieces = [LAYOUT.get(piece, piece) for piece in self._pieces]
        opening = super().token_id("<sop>") or 0
        # A smaller model is a new one that will grow to the vocabulary (tiny): its ids say nothing yet.
        self._offset = config.bos_id - opening if config.vocab_size >= len(self._pieces) else 0
        if self._offset not in (0, IMAGE_TOKENS):
            raise DataError(f"{path}: has <sop> at {opening}, but config.json says bos_token_id {config.bos_id}. "
                            "Are tokenizer and model of one release?")  # fmt: skip
        self.vocab_size = len(self._pieces) + self._offset
        # Whatever tokenizer_config.json says: that of the first release calls </s> the end.
        self.bos_id, self.eos_id = (self.token_id(token) for token in ("<sop>", "<eop>"))
        self.pad_id += self._offset
        ends = (number + self._offset for number in self.stop_ids if number < len(self._pieces))
        self.stop_ids = tuple(dict.fromkeys(ends))

    def encode(
        self, text: str, *, allow_special: bool = False, plain_spans: Sequence[tuple[int, int]] = ()
    ) -> list[int]:
        """Return the ids of ``text``; see ``Tokenizer.encode``."""
        ids = super().encode(text, allow_special=allow_special, plain_spans=plain_spans)
        return [number + self._offset for number in ids]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of ``ids``; image tokens have none."""
        return super().decode([number - self._offset for number in ids], skip_special=skip_special)

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its exact text, or ``None``."""
        number = super().token_id(token)
        return None if number is None else number + self._offset

    def prompt(self, ids: list[int]) -> list[int]:
        """Close the context with ``[gMASK]`` and open the answer with ``<sop>``, where that has not been done."""
        closing = [number + self._offset for number in self._suffix]
        return ids if ids[-len(closing) :] == closing else [*ids, *closing]

    def _encode_text(self, text: str, *, opens: bool) -> list[int]:
        """Encode plain text; a token's spelling in it is cut in two, so that it comes back as it was."""
        cuts = [0, *(match.start() + 1 for match in SPELLING.finditer(text)), len(text)]
        ids: list[int] = []
        for place, (start, end) in enumerate(pairwise(cuts)):
            laid_out = BREAK.sub(lambda match: TOKENS[match.group()], text[start:end])
            ids += super()._encode_text(laid_out, opens=opens and place == 0)
        return ids

    def _vocabulary_id(self, token: str) -> int | None:
        number: int = self._model.piece_to_id(token)
        return number if token in LAYOUT and self._model.id_to_piece(number) == token else super()._vocabulary_id(token)
