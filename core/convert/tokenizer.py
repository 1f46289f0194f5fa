"""The tokenizer and the chat template of a model, whatever it comes in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .source import STEMS

if TYPE_CHECKING:
    from ..data.chat import ChatTemplate
    from ..data.tokenizer import Tokenizer
    from ..registry.facts import ModelConfig
    from ..registry.family import Family


def gguf_of(path: Path) -> Path | None:
    """Return the GGUF file that ``path`` is, or that a directory holds instead of a model in Hugging Face's layout."""
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    ggufs = sorted(path.glob("*.gguf"))
    has_other = any((path / name).exists() for name in ("config.json", "model_config.json", "tokenizer.json", *STEMS))
    return ggufs[0] if len(ggufs) == 1 and not has_other else None


def load_tokenizer(family: Family, config: ModelConfig, path: Path) -> Tokenizer:
    """Load a model's tokenizer: out of a GGUF file, or by the family from a directory.

    Raises:
        DataError: there is none, or it is malformed; the text names the file.
        WeightError: the header of the GGUF file is damaged.
    """
    gguf = gguf_of(path)
    if gguf is not None:
        from .gguf_tokenizer import load_gguf_tokenizer

        return load_gguf_tokenizer(gguf)
    return family.tokenizer(config, path if path.is_dir() else path.parent)


def find_chat_template(
    family: Family, config: ModelConfig, path: Path | None, choice: str | None = None
) -> ChatTemplate | None:
    """Return the chat template of a model: the chosen one, the model's own, or the family's.

    Args:
        family: brings the default.
        config: of the model.
        path: model directory, weight file or GGUF file; ``None``: a model without files.
        choice: the value of ``--chat_template``.

    Raises:
        DataError: the chosen template is missing, or a template is malformed.
    """
    from dataclasses import replace

    from ..data.chat import ChatTemplate, load_chat_template

    default = family.chat_template(config)
    gguf = None if path is None else gguf_of(path)
    if gguf is not None:
        from ..data.sandbox import check_template
        from .gguf_tokenizer import read_chat_template

        own = read_chat_template(gguf)
        if own is not None:
            check_template(own, f"{gguf}: tokenizer.chat_template")
            default = ChatTemplate(jinja=own) if default is None else replace(default, jinja=own, adds_special=False)
        return load_chat_template(choice, None, default)
    directory = path if path is None or path.is_dir() else path.parent
    return load_chat_template(choice, directory, default)
