"""The chat formats of ChatGLM2 and ChatGLM3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .config import ChatGlm2Config

# huggingface.co/THUDM/chatglm2-6b, tokenization_chatglm.py, function build_prompt: rounds are counted from 1, and
# earlier answers have no end token: only the last one can be learnt, as in THUDM/ChatGLM2-6B, ptuning/main.py. There an
# answer is encoded by itself, so it begins with a space. What a system message says stands first.
ROUNDS = ChatTemplate(
    jinja=(
        "{{- '[gMASK]sop' -}}"
        "{%- set ns = namespace(round=1) -%}"
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' and loop.first -%}"
        "{{- message.content + '\\n\\n' -}}"
        "{%- elif message.role == 'user' -%}"
        "{{- '[Round ' ~ ns.round ~ ']\\n\\n问：' + message.content + '\\n\\n答：' -}}"
        "{%- set ns.round = ns.round + 1 -%}"
        "{%- elif message.role == 'assistant' and loop.last -%}"
        "{{- ' ' + message.content + eos_token -}}"
        "{%- elif message.role == 'assistant' -%}"
        "{{- message.content | trim + '\\n\\n' -}}"
        "{%- else -%}"
        "{{- raise_exception('chatglm2 knows the roles system (first), user and assistant, not ' + message.role) -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
    ),
    last_only=True,
    seed_frame=("[gMASK]sop", ""),
)

# huggingface.co/THUDM/chatglm3-6b, tokenization_chatglm.py, function build_single_message: the line of a role is for
# the name of a tool; what is said is encoded by itself, so it begins with a space. The next role ends an answer.
ROLES = ChatTemplate(
    jinja=(
        "{{- '[gMASK]sop' -}}"
        "{%- for message in messages -%}"
        "{%- set role = 'observation' if message.role == 'tool' else message.role -%}"
        "{{- '<|' + role + '|>\\n ' -}}"
        "{{- message.content | trim if role == 'assistant' else message.content -}}"
        "{{- eos_token if role == 'assistant' and loop.last -}}"
        "{%- endfor -%}"
        "{{- '<|assistant|>' if add_generation_prompt -}}"
    ),
    stop=("<|user|>", "<|observation|>"),
    seed_frame=("[gMASK]sop", ""),
)


@hookimpl
def llm_run_chat_template(config: ChatGlm2Config) -> ChatTemplate:
    """Choose by generation."""
    return ROUNDS if config.generation == 2 else ROLES
