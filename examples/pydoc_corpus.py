"""Write the language reference that every Python installation carries (``pydoc_data.topics``) as a JSONL corpus.

About half a megabyte of English prose that needs no download: enough to see a small model learn.

    python examples/pydoc_corpus.py corpus.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from pydoc_data.topics import topics


def main() -> None:
    output = Path(sys.argv[1])
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8") as lines:
        for topic in sorted(topics):
            # Each topic opens with a title under a row of stars; the model learns prose, not rulers.
            paragraphs = [text for text in topics[topic].strip().split("\n\n") if "****" not in text]
            lines.write(json.dumps({"text": "\n\n".join(paragraphs), "source": topic}, ensure_ascii=False) + "\n")
    print(f"{len(topics)} documents, written to {output}")


if __name__ == "__main__":
    main()
