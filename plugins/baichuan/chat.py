"""The chat formats of Baichuan-13B-Chat and of the Baichuan 2 chat models: tokens 195 and 196 open the turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .config import BaichuanConfig

# huggingface.co/baichuan-inc/Baichuan-13B-Chat, modeling_baichuan.py, function _build_chat_input
FIRST = ChatTemplate(
    jinja=(
        "{%- for message in messages -%}"
        "{%- if message.role == 'user' -%}"
        "{{- '<reserved_102>' + message.content -}}"
        "{%- elif message.role == 'assistant' -%}"
        "{{- '<reserved_103>' + message.content + eos_token -}}"
        "{%- else -%}"
        "{{- raise_exception('the first baichuan knows the roles user and assistant, not ' + message.role) -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        "{{- '<reserved_103>' if add_generation_prompt -}}"
    ),
)

# huggingface.co/baichuan-inc/Baichuan2-7B-Chat, generation_utils.py: an answer has no end token but the next question's
# opening, and only the last one ends in </s>.
SECOND = ChatTemplate(
    jinja=(
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' and loop.first -%}"
        "{{- message.content -}}"
        "{%- elif message.role == 'user' -%}"
        "{{- '<reserved_106>' + message.content -}}"
        "{%- elif message.role == 'assistant' -%}"
        "{{- '<reserved_107>' + message.content + (eos_token if loop.last else '') -}}"
        "{%- else -%}"
        "{{- raise_exception('baichuan 2 knows the roles system (first), user and assistant, not ' + message.role) -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        "{{- '<reserved_107>' if add_generation_prompt -}}"
    ),
    stop=("<reserved_106>",),
)


@hookimpl
def llm_run_chat_template(config: BaichuanConfig) -> ChatTemplate | None:
    """Choose by generation; there was no chat model of the first 7B."""
    if config.norm_head:
        return SECOND
    return FIRST if config.rotary is None else None
