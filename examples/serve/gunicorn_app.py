"""The server's application for gunicorn, which loads the model in the worker, after the fork.

    LLM_RUN_SERVE="--model_name_or_path ./model" \
        gunicorn -w 1 -k gthread --threads 160 --timeout 120 --bind 127.0.0.1:8010 "gunicorn_app:application()"
"""

from __future__ import annotations

import os
import shlex
from typing import Any

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.request import prepare
from llm_run.core.serve.task import build_app, build_service


def application() -> Any:
    """Return the WSGI application for the options in ``LLM_RUN_SERVE``."""
    config, _ = resolve(parse(["--task", "serve", *shlex.split(os.environ["LLM_RUN_SERVE"])]))
    run, _ = prepare(config)
    return build_app(run, build_service(run))
