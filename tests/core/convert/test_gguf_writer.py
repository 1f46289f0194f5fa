"""GGUF files that are written here, read back by our reader and by the gguf package's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import paddle
import pytest

from llm_run.core.convert.gguf_writer import write_gguf
from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import ModelTensors, parameters
from llm_run.core.convert.save import ModelParts
from llm_run.core.convert.tokenizer import find_chat_template, load_tokenizer
from llm_run.core.data.chat import ChatTemplate
from llm_run.core.data.tokenizers import JsonTokenizer, TokenFacts
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import load_family

TEXTS = ["The quantization of a model rounds its weights to integers.", "Numbers: 1, 2, 3, 10, 100; and words."]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> JsonTokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"), digits=True)


def make_tokenizer(folder: Path, *, digits: bool) -> JsonTokenizer:
    """A byte-level BPE as SmolLM2 has it, or one that cuts texts in a way of its own."""
    import tokenizers

    steps = tokenizers.pre_tokenizers
    built = tokenizers.Tokenizer(tokenizers.models.BPE())
    first = steps.Digits(individual_digits=True) if digits else steps.Punctuation()
    built.pre_tokenizer = steps.Sequence([first, steps.ByteLevel(add_prefix_space=False)])
    built.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], show_progress=False, initial_alphabet=steps.ByteLevel.alphabet()
    )
    built.train_from_iterator(TEXTS, trainer)
    built.save(str(folder / "tokenizer.json"))
    return JsonTokenizer(folder, facts=TokenFacts(eos="<|end|>"))


@pytest.fixture
def write(tokenizer: JsonTokenizer, tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """Return a function that writes a random tiny model and returns the file and the model."""

    def act(family_name: str, size: str = "tiny", dtype: str = "float32", **changed: Any) -> tuple[Path, Any]:
        family = load_family(family_name)
        config = family.card.sizes[size]
        paddle.seed(2)
        model = family.build_model(config)
        template = ChatTemplate(jinja="{{ messages[0].content }}")
        parts = ModelParts(
            family=family, config=config, tensors=ModelTensors(model), source="a test",
            **{"tokenizer": tokenizer, "chat_template": template, **changed},
        )  # fmt: skip
        write_gguf(parts, tmp_path / "model.gguf", dtype=dtype, on_written=lambda name: None)
        return tmp_path / "model.gguf", model

    return act


@pytest.mark.parametrize(
    ("name", "size"), [("llama", "tiny"), ("qwen", "tiny-v2"), ("qwen", "tiny-v3"), ("bloom", "tiny"), ("gpt3", "tiny")]
)
def test_a_file_of_floats_is_the_model_to_the_bit(write: Any, name: str, size: str) -> None:
    file, model = write(name, size)
    again = parameters(load_model(load_family(name), model.config, file))
    for key, parameter in parameters(model).items():
        assert np.array_equal(again[key].numpy(), parameter.numpy()), key


@pytest.mark.parametrize(("dtype", "kind", "bound"), [("q8_0", "Q8_0", 0.007), ("q4_0", "Q4_0", 0.09)])
def test_blocks_hold_matrices_nearly_and_vectors_exactly(write: Any, dtype: str, kind: str, bound: float) -> None:
    file, model = write("llama", dtype=dtype)
    again = parameters(load_model(load_family("llama"), model.config, file))
    for key, parameter in parameters(model).items():
        before, after = parameter.numpy(), again[key].numpy()
        if before.ndim == 1:
            assert np.array_equal(before, after)
        else:
            assert np.linalg.norm(after - before) < bound * np.linalg.norm(before)
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert types["blk.0.attn_q.weight"] == kind
    assert types["token_embd.weight"] == "Q8_0"  # and not 4 bits
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert types["blk.0.ffn_down.weight"] == "F16"  # 176 inputs are no whole number of blocks


def test_the_tokenizer_and_the_template_come_back(write: Any, tokenizer: JsonTokenizer) -> None:
    file, model = write("llama")
    family = load_family("llama")
    again = load_tokenizer(family, model.config, file)
    assert (again.eos_id, again.pad_id, again.bos_id) == (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id)
    for text in (*TEXTS, "  two spaces, 1234", "Grüße, 春江潮水", "<|end|>"):
        assert again.encode(text) == tokenizer.encode(text)
    template = find_chat_template(family, model.config, file)
    assert template is not None and template.jinja == "{{ messages[0].content }}"
    field = gguf.GGUFReader(file).get_field("tokenizer.ggml.tokens")
    assert field is not None and len(field.contents()) == model.config.vocab_size


@pytest.mark.parametrize(
    ("name", "size", "text"),
    [
        ("opt", "tiny", "cannot be a GGUF file: it has no opt"),
        ("baichuan", "tiny", "a GGUF header cannot say norm_head True"),
        ("llama", "tiny-tied", "rotary factors that follow no known formula"),
    ],
)
def test_what_gguf_cannot_say_is_refused_and_leaves_nothing(
    write: Any, tmp_path: Path, name: str, size: str, text: str
) -> None:
    with pytest.raises(RefusedError, match=text):
        write(name, size)
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*"))


def test_a_tokenizer_that_cuts_otherwise_is_refused(write: Any, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="it cuts texts in a way that GGUF has no name for"):
        write("llama", tokenizer=make_tokenizer(tmp_path, digits=False))
