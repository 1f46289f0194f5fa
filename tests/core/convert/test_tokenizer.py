from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from tokenizers import Tokenizer, models

from llm_run.core.convert.tokenizer import find_chat_template, gguf_of, load_tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family


def _gguf(path: Path, template: str | None = None) -> Path:
    writer = gguf.GGUFWriter(path, "some")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_merges(["a b"])
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def _json(directory: Path) -> None:
    Tokenizer(models.WordLevel({"<unk>": 0, "b": 1}, unk_token="<unk>")).save(str(directory / "tokenizer.json"))


def test_a_gguf_file_brings_its_own_tokenizer(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    path = _gguf(tmp_path / "x.gguf")
    assert load_tokenizer(llama, tiny, path).encode("ab") == [2]
    assert load_tokenizer(llama, tiny, tmp_path).encode("ab") == [2]


def test_a_directory_is_the_familys_to_read(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    _gguf(tmp_path / "x.gguf")
    _json(tmp_path)
    assert gguf_of(tmp_path) is None
    assert load_tokenizer(llama, tiny, tmp_path).encode("b") == [1]


def test_a_weight_file_has_its_tokenizer_beside_it(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    _json(tmp_path)
    assert load_tokenizer(llama, tiny, tmp_path / "model.safetensors").encode("b") == [1]


def test_the_template_of_a_gguf_file_goes_before_the_familys(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    found = find_chat_template(llama, tiny, _gguf(tmp_path / "x.gguf", "{{ messages }}"))
    assert found is not None and found.jinja == "{{ messages }}"


def test_without_a_template_of_its_own_the_familys_is_used(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    assert find_chat_template(llama, tiny, _gguf(tmp_path / "x.gguf")) == llama.chat_template(tiny)
    assert find_chat_template(llama, tiny, None) == llama.chat_template(tiny)


def test_the_template_of_a_directory_goes_before_the_familys(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    found = find_chat_template(llama, tiny, tmp_path)
    assert found is not None and found.jinja == "{{ messages }}"


def test_a_chosen_template_goes_before_all(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    path = _gguf(tmp_path / "x.gguf", "{{ messages }}")
    (tmp_path / "mine.jinja").write_text("mine")
    found = find_chat_template(llama, tiny, path, str(tmp_path / "mine.jinja"))
    assert found is not None and found.jinja == "mine"
    assert find_chat_template(llama, tiny, path, "none") is None


def test_a_malformed_template_in_a_gguf_file_is_named(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.gguf: tokenizer\.chat_template"):
        find_chat_template(llama, tiny, _gguf(tmp_path / "x.gguf", "{% for"))
