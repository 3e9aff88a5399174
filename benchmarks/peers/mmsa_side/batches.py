"""Clips as MMSA's trainers ask their loaders for them: our features, standardised by the training clips and zero where missing."""

import time

import numpy as np
import torch
from torch import nn

MODALITIES = ("text", "audio", "vision")
POOLED = ("lf_dnn", "tfn", "lmf", "mfn")        # MMSA's need_normalized: voice and face averaged over time
LAST = (*POOLED, "mult")                        # they read a sequence's last step, where MMSA's files have no empty padding
SAMPLED = 1000                                  # training clips that means and deviations are taken from


class Enough(Exception):
    """The most epochs a job allows are over; the best so far is saved."""


def at_the_end(values, lengths):
    """(B, T, D) with each sequence moved behind its padding."""
    length = values.shape[1]
    places = (torch.arange(length)[None] + lengths[:, None]) % length
    return values.gather(1, places[..., None].expand_as(values))


class Clips:
    """Arrays of clips by name: text, audio, vision (N, T, D), *_lengths (N,), *_missing (N, T), labels (N,), and clean_text for a model that learns to
    rebuild the text. steps: what a batch's sequences are padded to. batch(rows) has the keys of MMSA's data set."""

    def __init__(self, name, arrays, means, deviations, steps):
        self.name, self.arrays, self.steps = name, arrays, steps
        self.means, self.deviations = ({m: torch.from_numpy(part[m]) for m in MODALITIES} for part in (means, deviations))

    def __len__(self):
        return len(self.arrays["labels"])

    def part(self, key, rows, modality, keep):
        """(B, steps, D) standardised features, zero wherever keep (B, steps) is 0."""
        values = torch.from_numpy(np.asarray(self.arrays[key][rows], np.float32))
        values = nn.functional.pad(values, (0, 0, 0, self.steps[modality] - values.shape[1]))
        return (values - self.means[modality]) / self.deviations[modality] * keep[..., None]

    def batch(self, rows):
        out = {"labels": {"M": torch.from_numpy(self.arrays["labels"][rows])[:, None]}, "index": torch.from_numpy(rows), "id": rows.tolist()}
        for m in MODALITIES:
            lengths = torch.from_numpy(np.asarray(self.arrays[f"{m}_lengths"])[rows]).clamp(max=self.steps[m])
            real = (torch.arange(self.steps[m])[None] < lengths[:, None]).float()
            gone = torch.from_numpy(self.arrays[f"{m}_missing"][rows]).float()
            kept = real * (1 - nn.functional.pad(gone, (0, self.steps[m] - gone.shape[1])))
            left = self.part(m, rows, m, kept)
            if self.name in ("self_mm", "tfr_net") and m == "text":            # they read the mask from a BERT's input; see models.PassThrough
                pack = lambda text: torch.cat([kept[:, None], real[:, None], text.transpose(1, 2)], 1)
            else:
                pack = lambda values: values
            out[m] = at_the_end(left, lengths) if self.name in LAST else pack(left)
            if m != "text":
                out[f"{m}_lengths"] = lengths
                if self.name in POOLED:
                    out[m] = left.sum(1, keepdim=True) / kept.sum(1).clamp(min=1)[:, None, None]
            if self.name == "tfr_net":
                whole = self.part("clean_text" if m == "text" and "clean_text" in self.arrays else m, rows, m, real)
                out |= {m: pack(whole), f"{m}_m": pack(left), f"{m}_mask": real, f"{m}_missing_mask": kept}
        return out


