"""Train a byte-level BPE tokenizer on JSONL text and save it as a Hugging Face tokenizer directory.

python examples/train_tokenizer.py corpus.jsonl tokenizer/ --vocab_size 8192
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BEGIN, END, PAD = "<s>", "</s>", "<pad>"


def read_texts(path: Path, key: str) -> Iterator[str]:
    """Yield the text of every record."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)[key]


def train(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer with ``vocab_size`` tokens; no text is outside its vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    # Digits one by one and no token across a line break: both help a small model more than they cost in length.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="JSONL file")
    parser.add_argument("output", type=Path, help="folder for tokenizer.json and tokenizer_config.json")
    parser.add_argument("--vocab_size", type=int, default=8192, help="tokens, special ones included (default 8192)")
    parser.add_argument("--key", default="text", help="key of the text in a record (default text)")
    arguments = parser.parse_args()

    tokenizer = train(read_texts(arguments.input, arguments.key), arguments.vocab_size)
    arguments.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.output / "tokenizer.json"))
    special = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special, "add_bos_token": False}
    (arguments.output / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"{tokenizer.get_vocab_size()} tokens, written to {arguments.output}")


if __name__ == "__main__":
    main()
