"""A tiny llama of ours and of transformers with the same weights, and PEFT adapters on the latter."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import load_model
from llm_run.core.registry.manager import load_family


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory) -> Path:
    """A model directory that transformers wrote."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, tie_word_embeddings=False,
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture
def ours(llama_dir):
    """Family, configuration and model of ours."""
    family = load_family("llama")
    config = family.read_config(read_fields(llama_dir))
    return family, config, load_model(family, config, llama_dir)


@pytest.fixture
def theirs(llama_dir):
    """The model of transformers, anew each time: PEFT changes it in place."""
    return transformers.LlamaForCausalLM.from_pretrained(llama_dir, dtype=torch.float32)


@pytest.fixture(scope="session")
def ids() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 96, (2, 12))
