"""The Post tab: what it draws, its page in a real browser, its endpoint over real HTTP; and the page without a checkpoint for posts."""

import base64
import importlib.util
import io
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from tests.post_support import COFFEE, ROOT, TEAM, WORDS
from tests.test_page import CHROMIUM, brightness, chromium, no_side_scroll, put, watch  # noqa: F401
from tests.ui_support import FakeAnalyzer, serving

from msademo.errors import InputError
from msademo.picture import read_picture
from msademo.post_analyzer import PostAnalyzer
from msademo.ui import post_figures
from msademo.ui.examples import examples
from msademo.ui.page import build_demo
from msademo.ui.post_tab import Opened, Wish, open_post, still_true

plotly = pytest.importorskip("plotly.graph_objects")
EXAMPLES = examples(index="posts.json")
in_browser = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium here; install it or name it in CHROMIUM")


def test_a_curve_is_of_its_post_seed_and_checkpoint():
    opened = Opened("a.jpg", "words", None)
    drawn = ((opened.token, Wish().seed, "spro.safetensors"), "the curve")
    assert still_true(drawn, opened, Wish(), "spro.safetensors") == "the curve"
    assert still_true(drawn, opened, Wish(), "spro_b.safetensors") is None


class WithPosts(FakeAnalyzer):
    """The clips' stand-in with a real, untrained PostAnalyzer beside it."""

    def __init__(self, folder):
        super().__init__()
        self.posts = PostAnalyzer(folder)

    def post(self, *wishes):
        return self.posts.post(*wishes)


@pytest.fixture(scope="module")
def analyzer(post_checkpoints):
    analyzer = WithPosts(post_checkpoints)
    analyzer.posts.warm()
    return analyzer


@pytest.fixture(scope="module")
def opened(analyzer):
    return analyzer.posts.open(TEAM, WORDS)


# ---- drawings -------------------------------------------------------------------------------------------------------------


def test_the_answer_tells_every_path_and_the_change(analyzer, opened):
    complete, result = (analyzer.posts.analyze(opened, m, seed=1, overlays=False) for m in (0.0, 0.6))
    drawn = post_figures.answer(result)
    for name, path in result.paths.items():
        assert post_figures.NAMES[name] in drawn and f"{path.label} {path.now.max():.0%}" in drawn
        for value in path.now:
            assert f"--p:{value:.4f}" in drawn
    assert "Nothing is taken away" in post_figures.change_sentence(complete) and f"{post_figures.points(result.change)} points" in post_figures.change_sentence(result)
    assert "all taken away" in post_figures.answer(analyzer.posts.analyze(opened, {"image": 1.0})) and "absent" in post_figures.answer(analyzer.posts.post(None, "good"))
    assert post_figures.points(-0.001) == "+0" and post_figures.points(-0.126) == "-13"


