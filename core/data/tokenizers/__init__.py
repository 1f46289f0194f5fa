"""Tokenizers by file format; a family chooses one and states its special tokens.

``TokenFacts`` are the family's defaults: what ``tokenizer_config.json`` and its siblings say wins over them.
"""

from .bpe_files import BpeFilesTokenizer
from .json_file import JsonTokenizer
from .sentence_piece import SentencePieceTokenizer
from .settings import TokenFacts
from .tiktoken_ranks import TiktokenTokenizer

__all__ = ["BpeFilesTokenizer", "JsonTokenizer", "SentencePieceTokenizer", "TiktokenTokenizer", "TokenFacts"]