class Loader:
    """Batches of clips, in a new order each time where they are shuffled, telling every 15 seconds how far an epoch is. A last batch of one clip
    is left out of training, since batch normalisation refuses it; not for Self-MM, which has none and must have seen every label. memory: keeps every
    epoch; one that it holds is two clips, for a trainer needs something to take means of, after which the epoch's end is restored."""

    def __init__(self, clips, batch, shuffle=False, epochs=0, say=None, memory=None):
        self.clips, self.size, self.shuffle, self.epochs, self.say, self.memory, self.epoch = clips, batch, shuffle, epochs, say, memory, 0
        self.count = len(clips) - (shuffle and clips.name != "self_mm" and len(clips) % batch == 1)

    def __len__(self):
        return -(-self.count // self.size)

    def __iter__(self):
        self.epoch += 1
        if self.epochs and self.epoch > self.epochs:
            raise Enough
        if self.memory and self.memory.holds(self.epoch):
            yield self.clips.batch(np.arange(2))
            return self.memory.restore(self.epoch)
        order = (torch.randperm(len(self.clips)) if self.shuffle else torch.arange(len(self.clips))).numpy()[:self.count]
        started = said = time.monotonic()
        for number in range(len(self)):
            if self.say and time.monotonic() - said > 15:
                said = time.monotonic()
                self.say(f"epoch {self.epoch} step {number}/{len(self)} ETA of the epoch {(said - started) / number * (len(self) - number) / 60:.1f} min")
            yield self.clips.batch(order[number * self.size:(number + 1) * self.size])
        if self.memory:
            self.memory.keep(self.epoch)


def read_pickle(path, clean=None):
    """Train and valid of a pickle that `benchmarks.peers` wrote; clean: the same training clips complete, for a model that rebuilds them."""
    import pickle
    with open(path, "rb") as file:
        content = pickle.load(file)
    keep = [key for m in MODALITIES for key in (m, f"{m}_lengths", f"{m}_missing")]
    splits = {name: {key: np.asarray(content[name][key]) for key in keep} | {"labels": np.asarray(content[name]["regression_labels"], np.float32)} for name in ("train", "valid")}
    if clean:
        with open(clean, "rb") as file:
            whole = pickle.load(file)["train"]
        # What the voice left amounts to is the same in every step that is left (and positive), and zero in the others.
        sounds = splits["train"]["audio"][..., -content["about"]["emotions"]:].max(1)
        splits["train"] |= {"clean_text": whole["text"], "audio": sounding(whole["audio"], sounds), "vision": whole["vision"]}
    return splits


def sounding(audio, sounds):
    """Voices (N, T, D) with what is left of them amounting to `sounds` (N, E): the last dimensions of every step."""
    audio = audio.copy()
    audio[..., -sounds.shape[1]:] = sounds[:, None]
    return audio


def statistics_of(train):
    """Mean and deviation of each feature over the steps that are there, of a sample of the training clips."""
    rows = np.random.default_rng(0).permutation(len(train["labels"]))[:SAMPLED]
    means, deviations = {}, {}
    for m in MODALITIES:
        there = (np.arange(train[m].shape[1])[None] < train[f"{m}_lengths"][rows][:, None]) & ~train[f"{m}_missing"][rows]
        found = train[m][rows][there]
        means[m], deviations[m] = found.mean(0, dtype=np.float64).astype(np.float32), np.maximum(found.std(0, dtype=np.float64), 1e-3).astype(np.float32)
    return means, deviations


def measured_clips(name, base, case, composition, text_steps, means, deviations, steps):
    """One composition of the measured split under one mask; a longer text is cut as the training texts are: its last token stays."""
    arrays = {"labels": base["labels"]}
    for m in ("audio", "vision"):
        arrays |= {m: base[m][composition], f"{m}_lengths": base[f"{m}_lengths"][composition], f"{m}_missing": case[f"{m}_missing"][composition]}
    arrays["audio"] = sounding(arrays["audio"], case["sounds"][composition])
    text, gone, lengths = (case[key] for key in ("text", "text_missing", "text_lengths"))
    short, short_gone = text[:, :text_steps].copy(), gone[:, :text_steps].copy()
    for i in np.flatnonzero(lengths > text_steps):
        short[i, -1], short_gone[i, -1] = text[i, lengths[i] - 1], gone[i, lengths[i] - 1]
    arrays |= {"text": short, "text_missing": short_gone, "text_lengths": np.minimum(lengths, text_steps)}
    return Clips(name, arrays, means, deviations, steps)
