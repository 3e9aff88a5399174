"""The attention panel and the prompt's boxes: what is drawn is what the numbers are of, missing is shown as missing, nothing typed becomes markup."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from tests.test_explain import hidden_alignment
from tests.test_ui_figures import NASTY, clip
from tests.ui_support import FakeAnalyzer, fake_result

from msademo.explain import Alignment
from msademo.guidance.given import COMPLETE, EMPTY, LEFT, PERSON, Guidance
from msademo.guidance.prompt import Prompt
from msademo.ui import alignment as panel
from msademo.ui import clip_prompt
from msademo.ui.alignment import COLUMNS, VIEWS, Look, signed_ticks
from msademo.ui.clip_panels import Controls, Opened, curve_key, first_boxes, map_panel, still_true, update
from msademo.ui.figures import plot
from msademo.ui.room import Kept

go = pytest.importorskip("plotly.graph_objects", reason="plotly checks the figures")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("head, layer", [(None, None), (2, 3)])
def test_what_is_drawn_is_the_map_or_the_difference(view, head, layer):
    found = hidden_alignment()
    figure = panel.map_figure(found, Look("audio", view, head, layer))
    go.Figure({"data": figure["data"], "layout": figure["layout"]})             # raises on what plotly does not know
    json.loads(plot(figure).plot)
    first, second = panel.pair(found, view)
    a, b = found.map(first, layer, head), found.map(second, layer, head)
    gone, shown = figure["data"]
    wanted = a - b if view in ("told", "distilled") else a
    drawn = np.array(shown["z"], float)
    assert np.array_equal(np.isnan(drawn), np.isnan(wanted)) and drawn[~np.isnan(drawn)] == pytest.approx(wanted[~np.isnan(wanted)], abs=1e-4)
    assert np.array_equal(np.array(gone["z"], float) == 1, np.isnan(wanted))    # grey exactly where something is missing
    both = np.array(shown["customdata"])
    assert both[..., 0] == pytest.approx(np.nan_to_num(a), abs=1e-4) and both[..., 1] == pytest.approx(np.nan_to_num(b), abs=1e-4)
    for said in ("%{y}", "%{x:.1f} s", "customdata[0]", "customdata[1]"):
        assert said in shown["hovertemplate"]
    assert shown["x"] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]) and len(shown["y"]) == 5


def test_differences_are_centred_on_nothing_and_single_maps_start_there():
    found = hidden_alignment()
    difference, single = (panel.map_figure(found, Look("audio", view))["data"][1] for view in ("told", "student"))
    assert difference["zmin"] == -difference["zmax"] and single["zmin"] == 0
    assert difference["colorscale"][0][1] == "#d55e00" and difference["colorscale"][-1][1] == "#0072b2" and difference["colorscale"][1][0] == 0.5
    assert max(abs(v) for row in difference["z"] for v in row if v is not None) == pytest.approx(difference["zmax"], abs=1e-4)


def test_the_missing_word_is_marked_and_no_word_becomes_markup():
    found = hidden_alignment()
    words = ("the", "the", "<b>x</b>", "${alert(1)}", "the")
    named = Alignment(found.maps, words, found.words_hidden, found.times, found.moments_hidden)
    labels = panel.map_figure(named, Look("audio"))["data"][1]["y"]
    assert labels[0] == "the" and labels[1] == "(the)" and len(set(labels)) == 5 and not any("<" in label for label in labels)
    for text in panel.map_text(named, Look("audio")):
        assert "<b>x" not in text


def test_frames_stand_above_the_face_s_times_only():
    opened = clip(words=5, frames=20)
    maps = fake_result(opened, {"vision": 0.3}, guidance=opened.guidance).alignments
    face, voice = (panel.map_figure(maps[m], Look(m), opened)["layout"]["images"] for m in ("vision", "audio"))
    assert len(face) == 12 and voice == [] and all(image["source"].startswith("data:image/jpeg") for image in face)
    assert face[0]["x"] == 0 and face[-1]["x"] + face[-1]["sizex"] == pytest.approx(opened.clip.duration)


def test_many_moments_are_added_up_and_said():
    rng, count = np.random.default_rng(0), 3 * COLUMNS - 20
    maps = {view: rng.dirichlet(np.ones(count), (2, 2, 3)).astype(np.float32) for view in ("teacher", "without", "student")}
    hidden = np.zeros(count, bool)
    hidden[:3], hidden[4] = True, True
    long = Alignment(maps, ("a", "b", "c"), np.zeros(3, bool), np.stack([np.arange(count), np.arange(1, count + 1)], 1) / 10, hidden)
    shown = panel.map_figure(long, Look("audio", "teacher"))["data"][1]
    whole = long.map("teacher")
    assert len(shown["z"][0]) <= COLUMNS and len(shown["x"]) == len(shown["z"][0]) + 1 and shown["x"][-1] == pytest.approx(count / 10)
    assert shown["z"][0][0] is None and shown["z"][1][1] == pytest.approx(whole[1, 3] + whole[1, 5], abs=2e-4)      # all missing; one of three missing
    assert shown["z"][2][4] == pytest.approx(whole[2, 12:15].sum(), abs=2e-4)
    assert "3 neighbouring moments are drawn as one column" in panel.map_text(long, Look("audio", "teacher"))[0]
    assert "drawn as one column" not in panel.map_text(hidden_alignment(), Look("audio"))[0]


def test_the_text_tells_the_numbers_of_the_very_maps():
    found = hidden_alignment()
    for look in (Look("audio", "told"), Look("audio", "distilled", 1, 2)):
        first, second = panel.pair(found, look.view)
        numbers = found.compare(first, second, look.layer, look.head)
        said, table = panel.map_text(found, look)
        assert f"{numbers.js:.4f}" in table and f"{numbers.l1:.2f}" in table and f"{numbers.overlap:.0%}" in table
        assert f"{found.entropy(first, look.layer, look.head):.2f}" in table and f"{found.even:.2f}" in table
        word, share, moment = numbers.words[0]
        assert f"“word{word}” ({share:.1%} of its look, most of it to {found.times[moment, 0]:.1f}" in said
        assert f"(+{100 * numbers.moments[0][1]:.2f} points)" in said and "anecdote" in said and "1 of 5 words" in said and "2 of 7 moments" in said
    assert "layer 2 of 6 of the teacher with prompt, layer 1 of 2 of the student" in said and "head 1 of 3" in said
    assert "layer 6 of 6, the mean of 3 heads" in panel.map_text(found, Look("audio", "told"))[0]


def test_what_cannot_be_drawn_is_said():
    opened = clip()
    untold = fake_result(opened, guidance=Guidance(None, "nothing")).alignments
    for view in ("told", "teacher"):
        picture, said, table = map_panel(untold, Look("vision", view), opened)
        assert picture is None and "told nothing now" in said and table == ""
    assert map_panel(untold, Look("vision", "distilled"), opened)[0] is not None         # the untold teacher stands in
    only = Alignment({"student": untold["vision"].maps["student"]}, *(getattr(untold["vision"], name) for name in ("words", "words_hidden", "times", "moments_hidden")))
    assert "checkpoint is missing" in map_panel({"vision": only}, Look("vision", "told"), opened)[1]
    alone = map_panel({"vision": only}, Look("vision", "student"), opened)
    assert alone[0] is not None and "Jensen" not in alone[2] and "Entropy, student" in alone[2]
    assert "no face" in map_panel({}, Look("vision"), opened)[1]
    for ratios, said in (({"text": 1.0}, "No word is left"), ({"vision": 1.0}, "Nothing of the face is left")):
        assert said in map_panel(fake_result(opened, ratios, guidance=opened.guidance).alignments, Look("vision"), opened)[1]


def test_heads_and_layers_to_choose_from_and_what_is_out_of_reach():
    maps = fake_result(clip(), guidance=clip().guidance).alignments
    heads, layers = panel.choices(maps)
    assert [value for _, value in heads] == [0, 1, 2] and [value for _, value in layers] == [0, 1, 2, 3]
    assert Look.of("audio", "told", 0, 2) == Look("audio", "told", None, 2)
    assert Look("vision", "told", 9, 3).within(maps["vision"]) == Look("vision", "told", None, 3)
    assert panel.choices({}) == ([("mean of all", 0)], [("last", 0)])


def test_another_look_asks_no_model():
    analyzer, opened = FakeAnalyzer(), clip()
    _, result = update(analyzer, opened, Controls(), guidance=opened.guidance)
    for view in VIEWS:
        assert map_panel(result.alignments, Look("audio", view, 1, 2), opened)[0] is not None
    assert analyzer.moves == 1


def test_the_boxes_hold_what_the_teacher_reads():
    opened = Opened("a.mp4", "words", Kept(clip()))
    own = clip_prompt.sections(opened.clip.guidance)
    assert clip_prompt.told_now(opened.written, own) is opened.clip.guidance
    assert clip_prompt.told_now(opened.written, [f"{text} \r\n" for text in own]) is opened.clip.guidance       # a browser's line ends
    typed = clip_prompt.told_now(opened.written, ("I see", "", None))
    assert typed.written_from == PERSON and typed.prompt.visual == "I see"
    assert clip_prompt.told_now(opened.written, ("", " ", None)).prompt is None
    left = Guidance(Prompt("x", "y", "z", "offline"), LEFT)
    opened.keep(left)
    assert clip_prompt.told_now(opened.written, ("x", "y", "z")) is left


def test_typed_boxes_outlive_new_words_but_not_a_new_clip():
    before, same, other = Opened("a.mp4", "words", Kept(clip())), Opened("a.mp4", "other words", Kept(clip(words=3))), Opened("b.mp4", "words", Kept(clip(words=2)))
    typed, own = ("I see", "", ""), clip_prompt.sections(before.clip.guidance)
    assert first_boxes(before, same, typed) == typed and first_boxes(before, same, own) == clip_prompt.sections(same.clip.guidance)
    assert first_boxes(before, other, typed) == clip_prompt.sections(other.clip.guidance) == first_boxes(None, other, ("", "", ""))
    assert first_boxes(before, before, ("", "", "")) == ("", "", "")            # nothing, if that is what the person wants


def test_a_curve_is_of_its_clip_kind_seed_and_checkpoint():
    opened, other = Opened("a.mp4", "words", Kept(clip())), Opened("a.mp4", "words", Kept(clip()))
    drawn = (curve_key(opened, Controls(), "pglh.safetensors"), "the curve")
    assert still_true(drawn, opened, Controls(), "pglh.safetensors") == "the curve"
    assert still_true(drawn, opened, Controls(), "pglh_b.safetensors") is still_true(drawn, other, Controls(), "pglh.safetensors") is None
    assert still_true(drawn, opened, Controls(seed=2), "pglh.safetensors") is still_true(None, opened, Controls(), "pglh.safetensors") is None


@pytest.mark.parametrize("guidance, said", [
    (Guidance(Prompt("a", "b", "c", "offline"), COMPLETE), "measured in the complete clip.*teacher has been told of them and the student has not"),
    (Guidance(Prompt("a", "b", "c", "openai"), COMPLETE), "by a language model from the complete clip.*teacher has been told"),
    (Guidance(Prompt("a", "b", "c", "offline"), LEFT), "what was left of the clip.*told nothing"),
    (Guidance(Prompt("a", "b", "c", "typed"), PERSON), "Typed by you"),
    (Guidance(None, "nothing", EMPTY), "Nothing: the teacher answers without a prompt")])
def test_the_source_is_named(guidance, said):
    assert re.search(said, clip_prompt.told_panel(guidance))


def test_notes_of_a_prompt_stand_with_it_once_and_as_text():
    guidance = Guidance(Prompt("a", "b", "c", "offline", NASTY), COMPLETE, NASTY)
    panels, _ = update(FakeAnalyzer(), clip(), Controls(), guidance=guidance)
    assert "&lt;img" in panels.told and "<img src=x" not in panels.told and "onerror" not in panels.notes


def test_without_pgmf_the_page_says_so_and_goes_on():
    panels, result = update(FakeAnalyzer(pgmf=False), clip(), Controls())
    assert list(result.predictions) == ["pglh"] and "PGMF is left out" in panels.notes and panels.told == "" and panels.map is None


def test_the_language_model_s_choice_says_what_it_needs(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "api.openai.com" in dict((name, label) for label, name in clip_prompt.writer_choices())["openai"]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://llm.example:8000/v1")
    label = dict((name, label) for label, name in clip_prompt.writer_choices())["openai"]
    assert "llm.example:8000" in label and "three frames" in label and "secret" not in label and "s at most" in label
    monkeypatch.setenv("OPENAI_BASE_URL", "no address")
    assert "OPENAI_BASE_URL" in dict((name, label) for label, name in clip_prompt.writer_choices())["openai"]


def test_the_middle_of_a_difference_has_no_sign():
    assert signed_ticks(1.0)["ticktext"] == ["-80%", "-40%", "0", "+40%", "+80%"] and signed_ticks(0.00601)["ticktext"][3:] == ["+0.2%", "+0.4%"]
    for top in (1e-6, 0.0222, 0.0223, 0.3, 1.0):
        places = signed_ticks(top)["tickvals"]
        assert places == [-place for place in reversed(places)] and 0.35 * top <= places[-1] <= 0.91 * top
