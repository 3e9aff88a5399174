"""The towers against the models they come from - equal when there are no prompts - and the mended torchvision."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from msademo.backbones import torchvision_trap
from msademo.backbones.bundled import E5Tower, GridTower
from msademo.backbones.efficientnet import blank, load_efficientnet, weight_file
from msademo.backbones.prompted import Record, encode
from msademo.errors import InputError
from msademo.features.text import TextEncoder
from tests.conftest import ROOT

PICTURE = np.random.default_rng(0).integers(0, 255, (150, 200, 3)).astype(np.uint8)


def test_torchvision_is_imported_whatever_torch_it_was_built_for():
    code = "from msademo.backbones.torchvision_trap import mend, operator_exists; mend(); mend(); import torchvision; print(operator_exists('nms'))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout.strip() == "True", found.stderr[-500:]


def test_nothing_is_declared_where_the_real_operators_load(monkeypatch):
    declared = []
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torchvision_trap, "load_real_operators", lambda: True)
    monkeypatch.setattr(torchvision_trap, "_declared", declared)
    torchvision_trap.mend()
    assert declared == []


def test_only_absent_operators_are_declared(monkeypatch):
    declared = []
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torchvision_trap, "load_real_operators", lambda: False)
    monkeypatch.setattr(torchvision_trap, "_declared", declared)
    monkeypatch.setattr(torchvision_trap, "SCHEMAS", {"made_up": "made_up(Tensor dets) -> Tensor"})
    torchvision_trap.mend()
    assert torchvision_trap.operator_exists("made_up") and len(declared) == 1
    torchvision_trap.mend()
    assert len(declared) == 1


@pytest.fixture(scope="module")
def text_tower():
    return E5Tower(TextEncoder(), blocks=2, tuned=1).eval()


def test_text_tower_without_prompts_is_the_text_encoder(text_tower):
    encoder = TextEncoder().eval()
    texts = [text_tower.tokenize(words) for words in (["So", "happy", "today!"], ["no"], ["a", "longer", "post", "with", "more", "words"])]
    gone = [text.missing(np.arange(text.words) == 1) for text in texts]
    with torch.no_grad():
        pooled = encode(text_tower, text_tower.tokens(*text_tower.stem(texts, gone)))
        features = encoder(texts, gone)
    for row, (text, missing) in enumerate(zip(texts, gone)):
        assert torch.allclose(pooled[row], features[row, :len(text)][torch.from_numpy(~missing)].mean(0), atol=1e-5)


def test_recording_attention_changes_nothing(text_tower):
    tokens = text_tower.tokens(*text_tower.stem([text_tower.tokenize(["some", "words"]), text_tower.tokenize(["one"])]))
    prompts, record = [torch.randn(4, text_tower.width), torch.randn(4, text_tower.width)], Record()
    with torch.no_grad():
        assert torch.allclose(encode(text_tower, tokens, prompts), encode(text_tower, tokens, prompts, record), atol=1e-5)
    assert len(record.attention) == text_tower.depth and record.renewed == [False, True]
    assert torch.allclose(record.attention[0].sum(-1), torch.ones(()), atol=1e-5)
    assert (record.attention[1][1, ..., -1:] == 0).all(), "padding is not looked at"


def test_text_tower_owns_its_upper_layers_only(text_tower):
    assert {name.split(".")[0] for name in text_tower.state_dict()} == {"layers"}
    trained = {name for name, parameter in text_tower.named_parameters() if parameter.requires_grad}
    assert trained and all(name.startswith("layers.1.") for name in trained)
    text_tower.train()
    assert text_tower.layers[1].training and not text_tower.layers[0].training
    text_tower.eval()
    with pytest.raises(InputError, match="not possible"):
        E5Tower(TextEncoder(), blocks=13, tuned=0)


def test_efficientnet_is_the_packages_own():
    from efficientnet_lite_pytorch import EfficientNet
    reference = EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(torch.load(weight_file(), weights_only=True))
    net = load_efficientnet()
    pixels = torch.stack([net.prepare(PICTURE), net.prepare(PICTURE[:, ::-1].copy())])
    with torch.no_grad():
        expected = reference.eval()(pixels).softmax(-1)
    assert torch.allclose(net.imagenet(net.patches(pixels)), expected, atol=1e-5)


def test_other_weights_are_refused(monkeypatch):
    from msademo.backbones import efficientnet
    monkeypatch.setattr(efficientnet, "FILE_SHA256", "0" * 64)
    with pytest.raises(InputError, match="force-reinstall"):
        efficientnet.weight_file()
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed"):
        efficientnet.weight_file()


def test_what_lies_under_a_missing_patch_is_never_seen():
    tower = GridTower(width=16, depth=1, heads=2, feed_forward=16).eval()
    missing = torch.zeros(1, 49, dtype=torch.bool)
    missing[0, [0, 24, 48]] = True
    pixels = tower.prepare(PICTURE)[None]
    squares = blank(torch.ones_like(pixels), missing, tower.grid) == 0
    assert squares[0, 0, :32, :32].all() and squares[0, 0, 96:128, 96:128].all() and int(squares.sum()) == 3 * 3 * 32 * 32
    other = torch.where(squares, torch.rand_like(pixels), pixels)
    seen = [encode(tower, tower.tokens(tower.patches(p, missing), missing)) for p in (pixels, other)]
    assert torch.equal(*seen)
    assert not torch.allclose(tower.patches(pixels), tower.patches(pixels, missing)), "neighbours do see what lies there"


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (224, 224), (37, 500)])
def test_any_picture_fits_the_grid(shape):
    net = load_efficientnet()
    picture = np.full((*shape, 3), 255, np.uint8)
    assert net.prepare(picture).shape == (3, 224, 224) and float(net.prepare(picture).max()) == 1.0
    assert net.box(*shape) == (0, 0, shape[1], shape[0])


TINY = {"embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2}}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny, randomly initialised CLIP, through a local file; open_clip is imported once for all tests that need it."""
    torchvision_trap.mend()
    import open_clip
    from safetensors.torch import save_file

    from msademo.backbones.openclip import load_clip
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    made = open_clip.create_model("tiny-clip")
    save_file(made.state_dict(), folder / "weights.safetensors")
    return load_clip(f"open_clip:tiny-clip:{folder / 'weights.safetensors'}")


