"""Talks on the page: the agent answers by voice, falls silent for who breaks in, and is told what was heard."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from loquent.speech.agent.chat_client import ChatServer
from loquent.speech.audio.files import read_audio, write_audio

SAMPLE = Path(__file__).parents[4] / "speech" / "assets" / "sample.flac"
RATE = 16_000
LONG = "The weather is going to be warm and dry for the whole of this week, with a little wind on Saturday and Sunday."
SPIED = """window.sent = []; window.received = [];
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  if (typeof data === "string") sent.push(JSON.parse(data));
  send.call(this, data);
};
const set = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage").set;
Object.defineProperty(WebSocket.prototype, "onmessage", {set(call) {
  set.call(this, event => { if (typeof event.data === "string") received.push(JSON.parse(event.data)); call(event); });
}});
window.played = 0;
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (at) { played += this.buffer.length; start.call(this, at); };"""


@pytest.fixture(scope="session")
def listening(driver, tmp_path_factory):
    """Function that starts a browser whose microphone hears a sentence at each of some seconds, and then silence."""

    @contextmanager
    def started(*seconds):
        folder = tmp_path_factory.mktemp("talk")
        sentence = read_audio(SAMPLE, RATE).samples[: 4 * RATE]
        heard = np.zeros(round((max(seconds, default=0) + 60) * RATE), np.float32)
        for at in seconds:
            heard[at * RATE : at * RATE + len(sentence)] += sentence
        write_audio(folder / "heard.wav", heard, RATE)
        browser = driver.Chromium(folder / "profile", folder / "heard.wav", once=True)
        try:
            yield browser
        finally:
            browser.close()

    if driver.PROGRAM is None:
        pytest.skip("needs chromium (Debian's package of that name)")
    return started


@pytest.fixture(scope="module")
def quiet_room(listening):
    """A browser whose microphone hears nothing."""
    with listening() as browser:
        yield browser


@pytest.fixture
def talk(start_server, agent_with, chat_server, scripted_ear, driver):
    """Function that opens the page of an agent that hears given texts, in the mode "Talk"."""

    def opened(browser, *script, url=chat_server.url, size=driver.DESKTOP, token=None, **features):
        agent = agent_with(ChatServer(url, "m"), ear=scripted_ear(*script))
        server = start_server(engines={"talk": agent}, token=token)
        tab = browser.open(f"http://127.0.0.1:{server.port}/", size=size, **features)
        driver.wait_until(lambda: tab.evaluate("document.readyState") == "complete")
        tab.evaluate("import('/page/page.js').then(({ready}) => ready)")
        tab.evaluate(SPIED)
        return tab

    return opened


def stop(tab, driver):
    tab.click("#talk-record")
    driver.wait_until(lambda: tab.text("#talk-record") == "Talk")


def requests(chat_server):
    return [[one["content"] for one in body["messages"] if one["role"] != "system"] for body in chat_server.asked]


def test_an_answer_is_heard_and_shown(quiet_room, talk, driver, chat_server):
    chat_server.script = ["It is noon. The sun shines."]
    tab = talk(quiet_room, (1.5, "What time is it?"))
    tab.click("#talk-record")
    driver.wait_until(lambda: tab.text(".line.agent .certain") == "It is noon. The sun shines.")
    driver.wait_until(lambda: tab.text("#talk-doing") == "Listening.")
    assert tab.texts(".line .who") == ["You", "Agent"]
    assert tab.text(".line.user .certain") == "What time is it?"
    assert tab.evaluate("played") > 0
    assert tab.text(".line.agent .note") == ""
    assert not tab.evaluate("sent.some(({type}) => type === 'interrupt')"), "nobody broke in"
    stop(tab, driver)
    assert tab.text("#talk-error") == ""
    assert tab.complaints() == []


def test_who_breaks_in_is_listened_to(listening, talk, driver, chat_server):
    """The loudspeaker falls silent, the page shows what was heard, and the chat model is told just that."""
    chat_server.script = [LONG, "Fine."]
    with listening(0, 7) as browser:
        tab = talk(browser, (5.0, "How will the weather be?"), (12.0, "Tell me the time instead."))
        tab.click("#talk-record")
        driver.wait_until(lambda: "stopped here" in tab.text(".line.agent .note"))
        assert tab.evaluate("received.some(({type}) => type === 'interrupted')")
        told = tab.evaluate("sent.filter(({type}) => type === 'interrupt').map(({played_s}) => played_s)")
        assert told, "the page knows best how much was heard"
        driver.wait_until(lambda: len(tab.texts(".line.agent .certain")) == 2)
        cut = tab.texts(".line.agent .certain")[0]
        driver.wait_until(lambda: tab.texts(".line.agent .certain")[1] == "Fine.")
        stop(tab, driver)
    assert LONG.startswith(cut)
    assert 0 < len(cut) < len(LONG)
    assert requests(chat_server)[1] == ["How will the weather be?", cut, "Tell me the time instead."]


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_a_reply_is_stopped_by_hand(quiet_room, talk, driver, chat_server, how):
    chat_server.script = [LONG]
    tab = talk(quiet_room, (1.5, "How will the weather be?"))
    tab.click("#talk-record")
    assert tab.evaluate("document.getElementById('talk-quiet').ariaDisabled") != "false"
    driver.wait_until(lambda: len(tab.text(".line.agent .certain").split()) > 2)
    tab.click("#talk-quiet") if how == "button" else tab.press("Escape")
    driver.wait_until(lambda: "stopped here" in tab.text(".line.agent .note"))
    heard = tab.text(".line.agent .certain")
    assert LONG.startswith(heard)
    assert tab.text(".line.agent .tentative") == ""
    assert tab.text("#talk-doing") == "Listening.", "the talk goes on"
    played = tab.evaluate("played")
    assert tab.evaluate("new Promise(done => setTimeout(() => done(played), 500))") == played, "nothing more is said"
    stop(tab, driver)


def test_stop_ends_the_talk(quiet_room, talk, driver, chat_server):
    """Speech stops, what was said stays, and another talk begins afresh."""
    chat_server.script = [LONG]
    tab = talk(quiet_room, (1.5, "How will the weather be?"))
    tab.click("#talk-record")
    driver.wait_until(lambda: len(tab.text(".line.agent .certain").split()) > 2)
    stop(tab, driver)
    assert "stopped here" in tab.text(".line.agent .note")
    assert [one["type"] for one in tab.evaluate("sent")] == ["start", "interrupt", "finish"]
    tab.click("#talk-record")
    driver.wait_until(lambda: len(tab.texts(".line.user .certain")) == 2)
    driver.wait_until(lambda: len(chat_server.asked) == 2)
    assert requests(chat_server)[1] == ["How will the weather be?"]
    assert len(tab.texts(".recording")) == 2, "two talks never mix"
    stop(tab, driver)
    tab.click("#talk-clear")
    assert tab.texts(".recording") == []
    tab.click("#talk-status button")
    assert len(tab.texts(".recording")) == 2


def test_what_was_said_last_is_not_lost(quiet_room, talk, driver, chat_server):
    """Who stops before the end of the turn gets the text of it, and no answer."""
    tab = talk(quiet_room, (0.9, "What time is it, and"))
    tab.click("#talk-record")
    driver.wait_until(lambda: tab.text(".line.user .certain"))
    stop(tab, driver)
    assert tab.texts(".line.user.open") == []
    assert tab.texts(".line.user .certain") == ["What time is it, and"]
    assert tab.texts(".line.agent") == []


def test_a_chat_model_that_is_down(quiet_room, talk, driver):
    tab = talk(quiet_room, (1.5, "What time is it?"), url="http://127.0.0.1:9/v1")
    tab.click("#talk-record")
    assert "chat model cannot be reached" in driver.wait_until(lambda: tab.text("#talk-error"))
    assert tab.text("#talk-doing") == "Listening.", "the talk goes on"
    stop(tab, driver)


def test_half_duplex(quiet_room, talk, driver, chat_server):
    """Asked for before the talk or while it is under way."""
    tab = talk(quiet_room, (1.5, "What time is it?"))
    tab.choose("#talk-listening", "alone")
    tab.click("#talk-record")
    driver.wait_until(lambda: tab.text(".line.agent .certain"))
    assert tab.evaluate("sent[0].options.half_duplex")
    tab.choose("#talk-listening", "always")
    assert tab.evaluate("sent.at(-1)") == {"type": "configure", "options": {"half_duplex": False}}
    stop(tab, driver)
    assert tab.text("#talk-error") == ""


def test_no_permission_and_a_full_server(quiet_room, talk, driver):
    tab = talk(quiet_room, microphone="denied")
    tab.click("#talk-record")
    assert "Allow it in the browser's settings" in driver.wait_until(lambda: tab.text("#talk-error"))
    assert tab.texts(".recording") == []
    tab = talk(quiet_room)
    tab.click("#talk-record")
    driver.wait_until(lambda: tab.text("#talk-doing") == "Listening.")
    address = tab.evaluate("location.href")
    other = quiet_room.open(address)
    driver.wait_until(lambda: other.text("#talk-record") == "Talk")
    other.click("#talk-record")
    assert "Try again in a moment" in driver.wait_until(lambda: other.text("#talk-error"))
    stop(tab, driver)


def test_the_talk_as_a_file(quiet_room, talk, driver, chat_server):
    chat_server.script = ["It is noon."]
    tab = talk(quiet_room, (1.5, "What time is it?"))
    tab.click("#talk-record")
    driver.wait_until(lambda: tab.text(".line.agent .certain") and not tab.texts(".line.agent.open"))
    stop(tab, driver)
    tab.evaluate("const make = URL.createObjectURL; URL.createObjectURL = blob => make(window.saved = blob)")
    tab.click(".menu [data-format=txt]")
    assert tab.evaluate("saved.text()") == "You: What time is it?\nAgent: It is noon.\n"
    tab.click(".menu [data-format=json]")
    one, two = tab.evaluate("saved.text().then(JSON.parse)")["segments"]
    assert one["end"] < two["start"] < two["end"]


def test_by_keyboard(quiet_room, talk, driver, chat_server):
    chat_server.script = [LONG]
    tab = talk(quiet_room, (1.5, "How will the weather be?"))
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
    driver.wait_until(lambda: len(tab.text(".line.agent .certain").split()) > 2)
    tab.evaluate("document.activeElement.blur()")
    tab_to("talk-quiet")
    tab.press(" ", " ")
    driver.wait_until(lambda: "stopped here" in tab.text(".line.agent .note"))
    assert tab.evaluate("document.activeElement.id") == "talk-quiet", "the focus stays"
    tab_to("talk-record")
    tab.press(" ", " ")
    driver.wait_until(lambda: tab.text("#talk-record") == "Talk")
    assert tab.evaluate("document.querySelectorAll('#talk [aria-live], #talk [role=log]').length") == 0, (
        "the microphone would hear what a screen reader reads out"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_rules_of_accessibility(quiet_room, talk, driver, chat_server, violations, scheme, size):
    chat_server.script = [LONG]
    size = getattr(driver, size.upper())
    tab = talk(quiet_room, (1.5, "How will the weather be?"), size=size, prefers_color_scheme=scheme)
    assert violations(tab) == []
    tab.click("#talk-record")
    driver.wait_until(lambda: len(tab.text(".line.agent .certain").split()) > 2)
    assert violations(tab) == []
    tab.click("#talk-quiet")
    driver.wait_until(lambda: "stopped here" in tab.text(".line.agent .note"))
    stop(tab, driver)
    tab.click(".menu summary")
    tab.evaluate("document.getElementById('talk-error').textContent = 'What went wrong, and what to do.'")
    assert violations(tab) == []
    width = tab.evaluate("document.documentElement.scrollWidth")
    assert width <= size[0], "nothing sticks out"


def test_the_mode_is_there_where_an_agent_is(polyglot, visit, start_server, agent_with, chat_server, hearing):
    from loquent.speech.runtime.engine import Engine

    tab = visit(polyglot())
    assert "Talk" not in tab.texts("[role=tab]")
    agent = agent_with(ChatServer(chat_server.url, "m"))
    tab = visit(start_server(engines={"ear": Engine(hearing(), 1), "talk": agent}))
    assert tab.texts("[role=tab]") == ["Captions", "Talk"]
    assert tab.text("#about").startswith("ear"), "nobody takes captions of an agent"
    assert tab.evaluate("document.getElementById('talk').hidden")
    tab.click("#tab-talk")
    assert tab.texts("#talk-voice option") == ["alto", "baritone"]
