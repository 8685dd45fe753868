"""Who cannot use a mouse, see colours, or has a small screen can use the page."""

import pytest


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_rules_of_accessibility(polyglot, visit, driver, violations, scheme, size):
    tab = visit(polyglot(token="secret"), size=getattr(driver, size.upper()), prefers_color_scheme=scheme)
    driver.wait_until(lambda: tab.evaluate("document.getElementById('key-dialog').open"))
    assert violations(tab) == []
    tab.evaluate("document.getElementById('key').value = 'secret'")
    tab.click("#key-form button")
    driver.wait_until(lambda: "ear" in tab.text("#about"))
    assert violations(tab) == []
    tab.choose("#target", "es")
    tab.click("#record")
    driver.wait_until(lambda: tab.text(".line .tentative") and tab.texts(".line .target"))
    assert violations(tab) == []
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    tab.click(".menu summary")
    tab.evaluate("document.getElementById('error').textContent = 'What went wrong, and what to do.'")
    assert violations(tab) == []
    tab.click("#tab-speak")
    tab.evaluate("document.getElementById('text').value = 'a'")
    tab.click("#say")
    driver.wait_until(lambda: tab.text("#say") == "Speak")
    assert violations(tab) == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_does_not_scroll_sideways(polyglot, visit, driver, wave_file, width):
    tab = visit(polyglot(), size=(width, 700))

    def fits():
        return tab.evaluate("document.documentElement.scrollWidth <= innerWidth && innerWidth") == width

    assert fits()
    tab.choose("#target", "es")
    tab.drop("a recording with-a-very-long-name-that-nobody-can-break.wav", wave_file(1.5))
    driver.wait_until(lambda: tab.text("#record") == "Start")
    tab.evaluate(
        "document.getElementById('error').textContent = 'x'.repeat(30) + ' and more of that, on several lines'"
    )
    assert fits()
    tab.click(".menu summary")
    assert fits()
    boxes = "[...document.querySelectorAll('.formats, #record, .copy')].map(one => one.getBoundingClientRect())"
    assert tab.evaluate(f"{boxes}.every(({{left, right}}) => left >= 0 && right <= innerWidth)")
    tab.click("#tab-speak")
    assert fits()


def test_light_and_dark(polyglot, visit):
    tab = visit(polyglot())

    def brightness(selector, name):
        colour = tab.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{name}")
        return sum(int(one) for one in colour.removeprefix("rgb(").rstrip(")").split(",")) / 3

    for scheme, dark in (("light", False), ("dark", True)):
        tab.features(prefers_color_scheme=scheme)
        assert (brightness("html", "backgroundColor") < brightness("html", "color")) == dark
        assert (brightness("#record", "backgroundColor") > brightness("#record", "color")) == dark


def test_nothing_moves_for_who_does_not_want_it(polyglot, visit, driver, wave_file):
    tab = visit(polyglot(), prefers_reduced_motion="reduce")
    tab.click("#record")
    driver.wait_until(lambda: tab.texts(".line.open"))
    caret = "getComputedStyle(document.querySelector('.line.open .source'), '::after').animationName"
    assert tab.evaluate(caret) == "none"
    tab.click("#record")


def test_everything_by_keyboard(polyglot, visit, driver):
    tab = visit(polyglot())

    def focused():
        return tab.evaluate("document.activeElement.id || document.activeElement.className || 'body'")

    def tab_to(wanted):
        for _ in range(30):
            tab.press("Tab")
            outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            if focused() != "body":
                assert outline != "none", f"{focused()}: who uses the keyboard sees where it is"
            if focused() == wanted:
                return
        raise AssertionError(f"the tab key does not lead to {wanted}")

    tab_to("tab-captions")
    tab.press("ArrowRight")
    assert focused() == "tab-speak"
    assert tab.evaluate("!document.getElementById('speak').hidden")
    tab.press("ArrowLeft")
    tab_to("target")
    tab.press("ArrowDown")
    assert tab.evaluate("document.getElementById('target').value") == "es"
    tab_to("open")
    tab_to("record")
    tab.press(" ", " ")
    driver.wait_until(lambda: len(tab.texts(".line .source")) >= 2)
    assert focused() == "record"
    tab.press("Enter", "\r")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    tab.evaluate("document.querySelector('.copy').focus()")
    tab_to("tool")  # the summary of the menu
    tab.press("Enter", "\r")
    assert tab.text(".formats")
    tab.press("Escape")
    assert not tab.evaluate("document.querySelector('.menu').open")
    tab_to("time")
    tab.press("Enter", "\r")
    assert tab.evaluate("Boolean(document.querySelector('.time.playing'))")
