"""Stage captions: true of the picture, different from picture to picture, blind to the label; asked for, typed, resumed."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from msademo.backbones.expression import EXPRESSIONS, ExpressionNet, load_expression
from msademo.errors import InputError
from msademo.features.picture import Face, Light, Seen, colour_names, imagenet_names, kind_of, look, measure_light
from msademo.guidance.chat import Chat, ChatSettings, GuidanceError
from msademo.guidance.offline_posts import content, emotion, faces_told, tone, write_captions
from msademo.guidance.posts import MAX_CAPTION, Captions, parse_captions, stage_captions, typed_captions
from msademo.models.spro import STAGES
from msademo.picture import read_picture
from tests.chat_server import completion, serving
from train.__main__ import main as train
from train.posts import read_captions

ROOT = Path(__file__).resolve().parent.parent
GOOD = "Tone: Dark and cold.\nContent: A street in the rain.\nEmotion: It feels lonely."


@pytest.fixture(scope="module")
def network() -> ExpressionNet:
    return load_expression(ROOT / "checkpoints" / "face.safetensors")


def plain(colour, shape=(60, 80)) -> np.ndarray:
    return np.full((*shape, 3), colour, np.uint8)


def face(**chances) -> Face:
    rest = (1 - sum(chances.values())) / (len(EXPRESSIONS) - len(chances))
    return Face((10, 10, 40, 40), tuple(chances.get(name, rest) for name in EXPRESSIONS))


def seen(light: Light | None = None, things=(("desk", 0.05),), groups=(), faces=()) -> Seen:
    return Seen((80, 60), light or measure_light(plain((128, 128, 128))), things, groups, tuple(faces))


# ---- colour and light -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour,name", [
    ((255, 0, 0), "red"), ((255, 150, 0), "orange"), ((255, 240, 0), "yellow"), ((0, 160, 0), "green"), ((0, 140, 140), "teal"), ((0, 0, 255), "blue"),
    ((135, 206, 235), "blue"), ((128, 0, 128), "purple"), ((255, 105, 180), "pink"), ((139, 69, 19), "brown"), ((245, 235, 210), "beige"),
    ((255, 255, 255), "white"), ((190, 190, 190), "light grey"), ((128, 128, 128), "grey"), ((75, 75, 75), "dark grey"), ((0, 0, 0), "black")])
def test_colours_have_their_names(colour, name):
    light = measure_light(plain(colour))
    assert light.colours == ((name, 1.0),) and f"nearly all {name}" in tone(light)


def test_shares_of_colours_add_up():
    picture = np.concatenate([plain((255, 0, 0), (60, 50)), plain((0, 0, 255), (60, 30))], 1)
    light = measure_light(picture)
    assert [name for name, _ in light.colours] == ["red", "blue"] and [round(share, 2) for _, share in light.colours] == [0.62, 0.38] and "mostly red with some blue" in tone(light)
    grid = np.random.default_rng(0).uniform((0, 0, 0), (100, 120, 360), (500, 3)).T
    assert set(colour_names(*grid)) <= {"red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "olive", "beige", "white", "light grey", "grey",
                                         "dark grey", "black"}


def test_light_is_told_truly():
    dark, bright = measure_light(plain((25, 20, 20))), measure_light(plain((250, 245, 240)))
    assert tone(dark).startswith("A very dark") and tone(bright).startswith("A very bright") and "very soft contrast, hardly any details" in tone(dark)
    assert " warm," in tone(measure_light(plain((220, 120, 40)))) and " cool," in tone(measure_light(plain((40, 90, 220))))
    assert "colourless" in tone(measure_light(plain((128, 128, 128)))) and "vivid" in tone(measure_light(plain((250, 60, 10))))
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert "very many details" in tone(measure_light(noise))


@pytest.mark.parametrize("place,part", [("at the top", np.s_[:20]), ("at the bottom", np.s_[40:]), ("on the left", np.s_[:, :26]), ("on the right", np.s_[:, 54:]),
                                        ("in the middle", np.s_[20:40, 26:54])])
def test_where_it_is_lightest(place, part):
    picture = plain((40, 40, 40))
    picture[part] = 230
    assert measure_light(picture).lit == place and place in tone(measure_light(picture))
    assert measure_light(plain((90, 90, 90))).lit == ""


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (700, 1), (2, 3)])
def test_the_smallest_pictures_have_captions(shape, network):
    assert all(text.endswith(".") for text in write_captions(look(plain((200, 30, 30), shape), network)))


# ---- things, faces, feeling -----------------------------------------------------------------------------------------------


def test_names_of_the_thousand_classes():
    names, kinds = imagenet_names()
    assert len(names) == len(kinds) == 1000 and all(names) and len(set(names)) > 985
    for index, name, kind in ((0, "tench", "fish"), (207, "golden retriever", "dog"), (281, "tabby cat", "cat"), (504, "coffee mug", "drink"), (817, "sports car", "car"),
                              (963, "pizza", "food"), (970, "mountain", "landscape"), (985, "daisy", "flower"), (999, "toilet paper", "")):
        assert (names[index], kinds[index], kind_of(name)) == (name, kind, kind)


def test_names_are_as_sure_as_they_are():
    told = lambda *things, groups=(): content(seen(things=things, groups=groups))
    assert told(("pizza", 0.8), ("cup", 0.1)).startswith("The picture shows a pizza. ")
    assert told(("desk", 0.6), ("umbrella", 0.25)).startswith("The picture shows a desk, perhaps with an umbrella.")
    assert told(("desk", 0.3)).startswith("The picture perhaps shows a desk.")
    assert told(("pug dog", 0.15), groups=(("dog", 0.7),)).startswith("The picture shows some dog, most like a pug dog.")
    assert told(("cup", 0.15), ("pug dog", 0.14), groups=(("dog", 0.5),)).startswith("The picture perhaps shows some dog, most like a pug dog.")
    assert told(("desk", 0.1)).startswith("Nothing is recognised for sure") and told(("desk", 0.01)).startswith("Nothing is recognised; there is a faint likeness")


def test_faces_are_counted_placed_and_read():
    assert "Nobody's face is seen" in content(seen())
    assert "One face is seen, large and on the left" in content(seen(faces=[face(happy=0.9)]))
    assert "Three faces are seen" in content(seen(faces=[face(happy=0.9)] * 3)) and "Several faces" in content(seen(faces=[face(sad=0.9)] * 4))
    assert faces_told([face(happy=0.9)]) == "a clearly happy face" and faces_told([face(angry=0.5)]) == "an angry face" and faces_told([face(sad=0.5)] * 2) == "sad faces"
    assert "hard to read" in faces_told([face(happy=0.2)])


def test_the_feeling_follows_face_light_and_things():
    bright, dark = measure_light(plain((255, 200, 60))), measure_light(plain((20, 20, 25)))
    assert any(word in emotion(seen(bright, faces=[face(happy=0.95)])) for word in ("joy", "happiness", "contentment"))
    assert any(word in emotion(seen(dark, faces=[face(sad=0.95)])) for word in ("sadness", "distress", "alarm"))
    assert any(word in emotion(seen(dark)) for word in ("gloomy", "unease", "tension")) and "No face tells a feeling" in emotion(seen(dark))
    assert "the food" in emotion(seen(bright, groups=(("food", 0.9),))) and "against the weapon" in emotion(seen(bright, groups=(("weapon", 0.4),)))
    assert emotion(seen(bright, faces=[face(happy=0.95)])) != emotion(seen(bright, faces=[face(angry=0.95)]))


def test_the_examples_are_described_truly(network):
    told = {name: write_captions(look(read_picture(ROOT / "examples" / f"{name}.jpg").rgb, network)) for name in ("cat", "rain", "coffee", "team", "coins")}
    assert "cat" in told["cat"][1] and "very dark" in told["rain"][0] and "an umbrella" in told["rain"][1] and "espresso" in told["coffee"][1]
    assert "One face" in told["team"][1] and "happy face" in told["team"][2] and "colourless" in told["coins"][0]
    assert len(set(told.values())) == 5 and len({texts[0] for texts in told.values()}) == 5


def test_a_small_change_of_the_picture_never_breaks_them_and_the_same_picture_says_the_same(network):
    rgb = read_picture(ROOT / "examples" / "team.jpg").rgb
    assert write_captions(look(rgb, network)) == write_captions(look(rgb.copy(), network))
    assert write_captions(look(255 - rgb, network))[0] != write_captions(look(rgb, network))[0]


# ---- asked for and typed --------------------------------------------------------------------------------------------------


@pytest.fixture
def key(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


def chat(server) -> Chat:
    return Chat(ChatSettings(base_url=server.url, backoff_s=0.02, retries=0))


@pytest.mark.parametrize("answer", [GOOD, GOOD.upper().replace("TONE", "Tone"), "```\n" + GOOD + "\n```", "**Tone:** Dark and cold.\n\n- Content: a street\n1. Emotion: lonely"])
def test_answers_in_the_form_are_read(answer):
    found = parse_captions(answer)
    assert set(found) == set(STAGES) and found["tone"].lower().startswith("dark and cold") and "*" not in "".join(found.values())


@pytest.mark.parametrize("answer", ["", "A nice picture.", "Tone: a\nContent: b", GOOD + "\nTone: again", GOOD.replace("A street in the rain.", " "), GOOD + "\nSure, anything else?"])
def test_answers_in_another_form_are_refused(answer):
    with pytest.raises(GuidanceError, match="language model's answer"):
        parse_captions(answer)


def test_a_language_model_is_asked_once_about_the_picture_alone(key, tmp_path):
    rgb = plain((10, 200, 30))
    with serving(completion(GOOD)) as server:
        first = stage_captions("openai", rgb, seen(), chat(server), tmp_path)
        again = stage_captions("openai", rgb, seen(), chat(server), tmp_path)
        other = stage_captions("openai", plain((9, 200, 30)), seen(), chat(server), tmp_path)
    assert first == again == other == Captions("Dark and cold.", "A street in the rain.", "It feels lonely.", "openai") and len(server.requests) == 2
    asked = json.dumps(server.requests[0]["messages"])
    assert asked.count("image_url") == 2 and "positive, neutral, negative" in asked          # only as what not to name


@pytest.mark.parametrize("reply", ["no form at all", None])
def test_without_a_usable_answer_offline_captions_stand_in_and_say_so(key, reply):
    with serving(completion(reply)) as server:
        made = stage_captions("openai", plain((1, 2, 3)), seen(), chat(server))
    assert made.source == "offline" and "language model" in made.note and made.texts() == write_captions(seen())
    assert "OPENAI_API_KEY" in stage_captions("openai", plain((1, 2, 3)), seen(), None).note
    with pytest.raises(InputError, match="no captions called 'magic'"):
        stage_captions("magic", plain((1, 2, 3)), seen())


def test_typed_captions_are_only_read():
    written = Captions("a", "b", "c", "offline")
    typed = typed_captions({"tone": " Düster.\0 ", "content": "", "emotion": "忧伤" * 300}, written)
    assert (typed.tone, typed.content, typed.source) == ("Düster.", "b", "typed") and len(typed.emotion) == MAX_CAPTION
    assert "Content was left empty" in typed.note and "emotion caption is long" in typed.note
    assert typed_captions({}, written) is written and typed_captions({"tone": "a"}, written).source == "typed"
    assert typed_captions({"tone": "a", "content": "b", "emotion": "c"}, written) is written
    for wrong in ({"mood": "x"}, {"tone": 3}):
        with pytest.raises(InputError):
            typed_captions(wrong, written)


# ---- the job --------------------------------------------------------------------------------------------------------------


def posts_folder(folder: Path, labels: list[str], broken: bool = True) -> Path:
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with open(folder / "posts.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "label", "text"])
        for i, label in enumerate(labels):
            writer.writerow([i, "valid" if i == 0 else "train", label, f"text {i}"])
            cv2.imwrite(str(folder / "images" / f"{i}.jpg"), np.full((40, 50, 3), rng.integers(0, 256, 3), np.uint8))
    if broken:
        (folder / "images" / f"{len(labels) - 1}.jpg").write_bytes(b"<html>not found</html>")
    return folder


def captions_job(folder: Path, out: Path, cache: Path, *more: str) -> bytes:
    assert train(["captions", "--data", str(folder), "--source", "offline", "--out", str(out), "--cache", str(cache), "--workers", "2",
                  "--face", str(ROOT / "checkpoints" / "face.safetensors"), *more]) == 0
    return out.read_bytes()


def test_captions_do_not_depend_on_labels_or_texts(tmp_path):
    labels = ["positive", "negative", "neutral", "positive", "negative", "positive"]
    one = captions_job(posts_folder(tmp_path / "a", labels), tmp_path / "a.jsonl", tmp_path / "cache a")
    turned = [{"positive": "negative", "negative": "neutral", "neutral": "positive"}[label] for label in labels]
    other = captions_job(posts_folder(tmp_path / "b", turned), tmp_path / "b.jsonl", tmp_path / "cache b")
    assert one == other and len(one.splitlines()) == 5


def test_a_bad_file_never_stops_the_job_and_a_second_run_writes_the_same(tmp_path, capsys):
    folder = posts_folder(tmp_path / "posts", ["positive"] * 5)
    first = captions_job(folder, tmp_path / "out.jsonl.gz", tmp_path / "cache")
    said = capsys.readouterr().out
    assert "1 left out" in said and "web page" in said and "captions of 4 posts" in said
    made = sorted((tmp_path / "cache").rglob("*.json"))
    stamps = [path.stat().st_mtime_ns for path in made]
    made[0].unlink()                                    # as if killed before this one was written
    assert captions_job(folder, tmp_path / "out.jsonl.gz", tmp_path / "cache") == first
    assert [path.stat().st_mtime_ns for path in made[1:]] == stamps[1:] and made[0].exists()
    rows = [json.loads(line) for line in gzip.decompress(first).splitlines()]
    assert [row["id"] for row in rows] == ["1", "2", "3", "0"] and {row["source"] for row in rows} == {"offline"}
    assert read_captions(tmp_path / "out.jsonl.gz")["2"] == tuple(rows[1][stage] for stage in STAGES)


def test_the_shipped_captions_differ_and_are_short():
    captions = read_captions(ROOT / "checkpoints" / "captions.jsonl.gz")
    assert len(captions) == 4061 and len(set(captions.values())) > 0.95 * len(captions)
    assert max(len(text.split()) for texts in captions.values() for text in texts) <= 30
    # What a label would look like in them; the words for moods are the writer's own.
    assert not any(word in " ".join(texts).lower() for texts in captions.values() for word in ("positive", "negative"))


def test_openai_needs_a_key(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert train(["captions", "--data", str(posts_folder(tmp_path / "p", ["positive"] * 2)), "--source", "openai"]) == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err


def test_light_is_what_it_says_of_itself():
    light = replace(measure_light(plain((128, 128, 128))), value=0.5, saturation=0.25)
    assert light.pleasure == pytest.approx(0.69 * 0.5 + 0.22 * 0.25) and light.arousal == pytest.approx(-0.31 * 0.5 + 0.60 * 0.25)
