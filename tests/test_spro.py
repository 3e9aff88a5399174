"""SPRO's equations against slow, literal versions; its losses, prediction, relevance and checkpoints."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from msademo.backbones.prompted import Record, Tokens, encode, spread
from msademo.checkpoint import save_checkpoint
from msademo.errors import InputError
from msademo.models.spro import CLASSES, SPRO, PostBatch, SPROConfig, stage_factors, stage_texts
from msademo.registry import build_spro, load_spro
from msademo.relevance import class_direction, combine, hide_top, image_relevance, text_relevance
from tests.towers import WIDTH, TinyImage, TinyText

SMALL = dict(prompts=4, prompt_depth=3, joint=8)


@pytest.fixture
def spro() -> SPRO:
    torch.manual_seed(0)
    return SPRO(SPROConfig(**SMALL), TinyText(), TinyImage()).eval()


def literal_layer(layer, x, hidden):
    """One pre-norm block on one sequence (T, d), head by head; hidden (T,) bool."""
    heads, d = layer.self_attn.num_heads, x.shape[1]
    normed = F.layer_norm(x, (d,), layer.norm1.weight, layer.norm1.bias)
    projected = normed @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias
    q, k, v = projected[:, :d], projected[:, d:2 * d], projected[:, 2 * d:]
    mixed = []
    for h in range(heads):
        part = slice(h * d // heads, (h + 1) * d // heads)
        scores = q[:, part] @ k[:, part].T / math.sqrt(d / heads)
        scores[:, hidden] = -math.inf
        mixed.append(torch.softmax(scores, -1) @ v[:, part])
    x = x + layer.self_attn.out_proj(torch.cat(mixed, 1))
    return x + layer.linear2(F.gelu(layer.linear1(layer.norm2(x))))


@pytest.mark.parametrize("place", [1, None])
@pytest.mark.parametrize("deep", [1, 2, 3])
def test_prompts_enter_once_and_deep_ones_replace_those_before(place, deep):
    torch.manual_seed(1)
    tower = TinyText().eval()
    tower.place = place
    values, b = torch.randn(2, 5, WIDTH), 3
    hidden = torch.tensor([[False] * 5, [False, False, False, True, True]])
    prompts = [torch.randn(b, WIDTH) for _ in range(deep)]
    got = encode(tower, Tokens(values, hidden, spread(~hidden)), prompts)
    for row in range(2):
        at = 5 if place is None else place
        x = torch.cat([values[row, :at], prompts[0], values[row, at:]])                      # [x; theta], (2) and (4)
        gone = torch.cat([hidden[row, :at], torch.zeros(b, dtype=torch.bool), hidden[row, at:]])
        for index, layer in enumerate(tower.layers):
            if 0 < index < deep:
                x = torch.cat([x[:at], prompts[index], x[at + b:]])                          # (6)
            x = literal_layer(layer, x, gone)
        x = torch.cat([x[:at], x[at + b:]])
        assert torch.allclose(got[row], x[~hidden[row]].mean(0), atol=1e-5)


def test_what_is_hidden_or_gone_changes_nothing(spro):
    patches, missing = torch.randn(1, 6, 5), torch.tensor([[False, True, False, False, True, False]])
    other = torch.where(missing[..., None], torch.randn(1, 6, 5), patches)
    assert torch.equal(spro.encode_image(patches, missing), spro.encode_image(other, missing))
    good, bad = spro.text.tokenize(["a", "good", "day"]), spro.text.tokenize(["a", "bad", "day"])
    gone = good.missing(np.array([False, True, False]))
    assert torch.equal(spro.encode_text([good], [gone]), spro.encode_text([bad], [gone]))
    assert not torch.allclose(spro.encode_text([good]), spro.encode_text([bad]))


def test_a_batch_is_its_posts_one_by_one(spro):
    texts = [spro.text.tokenize(words) for words in (["one"], ["a", "longer", "text", "here"], ["two", "words"])]
    alone = torch.cat([spro.encode_text([text]) for text in texts])
    assert torch.allclose(spro.encode_text(texts), alone, atol=1e-6)


def test_prompts_are_shared_by_text_templates_and_through_f_by_images(spro):
    """Moving theta moves all three; without text prompts it still reaches the image, without visual ones it does not."""
    text, patches = spro.text.tokenize(["some", "words"]), torch.randn(1, 6, 5)

    def outputs(model):
        with torch.enable_grad():
            return model.encode_text([text]), model.prototypes(), model.encode_image(patches)

    for side, moved in (({}, (True, True, True)), ({"text_prompts": False}, (False, False, True)), ({"visual_prompts": False}, (True, True, False))):
        torch.manual_seed(0)
        model = SPRO(SPROConfig(**SMALL, **side), TinyText(), TinyImage()).eval()
        before = outputs(model)
        with torch.no_grad():
            model.shared_prompt += torch.randn_like(model.shared_prompt)
        assert tuple(not torch.allclose(a, b, atol=1e-6) for a, b in zip(before, outputs(model))) == moved
    assert torch.allclose(spro.image_prompts()[0], spro.shared_prompt @ spro.coupling.weight.T + spro.coupling.bias)      # (3)


@pytest.mark.parametrize("epoch, expected", [(0, (0.5 / 3, 0, 0)), (1, (1 / 3, 0, 0)), (2, (0.5, 2 / 3, 0)), (5, (0.5, 2, 0.5)), (99, (0.5, 2, 3))])
def test_ramp(epoch, expected):
    config = SPROConfig(stage_weights=(0.5, 2.0, 3.0), stage_starts=(0, 2, 5), ramp=3)
    found = stage_factors(config, epoch)
    literal = tuple(w * min(1, max(0, (epoch - s + 1) / 3)) for w, s in zip((0.5, 2.0, 3.0), (0, 2, 5)))                  # (8)
    assert found == pytest.approx(literal)
    if epoch in (0, 1, 99):
        assert found == pytest.approx(expected)


def test_single_stage_has_all_captions_from_the_start_and_none_has_none():
    captions = ("dark", "a dog", "sad")
    assert stage_texts(SPROConfig(captions="single"), captions) == ("dark a dog sad",)
    assert stage_factors(SPROConfig(captions="single", ramp=2), 0) == pytest.approx((1.5,))
    assert stage_texts(SPROConfig(captions="none"), captions) == stage_factors(SPROConfig(captions="none"), 3) == ()


def post_batch(spro, epoch=9):
    torch.manual_seed(3)
    texts = [spro.text.tokenize(words) for words in (["so", "good"], ["bad"], ["it", "is", "there"], ["bad", "dog"])]
    captions = [(torch.randn(3, WIDTH), torch.tensor([0, 1, 2, 1])), (torch.randn(4, WIDTH), torch.arange(4)), (torch.randn(1, WIDTH), torch.zeros(4, dtype=torch.long))]
    return PostBatch(spro.text.tokens(*spro.text.stem(texts)), torch.randn(4, 6, 5), torch.zeros(4, 6, dtype=torch.bool), torch.tensor([2, 0, 1, 0]), captions, epoch)


def test_losses_against_their_equations():
    torch.manual_seed(0)
    config = SPROConfig(**SMALL, label_smoothing=0.0, lambda_av=0.7, lambda_at=1.3, lambda_cap=0.25, lambda_fusion=0.5, image_weight=0.4, stage_weights=(1.0, 2.0, 3.0))
    spro = SPRO(config, TinyText(), TinyImage()).eval()
    batch = post_batch(spro, epoch=2)
    parts = spro.loss(batch)
    anchors = spro.encode_text(spro.templates)                                               # (1)
    image, text = spro.encode_image(batch.patches, batch.missing), spro.forward_text(batch.text)
    tau, total, av, at, fused, cap = config.temperature, 0.0, [], [], [], [0.0, 0.0, 0.0]
    for i in range(4):
        sim = lambda a, b: float((a @ b / (a.norm() * b.norm())).detach())
        v, t = [sim(image[i], a) / tau for a in anchors], [sim(text[i], a) / tau for a in anchors]
        minus_log = lambda scores, true: -math.log(math.exp(scores[true]) / sum(map(math.exp, scores)))
        true = int(batch.label[i])
        av.append(minus_log(v, true)), at.append(minus_log(t, true))                         # (11), (12)
        fused.append(minus_log([0.4 * a + 0.6 * b for a, b in zip(v, t)], true))
        for k, (captions, own) in enumerate(batch.captions):
            joined = [spro.text_projection(caption) for caption in captions]
            cap[k] += minus_log([sim(image[i], c) / tau for c in joined], int(own[i])) / 4   # (9)
    weighted = sum(beta * loss for beta, loss in zip(stage_factors(config, 2), cap))         # (10)
    mean = lambda values: sum(values) / len(values)
    total = 0.7 * mean(av) + 1.3 * mean(at) + 0.5 * mean(fused) + 0.25 * weighted            # (13)
    assert parts["captions"].item() == pytest.approx(weighted, rel=1e-4)
    assert parts["total"].item() == pytest.approx(total, rel=1e-4)
    assert cap[2] == 0.0, "a caption that all share tells no picture from another"


def test_a_stage_that_has_not_begun_costs_nothing(spro):
    early = spro.loss(post_batch(spro, epoch=0))
    batch = post_batch(spro, epoch=0)
    noise = [batch.captions[0], None, None]
    assert float(early["captions"]) == pytest.approx(float(spro.loss(PostBatch(batch.text, batch.patches, batch.missing, batch.label, noise, 0))["captions"]))


def test_prediction_is_softmax_over_prototypes_and_falls_back(spro):
    image, text = spro.encode_image(torch.randn(2, 6, 5)), spro.encode_text([spro.text.tokenize(["hi"]), spro.text.tokenize(["oh", "no"])])
    both, config = spro.predict(image, text), spro.config
    logits = [z @ spro.prototypes().T / config.temperature for z in (image, text)]
    assert torch.allclose(both.image, logits[0].softmax(-1)) and torch.allclose(both.text, logits[1].softmax(-1))
    assert torch.allclose(both.fusion, (config.image_weight * logits[0] + (1 - config.image_weight) * logits[1]).softmax(-1))
    alone = spro.predict(None, text)
    assert alone.image is None and torch.allclose(alone.fusion, both.text)
    assert torch.allclose(spro.predict(image, None).fusion, both.image)
    with pytest.raises(InputError, match="Nothing of the post"):
        spro.predict(None, None)


def test_prototypes_are_remembered_only_while_weights_stand_still(spro):
    with torch.no_grad():
        first = spro.prototypes()
        assert spro.prototypes() is first
        spro.train()
        spro.shared_prompt += 1
        spro.eval()
        assert not torch.allclose(spro.prototypes(), first)


def test_overfits_a_tiny_set():
    torch.manual_seed(0)
    spro = SPRO(SPROConfig(**SMALL, label_smoothing=0.0), TinyText(), TinyImage())
    words = [["bad", "day"], ["some", "day"], ["good", "day"]] * 2
    patches, labels = torch.randn(6, 6, 5), torch.tensor([0, 1, 2] * 2)
    texts, missing = [spro.text.tokenize(text) for text in words], torch.zeros(6, 6, dtype=torch.bool)
    optimizer = torch.optim.Adam(spro.parameters(), lr=1e-2)
    for step in range(60):
        captions = [(spro.pool_captions([f"tone {c}" for c in "abc"]), labels)] * 3
        loss = spro.loss(PostBatch(spro.text.tokens(*spro.text.stem(texts)), patches, missing, labels, captions, epoch=9))
        optimizer.zero_grad(), loss["total"].backward(), optimizer.step()
    spro.eval()
    out = spro.predict(spro.encode_image(patches), spro.encode_text(texts))
    for probabilities in (out.image, out.text, out.fusion):
        assert torch.equal(probabilities.argmax(-1), labels)
    assert float(loss["captions"]) < 0.2 and (spro.encode_image(patches) @ spro.encode_captions([f"tone {c}" for c in "abc"]).T).argmax(-1).equal(labels)


def literal_relevance(attention, gradients, pool, pool_gradient, place, count, renewed):
    """Chefer et al.'s rule for one sequence, by loops over heads and blocks."""
    tokens, size = len(pool), attention[0].shape[-1]
    kept = [i for i in range(size) if not place <= i < place + count]
    relevance = np.zeros((size, tokens))
    for column, row in enumerate(kept):
        relevance[row, column] = 1
    for a, g, new in zip(attention, gradients, renewed):
        if new:
            relevance[place:place + count] = 0
        relevance = relevance + np.mean([np.maximum(a[h] * g[h], 0) for h in range(len(a))], axis=0) @ relevance
    return np.maximum(pool * pool_gradient, 0) @ relevance[kept]


