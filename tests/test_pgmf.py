"""PGMF against slow, literal versions of the paper's equations; padding, missing and absent modalities; distillation; learning at all."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.features.bundle import Features, Statistics, Track, collate
from msademo.features.text import TextTokens
from msademo.models.layers import EncoderLayer, positions, visible_first
from msademo.models.pgmf import PGMF, SOURCES, ConditionalAttention, PGMFConfig, attention_transfer, distillation, paper_config
from tests.test_pglh import DIMS, LENGTHS, close, make_batch, without

TEACHER = PGMFConfig(dims=DIMS, width=8, heads=2, head_width=3, feed_forward=12, alignment_feed_forward=10, fusion_feed_forward=14, fusion_heads=3,
                     alignment_layers=2, fusion_layers=2, prompt_layers=2, prompt_tokens=4, dropout=0.0)
STUDENT = replace(TEACHER, guided=False, alignment_layers=1, fusion_layers=1)


def guided_batch(prompt_lengths=(6, 3, 9), prompt_extra: int = 0, **how):
    """make_batch with guidance; a clip whose prompt length is 0 has none."""
    rng = np.random.default_rng(5)
    longest = max(1, *prompt_lengths)
    prompt = np.pad(rng.standard_normal((3, longest, DIMS["text"])).astype(np.float32), ((0, 0), (0, prompt_extra), (0, 0)), constant_values=11.0)
    padding = np.arange(longest + prompt_extra) >= np.array(prompt_lengths)[:, None]
    return replace(make_batch(**how), prompt=torch.from_numpy(prompt), prompt_padding=torch.from_numpy(padding))


def stir(net):
    """Away from the symmetric start: the absent and prompt tokens, the biases, and weights large enough to tell maps apart."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return net.eval()


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return stir(PGMF(TEACHER))


@pytest.fixture
def student():
    torch.manual_seed(1)
    return stir(PGMF(STUDENT))


@pytest.mark.parametrize("corpus, guided, millions", [("mosi", True, 1.45), ("mosei", True, 1.47), ("sims", True, 2.54),
                                                     ("mosi", False, 0.53), ("mosei", False, 0.48), ("sims", False, 0.82)])
def test_the_papers_parameter_counts(corpus, guided, millions):
    config = paper_config(corpus, guided)
    assert sum(p.numel() for p in PGMF(config).parameters()) == pytest.approx(millions * 1e6, rel=0.05)
    assert (config.width, config.heads, config.head_width, config.dims["text"], config.lengths["text"]) == (64, 4, 32, 768, 50)
    assert (config.alpha, config.beta) == ((60, 8) if corpus == "sims" else (100, 4))
    assert (config.alignment_layers, config.fusion_layers) == ((6, 6) if guided else (1 if corpus == "mosei" else 2, 2))


def test_unknown_corpus_is_refused():
    with pytest.raises(InputError, match="sims"):
        paper_config("iemocap", True)


@pytest.mark.parametrize("changes", [{"width": 0}, {"heads": 0}, {"dropout": 1.0}, {"alpha": -1.0}, {"delta_from": "queries"}, {"dims": {"text": 3}},
                                     {"lengths": {"text": 1, "audio": 0, "vision": 2}}, {"width": 7}])
def test_bad_configs_are_refused(changes):
    with pytest.raises(InputError):
        replace(TEACHER, **changes)


def linear(part, x):
    return x @ part.weight.detach().double().numpy().T + part.bias.detach().double().numpy()


