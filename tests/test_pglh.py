"""PGLH against slow, literal versions of the paper's equations; padding, missing and absent modalities; learning at all."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.models.layers import Attention, positions, stretch, visible_mean
from msademo.models.meanpool import MeanPool, MeanPoolConfig
from msademo.models.pglh import PGLH, Batch, Encoded, PGLHConfig

DIMS = {"text": 6, "audio": 5, "vision": 4}
SMALL = PGLHConfig(dims=DIMS, width=8, heads=2, feed_forward=12, pcm2_prompts=3, ubpf_prompts=2, dropout=0.0)
LENGTHS = {"text": (5, 3, 7), "audio": (9, 9, 4), "vision": (2, 6, 6)}


def make_batch(lengths=None, ratio: float = 0.4, extra: int = 0, seed: int = 0, scores: bool = True) -> Batch:
    """Three samples of unequal length; `extra` places of padding more than needed. At least one token a modality is left."""
    lengths = lengths or LENGTHS
    rng = np.random.default_rng(seed)
    values, missing, padding, target = {}, {}, {}, {}
    for m in MODALITIES:
        longest = max(lengths[m])
        padding[m] = np.arange(longest + extra) >= np.array(lengths[m])[:, None]
        v = rng.standard_normal((len(lengths[m]), longest, DIMS[m])).astype(np.float32)
        gone = rng.random((len(lengths[m]), longest)) < ratio
        gone[:, 0] = False
        fill = ((0, 0), (0, extra))
        values[m] = np.pad(v, (*fill, (0, 0)), constant_values=9.0)
        missing[m] = np.pad(gone, fill) & ~padding[m]
        target[m] = np.pad(v + rng.standard_normal(v.shape).astype(np.float32), (*fill, (0, 0)), constant_values=-7.0)
    tensors = [{m: torch.from_numpy(part[m]) for m in MODALITIES} for part in (values, missing, padding, target)]
    return Batch(*tensors, score=torch.tensor([1.5, -0.5, 2.0]) if scores else None)


@pytest.fixture
def model() -> PGLH:
    torch.manual_seed(0)
    net = PGLH(SMALL).eval()
    with torch.no_grad():                       # away from the symmetric start, where (1 - beta) and beta could be swapped
        for raw, value in zip([*net.alpha_raw.values(), *net.beta_raw.values()], (-1.0, 0.3, 1.2, -0.7, 0.9)):
            raw.fill_(value)
    return net


def without(batch: Batch, *absent: str) -> Batch:
    return replace(batch, missing={m: ~batch.padding[m] if m in absent else batch.missing[m] for m in MODALITIES})


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(torch.as_tensor(a).double(), torch.as_tensor(b).double(), atol=tolerance, rtol=1e-4)


def literal_attention(layer: Attention, queries, memory, visible):
    """softmax(Q K^T / sqrt(d)) V for one sample in numpy loops, over the visible places alone: mixed (Q, d), weights (heads, Q, T)."""
    def linear(part, x):
        return x @ part.weight.detach().numpy().astype(np.float64).T + part.bias.detach().numpy()
    q, k, v = linear(layer.query, queries), linear(layer.key, memory), linear(layer.value, memory)
    size = q.shape[1] // layer.heads
    mixed, weights = np.zeros_like(q), np.zeros((layer.heads, len(q), len(memory)))
    for head in range(layer.heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(q)):
            scores = {j: q[i, part] @ k[j, part] / np.sqrt(size) for j in np.flatnonzero(visible)}
            total = sum(np.exp(s) for s in scores.values())
            for j, s in scores.items():
                weights[head, i, j] = np.exp(s) / total
                mixed[i, part] += weights[head, i, j] * v[j, part]
    return linear(layer.out, mixed), weights


def test_attention_looks_at_visible_places_only():
    torch.manual_seed(1)
    layer = Attention(8, 2).eval()
    queries, memory = torch.randn(2, 3, 8), torch.randn(2, 6, 8)
    hidden = torch.tensor([[0, 0, 1, 0, 1, 0], [1, 1, 1, 1, 0, 1]]).bool()
    mixed, weights = layer(queries, memory, hidden, weights=True)
    fused, none = layer(queries, memory, hidden)
    assert none is None
    close(mixed, fused)
    for i in range(2):
        expected, share = literal_attention(layer, queries[i].double().numpy(), memory[i].double().numpy(), ~hidden[i].numpy())
        close(mixed[i], expected.astype(np.float32))
        close(weights[i], share.astype(np.float32))
    assert (weights[hidden[:, None, None].expand_as(weights)] == 0).all()
    changed = memory.clone()
    changed[hidden] = 1e6
    close(layer(queries, changed, hidden)[0], fused)


def test_stretch_is_linear_interpolation_to_each_length():
    tokens, lengths, longest = torch.randn(4, 5, 3), torch.tensor([1, 2, 7, 11]), 11
    out = stretch(tokens, lengths, longest)
    for i, length in enumerate(lengths.tolist()):
        places = np.linspace(0, 4, length) if length > 1 else np.zeros(1)
        for d in range(3):
            expected = np.interp(places, np.arange(5), tokens[i, :, d].numpy())
            close(out[i, :length, d], expected.astype(np.float32))
        if length > 1:
            close(out[i, length:], tokens[i, -1].expand(longest - length, 3))
    close(stretch(torch.ones(2, 1, 3), torch.tensor([4, 2]), 4), torch.ones(2, 4, 3))


def test_the_mean_is_over_visible_places():
    x, hidden = torch.arange(12.0).view(2, 3, 2), torch.tensor([[False, True, False], [True, True, True]])
    close(visible_mean(x, hidden), torch.tensor([[2.0, 3.0], [0.0, 0.0]]))


def test_positions_are_sines_and_cosines():
    table = positions(50, 8)
    for place in (0, 1, 49):
        for i in range(4):
            angle = place / 10_000 ** (2 * i / 8)
            close(table[place, 2 * i], np.float32(np.sin(angle)))
            close(table[place, 2 * i + 1], np.float32(np.cos(angle)))


def test_encoding_the_batch_is_encoding_the_visible_tokens_alone(model):
    """(2), (3): the attention mask is the batched form of keeping what is visible, at the places it had."""
    batch = make_batch()
    encoded = model.forward_encoders(batch)
    for m in MODALITIES:
        encoder = model.encoders[m]
        for i in range(3):
            keep = ~batch.hidden(m)[i]
            x = (encoder.embed(batch.values[m][i]) + positions(len(keep), SMALL.width))[keep][None]
            for layer in encoder.layers:
                normed = layer.norm_attention(x)
                mixed, _ = literal_attention(layer.attention, normed[0].detach().double().numpy(), normed[0].detach().double().numpy(), np.ones(len(x[0]), bool))
                x = x + torch.from_numpy(mixed.astype(np.float32))
                x = x + layer.mlp(layer.norm_mlp(x))
            close(encoded[m].tokens[i, 1:][keep], encoder.norm(x)[0])


def test_equation_7_mixes_the_stretched_prompt_by_beta(model):
    batch = make_batch()
    encoded = model.forward_encoders(batch)
    seen = {}
    for m in MODALITIES:
        model.decoders[m].register_forward_pre_hook(lambda _, inputs, m=m: seen.__setitem__(m, inputs[0]))
    model.forward_recovery(encoded, batch)
    assert torch.equal(seen["text"].tokens, encoded["text"].tokens)         # (4): the text is rebuilt without prompts
    text = encoded["text"]
    for m in ("audio", "vision"):
        beta = 1 / (1 + np.exp(-model.beta_raw[m].item()))
        for i in range(3):
            guided, _ = literal_attention(model.pcm2_attention[m], model.pcm2_prompt[m].detach().double().numpy(),
                                          text.tokens[i].detach().double().numpy(), ~text.hidden[i].numpy())     # (5), (6)
            length = 1 + LENGTHS[m][i]                                     # with the "absent" slot in front
            places = np.linspace(0, len(guided) - 1, length)
            brought = np.stack([np.interp(places, np.arange(len(guided)), column) for column in guided.T], -1)
            expected = (1 - beta) * encoded[m].tokens[i, :length].detach().numpy() + beta * brought
            close(seen[m].tokens[i, :length], expected.astype(np.float32))


def test_the_decoder_restores_the_order_with_mask_tokens(model):
    """(4): what is missing becomes the mask token at its own place; what the encoder left there has no say."""
    batch = make_batch()
    decoder, here = model.decoders["audio"], model.forward_encoders(batch)["audio"]
    changed = Encoded(here.tokens.masked_fill(here.hidden[..., None], 123.0), here.hidden)
    close(decoder(changed, batch.padding["audio"])[~batch.padding["audio"]], decoder(here, batch.padding["audio"])[~batch.padding["audio"]])
    x = torch.where(here.hidden[0, 1:, None], decoder.mask_token, here.tokens[0, 1:]) + positions(9, SMALL.width)
    for layer in decoder.layers:                                           # the first audio has no padding, so all may look at all
        normed = layer.norm_attention(x)
        x = x + layer.attention(normed[None], normed[None], torch.zeros(1, len(x), dtype=torch.bool))[0][0]
        x = x + layer.mlp(layer.norm_mlp(x))
    close(decoder(here, batch.padding["audio"])[0], decoder.out(decoder.norm(x)))


def literal_losses(recovered, batch) -> tuple[float, float]:
    """(9) and (10), token by token, means over feature dimensions."""
    recovered, total_mask, total_global = {m: tensor.tolist() for m, tensor in recovered.items()}, 0.0, 0.0
    for m in MODALITIES:
        every, gone = [], []
        for i in range(len(batch.padding[m])):
            for t in range(batch.padding[m].shape[1]):
                if not batch.padding[m][i, t]:
                    error = np.mean([(recovered[m][i][t][d] - float(batch.target[m][i, t, d])) ** 2 for d in range(DIMS[m])])
                    every.append(error)
                    if batch.missing[m][i, t]:
                        gone.append(error)
        total_global += np.mean(every)
        total_mask += np.mean(gone) if gone else 0.0
    return total_mask, total_global


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_losses_9_10_17(model, ratio):
    model.config = replace(SMALL, lambda_sp=0.7, lambda_mask=0.11, lambda_global=0.23)
    batch = make_batch(ratio=ratio, extra=2)
    loss = model.loss(batch)
    mask, overall = literal_losses(model.forward_recovery(model.forward_encoders(batch), batch), batch)
    close(loss["mask"], mask)
    close(loss["global"], overall)
    close(loss["prediction"], (model(batch) - batch.score).abs().mean())
    close(loss["total"], 0.7 * loss["prediction"] + 0.11 * mask + 0.23 * overall)
    if ratio == 0:
        assert loss["mask"].item() == 0.0
    loss["total"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_papers_weights_are_the_default():
    assert (PGLHConfig().lambda_sp, PGLHConfig().lambda_mask, PGLHConfig().lambda_global) == (1, 0.05, 0.05)


def test_equations_11_to_16(model):
    batch = make_batch()
    encoded = model.forward_encoders(batch)
    score, _ = model.forward_fusion(encoded)
    array = lambda tensor: tensor.detach().double().numpy()
    for i in range(3):
        total = np.zeros(SMALL.width)
        keep = {m: ~encoded[m].hidden[i].numpy() for m in MODALITIES}
        text = array(encoded["text"].tokens[i])[keep["text"]]
        for m in MODALITIES:
            own = array(encoded[m].tokens[i])[keep[m]]
            seen = np.ones(len(own), bool)
            first, _ = literal_attention(model.self_guided[m], array(model.ubpf_prompt[m]), own, seen)            # (11), (12)
            memory = own if m == "text" else np.concatenate([own, text])
            aligned, _ = literal_attention(model.language_guided[m], first, memory, np.ones(len(memory), bool))
            alpha = 1 / (1 + np.exp(-model.alpha_raw[m].item()))
            final = alpha * aligned + (1 - alpha) * first                                                         # (13), (14)
            total += np.concatenate([final, own]).mean(0)                                                         # (15)
        expected = total @ array(model.score.weight)[0] + model.score.bias.item()                                 # (16)
        close(score[i].double(), expected)


def test_more_padding_changes_nothing(model):
    for config in (SMALL, replace(SMALL, decoder_in_prediction=True)):
        model.config = config
        tight, loose = make_batch(), make_batch(extra=6)
        close(model(tight), model(loose))
        for name, value in model.loss(tight).items():
            close(value, model.loss(loose)[name])


def test_a_sample_does_not_depend_on_its_batch(model):
    batch = make_batch()
    for i in range(3):
        pick = lambda part: {m: tensor[i:i + 1] for m, tensor in part.items()}
        alone = Batch(pick(batch.values), pick(batch.missing), pick(batch.padding))
        close(model(alone)[0], model(batch)[i])


@pytest.mark.parametrize("poison", [1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("decoder_in_prediction", [False, True])
def test_values_of_missing_tokens_have_no_influence(model, poison, decoder_in_prediction):
    model.config = replace(SMALL, decoder_in_prediction=decoder_in_prediction)
    batch = make_batch(ratio=0.5)
    assert all(batch.missing[m].any() for m in MODALITIES)
    poisoned = replace(batch, values={m: v.masked_fill(batch.missing[m][..., None], poison) for m, v in batch.values.items()})
    assert torch.equal(model(batch), model(poisoned))
    explained = model.explain(poisoned)
    assert all(recovered.isfinite().all() for recovered in explained.recovered.values())


def test_values_of_visible_tokens_have_influence(model):
    batch = make_batch()
    for m in MODALITIES:
        changed = {**batch.values, m: batch.values[m] + 1.0}
        assert (model(replace(batch, values=changed)) - model(batch)).abs().min() > 1e-4


@pytest.mark.parametrize("absent", [c for n in (1, 2, 3) for c in combinations(MODALITIES, n)])
@pytest.mark.parametrize("how", ["missing", "no token at all"])
def test_absent_modalities(model, absent, how):
    batch = make_batch()
    gone = without(batch, *absent)
    if how == "no token at all":                                            # one place, and that is padding
        shape = lambda part, fill: {m: part[m][:, :1] if m in absent else part[m] for m in MODALITIES}
        gone = Batch(shape(batch.values, 0), {m: t[:, :1] & False if m in absent else t for m, t in batch.missing.items()},
                     {m: torch.ones_like(t[:, :1]) if m in absent else t for m, t in batch.padding.items()}, shape(batch.target, 0), batch.score)
    for config in (SMALL, replace(SMALL, decoder_in_prediction=True)):
        model.config = config
        assert model(gone).isfinite().all()
        losses = model.loss(gone)
        assert all(value.isfinite() for value in losses.values())
        model.zero_grad()
        losses["total"].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.config = SMALL
    assert (model(gone) - model(batch)).abs().max() > 1e-5
    if len(absent) == 3:                                                    # nothing is known: every sample has the same score
        assert np.ptp(model(gone).detach().numpy()) < 1e-6
    for m in absent:
        assert model.forward_encoders(gone)[m].hidden[:, 0].logical_not().all()
    assert all(model.forward_encoders(gone)[m].hidden[:, 0].all() for m in MODALITIES if m not in absent)


def test_the_absent_token_is_used_only_by_what_is_absent(model):
    batch = make_batch()
    before, without_sound = model(batch), model(without(batch, "audio"))
    with torch.no_grad():
        for encoder in model.encoders.values():
            encoder.absent_token.normal_()
    close(model(batch), before)
    assert (model(without(batch, "audio")) - without_sound).abs().min() > 1e-5


def test_the_decoder_can_be_put_back_into_prediction(model):
    batch = make_batch(ratio=0.5)
    plain, complete = model(batch), replace(batch, missing={m: torch.zeros_like(t) for m, t in batch.missing.items()})
    plain_complete = model(complete)
    model.config = replace(SMALL, decoder_in_prediction=True)
    assert (model(batch) - plain).abs().min() > 1e-4
    close(model(complete), plain_complete)                                  # with nothing missing there is nothing to fill in
    filled = model.forward_recovery(model.forward_encoders(batch), batch)
    values = {m: torch.where(batch.missing[m][..., None], filled[m], batch.values[m]) for m in MODALITIES}
    model.config = SMALL
    by_hand = model(Batch(values, {m: torch.zeros_like(t) for m, t in batch.missing.items()}, batch.padding))
    model.config = replace(SMALL, decoder_in_prediction=True)
    close(model(batch), by_hand)


@pytest.mark.parametrize("decoder_in_prediction", [False, True])
def test_explain_tells_the_same_score(model, decoder_in_prediction):
    model.config = replace(SMALL, decoder_in_prediction=decoder_in_prediction)
    batch = make_batch()
    explained = model.explain(batch)
    close(explained.score, model(batch))
    recovered = model.forward_recovery(model.forward_encoders(batch), batch)
    for m in MODALITIES:
        close(explained.recovered[m], recovered[m])
        assert explained.recovered[m].shape == batch.values[m].shape


def test_attention_rows(model):
    batch = make_batch()
    explained = model.explain(batch)
    for m in MODALITIES:
        own, language, hidden = explained.self_attention[m], explained.language_attention[m], batch.hidden(m)
        columns = batch.values[m].shape[1] + (0 if m == "text" else batch.values["text"].shape[1])
        assert own.shape == (3, 2, batch.values[m].shape[1]) and language.shape == (3, 2, columns)
        close(own.sum(-1), torch.ones(3, 2))                                # nothing is absent, so nothing goes to the slots
        close(language.sum(-1), torch.ones(3, 2))
        every = hidden if m == "text" else torch.cat([hidden, batch.hidden("text")], 1)
        assert (own[hidden[:, None].expand_as(own)] == 0).all() and (language[every[:, None].expand_as(language)] == 0).all()
        assert (own[~hidden[:, None].expand_as(own)] > 0).all() and (language[~every[:, None].expand_as(language)] > 0).all()


def test_attention_rows_of_absent_modalities_sum_to_less(model):
    explained = model.explain(without(make_batch(), "audio"))
    assert (explained.self_attention["audio"] == 0).all()
    to_words = explained.language_attention["audio"].sum(-1)
    assert (to_words > 0).all() and (to_words < 1).all()
    explained = model.explain(without(make_batch(), "text"))
    assert (explained.language_attention["text"] == 0).all()
    assert (explained.language_attention["vision"].sum(-1) < 1).all()


def test_alpha_and_beta_start_in_the_middle_and_learn():
    torch.manual_seed(0)
    net, batch = PGLH(SMALL), make_batch()
    explained = net.explain(batch)
    assert explained.alpha == dict.fromkeys(MODALITIES, 0.5) and explained.beta == {"audio": 0.5, "vision": 0.5}
    net.loss(batch)["total"].backward()
    assert all(raw.grad.abs() > 0 for raw in [*net.alpha_raw.values(), *net.beta_raw.values()])


def test_every_weight_is_trained():
    """Each parameter gets a gradient once something is absent somewhere and something is missing elsewhere."""
    torch.manual_seed(0)
    net, batch = PGLH(SMALL), make_batch()
    (net.loss(batch)["total"] + sum(net.loss(without(batch, m))["total"] for m in MODALITIES)).backward()
    # A key's bias shifts all scores of a query alike, which the softmax does not see.
    silent = [name for name, p in net.named_parameters() if (p.grad is None or not p.grad.abs().sum() > 0) and not name.endswith("key.bias")]
    assert silent == []


@pytest.mark.parametrize("wrong", [
    {"dims": {"text": 6}}, {"dims": {**DIMS, "audio": 0}}, {"dims": {**DIMS, "smell": 2}}, {"width": 0}, {"width": 9}, {"heads": 0}, {"heads": 3},
    {"feed_forward": -1}, {"encoder_layers": 0}, {"decoder_layers": -1}, {"pcm2_prompts": -1}, {"ubpf_prompts": -1}, {"dropout": 1.0},
    {"dropout": -0.1}, {"dropout": float("nan")}, {"text_noise": -1}, {"lambda_sp": -1}, {"lambda_mask": -0.1}, {"lambda_global": -0.1}])
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(InputError, match="PGLH") as refusal:
        replace(SMALL, **wrong)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("wrong", [{"dims": {"text": 6}}, {"hidden": 0}, {"dropout": 1.0}])
def test_impossible_mean_pool_configs_are_refused(wrong):
    with pytest.raises(InputError, match="mean-pool"):
        MeanPoolConfig(**{"dims": DIMS, **wrong})


def test_mean_pool_literally():
    torch.manual_seed(0)
    net, batch = MeanPool(MeanPoolConfig(dims=DIMS, hidden=7)).eval(), without(make_batch(), "vision")
    for i in range(3):
        means, flags = [], []
        for m in MODALITIES:
            seen = [batch.values[m][i, t] for t in range(batch.values[m].shape[1]) if not (batch.missing[m][i, t] or batch.padding[m][i, t])]
            means.append(sum(seen) / len(seen) if seen else torch.zeros(DIMS[m]))
            flags.append(0.0 if seen else 1.0)
        assert flags == [0.0, 0.0, 1.0]
        hidden = F.gelu(net.mlp[0](torch.cat([*means, torch.tensor(flags)])))
        close(net(batch)[i], net.mlp[3](hidden)[0])
    close(net.loss(batch)["total"], (net(batch) - batch.score).abs().mean())


@pytest.mark.parametrize("build", [lambda: PGLH(SMALL), lambda: MeanPool(MeanPoolConfig(dims=DIMS, hidden=16, dropout=0.0))], ids=["PGLH", "MeanPool"])
def test_overfits_a_tiny_set(build):
    torch.manual_seed(0)
    net, batch = build(), make_batch(lengths={m: lengths * 2 for m, lengths in LENGTHS.items()})
    batch = replace(batch, score=torch.tensor([2.0, -1.0, 0.5, -2.5, 1.0, 3.0]))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    error = lambda: (net(batch) - batch.score).abs().mean().item()
    start = error()
    for _ in range(150):
        optimizer.zero_grad()
        net.loss(batch)["total"].backward()
        optimizer.step()
    assert error() < start / 10


def test_recovery_is_learnt():
    torch.manual_seed(0)
    net, batch = PGLH(replace(SMALL, lambda_mask=1.0, lambda_global=1.0)), make_batch(ratio=0.3)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    start = net.loss(batch)
    for _ in range(200):
        optimizer.zero_grad()
        net.loss(batch)["total"].backward()
        optimizer.step()
    end = net.loss(batch)
    assert end["mask"] < start["mask"] / 5 and end["global"] < start["global"] / 5


def test_noise_on_the_text_is_for_training_only():
    torch.manual_seed(0)
    net, batch = PGLH(replace(SMALL, text_noise=0.5)), make_batch()
    assert not torch.equal(net.train()(batch), net(batch))
    assert torch.equal(net.eval()(batch), net(batch))


def test_what_a_clip_itself_lacks_is_no_target(model):
    """A frame without a face is hidden like a missing one, but there is nothing it could be recovered to."""
    batch = make_batch()
    lacking = {m: torch.zeros_like(t) for m, t in batch.missing.items()}
    lacking["vision"][0, 1:3] = lacking["audio"][1] = True
    missing = {m: t | lacking[m] for m, t in batch.missing.items()}
    marked = replace(batch, missing=missing, lacking=lacking)
    spoilt = replace(marked, target={m: t.masked_fill(lacking[m][..., None], 50.0) for m, t in batch.target.items()})
    found, wanted = model.loss(spoilt), model.loss(marked)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert model.loss(replace(spoilt, lacking=None))["global"] > 10 * wanted["global"]
    nothing = replace(batch, lacking={m: torch.zeros_like(t) for m, t in batch.missing.items()})
    assert all(torch.equal(model.loss(nothing)[name], value) for name, value in model.loss(batch).items())


@pytest.mark.parametrize("change, gone", [({"decoder_layers": 0}, "decoders.*.layers"), ({"pcm2_prompts": 0}, "pcm2|beta_raw"), ({"ubpf_prompts": 0}, "ubpf|self_guided|language_guided|alpha_raw")])
def test_a_part_that_is_left_out_has_no_weights_and_the_others_keep_their_names(change, gone):
    whole, net, batch = PGLH(SMALL), PGLH(replace(SMALL, **change)), make_batch()
    kept = {name: value.shape for name, value in whole.state_dict().items() if not re.match(gone, name)}
    assert {name: value.shape for name, value in net.state_dict().items()} == kept and len(kept) < len(whole.state_dict())
    losses = net.loss(batch)
    losses["total"].backward()
    assert all(torch.isfinite(value) for value in losses.values()) and losses["mask"] > 0 and all(p.grad is not None for p in net.encoders["audio"].parameters())
    told = net.eval().explain(batch)
    torch.testing.assert_close(told.score, net(batch))
    assert set(told.self_attention) == set(told.alpha) == set(() if "ubpf_prompts" in change else MODALITIES) and set(told.recovered) == set(MODALITIES)
    assert set(told.beta) == set(() if "pcm2_prompts" in change else ("audio", "vision"))