def test_relevance_against_the_rule(spro):
    patches, missing = torch.randn(1, 6, 5), torch.tensor([[False, False, True, False, False, False]])
    directions = torch.randn(2, 8)
    found = image_relevance(spro, patches, missing, directions)
    assert found.shape == (2, 6) and (found >= 0).all() and (found[:, 2] == 0).all() and found.max() > 0
    for k in range(2):
        record = Record()
        tokens = spro.image.tokens(patches, missing)
        with torch.enable_grad():
            target = (spro.forward_image(Tokens(tokens.values.detach().requires_grad_(), tokens.hidden, tokens.pool), record)[0] * directions[k]).sum()
            gradients = torch.autograd.grad(target, [*record.attention, record.pool])
        arrays = [[part[0].detach().numpy() for part in parts] for parts in (record.attention, gradients[:-1])]
        expected = literal_relevance(*arrays, record.pool[0].detach().numpy(), gradients[-1][0].numpy(), record.place, record.prompts, record.renewed)
        assert found[k].numpy() == pytest.approx(np.where(missing[0], 0, expected), abs=1e-6)


def test_relevance_finds_the_patch_and_the_word_that_matter():
    """Trained on posts whose class one patch and one word tell, relevance points at these."""
    torch.manual_seed(0)
    spro = SPRO(SPROConfig(**SMALL, captions="none"), TinyText(), TinyImage())
    optimizer, rng = torch.optim.Adam(spro.parameters(), lr=3e-3), np.random.default_rng(0)
    marks, fillers = {0: "awful", 1: "plain", 2: "great"}, ["the", "sea", "tree", "and", "sun"]

    def draw(count):
        labels, patches, texts, places = torch.from_numpy(rng.integers(0, 3, count)), 0.3 * torch.randn(count, 6, 5), [], rng.integers(0, 6, count)
        for i, label in enumerate(labels.tolist()):
            patches[i, places[i], label] += 4
            texts.append([*rng.choice(fillers, 4), marks[label]])
        return labels, patches, texts, places

    for _ in range(150):
        labels, patches, texts, _ = draw(32)
        stems = spro.text.tokens(*spro.text.stem([spro.text.tokenize(text) for text in texts]))
        loss = spro.loss(PostBatch(stems, patches, torch.zeros(32, 6, dtype=torch.bool), labels))["total"]
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    spro.eval().requires_grad_(False)
    labels, patches, texts, places = draw(30)
    hits = [0, 0]
    for i, label in enumerate(labels.tolist()):
        direction, tokens = class_direction(spro, label), spro.text.tokenize(texts[i])
        found = image_relevance(spro, patches[i:i + 1], torch.zeros(1, 6, dtype=torch.bool), direction[None])[0]
        hits[0] += int(found.argmax()) == places[i]
        hits[1] += int(text_relevance(spro, tokens, np.zeros(len(tokens), bool), direction).argmax()) == 4
    assert min(hits) >= 22, f"{hits} of 30 found; by chance 5 and 6"


