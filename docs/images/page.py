"""Take the pictures of docs/how-to/page.md: a first-time user's minute, in a browser, with a server of its own.

    python docs/images/page.py

Needs chromium, and the models of the extras tiny-en and hibari. What is said is spoken by the voice; the pictures show
what was recognised and translated of it just then.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from loquent.speech.audio.files import write_audio
from loquent.tts import Synthesizer

ROOT = Path(__file__).parents[2]
PICTURES = Path(__file__).parent / "page"
SAID = (
    "My brother lives in Madrid.",
    "Do you know where the station is?",
    "The train leaves at ten o'clock.",
    "I would like a cup of coffee, please.",
    "She has bought a new car.",
)
PAUSE_S = 0.9  # after a sentence
ANSWERS = {
    "Where should we go on Saturday?": "How about the coast? It will be warm, and the sea is calm.",
    "Is it far by train?": "No, it takes an hour and a half. There is a train every thirty minutes, and the way "
    "along the river is beautiful.",
}
ANSWER_S = 8.0  # of silence for an answer
READ = (
    "The voice begins while it is still reading what you have written, and stops in the middle of a word if you want."
)
UNANSWERED = "() => new Promise(() => {})"  # what the browser's question is to the page
WINDOW = (1120, 700)
QUALITY = 74


def main() -> None:
    """Take them all."""
    PICTURES.mkdir(exist_ok=True)
    visit(take_captions, SAID, PAUSE_S, "--translate", "loquent/en-es", "--translate", "loquent/en-de")
    take_a_talk()


def take_a_talk() -> None:
    """Talk with a chat model whose answers are known."""
    chat = answering(ANSWERS)
    try:
        visit(take_talk, list(ANSWERS), ANSWER_S, "--chat", chat.url, "--chat-model", "scripted")
    finally:
        chat.close()


def answering(answers: Mapping[str, str]) -> Any:
    """A chat model that knows some answers. A reply may be prepared more than once: what was said decides."""
    chat = load("tests/speech/scripted_talk.py").ScriptedChat()
    chat.script = [
        lambda handler: chat.answer(handler, answers.get(chat.asked[-1]["messages"][-1]["content"], "Sorry?"))
    ]
    return chat


def visit(take_pictures: Callable[..., None], sentences: Sequence[str], pause_s: float, *options: str) -> None:
    """Start a server and a browser whose microphone hears some sentences, and take pictures of its page."""
    driver = load("tests/speech/net/page/chromium.py")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_speech(folder / "speech.wav", sentences, pause_s)
        command = [sys.executable, "-m", "loquent.speech", "serve", "--port", "0", *options]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        browser = driver.Chromium(folder / "profile", folder / "speech.wav")
        try:
            take_pictures(driver, browser, address_of(server))
        finally:
            browser.close()
            server.terminate()
            server.wait()


def write_speech(path: Path, sentences: Sequence[str], pause_s: float) -> None:
    """What the microphone is to hear."""
    voice = Synthesizer.from_pretrained("loquent/hibari")
    parts = []
    for sentence in sentences:
        parts += [voice.synthesize(sentence).samples, np.zeros(round(pause_s * voice.sample_rate), np.float32)]
    write_audio(path, np.concatenate(parts), voice.sample_rate)


def take_captions(driver: Any, browser: Any, address: str) -> None:
    """Go through the minute."""
    wait: Callable[[Callable[[], Any]], Any] = driver.wait_until
    desk = browser.open(address, size=WINDOW)
    wait(lambda: desk.text("#about"))
    take(desk, "1-open")
    asked = browser.open(address, size=WINDOW)
    wait(lambda: asked.text("#about"))
    asked.evaluate(f"navigator.mediaDevices.getUserMedia = {UNANSWERED}")
    asked.click("#record")
    take(asked, "2-permission")
    asked.close()
    desk.click("#record")
    wait(lambda: len(desk.texts(".line")) >= 2 and desk.text(".line.open .tentative"))
    take(desk, "3-words")
    desk.click("#record")
    wait(lambda: desk.text("#record") == "Start")
    desk.click("#clear")
    desk.choose("#target", "es")
    desk.click("#record")
    wait(lambda: len(desk.texts(".line")) >= 4 and desk.text(".line.open .target .certain"))
    take(desk, "4-two-languages")
    wait(lambda: not desk.texts(".line.open"))
    desk.click("#record")
    wait(lambda: desk.text("#record") == "Start")
    desk.click(".menu summary")
    wait(lambda: desk.text(".formats"))
    take(desk, "5-download")

    phone = browser.open(address, size=driver.PHONE, prefers_color_scheme="dark")
    phone.resize(driver.PHONE, scale=1.5)
    wait(lambda: phone.text("#about"))
    phone.choose("#target", "de")
    phone.click("#record")
    wait(lambda: len(phone.texts(".line")) >= 3 and phone.text(".line.open .target .certain"))
    take(phone, "6-phone")
    phone.click("#record")

    night = browser.open(address, size=WINDOW, prefers_color_scheme="dark")
    wait(lambda: night.text("#modes"))
    night.click("#tab-speak")
    night.evaluate(f"document.getElementById('text').value = {READ!r}")
    night.click("#say")
    wait(lambda: len(night.text(".reading .said")) > len(READ) // 2)
    take(night, "7-speak")


def take_talk(driver: Any, browser: Any, address: str) -> None:
    """Ask twice, and wait until half of the second answer is heard."""
    wait: Callable[[Callable[[], Any]], Any] = driver.wait_until
    desk = browser.open(address, size=WINDOW)
    wait(lambda: desk.text("#modes"))
    desk.click("#tab-talk")
    desk.click("#talk-record")
    wait(lambda: len(desk.texts(".agent .certain")) == 2)
    wait(lambda: len(desk.texts(".agent .certain")[1]) > len([*ANSWERS.values()][1]) // 2)
    if (heard := desk.texts(".user .certain")) != [*ANSWERS]:
        raise SystemExit(f"the browser's microphone has stuttered, run it again: {heard}")
    take(desk, "8-talk")
    desk.click("#talk-record")


def take(tab: Any, name: str) -> None:
    """Save what a window shows."""
    time.sleep(0.1)  # for what scrolls
    picture = tab.picture("webp", QUALITY)
    (PICTURES / f"{name}.webp").write_bytes(picture)
    print(f"{name}: {len(picture) / 1000:.0f} kB")


def address_of(server: subprocess.Popen[str]) -> str:
    """Where the page is, once the server has told."""
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"microphone page\s+(http\S+)", line):
            return found[1]
    raise SystemExit("the server has ended; run the command to see why: loquent serve --translate")


def load(file: str) -> ModuleType:
    """A module of the tests."""
    path = ROOT / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
