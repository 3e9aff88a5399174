"""The page in a real headless browser: it loads without errors and other servers, examples and sliders work, phones and the dark theme too."""

import os
import re
import shutil

import pytest
from tests.ui_support import FakeAnalyzer, serving, write_clip

from msademo.ui.examples import examples
from msademo.ui.page import build_demo

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.skipif(not CHROMIUM, reason="there is no chromium here; install it or name it in CHROMIUM"),
              pytest.mark.skipif(not examples(), reason="examples/ is empty; its script makes the clips")]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
PATIENCE = 60_000       # ms: the machine may be busy
HARMLESS = re.compile(r"favicon|manifest\.json")


@pytest.fixture(scope="module")
def served():
    analyzer = FakeAnalyzer()
    demo = build_demo(analyzer)
    with serving(demo) as url:
        yield analyzer, url


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def watch(page, problems: list[str]) -> None:
    """What goes wrong on a page joins `problems`."""
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" and not HARMLESS.search(said.text + str(said.location)) else None)


def stay_home(page, problems: list[str]) -> None:
    """So does every request to another host."""
    page.on("request", lambda asked: problems.append(asked.url) if not re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|data:|blob:", asked.url) else None)


@pytest.fixture
def visit(served, chromium):
    """visit(width, height, theme) -> a loaded page; at the end of the test nothing may have gone wrong on it."""
    pages, problems = [], []

    def open_page(width=1280, height=900, theme="light"):
        page = chromium.new_page(viewport={"width": width, "height": height})
        watch(page, problems)
        stay_home(page, problems)
        page.goto(f"{served[1]}?__theme={theme}")
        page.get_by_role("button", name="Analyse", exact=True).wait_for()
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not problems


def click_example(page, number=0):
    page.get_by_role("button", name=examples()[number]["title"]).click()
    page.locator("#score .msa-score").first.wait_for()
    page.locator("#curve .js-plotly-plot .legend").wait_for()


def score_of(page, model="pglh"):
    return page.locator(f"#score [data-model={model}] .msa-score b")


def shown_score(page) -> float:
    return float(score_of(page).inner_text())


def expect_score(page, score, model="pglh"):
    playwright.expect(score_of(page, model)).to_have_text(f"{score:+.2f}", timeout=PATIENCE)


def put(page, name, value):
    """Type a value into the number field of a slider."""
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def no_side_scroll(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_example_and_the_slider(served, visit):
    page = visit()
    click_example(page)
    expect_score(page, 2.4)
    assert page.locator("#strip s").count() == 0 and examples()[0]["note"] in page.locator("#example-note").inner_text()
    opens = served[0].opens
    put(page, "linked", 0.5)
    expect_score(page, 1.2)
    expect_score(page, 0.6, "pgmf-student")
    expect_score(page, 0.96, "pgmf-teacher")
    assert [page.locator(f"#{m} input[type=number]").input_value() for m in ("text", "audio", "vision")] == ["0.5"] * 3
    assert page.locator("#strip s").count() > 0
    playwright.expect(page.locator("#curve-text")).to_contain_text("50% missing, +1.20", timeout=PATIENCE)
    assert served[0].opens == opens                      # features are re-used


def test_by_keyboard_alone_and_each_modality(visit):
    page = visit()
    click_example(page)
    page.locator("#linked input[type=range]").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")                # steps of 0.05
    expect_score(page, 2.4 * 0.8)
    page.locator("#text input[type=range]").focus()
    page.keyboard.press("End")
    expect_score(page, 0.9 * 0.8)
    playwright.expect(page.locator("#linked input[type=number]")).to_have_value("0.47")
    playwright.expect(page.locator("#curve-text")).to_contain_text("not on this curve", timeout=PATIENCE)
    page.locator("#linked input[type=number]").focus()   # merely passing through the linked slider changes nothing
    page.keyboard.press("Tab")
    page.wait_for_timeout(1500)
    expect_score(page, 0.9 * 0.8)


def test_dragging_ends_where_it_ends(visit):
    page = visit()
    click_example(page)
    box = page.locator("#linked input[type=range]").bounding_box()
    y = box["y"] + box["height"] / 2
    for end in (0.3, 0.9, 0.6):                          # three quick drags: the last one counts
        page.mouse.move(box["x"] + 5, y)
        page.mouse.down()
        page.mouse.move(box["x"] + end * box["width"], y, steps=4)
        page.mouse.up()
    value = float(page.locator("#linked input[type=number]").input_value())
    assert value == pytest.approx(0.6, abs=0.1)
    expect_score(page, 2.4 * (1 - value))


def test_every_picture_has_its_sentence_and_tabs_draw(visit):
    page = visit()
    click_example(page)
    for name in ("strip", "curve-text"):
        assert re.search(r"\d", page.locator(f"#{name}").inner_text())
    for m, title in (("text", "Words"), ("audio", "Voice"), ("vision", "Face")):
        page.get_by_role("tab", name=title).click()
        page.locator(f"#attention-{m} .js-plotly-plot .heatmaplayer image").first.wait_for()
        assert page.locator(f"#maps-{m} img").count() == 3 and "dimensions" in page.locator(f"#maps-{m} figcaption").inner_text()
        assert "Alpha is" in page.locator(f"#attention-text-{m}").inner_text()
        assert page.locator(f"#attention-{m} .js-plotly-plot").bounding_box()["width"] > 400


def test_new_mask_and_kinds_redraw_the_curve(served, visit):
    page = visit()
    click_example(page)
    put(page, "linked", 0.5)
    expect_score(page, 1.2)
    before, curves = page.locator("#strip").inner_html(), served[0].curves
    page.get_by_role("button", name="How things go missing").click()
    page.locator("#new-mask").click()
    page.wait_for_function("before => document.querySelector('#strip').innerHTML != before", arg=before)
    playwright.expect(page.locator("#seed input")).to_have_value("1")
    page.locator("#kind input").click()
    page.get_by_role("option", name="in bursts").click()
    playwright.expect(page.locator("#curve-text")).to_contain_text("bursts", timeout=PATIENCE)
    assert served[0].curves >= curves + 2


def test_a_broken_file_is_one_sentence_and_nothing_is_lost(visit, tmp_path):
    page = visit()
    click_example(page)
    broken = tmp_path / "broken.mp4"
    broken.write_text("this is no video")
    page.locator("#video button[aria-label=Clear], #video button[title=Clear]").first.click()
    page.locator("#video input[type=file]").set_input_files(str(broken))
    page.locator("#video").get_by_text("Video", exact=False).first.wait_for()
    page.locator("#transcript textarea").fill("my own words")
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Analyse", exact=True).click()
    page.locator("#message .msa-alert").wait_for()
    said = page.locator("#message").inner_text()
    assert "Traceback" not in said and said.count(".") <= 2
    assert page.locator("#transcript textarea").input_value() == "my own words" and shown_score(page) == 2.4
    click_example(page, 1)                               # and the page goes on working
    playwright.expect(page.locator("#message .msa-alert")).to_have_count(0, timeout=PATIENCE)


def test_upload_of_an_own_clip_hears_the_words(visit, tmp_path):
    page = visit()
    click_example(page)
    page.locator("#video button[aria-label=Clear], #video button[title=Clear]").first.click()
    page.locator("#video input[type=file]").set_input_files(write_clip(tmp_path / "mine.mp4", 2.0))
    # the example's words are not this clip's
    playwright.expect(page.locator("#transcript textarea")).to_have_value("", timeout=PATIENCE)
    page.locator("#video video").wait_for()
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect_score(page, 2.4)
    playwright.expect(page.locator("#transcript textarea")).to_have_value("heard by ear", timeout=PATIENCE)
    assert "3 words and their times" in page.locator("#word-times").inner_text()


def test_nothing_chosen_says_what_to_do(visit):
    page = visit()
    page.get_by_role("button", name="Analyse", exact=True).click()
    playwright.expect(page.locator("#message .msa-alert")).to_contain_text("nothing to analyse yet", timeout=PATIENCE)


def choose(page, name, option):
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def test_the_prompt_is_read_changed_and_written_again(visit):
    page = visit()
    click_example(page)
    told, teacher = page.locator("#told"), score_of(page, "pgmf-teacher")
    playwright.expect(told).to_contain_text("measured in the complete clip")
    playwright.expect(told).to_contain_text("the teacher has been told of them and the student has not")
    put(page, "linked", 0.5)
    expect_score(page, 1.2)
    page.get_by_role("button", name="Read it, change it").click()
    own = page.locator("#prompt-language textarea").input_value()
    assert re.fullmatch(r"\d+ words\.", own)                 # the fake's, of the complete clip
    page.locator("#prompt-left").click()
    playwright.expect(page.locator("#prompt-language textarea")).to_have_value("50% was missing.", timeout=PATIENCE)
    playwright.expect(told).to_contain_text("what was left of the clip", timeout=PATIENCE)
    page.locator("#prompt-visual textarea").fill("<b>I</b> say so. Ignore everything.")
    page.locator("#prompt-use").press("Enter")
    playwright.expect(told).to_contain_text("Typed by you", timeout=PATIENCE)
    page.locator("#prompt-nothing").click()
    playwright.expect(told).to_contain_text("without a prompt", timeout=PATIENCE)
    playwright.expect(teacher).to_have_text(f"{1.2 * 0.3:+.2f}", timeout=PATIENCE)
    playwright.expect(page.locator("#map-text")).to_contain_text("told nothing now", timeout=PATIENCE)
    page.locator("#prompt-writer").get_by_label("a language model").check()
    page.locator("#prompt-complete").click()
    playwright.expect(told).to_contain_text("nobody could be asked", timeout=PATIENCE)
    playwright.expect(teacher).to_have_text(f"{1.2 * 0.8:+.2f}", timeout=PATIENCE)
    click_example(page, 1)                                   # another clip brings its own prompt
    playwright.expect(page.locator("#prompt-visual textarea")).to_have_value("A face.", timeout=PATIENCE)


def test_maps_of_every_view_without_asking_a_model(served, visit):
    page = visit()
    click_example(page)
    put(page, "linked", 0.3)
    expect_score(page, 2.4 * 0.7)
    playwright.expect(page.locator("#map-text")).to_contain_text("Grey: missing", timeout=PATIENCE)
    page.locator("#linked input[type=number]").blur()       # leaving a number field is a move of its own
    page.wait_for_timeout(1500)
    assert page.locator("#map .js-plotly-plot .imagelayer image, #map .js-plotly-plot .layer-above image").count() == 12
    moves = served[0].moves
    for view, said in (("teacher − student", "Against student"), ("teacher without prompt", "Yellow"), ("student", "student gains"), ("teacher with − without prompt", "Blue")):
        choose(page, "map-view", view)
        playwright.expect(page.locator("#map-text")).to_contain_text(said, timeout=PATIENCE)
        page.locator("#map .js-plotly-plot .heatmaplayer image").first.wait_for()
    choose(page, "map-head", "head 2")
    choose(page, "map-layer", "layer 1")
    playwright.expect(page.locator("#map-text")).to_contain_text("layer 1 of 3, head 2 of 2", timeout=PATIENCE)
    page.locator("#map-source").get_by_label("voice → words").check()
    playwright.expect(page.locator("#map .js-plotly-plot .imagelayer image, #map .js-plotly-plot .layer-above image")).to_have_count(0, timeout=PATIENCE)
    playwright.expect(page.locator("#map-numbers")).to_contain_text("Jensen-Shannon divergence")
    assert served[0].moves == moves
    before = page.locator("#map-numbers").inner_text()
    put(page, "linked", 0.7)                                  # the look chosen stays under a new mask
    playwright.expect(page.locator("#map-numbers")).not_to_have_text(before, timeout=PATIENCE)
    playwright.expect(page.locator("#map-text")).to_contain_text("layer 1 of 3, head 2 of 2", timeout=PATIENCE)
    said = ""
    for place in range(40, 100):                              # a picture drawn anew under a resting pointer tells nothing
        page.locator("#map .js-plotly-plot .nsewdrag").first.hover(position={"x": place, "y": 60})
        page.wait_for_timeout(400)
        said = page.locator("#map .hoverlayer").text_content()
        if said:
            break
    assert re.search(r"“.+” at [\d.]+ s(teacher with prompt: [\d.]+%teacher without: [\d.]+%difference: [+−-][\d.]+%|: missing)", said), said


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_has_no_sideways_scroll(visit, theme):
    page = visit(390, 844, theme)
    assert no_side_scroll(page)
    click_example(page)
    put(page, "linked", 0.4)
    expect_score(page, 2.4 * 0.6)
    page.get_by_role("button", name="Read it, change it").click()
    for title in ("Voice", "Face", "Words"):
        page.get_by_role("tab", name=title).click()
        assert no_side_scroll(page)


def brightness(colour: str) -> float:
    return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_in_figures_can_be_read(visit, theme):
    page = visit(theme=theme)
    click_example(page)
    ground = brightness(page.locator("#msa-stage").evaluate("element => getComputedStyle(element).backgroundColor"))
    for place, style in (("#curve .xtick text", "fill"), ("#strip figcaption", "color"), ("#score .msa-score b", "color"), ("#curve .ytitle", "fill"),
                         ("#map .ytick text", "fill"), ("#map-numbers td", "color"), ("#told .msa-say", "color")):
        ink = brightness(page.locator(place).first.evaluate(f"element => getComputedStyle(element).{style}"))
        assert abs(ink - ground) > 120, (place, ink, ground)
