"""A post opened once and asked under many masks: what is hidden is gone, what is left decides, and the numbers beside are what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.post_support import COFFEE, SHARES, TEAM, WORDS, scene

from msademo.__main__ import main
from msademo.analyzer import Analyzer
from msademo.corruption import missing
from msademo.errors import InputError
from msademo.guidance.posts import Captions
from msademo.post_analyzer import PostAnalyzer
from msademo.post_overlays import face_cover, overlay
from msademo.relevance import class_direction, combine, image_relevance


@pytest.fixture(scope="module")
def posts(post_checkpoints) -> PostAnalyzer:
    torch.set_num_threads(1)
    return PostAnalyzer(post_checkpoints)


@pytest.fixture(scope="module")
def opened(posts):
    return posts.open(TEAM, WORDS)


def probabilities(result, name="fusion") -> np.ndarray:
    return result.paths[name].now


def test_the_complete_post_is_what_ratio_zero_says(posts, opened):
    result = posts.analyze(opened)
    for name, path in result.paths.items():
        assert np.allclose(path.now, path.complete, atol=1e-5) and path.now.sum() == pytest.approx(1, abs=1e-5), name
    assert abs(result.change) < 1e-5 and result.label == result.classes[int(probabilities(result).argmax())]
    assert not result.word_missing.any() and not result.patch_missing.any() and result.grid == (7, 7) and result.notes == ()


def test_the_fusion_is_the_weighted_mean_of_logits(posts, opened):
    result = posts.analyze(opened, {"text": 0.3, "image": 0.5}, seed=4)
    image, text = (np.log(probabilities(result, name)) for name in ("image", "text"))
    fused = np.exp(result.image_weight * image + (1 - result.image_weight) * text)         # a softmax forgets what its logits have in common
    assert np.allclose(fused / fused.sum(), probabilities(result), atol=1e-4) and result.image_weight == pytest.approx(0.4)


def test_masks_are_the_shared_ones_and_nested(posts, opened):
    before = None
    for ratio in (0.1, 0.4, 0.8):
        result = posts.analyze(opened, ratio, seed=3, overlays=False)
        assert np.array_equal(result.word_missing, missing(len(opened.post.words), ratio, "text", 3))
        assert np.array_equal(result.patch_missing, missing(49, ratio, "vision", 3))
        if before is not None:
            assert (before.word_missing <= result.word_missing).all() and (before.patch_missing <= result.patch_missing).all()
        before = result
    assert not np.array_equal(posts.analyze(opened, 0.4, seed=9, overlays=False).patch_missing, posts.analyze(opened, 0.4, seed=3, overlays=False).patch_missing)


def test_what_is_hidden_cannot_be_seen(posts):
    """Other pixels under the hidden patches and other words at the hidden places change nothing at all."""
    # Tokens keep their places, so a hidden word's number of pieces stays known, but not what it was: words of one piece, then.
    tokens = posts.warm().spro.text.tokenize
    words = [word for word in "good bad love hate happy sad day night house water red blue man woman new old".split() if len(tokens([word])) == 3]
    picture, seed = scene(), 5
    hidden, gone = missing(49, 0.5, "vision", seed).reshape(7, 7), missing(len(words), 0.5, "text", seed)
    other = picture.copy()
    height = picture.shape[0] // 7
    for row, column in np.argwhere(hidden):
        # Only the inside: where the picture is squashed to a square, a border pixel belongs to two patches.
        other[row * height + 4:(row + 1) * height - 4, int(column * picture.shape[1] / 7) + 4:int((column + 1) * picture.shape[1] / 7) - 4] = 7
    changed = [words[-1 - i] if take else word for i, (word, take) in enumerate(zip(words, gone))]
    assert (other != picture).any() and changed != words
    results = [posts.analyze(posts.open(p, " ".join(w)), 0.5, seed) for p, w in ((picture, words), (other, changed))]
    assert np.allclose(probabilities(results[0]), probabilities(results[1]), atol=1e-5)
    assert np.allclose(results[0].word_relevance, results[1].word_relevance, atol=1e-4)
    unmasked = [posts.analyze(posts.open(p, " ".join(w))) for p, w in ((picture, words), (other, changed))]
    assert not np.allclose(probabilities(unmasked[0]), probabilities(unmasked[1]), atol=1e-3)


def test_each_half_moves_its_own_path(posts, opened):
    complete, words, picture = (posts.analyze(opened, m, seed=1, overlays=False) for m in ({}, {"text": 0.6}, {"image": 0.6}))
    assert np.allclose(probabilities(words, "image"), probabilities(complete, "image")) and not np.allclose(probabilities(words, "text"), probabilities(complete, "text"), atol=1e-3)
    assert np.allclose(probabilities(picture, "text"), probabilities(complete, "text")) and not np.allclose(probabilities(picture, "image"), probabilities(complete, "image"), atol=1e-4)


@pytest.mark.parametrize("half,other", [("text", "image"), ("image", "text")])
def test_a_half_taken_away_or_absent_leaves_the_other_alone(posts, opened, half, other):
    result = posts.analyze(opened, {half: 1.0})
    assert result.paths[half].now is None and result.paths[half].complete is not None and np.allclose(probabilities(result), probabilities(result, other))
    assert any("is left" in note for note in result.notes)
    absent = posts.post(TEAM if other == "image" else None, WORDS if other == "text" else "")
    assert absent.paths[half].complete is None and np.allclose(probabilities(absent), probabilities(absent, other)) and any("alone" in note for note in absent.notes)
    assert np.allclose(probabilities(absent), probabilities(result), atol=1e-5)
    assert json.loads(json.dumps(absent.to_dict()))["paths"][half]["label"] is None


def test_with_nothing_left_there_is_one_sentence(posts, opened):
    with pytest.raises(InputError, match="Nothing of the post is left"):
        posts.analyze(opened, 1.0)
    with pytest.raises(InputError, match="Nothing of the post is left"):
        posts.analyze(posts.open(None, "only words"), {"text": 1.0})


def test_the_same_seed_says_the_same_and_opening_once_is_enough(posts, opened):
    asked = [posts.analyze(opened, {"text": 0.4, "image": 0.3}, seed=2).to_dict() for _ in range(2)]
    assert asked[0] == asked[1] == posts.post(TEAM, WORDS, {"text": 0.4, "image": 0.3}, seed=2).to_dict()


# ---- overlays -------------------------------------------------------------------------------------------------------------


def test_overlays_are_the_relevance_of_each_caption(posts, opened):
    spro, result = posts.warm().spro, posts.analyze(opened, {"image": 0.3}, seed=1)
    hidden = torch.from_numpy(result.patch_missing)[None]
    patches = spro.image.patches(opened.pixels[None], hidden)
    directions = torch.cat([spro.encode_captions(list(opened.captions.texts())), class_direction(spro, result.classes.index(result.label))[None]])
    maps = image_relevance(spro, patches, hidden, directions)
    assert set(result.overlays) == {"tone", "content", "emotion", "final"}
    embedded = spro.encode_image(patches, hidden)[0]
    for k, stage in enumerate(("tone", "content", "emotion")):
        told = result.overlays[stage]
        assert np.allclose(told.relevance, maps[k] / maps[k].sum(), atol=1e-5) and told.relevance[result.patch_missing].max() == 0
        assert told.similarity == pytest.approx(float(embedded @ directions[k]), abs=1e-4)
    assert np.allclose(result.overlays["final"].relevance, combine(maps), atol=1e-5) and result.overlays["final"].similarity is None
    assert posts.analyze(opened, overlays=False).overlays is None and posts.analyze(opened, {"image": 1.0}).overlays == {}


def test_a_face_is_found_and_its_share_told(posts, opened):
    assert len(opened.seen.faces) == 1 and opened.seen.faces[0].looks == "happy"
    result = posts.analyze(opened)
    cover = face_cover(opened.post.picture.shape[:2], [opened.seen.faces[0].box], result.box, result.grid)
    final = result.overlays["final"]
    assert final.on_faces == pytest.approx(float(final.relevance @ cover), abs=1e-6) and 0 < final.face_area < 0.3
    assert all(o.on_faces is None and o.face_area is None for o in posts.post(COFFEE, "cold").overlays.values())


def test_face_cover_against_counting_pixels():
    size, box, grid = (61, 83), (3, 5, 80, 60), (7, 5)
    faces = [(10.0, 12.0, 40.0, 33.0), (35.0, 20.0, 70.0, 55.0), (-5.0, -4.0, 8.0, 9.0)]
    fine = 40           # points a pixel; a patch has the share of its points that lie under a face
    y, x = (np.arange(low * fine, high * fine) / fine + 0.5 / fine for low, high in ((box[1], box[3]), (box[0], box[2])))
    under = np.zeros((len(y), len(x)), bool)
    for x1, y1, x2, y2 in faces:
        under |= ((y >= max(y1, 0)) & (y < y2))[:, None] & ((x >= max(x1, 0)) & (x < x2))[None]
    rows, columns = (np.minimum((np.arange(len(v)) * n / len(v)).astype(int), n - 1) for v, n in ((y, grid[0]), (x, grid[1])))
    slow = [under[np.ix_(rows == r, columns == c)].mean() for r in range(grid[0]) for c in range(grid[1])]
    assert np.allclose(face_cover(size, faces, box, grid), slow, atol=0.02)
    assert face_cover(size, [(0, 0, 83, 61)], (0, 0, 83, 61), (7, 7)) == pytest.approx(np.ones(49))


def test_concentration_and_half():
    hidden = np.zeros(49, bool)
    even, one = overlay(np.full(49, 1 / 49), hidden, None, None), overlay(np.eye(49)[7], hidden, None, 0.5)
    assert (even.half, one.half) == (25, 1) and even.concentration == pytest.approx(0, abs=1e-9) and one.concentration == pytest.approx(1)
    hidden[10:] = True
    spread = np.where(hidden, 0, 0.1)
    assert overlay(spread, hidden, None, None).concentration == pytest.approx(0, abs=1e-9) and overlay(spread, hidden, None, None).half == 5
    nothing = overlay(np.zeros(49), hidden, np.ones(49), None)
    assert (nothing.concentration, nothing.half, nothing.on_faces, nothing.face_area) == (0.0, 0, 0.0, 1.0)


# ---- captions -------------------------------------------------------------------------------------------------------------


def test_captions_explain_and_do_not_decide(posts, opened):
    other = posts.with_captions(opened, {"tone": "A black square.", "content": "Many dogs run.", "emotion": "Rage."})
    before, after = posts.analyze(opened), posts.analyze(other)
    assert after.captions == Captions("A black square.", "Many dogs run.", "Rage.", "typed") and np.allclose(probabilities(before), probabilities(after))
    assert not np.allclose(before.overlays["content"].relevance, after.overlays["content"].relevance, atol=1e-4)
    assert posts.with_captions(other, "offline").captions == opened.captions and opened.captions.source == "offline"
    assert posts.post(TEAM, WORDS, captions={"tone": "Warm."}).captions.content == opened.captions.content
    assert posts.with_captions(posts.open(None, "words"), "offline").captions is None


def test_openai_without_a_key_falls_back_and_says_so(posts, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = posts.post(COFFEE, "cold", captions="openai")
    assert result.captions.source == "offline" and any("OPENAI_API_KEY" in note for note in result.notes)


def test_other_words_keep_picture_and_captions(posts, opened):
    typed = posts.with_captions(opened, {"tone": "Warm."})
    other = posts.with_text(typed, "It was awful")
    fresh = posts.open(TEAM, "It was awful")
    assert other.post.words == ("It", "was", "awful") and other.captions == typed.captions and other.patches is opened.patches
    assert torch.allclose(other.complete.fusion, fresh.complete.fusion, atol=1e-6) and posts.with_text(opened, "").complete.text is None


# ---- curve, refusals, command line ----------------------------------------------------------------------------------------


def test_the_curve_starts_complete_and_is_what_analyze_says(posts, opened):
    curve = posts.curve(opened, seed=2, masks=2)
    best = opened.complete.fusion[0].argmax()
    assert curve.label == posts.warm().spro.classes[best] and curve.share == SHARES[curve.label] and curve.paths["fusion"].shape == (2, 10)
    for name in ("fusion", "image", "text"):
        assert np.allclose(curve.paths[name][:, 0], float(getattr(opened.complete, name)[0, best]), atol=1e-4)
    for k, r in ((0, 4), (1, 7)):
        result = posts.analyze(opened, float(curve.rates[r]), seed=2 + 1000 * k, overlays=False)
        for name in ("fusion", "image", "text"):
            assert curve.paths[name][k, r] == pytest.approx(probabilities(result, name)[best], abs=1e-4)
    words = posts.curve(posts.open(None, "good"), masks=3)
    assert np.isnan(words.paths["image"]).all() and not np.isnan(words.paths["fusion"][:, 0]).any()
    json.dumps(curve.to_dict())


@pytest.mark.parametrize("wish", [{"missing": {"audio": 0.5}}, {"missing": 1.5}, {"missing": {"text": "much"}}, {"seed": -1}, {"seed": 1.5}, {"captions": "magic"}, {"captions": 7}])
def test_wrong_wishes_are_refused_before_anything_is_read(posts, wish):
    with pytest.raises(InputError) as error:
        posts.post("there is no such file.jpg", "words", **wish)
    assert "does not exist" not in str(error.value) and str(error.value).endswith(".")


def test_long_and_strange_texts_go_through(posts):
    for text in ("lovely day " * 910, "😍😍", "اليوم جميل جدا وأنا سعيد", "a" * 10_000, "今天天气很好"):
        result = posts.post(COFFEE, text, {"text": 0.2})
        assert result.notes and result.word_relevance.sum() == pytest.approx(1, abs=1e-3) or not result.word_relevance.any()
    for shape in ((1, 1), (1, 300)):
        assert posts.post(np.full((*shape, 3), 90, np.uint8), "grey").overlays["final"].relevance.shape == (49,)


def test_without_a_checkpoint_there_is_one_sentence(tmp_path, post_checkpoints):
    analyzer = Analyzer(tmp_path)
    assert not analyzer.posts.available
    with pytest.raises(InputError, match="spro.safetensors, which is not here"):
        analyzer.post(TEAM, WORDS)
    (tmp_path / "spro.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="spro.safetensors"):
        Analyzer(tmp_path).post(TEAM, WORDS)


def test_command_line(monkeypatch, capsys, posts):
    class Ready(Analyzer):
        def __init__(self):
            super().__init__(posts.folder)
            self.posts = posts

    monkeypatch.setattr("msademo.analyzer.Analyzer", Ready)
    assert main(["post", str(TEAM), "--text", WORDS, "--missing", "text=0.5", "image=0.3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(posts.post(TEAM, WORDS, {"text": 0.5, "image": 0.3}).to_dict()))
    assert main(["post", "--text", "good"]) == 0 and "picture alone: absent" in capsys.readouterr().out
    assert main(["post", str(TEAM)]) == 0 and "tone (offline)" in capsys.readouterr().out
    assert main(["post", "absent.jpg"]) == 2 and "does not exist" in capsys.readouterr().err
    assert replace(posts.post(None, "good"), seed=1).seed == 1
