"""The Errors and Models tabs in a real headless browser: from a set to its worst error, by keyboard, after a reload, on a phone, in the dark."""

import pytest
from tests.test_page import CHROMIUM, brightness, chromium, no_side_scroll, stay_home, watch  # noqa: F401
from tests.ui_support import FakeAnalyzer, serving

from msademo.ui.page import build_demo

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium here; install it or name it in CHROMIUM")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSADEMO_DATA", str(tmp_path_factory.mktemp("kept")))
        demo = build_demo(FakeAnalyzer())
    with serving(demo) as url:
        yield url


@pytest.fixture
def visit(served, chromium):
    """visit(width, height, theme) -> the Errors tab of a browser of its own; nothing may go wrong on it, and no other host be asked."""
    contexts, problems = [], []

    def open_page(width=1280, height=900, theme="light"):
        context = chromium.new_context(viewport={"width": width, "height": height})
        tab = context.new_page()
        watch(tab, problems)
        stay_home(tab, problems)
        tab.goto(f"{served}?__theme={theme}")
        tab.get_by_role("tab", name="Errors").click()
        tab.locator("#study-go").wait_for()
        contexts.append(context)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


def test_from_a_set_to_the_worst_error_and_back_after_a_reload(visit):
    tab = visit()
    tab.get_by_role("button", name="What to ask").click()
    tab.locator("#study-most input").fill("3")
    tab.locator("#study-go").click()
    tab.locator("#study-table tr[data-pick]").nth(2).wait_for()
    tab.locator("#study-confusion button").first.focus()
    tab.keyboard.press("Enter")                                                 # by keyboard: a cell of the confusion
    tab.locator("#study-table button[data-pick='all:']").click()
    tab.locator("#study-scatter [data-pick]").first.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    tab.locator("#study-score .msa-score").first.wait_for()
    tab.locator("#study-curve .js-plotly-plot .legend").wait_for()
    tab.locator("#study-note textarea").fill("seen by <me>")
    tab.locator("#study-save").click()
    tab.wait_for_function("document.querySelector('#study-table').innerText.includes('seen by <me>')")
    tab.reload()
    tab.get_by_role("tab", name="Errors").click()
    tab.wait_for_function("(document.querySelector('#study-table') || document.body).innerText.includes('seen by <me>')")
    tab.locator("#study-table button[data-pick^='item:']").first.click()
    tab.locator("#study-take-clip").click()
    tab.locator("#score .msa-score").first.wait_for()                           # the Clip tab has it, with sliders


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_has_no_sideways_scroll_and_text_can_be_read(visit, theme):
    tab = visit(390, 844, theme)
    assert no_side_scroll(tab)
    tab.get_by_role("button", name="What to ask").click()
    tab.locator("#study-most input").fill("2")
    tab.locator("#study-go").click()
    tab.locator("#study-table tr[data-pick]").nth(1).wait_for()
    assert no_side_scroll(tab)
    ground = brightness(tab.locator("#study-results").evaluate("element => getComputedStyle(element).backgroundColor"))
    for place in ("#study-table td p", "#study-metrics td", "#study-confusion th", "#study-status .msa-say"):
        ink = brightness(tab.locator(place).first.evaluate("element => getComputedStyle(element).color"))
        assert abs(ink - ground) > 120, place
    tab.get_by_role("tab", name="Models").click()
    tab.locator("#models-cards article").first.wait_for()
    assert no_side_scroll(tab)
