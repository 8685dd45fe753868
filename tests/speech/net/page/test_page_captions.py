"""Captions of the microphone, which hears the sample recording: what the page shows is what the server said."""

import re

import pytest


@pytest.fixture
def tab(polyglot, visit):
    server = polyglot()
    tab = visit(server)
    tab.server = server
    return tab


def lines(tab, side="source"):
    return tab.texts(f".line .{side}")


def test_who_speaks_sees_text(tab, driver, keep, taped, texts):
    tab.click("#record")
    tentative = driver.wait_until(lambda: tab.text(".line .source .tentative"))
    assert tentative == "1600", "what may change is told apart"
    keep(tab)
    driver.wait_until(lambda: len(lines(tab)) >= 2)
    assert int(tab.evaluate("document.getElementById('meter').getAttribute('aria-valuenow')")) > 0
    driver.wait_until(lambda: re.fullmatch(r"\d\.\d s behind", tab.text("#lag")))
    assert tab.text("#record") == "Stop"
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    assert tab.text("#status") == "Finished."
    assert lines(tab) == texts(*taped(tab)) != []
    assert set(tab.texts(".line .tentative")) == {""}
    assert tab.texts(".time")[0] == "0:00"
    assert tab.server.service.models["ear"].active == 0
    assert tab.complaints() == []


@pytest.mark.parametrize("target", ["", "es"])
def test_only_what_is_certain_is_read_out(tab, driver, target):
    """What a screen reader is given: whole utterances, once each, and nothing that may change."""
    tab.choose("#target", target)
    tab.evaluate(
        """window.announced = [];
        new MutationObserver(changes => changes.forEach(({addedNodes}) =>
          addedNodes.forEach(({textContent}) => announced.push(textContent))
        )).observe(document.getElementById("announcer"), {childList: true});"""
    )
    tab.click("#record")
    driver.wait_until(lambda: len(lines(tab)) >= 2)
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    assert sorted(tab.evaluate("announced")) == sorted(lines(tab) + (lines(tab, "target") if target else []))
    assert tab.evaluate("document.querySelector('.recordings').closest('[aria-live]')") is None


def test_a_translation_stands_beside_it(tab, driver, keep, taped, translated):
    tab.choose("#target", "es")
    tab.click("#record")
    keep(tab)
    driver.wait_until(lambda: len(lines(tab, "target")) >= 2 and lines(tab, "target")[0])
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    assert lines(tab, "target") == translated(*taped(tab)) != []
    languages = "[...document.querySelectorAll('.line p')].slice(0, 2).map(one => one.lang)"
    assert tab.evaluate(languages) == ["en", "es"]
    sides = "(line => [...line.querySelectorAll('p')].map(one => one.getBoundingClientRect().top))"
    first, second = tab.evaluate(f"{sides}(document.querySelector('.line'))")
    assert first == second, "side by side"
    tab.choose("#layout", "below")
    first, second = tab.evaluate(f"{sides}(document.querySelector('.line'))")
    assert first < second
    assert tab.complaints() == []


def test_what_was_chosen_is_used_and_remembered(tab, driver):
    tab.choose("#latency", "200")
    tab.click("#record")
    assert driver.wait_until(lambda: tab.text(".line .source .tentative")) == "3200", "samples of a step"
    tab.choose("#target", "es")
    assert tab.text("#status") == "This takes effect with the next recording."
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    tab.call("Page.reload")
    driver.wait_until(lambda: tab.text("#about") == "ear · English")
    chosen = "[...document.querySelectorAll('#latency, #target')].map(({value}) => value)"
    assert tab.evaluate(chosen) == ["es", "200"]


def test_after_stop_the_last_words_are_waited_for(tab, driver):
    tab.click("#record")
    driver.wait_until(lambda: lines(tab))
    tab.server.ear.gate.clear()
    tab.click("#record")
    assert tab.text("#record") == "Finishing …"
    assert "last words are on their way" in tab.text("#status")
    before = "".join(lines(tab))
    tab.server.ear.gate.set()
    driver.wait_until(lambda: tab.text("#record") == "Start")
    assert len("".join(lines(tab))) > len(before)