def test_words_of_no_token_left_have_no_relevance(spro):
    tokens = spro.text.tokenize(["one", "two", "three"])
    gone = tokens.missing(np.array([False, True, False]))
    with torch.inference_mode():
        words = text_relevance(spro, tokens, gone, class_direction(spro, 2))
    assert words.shape == (3,) and words[1] == 0 and words.max() > 0


def test_combined_maps_count_alike_and_the_top_is_hidden():
    maps = torch.tensor([[1.0, 3.0, 0.0, 0.0], [100.0, 0.0, 0.0, 300.0], [0.0, 0.0, 0.0, 0.0]])
    assert combine(maps).tolist() == pytest.approx([0.25, 0.375, 0.0, 0.375])
    assert combine(torch.zeros(2, 4)).tolist() == [0, 0, 0, 0]
    missing = torch.tensor([False, True, False, False, False])
    relevance = torch.tensor([0.1, 9.0, 0.5, 0.4, 0.3])
    assert hide_top(relevance, 0.5, missing).tolist() == [False, True, True, True, False]
    assert hide_top(relevance, 0.01, missing).tolist() == [False, True, True, False, False]
    assert hide_top(relevance, 1.0, missing).all()


@pytest.mark.parametrize("wrong", [dict(prompts=0), dict(temperature=0.0), dict(stage_starts=(0, 0, 2)), dict(stage_starts=(2, 1, 0)), dict(captions="two"),
                                   dict(image_weight=1.5), dict(ramp=0), dict(stage_weights=(1, 1)), dict(lambda_cap=-1)])