@pytest.mark.parametrize("delta_from", ["keys", "values"])
def test_equations_5_6_and_the_mixed_values(delta_from):
    torch.manual_seed(0)
    config = replace(TEACHER, delta_from=delta_from)
    net = stir(ConditionalAttention(config))
    x, source, guidance = torch.randn(3, 4, 8), torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    hidden = torch.tensor([[0, 0, 0, 0, 0], [0, 1, 0, 0, 1], [1, 1, 0, 1, 1]]).bool()
    unguided = torch.tensor([False, False, True])
    mixed, attention = net(x, source, hidden, guidance, unguided, weights=True)
    close(net(x, source, hidden, guidance, unguided)[0], mixed)
    array = lambda tensor: tensor.double().numpy()
    size = config.head_width
    for b in range(3):
        q, k, v, p = (linear(part, array(t[b])) for part, t in ((net.query, x), (net.key, source), (net.value, source), (net.prompt_query, guidance)))
        out = np.zeros((4, config.heads * size))
        for h in range(config.heads):
            part = slice(h * size, (h + 1) * size)
            for i in range(4):
                score = {}
                for j in range(5):
                    if not hidden[b, j]:
                        w = q[i, part] @ k[j, part] / np.sqrt(size)                                              # (5)
                        delta = p[i, part] @ (k if delta_from == "keys" else v)[j, part] / np.sqrt(size)
                        score[j] = w if unguided[b] else w * delta                                               # (6)
                total = sum(np.exp(s) for s in score.values())
                for j in range(5):
                    share = np.exp(score[j]) / total if j in score else 0.0
                    close(attention[b, h, i, j], share)
                    out[i, part] += share * v[j, part]
        close(mixed[b], linear(net.out, out))


def test_without_guidance_attention_is_plain():
    """softmax(W) of the same weights, whether its map is wanted (explicit) or not (fused)."""
    torch.manual_seed(0)
    net = stir(ConditionalAttention(TEACHER))
    x, source, hidden = torch.randn(2, 4, 8), torch.randn(2, 5, 8), torch.tensor([[0, 0, 0, 0, 0], [0, 1, 0, 0, 1]]).bool()
    split = lambda t: t.unflatten(-1, (2, 3)).transpose(1, 2)
    w = (split(net.query(x)) @ split(net.key(source)).transpose(-1, -2) / np.sqrt(3)).masked_fill(hidden[:, None, None], -torch.inf)
    mixed, attention = net(x, source, hidden, weights=True)
    close(attention, w.softmax(-1))
    close(net(x, source, hidden)[0], mixed)
    close(net(x, source, hidden, torch.randn(2, 4, 8), torch.tensor([True, True]), True)[1], attention)


@pytest.mark.parametrize("delta_from", ["keys", "values"])
def test_delta_starts_near_one(delta_from):
    torch.manual_seed(0)
    net = ConditionalAttention(PGMFConfig(delta_from=delta_from))
    guidance, source = F.layer_norm(torch.randn(2, 30, 64), (64,)), F.layer_norm(torch.randn(2, 40, 64), (64,))
    split = lambda t: t.unflatten(-1, (4, 32)).transpose(1, 2)
    side = net.key if delta_from == "keys" else net.value
    delta = split(net.prompt_query(guidance)) @ split(side(source)).transpose(-1, -2) / np.sqrt(32)
    assert 0.9 < delta.mean() < 1.1 and delta.std() < 0.6


def literal_layer(layer: EncoderLayer, x):
    """An encoder layer on one sequence (1, T, d) in which all look at all."""
    normed = layer.norm_attention(x)
    hidden = torch.zeros(1, x.shape[1], dtype=torch.bool)
    x = x + layer.attention(normed, normed, hidden)[0]
    return x + layer.mlp(layer.norm_mlp(x))


def literal_forward(net, batch, i):
    """(1)-(8) for one clip over its visible tokens alone, with one clip's prompt: score, H_fusion, last maps over visible places."""
    embedded = {}
    for m in MODALITIES:
        part, keep = net.embeddings[m], ~batch.hidden(m)[i]
        x = (part.linear(batch.values[m][i]) + positions(len(keep), TEACHER.width))[keep]
        x = (x if keep.any() else part.absent_token[None])[None]                                                 # (1)
        for layer in part.layers:
            x = literal_layer(layer, x)
        embedded[m] = part.norm(x)
    text_length, keep = int((~batch.padding["text"][i]).sum()), ~batch.hidden("text")[i]
    guidance = None
    if net.prompt_embedding is not None and batch.prompt is not None and not batch.prompt_padding[i].all():
        part, real = net.prompt_embedding, ~batch.prompt_padding[i]
        x = part.linear(batch.prompt[i][real]) + positions(int(real.sum()), TEACHER.width)
        x = torch.cat([part.tokens, x])[None]
        for layer in part.layers:
            x = literal_layer(layer, x)
        tokens = part.norm(x[:, :len(part.tokens)])[0].detach().numpy()                                          # (4)
        places = np.linspace(0, len(tokens) - 1, 1 + text_length)
        stretched = np.stack([np.interp(places, np.arange(len(tokens)), column) for column in tokens.T], -1).astype(np.float32)
        chosen = 1 + np.flatnonzero(keep.numpy()) if keep.any() else [0]
        guidance = torch.from_numpy(stretched[chosen])[None]
    aligned, maps = [], {}
    for m in SOURCES:
        x, none = embedded["text"], torch.zeros(1, embedded[m].shape[1], dtype=torch.bool)
        for layer in net.alignments[m]:
            mixed, maps[m] = layer.attention(layer.norm_attention(x), embedded[m], none, guidance, torch.tensor([False]), True)
            x = x + mixed                                                                                        # (7)
            x = x + layer.mlp(layer.norm_mlp(x))
        aligned.append(x)
    x = torch.cat([net.fusion_token[None, None], *aligned], dim=1)
    for layer in net.fusion:
        x = literal_layer(layer, x)
    fusion = net.norm(x[0, 0])
    return net.score(fusion)[0], fusion, maps                                                                    # (8)


