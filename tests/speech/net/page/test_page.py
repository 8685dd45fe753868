"""The page with the microphone, in a real browser that is given a recording for a microphone."""

import itertools
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from loquent.speech.audio.files import write_audio
from loquent.speech.runtime.engine import Engine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian package of that name)")


class Browser:
    """A headless browser on one page, driven through the DevTools protocol."""

    def __init__(self, folder: Path, recording: Path, page: str) -> None:
        options = (
            "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-port=0 --remote-allow-origins=* "
            "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream "
            "--autoplay-policy=no-user-gesture-required"
        )
        arguments = [
            *options.split(),
            f"--use-file-for-fake-audio-capture={recording}",
            f"--user-data-dir={folder}",
            page,
        ]
        self.process = subprocess.Popen([CHROMIUM, *arguments], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until((folder / "DevToolsActivePort").exists)
        wait_until(lambda: (folder / "DevToolsActivePort").read_text().count("\n"))
        port = (folder / "DevToolsActivePort").read_text().split()[0]
        tabs = httpx.get(f"http://127.0.0.1:{port}/json").json()
        [address] = [tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"]
        self.socket = connect(address, max_size=None).__enter__()
        self._ids = itertools.count(1)

    def evaluate(self, expression: str) -> object:
        number = next(self._ids)
        parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        self.socket.send(json.dumps({"id": number, "method": "Runtime.evaluate", "params": parameters}))
        while (answer := json.loads(self.socket.recv(timeout=30))).get("id") != number:
            pass
        assert "exceptionDetails" not in answer["result"], answer
        return answer["result"]["result"].get("value")

    def close(self) -> None:
        self.socket.__exit__(None, None, None)
        self.process.terminate()
        self.process.wait()


def wait_until(condition):
    limit = time.monotonic() + 60
    while not (result := condition()):
        assert time.monotonic() < limit, "it did not happen within 60 s"
        time.sleep(0.02)
    return result


@pytest.fixture
def browser(start_server, tmp_path):
    server = start_server()
    write_audio(tmp_path / "speech.wav", np.random.default_rng(0).integers(-9000, 9000, 48_000, np.int16), 48_000)
    browser = Browser(tmp_path / "profile", tmp_path / "speech.wav", f"http://127.0.0.1:{server.port}/")
    browser.server = server
    wait_until(lambda: browser.evaluate("typeof speak") == "function")
    yield browser
    browser.close()


@needs_browser
def test_who_speaks_sees_text(browser):
    def shown(selector):
        return browser.evaluate(f"document.querySelector('{selector}')?.textContent ?? ''")

    browser.evaluate("document.getElementById('microphone').click()")
    wait_until(lambda: shown("#microphone") == "Stop")
    wait_until(lambda: int(shown("#stable") or 0) >= 30)  # frames heard, of 10 ms
    assert int(shown("#unstable")) == 1600
    line = wait_until(lambda: shown("#text p:not(#current)"))  # a finished utterance
    assert any(int(level) > 100_000 for level in re.findall(r"\d+", line)), "the microphone was silent"
    assert browser.evaluate("document.getElementById('level').value") > 0.1
    browser.evaluate("document.getElementById('microphone').click()")
    wait_until(lambda: shown("#status") == "finished")
    assert shown("#stable") == shown("#unstable") == ""
    assert browser.server.service.models["band"].active == 0


@needs_browser
def test_a_file_is_read_to_the_end(browser, band_energy, tmp_path):
    audio = np.random.default_rng(1).integers(-9000, 9000, 48_000, np.int16)
    write_audio(tmp_path / "file.wav", audio, 48_000)
    content = (tmp_path / "file.wav").read_bytes()
    browser.evaluate(
        f"play(new File([new Uint8Array({list(content)})], 'file.wav'))",
    )
    wait_until(lambda: browser.evaluate("document.getElementById('status').textContent") == "finished")
    shown = browser.evaluate("document.querySelector('#text').innerText").split()
    session = Engine(band_energy.BandEnergy(), 1).open(sample_rate=48_000)
    expected = "".join(event.text for event in session.push(audio) + session.finish() if event.type == "final").split()
    assert shown == expected


@needs_browser
def test_a_file_chosen_while_the_microphone_is_on_comes_after_it(browser, tmp_path):
    """One recording at a time: the microphone goes off, says its last words, and then the file is read."""
    write_audio(tmp_path / "file.wav", np.zeros(24_000, np.int16), 48_000)
    content = list((tmp_path / "file.wav").read_bytes())
    browser.evaluate("document.getElementById('microphone').click()")
    wait_until(lambda: int(browser.evaluate("document.getElementById('stable').textContent") or 0) >= 10)
    browser.evaluate(f"attempt(() => play(new File([new Uint8Array({content})], 'file.wav')))")
    wait_until(lambda: browser.evaluate("document.getElementById('status').textContent") == "finished")
    assert browser.evaluate("current") is None
    assert browser.evaluate("document.getElementById('microphone').textContent") == "Start the microphone"
    lines = browser.evaluate("[...document.querySelectorAll('#text p:not(#current)')].map(p => p.textContent)")
    assert max(int(level) for level in re.findall(r"\d+", lines[0])) > 100_000, "the microphone's words are first"
    assert all(int(level) < 10_000 for level in re.findall(r"\d+", lines[-1])), "the file is silent at its end"
    assert browser.server.service.models["band"].active == 0


@needs_browser
def test_stop_then_start_begins_anew(browser):
    status = "document.getElementById('status').textContent"
    browser.evaluate("document.getElementById('microphone').click()")
    wait_until(lambda: "behind what is said" in browser.evaluate(status))  # the lag is shown
    browser.evaluate("document.getElementById('microphone').click(); document.getElementById('microphone').click()")
    wait_until(lambda: browser.evaluate("current?.sent > 0.5"))  # the end of the first did not stop the second
    assert browser.evaluate("document.getElementById('microphone').textContent") == "Stop"
    browser.evaluate("document.getElementById('microphone').click()")
    wait_until(lambda: browser.evaluate(status) == "finished")


@needs_browser
def test_errors_of_the_browser_are_explained(browser):
    status = "document.getElementById('status').textContent"
    browser.evaluate("attempt(() => play(new File([new Uint8Array([1, 2, 3])], 'x.wav')))")
    wait_until(lambda: "cannot read the file as audio" in browser.evaluate(status))
    browser.evaluate("attempt(() => { throw new DOMException('raw', 'NotAllowedError'); })")
    assert "Allow it in the browser's settings" in browser.evaluate(status)
    assert browser.evaluate("current") is None


def test_the_page_stands_alone(start_server):
    server = start_server()
    answer = httpx.get(f"http://127.0.0.1:{server.port}/")
    assert answer.headers["content-type"].startswith("text/html")
    assert not re.findall(r"(?:src|href)\s*=|https?://(?!)", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
