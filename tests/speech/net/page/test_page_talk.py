"""Talks on the page: the agent answers by voice, falls silent for who breaks in, and is told what was heard."""

import base64
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from loquent.speech.agent.chat_client import ChatServer
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Final, Partial
from loquent.speech.runtime.task import Turn

SAMPLE = Path(__file__).parents[4] / "speech" / "assets" / "sample.flac"
RATE = 16_000
QUESTION = "How will the weather be?"
# Minutes of speech, so that none of it ends before it is stopped.
LONG = "The weather is going to be warm and dry for the whole of this week, with a little wind on Saturday. " * 20

# A microphone that hears nothing but what say() plays to it; what is sent, and how many samples are played.
SCRIPT = """(() => {
  const context = new AudioContext(), heard = context.createMediaStreamDestination();
  const silence = new ConstantSourceNode(context, {offset: 0});
  silence.connect(heard);
  silence.start();
  const samples = new Int16Array(Uint8Array.from(atob("SENTENCE"), letter => letter.charCodeAt(0)).buffer);
  const sentence = context.createBuffer(1, samples.length, RATE);
  sentence.copyToChannel(Float32Array.from(samples, sample => sample / 32768), 0);
  const start = AudioBufferSourceNode.prototype.start;
  window.say = () => {
    const node = new AudioBufferSourceNode(context, {buffer: sentence});
    node.connect(heard);
    start.call(node);
  };
  if (SILENT) navigator.mediaDevices.getUserMedia = async () => heard.stream.clone();
  window.played = 0;
  AudioBufferSourceNode.prototype.start = function (at) { played += this.buffer.length; start.call(this, at); };
  window.sent = [];
  window.received = [];
  const {set} = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage");
  Object.defineProperty(WebSocket.prototype, "onmessage", {set(take) {
    set.call(this, event => {
      if (typeof event.data === "string") received.push(JSON.parse(event.data).type);
      take(event);
    });
  }});
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    if (typeof data === "string") sent.push(JSON.parse(data));
    send.call(this, data);
  };
})()"""


def sentence():
    return read_audio(SAMPLE, RATE).samples[: 3 * RATE]


@pytest.fixture
def ear(scripted_ear):
    """A recogniser that hears the texts it is given, each at its next step; and ``open``, which it is not sure of."""

    class PromptedEar(scripted_ear):
        def __init__(self):
            super().__init__()
            self.texts, self.open = deque(), ""

        def read(self, pending):
            inputs, memos = pending
            turns = []
            for memo, count, last in zip(memos, inputs.length.tolist(), inputs.last.tolist(), strict=True):
                memo.samples += count
                now, events = memo.samples / RATE, []
                if last and self.open:
                    self.texts.append(self.open)
                elif self.open:
                    events.append(Partial(stable="", unstable=self.open))
                if self.texts:
                    events.append(Final(text=self.texts.popleft(), start=max(0.0, now - 1), end=now))
                turns.append(Turn(events, last))
            return turns

    return PromptedEar()


@pytest.fixture
def talk(start_server, agent_with, chat_server, ear, visit):
    """Function that opens the page of an agent, in the mode "Talk"."""

    def opened(url=chat_server.url, **features):
        tab = visit(start_server(engines={"talk": agent_with(ChatServer(url, "m"), ear=ear)}), **features)
        samples = (sentence() * 32767).astype(np.int16).tobytes()
        silent = str(features.get("microphone") != "denied").lower()
        script = SCRIPT.replace("SENTENCE", base64.b64encode(samples).decode())
        tab.evaluate(script.replace("RATE", str(RATE)).replace("SILENT", silent))
        return tab

    return opened


@pytest.fixture
def heard(driver):
    """Function that waits until a few words of the reply are heard."""
    return lambda tab: driver.wait_until(lambda: len(tab.text(".line.agent .certain").split()) > 2)


@pytest.fixture
def stopped(driver):
    """Function that waits until a reply was stopped."""
    return lambda tab: driver.wait_until(lambda: "stopped here" in tab.text(".line.agent .note"))


@pytest.fixture
def end(driver):
    """Function that ends a talk."""

    def ended(tab):
        tab.click("#talk-record")
        driver.wait_until(lambda: tab.text("#talk-record") == "Talk")

    return ended


