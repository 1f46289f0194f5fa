"""Options of the server and of the engine behind it."""

from __future__ import annotations

from dataclasses import dataclass

from .option import option

SERVE = ("serve",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Where the server listens, who may ask, and how much it takes on."""

    host: str = option("127.0.0.1", "address to listen on; others than this machine's own need API keys", tasks=SERVE)
    port: int = option(8010, "port of the API", tasks=SERVE, aliases=("flask_port", "base_port"))
    api_key_file: str | None = option(None, "file with the API keys that may ask, one a line", tasks=SERVE)
    served_model_name: str | None = option(
        None, "name of the model for clients; default: that of its folder", tasks=SERVE
    )
    lora_modules: tuple[str, ...] = option(
        (), "adapters to serve beside the model, as name=folder", tasks=SERVE, aliases=("lora_adapters",)
    )
    ui: bool = option(False, "also start the chat page, as a process of its own", tasks=SERVE)
    ui_port: int = option(8011, "port of the chat page", tasks=SERVE)
    title: str = option("llm-run", "heading of the chat page", tasks=SERVE)
    max_streams: int = option(128, "answers that may be open at once; one more is told to come back", tasks=SERVE)
    max_queue: int = option(256, "requests that may wait for the engine", tasks=SERVE)
    request_timeout: float = option(600.0, "seconds that one answer may take", tasks=SERVE)
    drain_timeout: float = option(90.0, "seconds that open answers get after SIGTERM", tasks=SERVE)
    max_body_mb: float = option(4.0, "largest request body in MB", tasks=SERVE)
    cache_tokens: int = option(16384, "tokens whose keys and values fit into the cache", tasks=SERVE)
    step_tokens: int = option(512, "tokens that the engine computes in one step", tasks=SERVE)
    max_running: int = option(64, "requests that are answered at once", tasks=SERVE)