def test_stop_then_start_begins_anew(tab, driver, keep, taped, texts):
    """The second recording waits for the last word of the first, and has a card of its own."""
    tab.click("#record")
    driver.wait_until(lambda: lines(tab))
    tab.server.ear.gate.clear()
    tab.click("#record")
    tab.click("#record")
    assert len(tab.texts(".recording")) == 1, "one at a time"
    tab.server.ear.gate.set()
    driver.wait_until(lambda: len(tab.texts(".recording")) == 2 and tab.text("#record") == "Stop")
    keep(tab)
    driver.wait_until(lambda: tab.texts(".recording:last-child .line"))
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    assert tab.texts(".recording:last-child .source") == texts(*taped(tab))


def test_two_recordings_never_mix(tab, driver, keep, taped, texts, wave_file):
    """A file that comes while the microphone is on comes after it."""
    tab.click("#record")
    driver.wait_until(lambda: lines(tab))
    keep(tab)
    tab.drop("noise.wav", wave_file(1.5))
    driver.wait_until(lambda: tab.text(".recording:last-child h2") == "noise.wav")
    spoken = tab.texts(".recording:first-child .source")
    assert spoken == texts(*taped(tab)) != []
    keep(tab)
    driver.wait_until(lambda: tab.text("#record") == "Start")
    assert tab.texts(".recording:first-child .source") == spoken
    assert tab.texts(".recording:last-child .source") == texts(*taped(tab)) != []
    assert tab.server.service.models["ear"].active == 0


def test_the_lag_is_explained_when_it_grows(tab, driver, keep):
    tab.click("#record")
    driver.wait_until(lambda: lines(tab))
    assert tab.text("#explanation") == ""
    keep(tab)
    tab.evaluate("kept.lag.sent += 9")
    told = driver.wait_until(lambda: tab.text("#explanation"))
    assert "the server is busy" in told
    assert "Nothing is lost" in told
    tab.evaluate("kept.lag.sent -= 9")
    driver.wait_until(lambda: tab.text("#explanation") == "")
    tab.click("#record")


@pytest.mark.parametrize(("unsent", "reason"), [(0, "server is busy"), (40_000, "connection to the server is slow")])
def test_who_is_to_blame_for_the_lag(tab, unsent, reason):
    """What waits in the browser is the line's fault, the rest the server's."""
    told = (
        "import('/page/lag.js').then(({{Lag}}) => {{ const lag = new Lag(16000, 1); lag.add({} * 16000); return {} }})"
    )
    assert reason in tab.evaluate(told.format(10, f"lag.explanation({unsent})"))
    assert tab.evaluate(told.format(3, "lag.explanation(0)")) is None
    assert tab.evaluate(told.format(10, "(lag.acknowledge(9.5 * 16000), lag.seconds)")) == 0.5


def test_a_line_can_be_heard_again(tab, driver, keep, taped, wave_file):
    tab.drop("noise.wav", wave_file(1.5))
    keep(tab)
    driver.wait_until(lambda: tab.text("#record") == "Start")
    tab.evaluate(
        """window.heard = [];
        const play = AudioBufferSourceNode.prototype.start;
        AudioBufferSourceNode.prototype.start = function (at) {
          heard.push(this.buffer.length);
          play.call(this, at);
        };"""
    )
    tab.click(".line:last-child .time")
    assert tab.evaluate("document.querySelector('.line:last-child .time').classList.contains('playing')")
    tab.click(".line:last-child .time")  # and stops
    assert not tab.evaluate("document.querySelector('.time.playing')")
    first, end = tab.evaluate("[kept.captions.utterances.at(-1).start, kept.captions.utterances.at(-1).end]")
    samples, rate = taped(tab)
    expected = min(int((end + 0.15) * rate + 1), len(samples)) - int(max(0, first - 0.15) * rate)
    assert abs(tab.evaluate("heard")[0] - expected) <= 1


def test_the_memory_for_audio_is_bounded(tab):
    kept = tab.evaluate(
        """import("/page/audio/tape.js").then(({Tape}) => {
          const tape = new Tape(10, 40);  // 20 samples
          for (let i = 0; i < 7; i++) tape.add(Int16Array.from({length: 5}, (_, j) => 5 * i + j));
          return [tape.duration, tape.kept, tape.slice(1, 2), [...tape.slice(1.8, 2.3)]];
        })"""
    )
    assert kept == [3.5, 1.5, None, [18, 19, 20, 21, 22]]