def requests(chat_server):
    return [[one["content"] for one in body["messages"] if one["role"] != "system"] for body in chat_server.asked]


def test_an_answer_is_heard_and_shown(talk, ear, end, driver, chat_server):
    chat_server.script = ["It is noon. The sun shines."]
    tab = talk()
    tab.click("#talk-record")
    ear.texts.append("What time is it?")
    driver.wait_until(lambda: tab.text(".line.agent .certain") == "It is noon. The sun shines.")
    driver.wait_until(lambda: tab.text("#talk-doing") == "Listening.")
    assert tab.texts(".line .who") == ["You", "Agent"]
    assert tab.text(".line.user .certain") == "What time is it?"
    assert tab.evaluate("played") > 0
    assert tab.text(".line.agent .note") == ""
    assert not tab.evaluate("sent.some(({type}) => type === 'interrupt')"), "nobody broke in"
    end(tab)
    assert tab.text("#talk-error") == ""
    assert tab.complaints() == []


def test_who_breaks_in_is_listened_to(talk, ear, end, heard, stopped, driver, chat_server):
    """The loudspeaker falls silent, the page shows what was heard, and the chat model is told just that."""
    chat_server.script = [LONG, "Fine."]
    tab = talk()
    tab.click("#talk-record")
    ear.texts.append(QUESTION)
    heard(tab)
    tab.evaluate("say()")
    stopped(tab)
    told = tab.evaluate("sent.filter(({type}) => type === 'interrupt').map(({played_s}) => played_s)")
    assert len(told) == 1, "the page knows how much was heard, and says so once"
    ear.texts.append("Tell me the time instead.")
    driver.wait_until(lambda: tab.texts(".line.agent .certain")[1:] == ["Fine."])
    cut = tab.texts(".line.agent .certain")[0]
    assert LONG.startswith(cut)
    assert len(cut.split()) > 2
    assert requests(chat_server)[1] == [QUESTION, cut, "Tell me the time instead."]
    end(tab)


def test_a_noise_costs_nothing_of_a_reply(talk, ear, end, heard, stopped, driver, chat_server):
    """Who breaks in without a word hears the rest, in the same line."""
    chat_server.script = [LONG]
    tab = talk()
    tab.click("#talk-record")
    ear.texts.append(QUESTION)
    heard(tab)
    tab.evaluate("say()")
    stopped(tab)
    cut = tab.text(".line.agent .certain")
    driver.wait_until(lambda: len(tab.text(".line.agent .certain")) > len(cut))
    assert tab.text(".line.agent .note") == ""
    assert len(tab.texts(".line.agent")) == 1
    assert LONG.startswith(tab.text(".line.agent .certain"))
    end(tab)


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_a_reply_is_stopped_by_hand(talk, ear, end, heard, stopped, driver, chat_server, how):
    chat_server.script = [LONG]
    tab = talk()
    tab.click("#talk-record")
    assert tab.evaluate("document.getElementById('talk-quiet').ariaDisabled") != "false"
    ear.texts.append(QUESTION)
    heard(tab)
    tab.click("#talk-quiet") if how == "button" else tab.press("Escape")
    assert tab.text("#talk-doing") == "Listening.", "the talk goes on"
    played = tab.evaluate("played")
    stopped(tab)
    assert LONG.startswith(tab.text(".line.agent .certain"))
    assert tab.text(".line.agent .tentative") == ""
    ear.texts.append("Go on.")
    driver.wait_until(lambda: len(chat_server.asked) == 2)
    assert requests(chat_server)[1][1] == tab.texts(".line.agent .certain")[0]
    assert tab.evaluate("played") >= played
    end(tab)


