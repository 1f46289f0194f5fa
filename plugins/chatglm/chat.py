"""The chat format of ChatGLM-6B."""

from __future__ import annotations

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.registry.hookspecs import hookimpl

# huggingface.co/THUDM/chatglm-6b, modeling_chatglm.py, function chat: rounds are counted from 0. Earlier answers are
# context and have no end token; the blank stands after the last question. What a system message says stands first.
CHATGLM = ChatTemplate(
    jinja=(
        "{%- set ns = namespace(round=0) -%}"
        "{%- for message in messages -%}"
        "{%- set later = messages[loop.index:] | map(attribute='role') | list -%}"
        "{%- if message.role == 'system' -%}"
        "{{- message.content + '\\n' -}}"
        "{%- elif message.role == 'user' -%}"
        "{{- '[Round ' ~ ns.round ~ ']\\n问：' + message.content + '\\n答：' -}}"
        "{{- '' if 'user' in later else '[gMASK]<sop>' -}}"
        "{%- set ns.round = ns.round + 1 -%}"
        "{%- elif message.role == 'assistant' -%}"
        "{{- message.content + ('\\n' if 'user' in later else eos_token) -}}"
        "{%- else -%}"
        "{{- raise_exception('chatglm knows the roles system, user and assistant, not ' + message.role) -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
    ),
    last_only=True,
    seed_frame=("", "[gMASK]<sop>"),
)


@hookimpl
def llm_run_chat_template() -> ChatTemplate:
    """Every ChatGLM-6B has the one format."""
    return CHATGLM