def test_the_whole_pass_is_the_equations_over_what_is_visible(teacher, student):
    batch = guided_batch((6, 0, 9))
    for gone in (batch, without(batch, "text"), without(batch, "audio"), without(batch, "text", "vision")):
        for net in (teacher, student):
            packed, loose, explained = net.align(gone, "last"), net.align(gone, "all", packed=False), net.explain(gone)
            for i in range(3):
                score, fusion, maps = literal_forward(net, gone, i)
                close(packed.score[i], score)
                close(packed.fusion[i], fusion)
                close(explained.fusion[i], fusion)
                rows = ~gone.hidden("text")[i]
                for m in SOURCES:
                    close(packed.maps[m][-1][i][:, ~packed.rows[i]][..., ~packed.columns[m][i]], maps[m][0])
                    close(loose.maps[m][-1][i][:, ~loose.rows[i]][..., ~loose.columns[m][i]], maps[m][0])
                    columns = ~gone.hidden(m)[i]
                    if rows.any() and columns.any():
                        close(explained.maps[m][i, -1][:, rows][..., columns], maps[m][0])


def test_explained_maps_have_the_tokens_places_and_nothing_hidden(teacher):
    batch = guided_batch(extra=3)
    found = teacher.explain(batch)
    for m in SOURCES:
        assert found.maps[m].shape == (3, 2, 2, batch.values["text"].shape[1], batch.values[m].shape[1])
        hidden = batch.hidden("text")[:, :, None] | batch.hidden(m)[:, None]
        assert (found.maps[m].masked_select(hidden[:, None, None].expand_as(found.maps[m])) == 0).all()
        close(found.maps[m].sum(-1), (~batch.hidden("text"))[:, None, None].float().expand(found.maps[m].shape[:-1]))
    close(found.score, teacher(batch))
    gone = teacher.explain(without(batch, "audio"))
    assert (gone.maps["audio"] == 0).all() and (gone.maps["vision"] > 0).any()


def test_more_padding_changes_nothing(teacher, student):
    for net in (teacher, student):
        close(net(guided_batch()), net(guided_batch(extra=6, prompt_extra=5)))


def test_a_sample_does_not_depend_on_its_batch(teacher):
    batch = guided_batch((6, 0, 9))
    for i in range(3):
        pick = lambda part: {m: tensor[i:i + 1] for m, tensor in part.items()}
        alone = replace(batch, values=pick(batch.values), missing=pick(batch.missing), padding=pick(batch.padding), target=None,
                        prompt=batch.prompt[i:i + 1], prompt_padding=batch.prompt_padding[i:i + 1])
        close(teacher(alone)[0], teacher(batch)[i])


@pytest.mark.parametrize("poison", [1e6, float("nan"), float("inf")])
def test_what_is_hidden_has_no_influence(teacher, poison):
    batch = guided_batch(ratio=0.5, extra=2)
    poisoned = replace(batch, values={m: v.masked_fill(batch.hidden(m)[..., None], poison) for m, v in batch.values.items()},
                       prompt=batch.prompt.masked_fill(batch.prompt_padding[..., None], poison))
    assert torch.equal(teacher(batch), teacher(poisoned))
    assert all(torch.equal(teacher.explain(batch).maps[m], teacher.explain(poisoned).maps[m]) for m in SOURCES)


