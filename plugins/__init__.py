"""The model families that ship with llm-run, registered by entry point like any outside plugin."""

if __name__ != "llm_run.plugins":
    raise ImportError(
        f"this folder is the package llm_run.plugins, not {__name__!r}; "
        "run `pip install -e .` and import llm_run.plugins"
    )