def test_stop_ends_the_talk(talk, ear, end, heard, driver, chat_server):
    """Speech stops, what was said stays, and another talk begins afresh."""
    chat_server.script = [LONG]
    tab = talk()
    tab.click("#talk-record")
    ear.texts.append(QUESTION)
    heard(tab)
    end(tab)
    assert "stopped here" in tab.text(".line.agent .note")
    assert [one["type"] for one in tab.evaluate("sent")] == ["start", "interrupt", "finish"]
    assert tab.evaluate("received.at(-1)") == "done"
    tab.click("#talk-record")
    ear.texts.append(QUESTION)
    driver.wait_until(lambda: len(chat_server.asked) == 2)
    assert requests(chat_server)[1] == [QUESTION]
    driver.wait_until(lambda: len(tab.texts(".line.user .certain")) == 2)
    assert len(tab.texts(".recording")) == 2, "two talks never mix"
    end(tab)
    tab.click("#talk-clear")
    assert tab.texts(".recording") == []
    tab.click("#talk-status button")
    assert len(tab.texts(".recording")) == 2


def test_nothing_is_said_after_the_end(talk, ear, end, heard, stopped, driver, chat_server):
    """Who breaks in and then stops is not kept waiting for the rest of the reply."""
    chat_server.script = [LONG]
    tab = talk()
    tab.click("#talk-record")
    ear.texts.append(QUESTION)
    heard(tab)
    tab.evaluate("say()")
    stopped(tab)
    end(tab)
    assert "stopped here" in tab.text(".line.agent .note")
    assert tab.text("#talk-error") == ""


def test_what_was_said_last_is_not_lost(talk, ear, end, driver, chat_server):
    """Who stops before the end of the turn gets the text of it, and no answer."""
    tab = talk()
    tab.click("#talk-record")
    ear.open = "What time is it, and"
    driver.wait_until(lambda: tab.text(".line.user .tentative") == ear.open)
    end(tab)
    assert tab.evaluate("received.at(-1)") == "done", "the server has no more to do with it"
    assert tab.texts(".line.user .certain") == [ear.open]
    assert tab.texts(".line.agent, .line.open") == []


def test_a_chat_model_that_is_down(talk, ear, end, driver):
    tab = talk(url="http://127.0.0.1:9/v1")
    tab.click("#talk-record")
    ear.texts.append("What time is it?")
    assert "chat model cannot be reached" in driver.wait_until(lambda: tab.text("#talk-error"))
    assert tab.text("#talk-doing") == "Listening.", "the talk goes on"
    end(tab)


def test_half_duplex(talk, ear, end, heard, driver, chat_server):
    """Asked for before the talk or while it is under way: who speaks meanwhile changes nothing."""
    chat_server.script = [LONG]
    tab = talk()
    tab.choose("#talk-listening", "alone")
    tab.click("#talk-record")
    ear.texts.append(QUESTION)
    heard(tab)
    assert tab.evaluate("sent[0].options.half_duplex")
    before = len(tab.text(".line.agent .certain").split())
    tab.evaluate("say()")
    driver.wait_until(lambda: len(tab.text(".line.agent .certain").split()) > before + 12)  # for longer than it takes
    assert tab.text(".line.agent .note") == ""
    tab.choose("#talk-listening", "always")
    assert tab.evaluate("sent.at(-1)") == {"type": "configure", "options": {"half_duplex": False}}
    end(tab)
    assert tab.text("#talk-error") == ""


def test_no_permission(talk, driver):
    tab = talk(microphone="denied")
    tab.click("#talk-record")
    assert "Allow it in the browser's settings" in driver.wait_until(lambda: tab.text("#talk-error"))
    assert tab.texts(".recording") == []
    assert tab.text("#talk-record") == "Talk"


def test_a_server_without_a_place(talk, end, driver, chromium):
    tab = talk()
    tab.click("#talk-record")
    driver.wait_until(lambda: tab.text("#talk-doing") == "Listening.")
    other = chromium.open(tab.evaluate("location.href"))
    driver.wait_until(lambda: other.text("#talk-record") == "Talk")
    other.evaluate("import('/page/page.js').then(({ready}) => ready)")
    other.click("#talk-record")
    assert "Try again in a moment" in driver.wait_until(lambda: other.text("#talk-error"))
    other.close()
    end(tab)


def test_the_talk_as_a_file(talk, ear, end, driver, chat_server):
    chat_server.script = ["It is noon."]
    tab = talk()
    tab.click("#talk-record")
    ear.texts.append("What time is it?")
    driver.wait_until(lambda: tab.text(".line.agent .certain") and not tab.texts(".line.agent.open"))
    end(tab)
    tab.evaluate("const make = URL.createObjectURL; URL.createObjectURL = blob => make(window.saved = blob)")
    tab.click(".menu [data-format=txt]")
    assert tab.evaluate("saved.text()") == "You: What time is it?\nAgent: It is noon.\n"
    tab.click(".menu [data-format=json]")
    one, two = tab.evaluate("saved.text().then(JSON.parse)")["segments"]
    assert one["end"] < two["start"] < two["end"]