def test_what_is_missing_is_struck_out_and_greyed(analyzer, opened):
    result = analyzer.posts.analyze(opened, {"text": 0.4, "image": 0.3}, seed=2)
    drawn = post_figures.left(opened.post.picture, result)
    assert drawn.count("<s ") == result.word_missing.sum() > 0 and drawn.count("<rect") == result.patch_missing.sum() > 0
    places = {(int(x), int(y)) for x, y in re.findall(r'<rect x="(\d)" y="(\d)"', drawn)}
    assert places == {(int(i) % 7, int(i) // 7) for i in np.flatnonzero(result.patch_missing)}
    assert f"{result.word_missing.sum()} of {len(result.words)} words struck out" in drawn and f"{result.patch_missing.sum()} of 49 patches" in drawn


def test_what_a_person_typed_is_escaped(analyzer):
    nasty = "<script>alert(1)</script> & <b>bold</b>"
    opened = analyzer.posts.with_captions(analyzer.posts.open(COFFEE, nasty), {"tone": nasty})
    result = analyzer.posts.analyze(opened)
    drawn = post_figures.left(opened.post.picture, result) + post_figures.overlays(opened.post.picture, result)
    assert "<script" not in drawn and "<b>" not in drawn and "&lt;script&gt;" in drawn


def test_overlays_have_a_tile_a_stage_their_captions_and_numbers(analyzer, opened):
    result = analyzer.posts.analyze(opened)
    drawn = post_figures.overlays(opened.post.picture, result)
    assert re.findall("<h4>(\\w+)</h4>", drawn) == ["Tone", "Content", "Emotion", "Final"] and drawn.count("<img") == 4
    for name, overlay in result.overlays.items():
        assert f"patches (concentration {overlay.concentration:.2f})" in drawn and f"{overlay.on_faces:.0%} lies on faces" in drawn
        assert name == "final" or f"caption {overlay.similarity:+.2f}" in drawn
    png = base64.b64decode(post_figures.heat(result.overlays["tone"], (7, 7)).split(",")[1])
    tile = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int)
    patches = tile.reshape(7, 16, 7, 16).mean((1, 3)).ravel()
    assert np.corrcoef(patches, result.overlays["tone"].relevance)[0, 1] > 0.8           # light where the relevance is
    assert "no captions" in post_figures.overlays(None, analyzer.posts.post(None, "good"))
    assert "No patch" in post_figures.overlays(opened.post.picture, analyzer.posts.analyze(opened, {"image": 1.0}))


def test_the_curve_is_a_valid_figure_with_its_numbers(analyzer, opened):
    curve = analyzer.posts.curve(opened, masks=2)
    figure = post_figures.curve_figure(curve, 0.5, 0.4)
    plotly.Figure(figure)
    assert [line["name"] for line in figure["data"]] == ["range of 2 masks", "together", "picture alone", "words alone", "always the same", "now"]
    sentence = post_figures.curve_sentence(curve, 0.5, 0.4)
    assert f"{curve.paths['fusion'].mean(0)[0]:.0%} with everything there" in sentence and "50% missing, 40%" in sentence and curve.label in sentence
    alone = analyzer.posts.curve(analyzer.posts.open(None, "good"), masks=2)
    assert "picture alone" not in str(post_figures.curve_figure(replace(alone, share=None), None, None)) and "not on this curve" in post_figures.curve_sentence(alone, None, None)
    json.dumps(post_figures.curve_figure(alone, None, None), allow_nan=False)


def test_only_what_changed_is_done_again(analyzer):
    say = lambda what, share: None
    first = open_post(analyzer.posts, None, str(TEAM), WORDS, ("", "", ""), say)
    assert open_post(analyzer.posts, first, str(TEAM), f" {WORDS} ", first.captions, say) is first
    words = open_post(analyzer.posts, first, str(TEAM), "other words", first.captions, say)
    assert words.post.patches is first.post.patches and words.post.post.words == ("other", "words") and words.token != first.token
    typed = open_post(analyzer.posts, first, str(TEAM), WORDS, ("mine", *first.captions[1:]), say)
    assert typed.post.captions.source == "typed" and typed.post.complete is first.post.complete
    other = open_post(analyzer.posts, typed, str(COFFEE), WORDS, typed.captions, say)
    assert other.post.captions.source == "offline" and other.captions != typed.captions
    with pytest.raises(InputError, match="nothing to analyse yet"):
        open_post(analyzer.posts, None, None, " ", ("", "", ""), say)
    with pytest.raises(InputError):
        Wish.of(0.1, 0.1, None)
    assert Wish.of(None, 0.5, 3).shared is None and Wish.of(0.5, 0.5, 3).shared == 0.5


# ---- examples -------------------------------------------------------------------------------------------------------------


def test_the_examples_are_listed_small_and_drawn_as_the_script_says():
    spec = importlib.util.spec_from_file_location("make_posts", ROOT / "examples" / "make_posts.py")
    maker = importlib.util.module_from_spec(spec)
    sys.modules["make_posts"] = maker                   # dataclasses look their module up
    try:
        spec.loader.exec_module(maker)
    finally:
        sys.modules.pop("make_posts")
    assert json.loads((ROOT / "examples" / "posts.json").read_text("utf-8")) == maker.listing() and len(EXAMPLES) == len(maker.listing()) == 5
    assert {path.name for path in (ROOT / "examples").glob("*.jpg")} == {entry["file"] for entry in maker.listing()}
    for entry in EXAMPLES:
        assert read_picture(entry["file"]).notes == () and len(open(entry["file"], "rb").read()) < 80_000
    drawn, kept = maker.rainy_street()[..., ::-1].astype(int), read_picture(ROOT / "examples" / "rain.jpg").rgb.astype(int)
    assert np.abs(drawn - kept).mean() < 3


# ---- the page -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(analyzer):
    demo = build_demo(analyzer)
    with serving(demo) as url:
        yield url


@pytest.fixture
def visit(served, chromium):
    """visit(width, height, theme) -> the Post tab and a list that every request joins; nothing may go wrong on the page."""
    pages, problems = [], []

    def open_page(width=1280, height=900, theme="light"):
        page, asked = chromium.new_page(viewport={"width": width, "height": height}), []
        watch(page, problems)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{served}?__theme={theme}")
        page.get_by_role("tab", name="Post").click()
        page.get_by_role("button", name="Analyse the post").wait_for()
        pages.append(page)
        return page, asked

    yield open_page
    for page in pages:
        page.close()
    assert not problems


def click(page, number=0):
    page.get_by_role("button", name=EXAMPLES[number]["title"]).click()
    page.locator("#post-overlays img").nth(3).wait_for()


@in_browser
def test_an_example_the_slider_and_the_opacity(visit):
    page, asked = visit()
    click(page)
    assert page.locator("#post-answer .post-path").count() == 3 and page.locator("#post-left s").count() == 0
    page.locator("#post-curve .js-plotly-plot .legend").wait_for()
    put(page, "post-linked", 0.5)
    page.locator("#post-left s").first.wait_for()
    page.locator("#post-overlays rect").first.wait_for()
    assert [page.locator(f"#post-missing-{half} input[type=number]").input_value() for half in ("text", "image")] == ["0.5", "0.5"]
    page.wait_for_function("document.querySelector('#post-curve-text').innerText.includes('50% missing')")
    work = lambda: [url for url in asked if "/gradio_api/" in url]
    page.locator("#post-opacity input[type=range]").focus()                # leaving a number field announces it once more
    page.wait_for_timeout(1500)
    before = len(work())
    page.keyboard.press("Home")
    page.wait_for_function("getComputedStyle(document.querySelector('#post-overlays img')).opacity === '0'")
    assert len(work()) == before and "0 %" in page.locator("#post-opacity").inner_text()           # in the browser alone
    put(page, "post-missing-text", 0)
    page.wait_for_function("document.querySelectorAll('#post-left s').length === 0")
    page.wait_for_function("getComputedStyle(document.querySelector('#post-overlays img')).opacity === '0'")      # and it stays


@in_browser
def test_captions_are_edited_and_written_again(visit):
    page, _ = visit()
    click(page)
    answer = page.locator("#post-answer").inner_text()
    page.get_by_role("button", name="The captions of the three stages").click()
    written = page.locator("#post-tone textarea").input_value()
    assert "picture" in written
    page.locator("#post-tone textarea").fill("Loud <colours>")
    page.locator("#post-use").click()
    page.wait_for_function("document.querySelector('#post-overlays').innerText.includes('Loud <colours>')")
    assert "Typed by you" in page.locator("#post-told").inner_text() and page.locator("#post-answer").inner_text() == answer
    page.locator("#post-write").click()
    page.wait_for_function("text => document.querySelector('#post-tone textarea').value === text", arg=written)
    assert "Written offline" in page.locator("#post-told").inner_text()


@in_browser
def test_a_broken_picture_is_one_sentence_and_words_alone_work(visit, tmp_path):
    page, _ = visit()
    (tmp_path / "cat.jpg").write_text("<!doctype html><p>no cat here</p>")
    page.locator("#post-image input[type=file]").set_input_files(str(tmp_path / "cat.jpg"))
    page.locator("#post-image img").first.wait_for(state="attached")
    page.get_by_role("button", name="Analyse the post").click()
    page.locator("#post-message .msa-alert").wait_for()
    assert "web page" in page.locator("#post-message").inner_text()
    page.get_by_role("button", name="Remove Image").click()
    page.locator("#post-text textarea").fill("what a lovely day")
    page.get_by_role("button", name="Analyse the post").click()
    page.locator("#post-answer .post-path").first.wait_for()
    assert "absent" in page.locator("#post-answer").inner_text() and "no picture" in page.locator("#post-notes").inner_text()
    assert page.locator("#post-message .msa-alert").count() == 0


@in_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_has_no_sideways_scroll_and_text_can_be_read(visit, theme):
    page, _ = visit(390, 844, theme)
    assert no_side_scroll(page)
    click(page, 2)
    put(page, "post-linked", 0.3)
    page.locator("#post-left s").first.wait_for()
    page.get_by_role("button", name="The captions of the three stages").click()
    assert no_side_scroll(page)
    ground = brightness(page.locator("#post-stage").evaluate("element => getComputedStyle(element).backgroundColor"))
    for place in ("#post-answer .msa-score b", "#post-left figcaption", "#post-overlays figcaption", "#post-overlays .post-quote", "#post-opacity label"):
        ink = brightness(page.locator(place).first.evaluate("element => getComputedStyle(element).color"))
        assert abs(ink - ground) > 120, place


def test_without_a_checkpoint_the_tab_says_so_and_the_rest_works():
    demo = build_demo(FakeAnalyzer())
    said = [block.value for block in demo.blocks.values() if getattr(block, "elem_id", None) == "post-absent"]
    assert len(said) == 1 and "spro.safetensors, which is not here" in said[0] and said[0].count(".</p>") == 1
    assert {"/analyze_clip", "/analyze_post"} <= set(demo.get_api_info()["named_endpoints"])


# ---- the endpoint ---------------------------------------------------------------------------------------------------------


def test_endpoint(served, analyzer, tmp_path):
    client = Client(served, verbose=False)
    try:
        answer = client.predict(image=handle_file(str(TEAM)), text=WORDS, text_ratio=0.5, image_ratio=0.3, seed=1, captions=None, api_name="/analyze_post")
        wanted = analyzer.post(TEAM, WORDS, {"text": 0.5, "image": 0.3}, 1).to_dict()
        assert answer["label"] == wanted["label"] and answer["probability"] == pytest.approx(wanted["probability"], abs=2e-4) and set(answer) == set(wanted)
        typed = client.predict(image=handle_file(str(TEAM)), text="", captions={"tone": "Warm."}, api_name="/analyze_post")
        assert typed["captions"]["tone"] == "Warm." and typed["captions"]["source"] == "typed" and typed["paths"]["text"]["label"] is None
        assert client.predict(image=None, text="good", api_name="/analyze_post")["overlays"] == {}
        (tmp_path / "a.jpg").write_bytes(b"")
        for wrong, said in (({"image": handle_file(str(tmp_path / "a.jpg"))}, "0 bytes"), ({"image": None}, "neither"), ({"image": None, "text": "a", "text_ratio": 2}, "must be a number"),
                            ({"image": None, "text": "a", "captions": "magic"}, "Captions must be")):
            with pytest.raises(AppError, match=said):
                client.predict(**wrong, api_name="/analyze_post")
    finally:
        client.close()
