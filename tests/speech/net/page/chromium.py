"""A headless Chromium, driven through the DevTools protocol: by the tests of the page, and for its pictures."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from websockets.sync.client import connect

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --mute-audio --remote-debugging-port=0 "
    "--remote-allow-origins=* --use-fake-device-for-media-stream --autoplay-policy=no-user-gesture-required"
)
PHONE, DESKTOP = (390, 844), (1280, 800)
PATIENCE_S = 30
T = TypeVar("T")


def wait_until(condition: Callable[[], T]) -> T:
    """The first true value of a condition."""
    limit = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < limit, f"it did not happen within {PATIENCE_S} s"
        time.sleep(0.02)
    return result


class Chromium:
    """A browser whose microphone hears a recording.

    Args:
        folder: for its profile, empty.
        recording: a WAV file, which is heard again and again.
    """

    def __init__(self, folder: Path, recording: Path) -> None:
        arguments = [*FLAGS.split(), f"--use-file-for-fake-audio-capture={recording}", f"--user-data-dir={folder}"]
        assert PROGRAM is not None
        self.process = subprocess.Popen([PROGRAM, *arguments], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        told = folder / "DevToolsActivePort"
        wait_until(lambda: told.exists() and told.read_text().count("\n"))
        port, path = told.read_text().split()
        self.socket = connect(f"ws://127.0.0.1:{port}{path}", max_size=None).__enter__()
        self.events: list[dict[str, Any]] = []
        self._ids = itertools.count(1)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while (answer := json.loads(self.socket.recv(timeout=PATIENCE_S))).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def open(self, url: str, *, microphone: str = "granted", size: tuple[int, int] = DESKTOP, **features: str) -> Tab:
        """A page without a past.

        Args:
            microphone: "granted" or "denied".
            size: of the window, in CSS pixels.
            features: of media, as ``prefers_color_scheme="dark"``.
        """
        context = self.call("Target.createBrowserContext")["browserContextId"]
        for name in ("microphone", "clipboard-write"):
            setting = microphone if name == "microphone" else "granted"
            self.call("Browser.setPermission", permission={"name": name}, setting=setting, browserContextId=context)
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, context, session)
        for domain in ("Page", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
        tab.resize(size)
        tab.features(**features)
        tab.call("Page.navigate", url=url)
        return tab

    def close(self) -> None:
        """End the process."""
        self.socket.__exit__(None, None, None)
        self.process.terminate()
        self.process.wait()


class Tab:
    """One page."""

    def __init__(self, browser: Chromium, context: str, session: str) -> None:
        self.browser, self.context, self.session = browser, context, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a method of the protocol, for this page."""
        return self.browser.call(method, self.session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, awaited, as if a user had pressed something."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        result = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def text(self, selector: str) -> str:
        """What an element shows; "" if there is none or it is hidden."""
        return self.evaluate(
            f"(one => one?.checkVisibility() ? one.innerText : '')(document.querySelector({json.dumps(selector)}))"
        )

    def texts(self, selector: str) -> list[str]:
        """What every such element shows."""
        return self.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.innerText)")

    def click(self, selector: str) -> None:
        """Press an element."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select."""
        changed = "new Event('change', {bubbles: true})"
        self.evaluate(
            f"(one => {{ one.value = {json.dumps(value)}; one.dispatchEvent({changed}); }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )

    def press(self, key: str, text: str = "", modifiers: int = 0) -> None:
        """Press and release a key; ``modifiers``: 8 is shift."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}[key]
        about = {
            "key": key,
            "code": "Space" if key == " " else key,
            "windowsVirtualKeyCode": code,
            "modifiers": modifiers,
        }
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def drop(self, name: str, content: bytes) -> None:
        """Drop a file on the page."""
        encoded = base64.b64encode(content).decode()
        self.evaluate(
            f"""(() => {{
              const bytes = Uint8Array.from(atob("{encoded}"), letter => letter.charCodeAt(0));
              const dataTransfer = new DataTransfer();
              dataTransfer.items.add(new File([bytes], {json.dumps(name)}));
              for (const type of ["dragenter", "dragover", "drop"]) {{
                document.body.dispatchEvent(new DragEvent(type, {{bubbles: true, cancelable: true, dataTransfer}}));
              }}
            }})()"""
        )

    def resize(self, size: tuple[int, int], scale: float = 1) -> None:
        """Give the window another size."""
        width, height = size
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def features(self, **features: str) -> None:
        """Set features of media, as ``prefers_color_scheme="dark"``."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def picture(self, kind: str = "png", quality: int | None = None) -> bytes:
        """What the window shows, as an image file."""
        options = {} if quality is None else {"quality": quality}
        return base64.b64decode(self.call("Page.captureScreenshot", format=kind, **options)["data"])

    def complaints(self) -> list[str]:
        """What the browser found wrong with the page: errors, violations of its security policy."""
        self.evaluate("1")  # what is under way has come then
        found = []
        for event in self.browser.events:
            parameters = event.get("params", {})
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                found.append(parameters["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif event["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                found.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        return found

    def close(self) -> None:
        """Leave the page, and forget what it kept."""
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)
