"""The page for people: a chat and a comparison of two models, as a process of its own that asks the API.

python -m llm_run.core.serve.page --api http://127.0.0.1:8010 --port 8011
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported; nothing is sent anywhere

import gradio as gr

from .page_client import ApiClient, Knobs, ServerSaid

KEY_VARIABLE = "LLM_RUN_API_KEY"
WORDS = {
    "en": {
        "chat": "Chat", "compare": "Compare", "model": "Model", "left": "Left model", "right": "Right model",
        "system": "System prompt", "max_tokens": "Longest answer (tokens)", "temperature": "Temperature",
        "top_p": "Top-p", "top_k": "Top-k (0: all)", "penalty": "Repetition penalty",
        "message": "Message", "stop": "Stop", "clear": "Clear",
    },
    "zh-CN": {
        "chat": "对话", "compare": "对比", "model": "模型", "left": "左侧模型", "right": "右侧模型",
        "system": "系统提示", "max_tokens": "最大回答长度（token）", "temperature": "温度",
        "top_p": "Top-p", "top_k": "Top-k（0 为全部）", "penalty": "重复惩罚",
        "message": "消息", "stop": "停止", "clear": "清空",
    },
}  # fmt: skip
WORD = gr.I18n(**WORDS)


def build_page(client: ApiClient, title: str) -> Any:
    """Lay the page out; it asks the server for its models once.

    Raises:
        ServerSaid: the server cannot be reached.
    """
    models = client.models()
    with gr.Blocks(title=title, analytics_enabled=False, fill_height=True) as page:
        gr.Markdown(f"# {title}")
        with gr.Tab(WORD("chat")), gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=240):
                knobs = _knobs(models)
            with gr.Column(scale=3):
                gr.ChatInterface(
                    fn=_answering(client), additional_inputs=knobs, chatbot=gr.Chatbot(height=560, show_label=False),
                    save_history=False, concurrency_limit=None, api_visibility="private",
                )  # fmt: skip
        with gr.Tab(WORD("compare")):
            _comparison(client, models)
    return page


def _knobs(models: list[str]) -> list[Any]:
    return [
        gr.Dropdown(models, value=models[0], label=WORD("model")),
        gr.Textbox("", label=WORD("system"), lines=2),
        gr.Slider(0, 2, 0.95, step=0.05, label=WORD("temperature")),
        gr.Slider(0, 1, 0.7, step=0.05, label=WORD("top_p")),
        gr.Slider(0, 100, 0, step=1, label=WORD("top_k")),
        gr.Slider(0.5, 2, 1.0, step=0.05, label=WORD("penalty")),
        gr.Slider(1, 4096, 512, step=1, label=WORD("max_tokens")),
    ]


def _answering(client: ApiClient) -> Any:
    def answer(
        message: str, history: list[dict[str, Any]], model: str, system: str, temperature: float, top_p: float,
        top_k: int, penalty: float, max_tokens: int,
    ) -> Iterator[str]:  # fmt: skip
        knobs = Knobs(
            model=model, system=system, temperature=temperature, top_p=top_p, top_k=int(top_k),
            repetition_penalty=penalty, max_tokens=int(max_tokens),
        )  # fmt: skip
        yield from _growing(client, [*_plain(history), {"role": "user", "content": message}], knobs)

    return answer


def _growing(client: ApiClient, messages: list[dict[str, str]], knobs: Knobs) -> Iterator[str]:
    """Yield the answer so far, each time longer."""
    said = ""
    try:
        for piece in client.answer(messages, knobs):
            said += piece
            yield said
    except ServerSaid as error:
        raise gr.Error(str(error)) from error


def _plain(history: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return a chat's history as the API takes it."""
    plain = []
    for turn in history:
        content = turn["content"]
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
        plain.append({"role": turn["role"], "content": str(content)})
    return plain


def _comparison(client: ApiClient, models: list[str]) -> None:
    """Two models answer the same message side by side."""
    with gr.Row():
        names = [gr.Dropdown(models, value=models[side % len(models)], label=WORD(("left", "right")[side]))
                 for side in (0, 1)]  # fmt: skip
    with gr.Row():
        chats = [gr.Chatbot(show_label=False) for _ in names]
    message = gr.Textbox(label=WORD("message"), submit_btn=True)
    with gr.Row():
        stop, clear = gr.Button(WORD("stop")), gr.Button(WORD("clear"))

    def ask(text: str, *chats: list[dict[str, Any]]) -> tuple[Any, ...]:
        turn = {"role": "user", "content": text}
        return "", *([*chat, turn] for chat in chats)

    def reply(chat: list[dict[str, Any]], model: str) -> Iterator[list[dict[str, Any]]]:
        for said in _growing(client, _plain(chat), Knobs(model=model)):
            yield [*chat, {"role": "assistant", "content": said}]

    asked = message.submit(ask, [message, *chats], [message, *chats], api_visibility="private")
    replies = [
        asked.then(reply, [chat, name], chat, concurrency_limit=None, api_visibility="private")
        for chat, name in zip(chats, names, strict=True)
    ]
    stop.click(None, cancels=replies)
    clear.click(lambda: ([], []), None, chats, cancels=replies, api_visibility="private")


def main() -> None:
    """Serve the page until the process is ended."""
    parser = argparse.ArgumentParser(description="Chat page of llm-run; asks a running server.")
    parser.add_argument("--api", required=True, help="address of the server, as http://127.0.0.1:8010")
    parser.add_argument("--host", default="127.0.0.1", help="address that the page listens on")
    parser.add_argument("--port", type=int, default=8011, help="port of the page")
    parser.add_argument("--title", default="llm-run", help="heading of the page")
    arguments = parser.parse_args()
    page = build_page(ApiClient(arguments.api, os.environ.get(KEY_VARIABLE)), arguments.title)
    page.queue(max_size=128).launch(
        server_name=arguments.host, server_port=arguments.port, share=False, allowed_paths=[], max_file_size="1mb",
        footer_links=[], i18n=WORD, quiet=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