def test_everything_visible_has_influence(teacher):
    batch = guided_batch()
    for m in MODALITIES:
        noise = torch.randn(batch.values[m].shape)
        assert (teacher(replace(batch, values={**batch.values, m: batch.values[m] + noise})) - teacher(batch)).abs().min() > 1e-5
    assert (teacher(replace(batch, prompt=batch.prompt + torch.randn(batch.prompt.shape))) - teacher(batch)).abs().min() > 1e-6


def test_no_prompt_is_the_unconditioned_attention(teacher):
    batch = guided_batch()
    plain = replace(batch, prompt=None, prompt_padding=None)
    close(teacher(plain), teacher(guided_batch((0, 0, 0))))
    assert (teacher(plain) - teacher(batch)).abs().min() > 1e-5
    one = guided_batch((6, 0, 9))
    close(teacher(one)[1], teacher(plain)[1])
    close(teacher(one)[[0, 2]], teacher(batch)[[0, 2]])


def test_a_student_reads_no_prompt(student):
    batch = guided_batch()
    assert torch.equal(student(batch), student(replace(batch, prompt=None, prompt_padding=None)))
    assert not any("prompt" in name for name, _ in student.named_parameters())


@pytest.mark.parametrize("absent", [c for n in (1, 2, 3) for c in combinations(MODALITIES, n)])
@pytest.mark.parametrize("how", ["missing", "no token at all"])
def test_absent_modalities(teacher, student, absent, how):
    batch = guided_batch((6, 0, 9))
    gone = without(batch, *absent)
    if how == "no token at all":                                            # one place, and that is padding
        gone = replace(gone, values={m: v[:, :1] if m in absent else v for m, v in batch.values.items()},
                       missing={m: v[:, :1] & False if m in absent else v for m, v in batch.missing.items()},
                       padding={m: torch.ones_like(v[:, :1]) if m in absent else v for m, v in batch.padding.items()})
    guide = teacher.align(gone, "last")
    assert guide.score.isfinite().all() and all(tensor.isfinite().all() for tensor in teacher.explain(gone).maps.values())
    losses = distillation(student.align(gone, "last"), guide, gone.score, 100.0, 4.0)
    assert all(value.isfinite() for value in losses.values())
    losses["total"].backward()
    teacher.loss(gone)["total"].backward()
    for net in (teacher, student):
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    if len(absent) == 3:                                                    # nothing is known: every sample has the same score
        assert np.ptp(student(gone).detach().numpy()) < 1e-6


def test_equations_10_to_13(teacher, student):
    batch = guided_batch((6, 0, 9), ratio=0.4, extra=2)
    own, guide = student.align(batch, "last"), teacher.align(batch, "last")
    wanted = 0.0
    for m in SOURCES:
        clips = []
        for i in range(3):
            rows, columns = ~own.rows[i], ~own.columns[m][i]
            entries = [abs((own.maps[m][-1][i, h, q, t] - guide.maps[m][-1][i, h, q, t]).item())
                       for h in range(2) for q in np.flatnonzero(rows) for t in np.flatnonzero(columns)]
            clips.append(np.mean(entries))
        wanted += np.mean(clips)                                                                                 # (10)
    close(attention_transfer(own, guide), wanted)
    losses = distillation(own, guide, batch.score, 7.0, 3.0)
    fusion = np.mean([abs((own.fusion[i, d] - guide.fusion[i, d]).item()) for i in range(3) for d in range(8)])    # (11)
    regression = np.mean([abs((own.score[i] - batch.score[i]).item()) for i in range(3)])                          # (12)
    close(losses["fusion"], fusion)
    close(losses["regression"], regression)
    close(losses["total"], regression + 7 * wanted + 3 * fusion)                                                 # (13)
    close(distillation(own, None, batch.score, 0.0, 0.0)["total"], regression)


def test_padding_has_no_part_in_the_transfer(teacher, student):
    tight, loose = guided_batch(), guided_batch(extra=5)
    loss = lambda batch: attention_transfer(student.align(batch, "last"), teacher.align(batch, "last"))
    unpacked = lambda batch: attention_transfer(student.align(batch, "last", packed=False), teacher.align(batch, "last", packed=False))
    close(loss(tight), loss(loose))
    close(loss(tight), unpacked(loose))


