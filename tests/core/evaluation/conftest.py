"""A tiny llama with a tokenizer, and the same weights in transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import load_model
from llm_run.core.data.tokenizers import JsonTokenizer
from llm_run.core.registry.manager import find_family

TEXT = [f"{a} and {b} make {a + b}, less {a - b}, times {a * b}." for a in range(30) for b in range(30)]
SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Peers:
    """The same weights, here and there."""

    folder: Path
    model: CausalLM
    tokenizer: JsonTokenizer
    theirs: Any

    def log_probabilities(self, ids: list[int]) -> np.ndarray:
        """What transformers gives each token after the first, one row at a time."""
        import torch

        with torch.no_grad():
            logits_SV = self.theirs(torch.tensor([ids])).logits[0, :-1].double()
        picked = torch.log_softmax(logits_SV, dim=-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        return np.asarray(picked.numpy())


@pytest.fixture(scope="session")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    """A model directory that transformers wrote, with random weights that are far from uniform."""
    import tokenizers
    import torch
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("peer")
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=list(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(TEXT, trainer)
    torch.manual_seed(1)
    heads = dict(num_attention_heads=4, num_key_value_heads=2)
    shape = dict(vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=2, max_position_embeddings=256)
    theirs = LlamaForCausalLM(LlamaConfig(**shape, **heads)).eval()
    for name, parameter in theirs.named_parameters():
        parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.25)
    theirs.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    words = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    fields = read_fields(folder)
    family = find_family(fields)
    config = family.card.config_class.from_fields(fields)
    model = load_model(family, config, folder)
    model.eval()
    return Peers(folder, model, family.tokenizer(config, folder), theirs)  # type: ignore[arg-type]