def test_configs_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError):
        SPROConfig(**wrong)


@pytest.mark.parametrize("backbone", ["clip", "open_clip:no-such-model:x"])
def test_unknown_backbones_are_refused(backbone):
    with pytest.raises(InputError, match="no (backbone|model)"):
        build_spro(SPROConfig(backbone=backbone, joint=0))


@pytest.fixture(scope="module")
def bundled():
    torch.manual_seed(0)
    return build_spro(SPROConfig(prompts=2, text_blocks=1, tuned_layers=1, image_depth=1, image_width=32)).eval()


def save(path, model, **changed):
    meta = {"classes": list(CLASSES), "data": "none: untrained", **changed}
    save_checkpoint(path, "spro", asdict(model.config), model.state_dict(), **meta)
    return path


def test_checkpoint_round_trip(bundled, tmp_path):
    path = save(tmp_path / "spro.safetensors", bundled)
    again = load_spro(path)
    assert path.stat().st_size < 12e6, "frozen backbones are not copied in"
    assert not again.training and not any(p.requires_grad for p in again.parameters()) and again.meta["data"] == "none: untrained"
    rgb = np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    text = bundled.text.tokenize(["such", "a", "good", "day"])
    with torch.no_grad():
        grids = [model.image.patches(model.image.prepare(rgb)[None]) for model in (bundled, again)]
        assert torch.equal(bundled.encode_image(grids[0]), again.encode_image(grids[1]))
        assert torch.equal(bundled.encode_text([text]), again.encode_text([text]))


