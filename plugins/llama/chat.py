"""The chat formats of llama 2 and 3, for model directories that bring none. Llama 1 has no chat format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .config import LlamaConfig

# https://www.llama.com/docs/model-cards-and-prompt-formats/meta-llama-2: the system message goes into the first turn.
LLAMA_2 = ChatTemplate(
    jinja=(
        "{%- set ns = namespace(system='') -%}"
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' -%}"
        "{%- set ns.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' -%}"
        "{%- elif message.role == 'user' -%}"
        "{{- bos_token + '[INST] ' + ns.system + message.content | trim + ' [/INST]' -}}"
        "{%- set ns.system = '' -%}"
        "{%- elif message.role == 'assistant' -%}"
        "{{- ' ' + message.content | trim + ' ' + eos_token -}}"
        "{%- else -%}"
        "{{- raise_exception('llama 2 knows the roles system, user and assistant, not ' + message.role) -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
    ),
)

# https://www.llama.com/docs/model-cards-and-prompt-formats/meta-llama-3
LLAMA_3 = ChatTemplate(
    jinja=(
        "{{- bos_token -}}"
        "{%- for message in messages -%}"
        "{%- set role = 'ipython' if message.role == 'tool' else message.role -%}"
        "{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}"
        "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}"
        "{%- endif -%}"
    ),
    stop=("<|eot_id|>",),
)


@hookimpl
def llm_run_chat_template(config: LlamaConfig) -> ChatTemplate | None:
    """Choose by what tells the generations apart: llama 3 by its vocabulary, llama 2 by the length it was made for."""
    if config.vocab_size == 128256:
        return LLAMA_3
    if config.vocab_size == 32000 and config.max_positions == 4096:
        return LLAMA_2
    return None
