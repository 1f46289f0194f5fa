"""The machinery of llm-run: it knows no model family."""

if __name__ != "llm_run.core":
    raise ImportError(
        f"this folder is the package llm_run.core, not {__name__!r}; run `pip install -e .` and import llm_run.core"
    )