def test_checkpoints_that_do_not_fit_are_refused(bundled, tmp_path):
    with pytest.raises(InputError, match="classes"):
        load_spro(save(tmp_path / "order.safetensors", bundled, classes=["positive", "neutral", "negative"]))
    config, weights, good = asdict(bundled.config), bundled.state_dict(), {"classes": list(CLASSES)}
    save_checkpoint(tmp_path / "config.safetensors", "spro", {**config, "colour": "red"}, weights, **good)
    with pytest.raises(InputError, match="config"):
        load_spro(tmp_path / "config.safetensors")
    save_checkpoint(tmp_path / "shape.safetensors", "spro", {**config, "prompts": 3}, weights, **good)
    with pytest.raises(InputError, match="shape"):
        load_spro(tmp_path / "shape.safetensors")
    with pytest.raises(InputError, match="needs .*text.safetensors"):
        load_spro(save(tmp_path / "alone.safetensors", bundled, start={"text_sha256": "0" * 64}))
    (tmp_path / "text.safetensors").write_bytes(b"another encoder")
    with pytest.raises(InputError, match="trained with another text.safetensors"):
        load_spro(save(tmp_path / "other.safetensors", bundled, start={"text_sha256": "0" * 64}))
    save_checkpoint(tmp_path / "kind.safetensors", "pglh", config, weights, **good)
    with pytest.raises(InputError, match="pglh model where a spro model"):
        load_spro(tmp_path / "kind.safetensors")
