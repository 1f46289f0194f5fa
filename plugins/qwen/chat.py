"""ChatML, the chat format of every qwen, for model directories that bring none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .config import QwenConfig

# https://huggingface.co/Qwen/Qwen-7B-Chat and Qwen2-7B-Instruct; generation 3 has no system message of its own.
SYSTEM = {1: "You are a helpful assistant.", 2: "You are a helpful assistant.", 3: ""}


@hookimpl
def llm_run_chat_template(config: QwenConfig) -> ChatTemplate:
    """Return ChatML with the generation's default system message, which a system message of the user replaces."""
    system = SYSTEM[config.generation]
    opening = (
        "{%- if messages[0].role != 'system' -%}{{- '<|im_start|>system\\n" + system + "<|im_end|>\\n' -}}{%- endif -%}"
    )
    turns = (
        "{%- for message in messages -%}"
        "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    return ChatTemplate(jinja=opening + turns if system else turns, stop=("<|im_end|>",))
