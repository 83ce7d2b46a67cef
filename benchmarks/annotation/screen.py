"""`python -m benchmarks.annotation.screen`: how long from Enter to the next comparison painted.

A real Chromium judges 200 real comparisons by keyboard against `manage.py up`, once as it is and
once with 300 ms added to every request by the browser's own throttling. The page measures from the
time stamp of the key to after the frame that shows it. Prints a row per delay; nothing is asserted.
Needs Chromium and playwright; works in a folder of its own on SQLite.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "annotate" / "demo_data" / "hh-helpful.jsonl.gz"
JUDGMENTS = 200
DELAYS_MS = (0, 300)
#: What a quick person takes at the least, in milliseconds; nobody sends 50 judgments a second.
READING_MS = 500
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
MEASURED = "performance.getEntriesByName('next-painted').map((entry) => entry.duration)"


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(the address of a fresh site, the environment of its commands), while the block runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "DATA_DIR": str(folder), "BROKER_URL": "none"}
    environment.pop("DATABASE_URL", None)
    manage(environment, "migrate", "-v", "0")
    site = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", port],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/account/login/")
        yield address, environment
    finally:
        site.terminate()
        site.wait(timeout=60)


def manage(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def wait_for(address: str, patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()  # noqa: S310 - our own server
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def judge(page: Page, address: str, project: str, delay_ms: int) -> dict[str, Any]:
    """Judge JUDGMENTS comparisons of a project by keyboard."""
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": delay_ms, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    page.goto(f"{address}/judge/{project}/")
    page.locator("#judge[data-ready]").wait_for()
    on_screen = page.locator("#answer-form input[name=assignment]")
    for number in range(JUDGMENTS):
        assignment = on_screen.get_attribute("value")
        page.keyboard.press("12=0"[number % 4])
        page.keyboard.press("Enter")
        expect(on_screen).not_to_have_value(str(assignment), timeout=30_000)
        page.wait_for_timeout(READING_MS)
    page.get_by_text(f"{JUDGMENTS} judged today").wait_for()
    spans = sorted(page.evaluate(MEASURED))
    return {
        "delay_ms": delay_ms,
        "judgments": JUDGMENTS,
        "painted": len(spans),
        "p50_ms": round(spans[len(spans) // 2], 1),
        "p95_ms": round(spans[int(len(spans) * 0.95)], 1),
        "longest_ms": round(spans[-1], 1),
    }


def page_weight(page: Page) -> dict[str, Any]:
    """Bytes of the annotation page's scripts and styles after gzip, and foreign requests."""
    found = {"js_gz": 0, "css_gz": 0}
    foreign = []
    for entry in page.evaluate("performance.getEntriesByType('resource').map((e) => e.name)"):
        if not entry.startswith(page.evaluate("location.origin")):
            foreign.append(entry)
        kind = entry.partition("?")[0].rpartition(".")[2]
        if kind in ("js", "css"):
            with urllib.request.urlopen(entry) as reply:  # noqa: S310 - our own server
                found[f"{kind}_gz"] += len(gzip.compress(reply.read()))
    return {**found, "foreign_requests": foreign}


def measure() -> list[dict[str, Any]]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-screen-") as folder,
        server(Path(folder)) as (address, environment),
        sync_playwright() as playwright,
    ):
        # One imported judgment each, so overlap 2 leaves one place.
        for delay_ms in DELAYS_MS:
            manage(environment, "create_project", f"delay-{delay_ms}", "--overlap", "2")
            manage(environment, "import_comparisons", str(DATA), "--project", f"delay-{delay_ms}")
        manage(environment, "create_member", "bench@example.org", "--role", "annotator")
        link = manage(environment, "sign_in_link", "bench@example.org", "--site", address)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(next(word for word in link.split() if word.startswith("http")))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/judge/")
        for delay_ms in DELAYS_MS:
            rows.append(judge(page, address, f"delay-{delay_ms}", delay_ms))
            print(json.dumps(rows[-1]), flush=True)
        rows.append(page_weight(page))
        print(json.dumps(rows[-1]), flush=True)
        browser.close()
    return rows


if __name__ == "__main__":
    measure()
