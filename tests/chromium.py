"""A headless Chromium that tests can ask: what a page looks like, what it logs, and what its keys do.

Chromium's own protocol (https://chromedevtools.github.io/devtools-protocol/) over two pipes, so that nothing has to be
installed beside the browser and no port is opened. What is asked runs outside the page, whose policy forbids scripts.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["BROWSER", "Chromium", "chromium"]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# The browser reads commands from descriptor 3 and answers on 4.
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_PATIENCE_S = 60.0
# What a page may not do without somebody hearing of it.
_TROUBLE = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Network.requestWillBeSent")


class Chromium:
    """One tab.

    Attributes:
        trouble: What pages logged, threw, or asked the network for since the last `open`.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self._loaded = False
        self.trouble: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            heard = self._hear()
            if heard.get("id") == self._last:
                assert "error" not in heard, (method, heard["error"])
                answer: dict[str, Any] = heard["result"]
                return answer

    def _hear(self) -> dict[str, Any]:
        until = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"Chromium said nothing for {_PATIENCE_S:.0f} s"
            read = os.read(self._from, 1 << 20)
            assert read, "Chromium went away"
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        heard: dict[str, Any] = json.loads(line)
        if heard.get("method") == "Page.loadEventFired":
            self._loaded = True
        if heard.get("method") in _TROUBLE:
            self._note(heard)
        return heard

    def _note(self, heard: dict[str, Any]) -> None:
        url = heard["params"].get("request", {}).get("url", "")
        # The page itself and what lies within it need no network.
        if not url.startswith(("file:", "data:")):
            self.trouble.append(heard)

    def open(self, page: Path, *, width: int, height: int = 900, **media: str) -> None:
        """Show a page.

        Args:
            page: The file.
            width: Of the window, pixels; also below the 500 that Chromium's windows have at least.
            height: Likewise.
            **media: Media features with underscores, such as `prefers_color_scheme="dark"`; `media="print"`.
        """
        self.trouble.clear()
        self._loaded = False
        kind = media.pop("media", "")
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.ask("Emulation.setEmulatedMedia", media=kind, features=features)
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.ask("Page.navigate", url=page.as_uri())
        while not self._loaded:
            self._hear()

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, as JSON carries it."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key, such as ("Tab", 9) or ("Enter", 13, "\\r")."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, file: Path, *, whole: bool = False) -> Path:
        """Write a PNG of the window, or of the whole page."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))
        return file

    def print_pdf(self) -> bytes:
        """The page as it is printed on A4."""
        made = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)
        return base64.b64decode(made["data"])


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """A browser with a fresh profile in a folder; it ends with the block."""
    assert BROWSER is not None
    ours, theirs = os.pipe(), os.pipe()
    # Above the two that the browser wants, so that neither is written over before it is moved there.
    commands, answers = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (ours[0], theirs[1]))
    with (profile.parent / f"{profile.name}.log").open("wb") as log:
        command = [BROWSER, *_SWITCHES, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(commands), str(answers), *command],
            stdout=log,
            stderr=log,
            pass_fds=(commands, answers),
        )
    for end in (ours[0], theirs[1], commands, answers):
        os.close(end)
    try:
        yield Chromium(ours[1], theirs[0])
    finally:
        os.close(ours[1])
        os.close(theirs[0])
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