def test_no_gradient_reaches_the_teacher(teacher, student):
    batch = guided_batch()
    losses = distillation(student.align(batch, "last"), teacher.align(batch, "last"), batch.score, 100.0, 4.0)
    for part in ("attention", "fusion"):
        gradients = torch.autograd.grad(losses[part], list(student.parameters()), retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().max() > 0 for g in gradients), f"the {part} loss teaches the student"
    losses["total"].backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_a_student_is_at_home_where_it_equals_its_teacher(teacher):
    batch = replace(guided_batch(), prompt=None, prompt_padding=None)
    twin = PGMF(replace(TEACHER, guided=False))
    twin.load_state_dict({name: value for name, value in teacher.state_dict().items() if "prompt" not in name})
    losses = distillation(twin.eval().align(batch, "last"), teacher.align(batch, "last"), batch.score, 100.0, 4.0)
    assert losses["attention"].item() == pytest.approx(0, abs=1e-6) and losses["fusion"].item() == pytest.approx(0, abs=1e-6)


def test_learnt_positions_refuse_longer_clips():
    lengths = {m: max(LENGTHS[m]) for m in MODALITIES}
    net = PGMF(replace(STUDENT, lengths=lengths)).eval()
    assert net(make_batch()).isfinite().all()
    with pytest.raises(InputError, match="at most 7 text tokens"):
        net(make_batch(extra=1))


def test_visible_places_come_first_in_their_order():
    hidden = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 1, 1, 1]]).bool()
    assert visible_first(hidden).tolist() == [[1, 2, 4], [0, 1, 2]]


def test_the_first_places_of_a_layer_are_those_of_the_whole():
    torch.manual_seed(0)
    layer, x, hidden = EncoderLayer(8, 2, 12, 0.0, head_width=3).eval(), torch.randn(2, 6, 8), torch.zeros(2, 6, dtype=torch.bool)
    close(layer(x, hidden, 2), layer(x, hidden)[:, :2])


def test_a_batch_carries_prompts():
    tokens = TextTokens(np.array([0, 7, 2]), np.array([-1, 0, -1]), np.array([-1, 0, -1]), ("[CLS]", "hi", "[SEP]"), 1)
    track = Track(np.ones((2, 4), np.float32), np.zeros(2, bool), np.zeros((2, 2)))
    clip = Features(tokens, track, track, 1.0)
    statistics = Statistics({"text": np.full(6, 2, np.float32), **{m: np.zeros(4, np.float32) for m in SOURCES}},
                            {"text": np.full(6, 4, np.float32), **{m: np.ones(4, np.float32) for m in SOURCES}})
    masks = [{"text": np.zeros(3, bool), "audio": np.zeros(2, bool), "vision": np.zeros(2, bool)}] * 2
    make = lambda prompts: collate([clip, clip], masks, torch.zeros(2, 3, 6), statistics, prompts=prompts)
    batch = make([torch.full((3, 6), 10.0), torch.zeros(0, 6)])
    assert batch.prompt.shape == (2, 3, 6) and (batch.prompt[0] == 2).all()
    assert batch.prompt_padding.tolist() == [[False] * 3, [True] * 3]
    for none in (None, [torch.zeros(0, 6)] * 2):
        assert make(none).prompt is None and make(none).prompt_padding is None


@pytest.mark.parametrize("guided", [True, False])
def test_overfits_a_tiny_set(guided):
    torch.manual_seed(0)
    net = PGMF(TEACHER if guided else STUDENT)
    batch = guided_batch() if guided else make_batch()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    error = lambda: (net(batch) - batch.score).abs().mean().item()
    start = error()
    for _ in range(60):
        optimizer.zero_grad()
        net.loss(batch)["total"].backward()
        optimizer.step()
    assert error() < start / 10


def test_distillation_brings_the_maps_together(teacher):
    torch.manual_seed(2)
    net, batch = PGMF(STUDENT), guided_batch()
    guide = teacher.align(batch, "last")
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    start = distillation(net.align(batch, "last"), guide, batch.score, 1.0, 1.0)
    for _ in range(80):
        optimizer.zero_grad()
        distillation(net.align(batch, "last"), guide, batch.score, 100.0, 4.0)["total"].backward()
        optimizer.step()
    end = distillation(net.align(batch, "last"), guide, batch.score, 1.0, 1.0)
    assert end["attention"] < start["attention"] / 3 and end["fusion"] < start["fusion"] / 3
