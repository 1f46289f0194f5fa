"""``python -m llm_run.core`` is ``llm-run``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
