"""What goes wrong is told, with what can be done."""

import pytest

from loquent.speech.net.limits import Limits


def test_no_permission(polyglot, visit, driver):
    tab = visit(polyglot(), microphone="denied")
    tab.click("#record")
    assert "Allow it in the browser's settings" in driver.wait_until(lambda: tab.text("#error"))
    assert tab.text("#record") == "Start"
    assert tab.texts(".recording") == []


def test_no_audio_in_the_file(polyglot, visit, driver):
    tab = visit(polyglot(transcribe=lambda samples, progress: None))
    tab.drop("x.wav", b"123")
    assert "Neither this browser nor the server could read" in driver.wait_until(lambda: tab.text("#error"))
    assert tab.texts(".recording") == []


@pytest.mark.parametrize("when", ["before", "while"])
def test_the_server_is_gone(polyglot, visit, driver, when):
    server = polyglot(grace_s=0.1)
    tab = visit(server)
    if when == "while":
        tab.click("#record")
        driver.wait_until(lambda: tab.texts(".line .source"))
        server.force_exit = True
    server.should_exit = True
    driver.wait_until(lambda: not server.started or not server.servers or not server.servers[0].sockets)
    if when == "before":
        tab.click("#record")
    told = driver.wait_until(lambda: tab.text("#error"))
    assert ("shutting down" in told) if when == "while" else ("cannot be reached" in told)
    assert driver.wait_until(lambda: tab.text("#record") == "Start")
    assert bool(tab.texts(".line .source")) == (when == "while"), "what was said stays"


def test_a_server_without_a_place(polyglot, visit, driver):
    server = polyglot(max_streams=1)
    first, second = visit(server), visit(server)
    first.click("#record")
    driver.wait_until(lambda: first.texts(".line"))
    second.click("#record")
    assert "Try again in a moment" in driver.wait_until(lambda: second.text("#error"))
    first.click("#record")
    driver.wait_until(lambda: first.text("#record") == "Start")
    second.click("#record")
    driver.wait_until(lambda: second.texts(".line"))
    assert second.text("#error") == ""


def test_a_stream_that_is_too_long(polyglot, visit, driver, wave_file):
    tab = visit(polyglot(limits=Limits(max_duration_s=1.0)))
    tab.drop("noise.wav", wave_file(3))
    assert "longest time" in driver.wait_until(lambda: tab.text("#error"))
    assert tab.texts(".line .source")


def test_a_key(polyglot, visit, driver):
    """Asked for before anything else, kept for the tab, and asked for again when it is wrong."""
    tab = visit(polyglot(token="secret"))
    driver.wait_until(lambda: tab.evaluate("document.getElementById('key-dialog').open"))
    assert tab.text("#key-error") == ""

    def enter(key):
        tab.evaluate(f"document.getElementById('key').value = '{key}'")
        tab.click("#key-form button")

    enter("wrong")
    driver.wait_until(lambda: "does not accept this key" in tab.text("#key-error"))
    enter("secret")
    driver.wait_until(lambda: not tab.evaluate("document.getElementById('key-dialog').open"))
    tab.click("#record")
    driver.wait_until(lambda: tab.texts(".line .source"))
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    tab.call("Page.reload")
    driver.wait_until(lambda: "ear" in tab.text("#about"))
    assert not tab.evaluate("document.getElementById('key-dialog').open")


def test_who_leaves_the_dialog_is_asked_again(polyglot, visit, driver):
    tab = visit(polyglot(token="secret"))
    driver.wait_until(lambda: tab.evaluate("document.getElementById('key-dialog').open"))
    tab.press("Escape")
    assert not tab.evaluate("document.getElementById('key-dialog').open")
    tab.click("#record")
    driver.wait_until(lambda: tab.evaluate("document.getElementById('key-dialog').open"))


def test_one_bad_file_costs_no_other_its_text(polyglot, visit, driver, wave_file):
    tab = visit(polyglot(transcribe=lambda samples, progress: None))
    contents = [list(content) for content in (b"123", wave_file(0.3))]
    tab.evaluate(
        f"""import("/page/captions_mode.js").then(({{read}}) =>
          read({contents}.map((bytes, i) => new File([new Uint8Array(bytes)], `${{i}}.wav`))))"""
    )
    assert tab.texts(".recording h2") == ["1.wav"]
    assert "could read 0.wav" in tab.text("#error")


def test_silence_is_noticed(polyglot, visit, driver):
    tab = visit(polyglot())
    quiet = """import("/page/audio/wave.js").then(({Wave}) => {
      const wave = new Wave(document.createElement("canvas"), document.createElement("div"));
      const told = [];
      for (let i = 0; i < 50; i++) { told.push(wave.silent); wave.add(0.001); }
      told.push(wave.silent);
      wave.add(0.1);
      return [told.filter(Boolean).length, told.at(-1), wave.silent];
    })"""
    assert tab.evaluate(quiet) == [1, True, False]