def test_open_clip_towers_without_prompts_are_open_clip(clip):
    from msademo.backbones.openclip import ClipImageTower, ClipTextTower
    text, image = ClipTextTower(clip), ClipImageTower(clip)
    assert (text.width, text.depth, text.dim) == (48, 2, 24) and (image.width, image.depth, image.dim, image.grid) == (32, 3, 24, (4, 4))
    words = [("such", "a", "good", "day!"), ("no",)]
    texts = [text.tokenize(w) for w in words]
    pixels = torch.stack([image.prepare(PICTURE), image.prepare(PICTURE[:, ::-1].copy())])
    with torch.no_grad():
        assert torch.allclose(encode(image, image.tokens(image.patches(pixels))), clip.encode_image(pixels), atol=1e-5)
        expected = clip.encode_text(clip.tokenizer([" ".join(w) for w in words], context_length=20))
        assert torch.allclose(encode(text, text.tokens(*text.stem(texts))), expected, atol=1e-5)
        # A patch taken away is a patch never there, and so with a word.
        missing = torch.zeros(2, 16, dtype=torch.bool)
        missing[:, 3] = True
        other = pixels.clone()
        other[:, :, :16, 48:] = 0
        seen = [encode(image, image.tokens(image.patches(p), missing)) for p in (pixels, other)]
        assert torch.equal(*seen) and not torch.allclose(seen[0], clip.encode_image(pixels), atol=1e-3)


def test_open_clip_words_own_their_tokens(clip):
    from msademo.backbones.openclip import ClipTextTower
    tokens = ClipTextTower(clip).tokenize(("Unbelievably", "good", "😀"))
    assert tokens.ids[0] == clip.tokenizer.sot_token_id and tokens.ids[-1] == clip.tokenizer.eot_token_id
    assert tokens.first[0] == tokens.first[-1] == -1 and set(tokens.first[1:-1]) == {0, 1, 2} and tokens.cut == 0
    long = ClipTextTower(clip).tokenize(("word",) * 40)
    assert len(long) == 20 and long.cut == 22


def test_spro_on_open_clip_trains_prompts_alone(clip):
    from msademo.backbones.openclip import ClipImageTower, ClipTextTower
    from msademo.models.spro import SPRO, PostBatch, SPROConfig
    from msademo.relevance import class_direction, image_relevance
    torch.manual_seed(0)
    spro = SPRO(SPROConfig(backbone="open_clip:tiny-clip:x", prompts=3, prompt_depth=2, joint=0, tuned_layers=0), ClipTextTower(clip), ClipImageTower(clip))
    assert all("prompt" in name or name.startswith("coupling") for name in spro.state_dict()), "frozen weights are in no checkpoint"
    patches = spro.image.patches(spro.image.prepare(PICTURE)[None])
    missing = torch.zeros(1, 16, dtype=torch.bool)
    tokens = spro.text.tokens(*spro.text.stem([spro.text.tokenize(("a", "day"))]))
    optimizer = torch.optim.Adam(spro.parameters(), lr=0.02)
    losses = []
    for _ in range(12):
        loss = spro.loss(PostBatch(tokens, patches, missing, torch.tensor([0])))["total"]
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    relevance = image_relevance(spro.eval(), patches, missing, class_direction(spro, 0)[None])
    assert relevance.shape == (1, 16) and (relevance >= 0).all()


def test_open_clip_with_its_last_blocks_tuned_stores_these(clip):
    from msademo.backbones.openclip import ClipImageTower
    tower = ClipImageTower(clip, tuned=1)
    names = set(tower.state_dict())
    assert names and all(name.startswith("tuned.0.") for name in names)
    tower.tuned.requires_grad_(False)
    with pytest.raises(InputError, match="cannot be tuned"):
        ClipImageTower(clip, tuned=9)


@pytest.mark.parametrize("name, said", [("open_clip:tiny:x", "no model called"), ("open_clip:ViT-B-32:no-such-tag", "pretrained tag")])
def test_unknown_open_clip_names_are_refused(clip, name, said):
    from msademo.backbones.openclip import load_clip
    with pytest.raises(InputError, match=said):
        load_clip(name)


def test_damaged_open_clip_weights_are_refused(clip, tmp_path):
    from msademo.backbones.openclip import load_clip
    (tmp_path / "cut.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_clip(f"open_clip:tiny-clip:{tmp_path / 'cut.safetensors'}")
