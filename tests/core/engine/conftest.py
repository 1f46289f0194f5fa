"""A tiny llama in transformers and the same weights in ours, and small tokenizers of each kind."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CORPUS = [
    "The capital of France is Paris. It lies on the Seine.",
    "Once upon a time there was a little girl who liked to play outside in the park.",
    "Numbers: 1, 2, 3, 10, 100; words, words, and (some) more words!",
    "春江潮水连海平,海上明月共潮生。",
    "Grüße aus München, où êtes-vous? Привет мир.",
]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A transformers llama with large random weights (so that its logits differ much) and its model directory."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)  # threads that wait for each other make these tiny products slower
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.6, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    directory = tmp_path_factory.mktemp("llama")
    model.save_pretrained(directory)

    def answer(prompt: list[int], **how: Any) -> list[int]:
        how = {"do_sample": False, "eos_token_id": 2, "pad_token_id": 0, **how}
        return model.generate(torch.tensor([prompt]), **how)[0, len(prompt) :].tolist()

    return SimpleNamespace(model=model, directory=directory, answer=answer)


@pytest.fixture(scope="session")
def llama(reference: Any) -> Any:
    """Our model with the reference's weights."""
    from llm_run.core.convert.fields import read_fields
    from llm_run.core.convert.load import load_model
    from llm_run.core.registry.manager import load_family

    family = load_family("llama")
    config = family.card.config_class.from_fields(read_fields(reference.directory))
    return load_model(family, config, reference.directory)


@pytest.fixture(scope="session")
def sentencepiece_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SentencePiece with byte fallback: leading spaces, and characters spread over tokens."""
    import sentencepiece

    from llm_run.core.data.tokenizers import SentencePieceTokenizer

    path: Path = tmp_path_factory.mktemp("sentencepiece") / "tokenizer.model"
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS[:3] * 5), model_writer=written, vocab_size=340, model_type="bpe",
        byte_fallback=True, character_coverage=1.0, minloglevel=2, num_threads=1,
    )  # fmt: skip
    path.write_bytes(written.getvalue())
    return SentencePieceTokenizer(path)


@pytest.fixture(scope="session")
def byte_level_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Byte-level BPE in a ``tokenizer.json``: any character may be spread over tokens."""
    import tokenizers

    from llm_run.core.data.tokenizers import JsonTokenizer, TokenFacts

    directory = tmp_path_factory.mktemp("byte_level")
    built = tokenizers.Tokenizer(tokenizers.models.BPE())
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>", "<|user|>", "<|bot|>", "<|system|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    built.train_from_iterator(CORPUS, trainer)
    built.save(str(directory / "tokenizer.json"))
    return JsonTokenizer(directory, facts=TokenFacts(eos="<|end|>"))


TEMPLATE = (
    "{% for message in messages %}<|{{ {'assistant': 'bot'}.get(message.role, message.role) }}|>{{ message.content }}"
    "{% if message.role == 'assistant' %}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|bot|>{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer_directory(byte_level_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of ``byte_level_tokenizer``, without a chat template."""
    directory = tmp_path_factory.mktemp("tokenizer")
    byte_level_tokenizer.save(directory)
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    return directory


@pytest.fixture(scope="session")
def chat_directory(tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a chat template."""
    directory = tmp_path_factory.mktemp("chat")
    for path in tokenizer_directory.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


@pytest.fixture
def prepared() -> Callable[..., Any]:
    """Return a function from a task and its options to the ``Run`` that the task is handed; the model is tiny."""
    from llm_run.core.config.flags import parse
    from llm_run.core.config.resolve import resolve
    from llm_run.core.request import prepare

    def make(task: str, **options: Any) -> Any:
        words = ["--family", "llama", "--task", task]
        if "model_name_or_path" not in options:
            options["model_size"] = "tiny"
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        return prepare(resolve(parse(words))[0])[0]

    return make
