#!/usr/bin/env python3
"""Renews the screenshots of the README: a drawn digit, and the curves of a run.

    cargo build -p trainer
    python3 docs/screenshots.py target/debug/trainer

Needs chromium and chromedriver (Debian: chromium, chromium-driver), and writes docs/images/*.png.
"""

import base64
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

IMAGES = pathlib.Path(__file__).parent / "images"
# A four, as strokes of points on a canvas of 1 by 1.
STROKES = [
    [(0.60, 0.15), (0.45, 0.38), (0.30, 0.60), (0.55, 0.60), (0.75, 0.60)],
    [(0.60, 0.40), (0.60, 0.65), (0.60, 0.88)],
]


class Browser:
    """A session of chromedriver, as the WebDriver protocol defines it."""

    def __init__(self, width, height):
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        for line in self.driver.stdout:
            if port := re.search(r"started successfully on port (\d+)", line):
                break
        self.address = f"http://127.0.0.1:{port[1]}/session"
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
            f"--window-size={width},{height}",
        ]
        chrome = {"goog:chromeOptions": {"args": arguments}}
        session = self.call("", {"capabilities": {"alwaysMatch": chrome}})
        self.address += "/" + session["sessionId"]

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.address + path, data)) as answer:
            return json.load(answer)["value"]

    def open(self, address):
        self.call("/url", {"url": address})

    def resize(self, width, height):
        self.call("/window/rect", {"width": width, "height": height})

    def run(self, script):
        return self.call("/execute/sync", {"script": script, "args": []})

    def draw(self, strokes, canvas):
        """Draws strokes with the mouse on the element `canvas`."""
        box = self.run(
            f"const box = document.querySelector('{canvas}').getBoundingClientRect();"
            "return [box.left, box.top, box.width, box.height]"
        )
        left, top, width, height = box
        actions = []
        for stroke in strokes:
            for index, (x, y) in enumerate(stroke):
                x, y = round(left + x * width), round(top + y * height)
                actions.append({"type": "pointerMove", "duration": 40, "x": x, "y": y})
                if index == 0:
                    actions.append({"type": "pointerDown", "button": 0})
            actions.append({"type": "pointerUp", "button": 0})
        pointer = {
            "type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"},
            "actions": actions,
        }
        self.call("/actions", {"actions": [pointer]})

    def screenshot(self, name):
        path = IMAGES / name
        path.write_bytes(base64.b64decode(self.call("/screenshot")))
        print(path)

    def close(self):
        self.driver.kill()


def main(trainer):
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = ["--out", f"{folder}/runs"]
        subprocess.run(
            [trainer, "-q", *runs, "--preset", "convnet", "--limit-train", "12000", "--epochs", "8"],
            check=True, stdout=subprocess.DEVNULL,
        )
        server = subprocess.Popen(
            [trainer, "serve", "pretrained", *runs, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        browser = Browser(880, 640)
        try:
            for line in server.stdout:
                if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                    break
            browser.open(address[0])
            browser.draw(STROKES, "#paper")
            time.sleep(1)
            browser.screenshot("draw.png")
            browser.resize(1060, 800)
            browser.open(address[0] + "/runs")
            time.sleep(2)
            browser.run("document.querySelector('tbody tr a, tbody tr').click()")
            time.sleep(2)
            browser.screenshot("runs.png")
        finally:
            browser.close()
            server.kill()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