def test_by_keyboard(talk, ear, heard, stopped, driver, chat_server):
    chat_server.script = [LONG]
    tab = talk()
    assert tab.text("#modes") == "", "one mode is no choice"

    def tab_to(wanted):
        for _ in range(20):
            tab.press("Tab")
            if tab.evaluate("document.activeElement.id") == wanted:
                assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(f"the tab key does not lead to {wanted}")

    tab_to("talk-listening")
    tab_to("talk-record")
    tab.press("Enter", "\r")
    ear.texts.append(QUESTION)
    heard(tab)
    tab.evaluate("document.activeElement.blur()")
    tab_to("talk-quiet")
    tab.press(" ", " ")
    stopped(tab)
    assert tab.evaluate("document.activeElement.id") == "talk-quiet", "the focus stays"
    tab_to("talk-record")
    tab.press(" ", " ")
    driver.wait_until(lambda: tab.text("#talk-record") == "Talk")
    live = "[...document.querySelectorAll('#talk [aria-live], #talk [role=log]')].length"
    assert tab.evaluate(live) == 0, "the microphone would hear what a screen reader reads out"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_rules_of_accessibility(talk, ear, end, heard, stopped, driver, chat_server, violations, scheme, size):
    chat_server.script = [LONG]
    size = getattr(driver, size.upper())
    tab = talk(size=size, prefers_color_scheme=scheme)
    assert violations(tab) == []
    tab.click("#talk-record")
    ear.texts.append(QUESTION)
    heard(tab)
    assert violations(tab) == []
    tab.click("#talk-quiet")
    stopped(tab)
    end(tab)
    tab.click(".menu summary")
    tab.evaluate("document.getElementById('talk-error').textContent = 'What went wrong, and what to do.'")
    assert violations(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= size[0], "nothing sticks out"


def test_the_mode_is_there_where_an_agent_is(polyglot, visit, start_server, agent_with, chat_server, hearing):
    tab = visit(polyglot())
    assert "Talk" not in tab.texts("[role=tab]")
    agent = agent_with(ChatServer(chat_server.url, "m"))
    tab = visit(start_server(engines={"ear": Engine(hearing(), 1), "talk": agent}))
    assert tab.texts("[role=tab]") == ["Captions", "Talk"]
    assert tab.text("#about").startswith("ear"), "nobody takes captions of an agent"
    assert tab.evaluate("document.getElementById('talk').hidden")
    tab.click("#tab-talk")
    assert tab.texts("#talk-voice option") == ["alto", "baritone"]


def test_a_real_microphone_and_a_real_recogniser(driver, tmp_path, start_server, agent_with, chat_server):
    """What the chat model is asked is what the page shows of what the microphone heard."""
    if driver.PROGRAM is None:
        pytest.skip("needs chromium (Debian's package of that name)")
    chat_server.script = ["Thank you."]
    pause = np.zeros(60 * RATE, np.float32)
    write_audio(tmp_path / "heard.wav", np.concatenate([pause[:RATE], sentence(), pause]), RATE)
    server = start_server(engines={"talk": agent_with(ChatServer(chat_server.url, "m"))})
    browser = driver.Chromium(tmp_path / "profile", tmp_path / "heard.wav")
    try:
        tab = browser.open(f"http://127.0.0.1:{server.port}/")
        driver.wait_until(lambda: tab.text("#talk-record") == "Talk")
        tab.evaluate("import('/page/page.js').then(({ready}) => ready)")
        tab.click("#talk-record")
        driver.wait_until(lambda: tab.text(".line.agent .certain") == "Thank you.")
        assert requests(chat_server)[-1] == [tab.text(".line.user .certain")]
        assert "word down" in tab.text(".line.user .certain")
        tab.click("#talk-record")
        driver.wait_until(lambda: tab.text("#talk-record") == "Talk")
    finally:
        browser.close()
