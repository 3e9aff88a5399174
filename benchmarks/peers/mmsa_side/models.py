"""MMSA's models and hyper-parameters on our features: how they are made, called and timed. The text is never a BERT's: where a model expects one, a
pass-through hands our features over."""

import importlib
import time
from pathlib import Path

import torch
from batches import POOLED
from torch import nn


class PassThrough(nn.Module):
    """In BertTextEncoder's place. Its input (B, 2 + D, T) has the real tokens in row 1, where MMSA looks for a BERT's mask, in row 0 those of them that
    are left, and the features below."""

    def __init__(self, *args, **kwargs):
        super().__init__()

    def forward(self, packed):
        return packed[:, 2:].transpose(1, 2).contiguous()


class MeanPlace(PassThrough):
    """For Self-MM, which reads the first place alone: the mean of the tokens left, through which our text encoder was tuned."""

    def forward(self, packed):
        return (super().forward(packed).sum(1) / packed[:, 0].sum(1).clamp(min=1)[:, None])[:, None]


def library():
    """(model by arguments, trainer by arguments, seeding, hyper-parameters) of MMSA, made to run on today's torch."""
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau

    class Plateau(plateau):
        def __init__(self, *args, verbose=None, **kwargs):              # which torch no longer knows
            super().__init__(*args, **kwargs)

    torch.optim.lr_scheduler.ReduceLROnPlateau = Plateau
    # Trainers keep `outputs.cpu()` of an epoch's batches for its metrics. On a CPU that is the output itself with its whole graph: 16 GB for MFN.
    torch.Tensor.cpu = torch.Tensor.detach
    part = importlib.import_module
    AMIO, ATIO = part("MMSA.models").AMIO, part("MMSA.trains").ATIO
    part("MMSA.models.multiTask.SELF_MM").BertTextEncoder = MeanPlace
    part("MMSA.models.missingTask.TFR_NET.model").BertTextEncoder = PassThrough
    return AMIO, lambda args: ATIO().getTrain(args), part("MMSA.utils").setup_seed, part("MMSA.config").get_config_regression


def configure(hyper_parameters, model, dataset, seed, dims, steps, samples, folder):
    """MMSA's own hyper-parameters for a data set, with our sizes in the places of its files'."""
    config = Path(importlib.import_module("MMSA").__file__).parent / "config" / "config_regression.json"
    args = hyper_parameters(model, dataset, config)
    args.update({"device": torch.device("cpu"), "train_mode": "regression", "cur_seed": seed, "feature_dims": list(dims), "train_samples": samples,
                 "seq_lens": [steps["text"], *((1, 1) if model in POOLED else (steps["audio"], steps["vision"]))],
                 "model_save_path": str(Path(folder) / "model.pth")})
    if model == "self_mm":
        args["text_out"] = dims[0]
    return args


def call(name, model, batch):
    """The model's answer to one batch, called as its MMSA trainer calls it."""
    if name == "tfr_net":
        return model((batch["text"], batch["text_m"], batch["text_missing_mask"]),
                     *((batch[m], batch[f"{m}_m"], batch[f"{m}_mask"], batch[f"{m}_missing_mask"]) for m in ("audio", "vision")))
    if name == "self_mm":
        return model(batch["text"], (batch["audio"], batch["audio_lengths"]), (batch["vision"], batch["vision_lengths"]))
    return model(batch["text"], batch["audio"], batch["vision"])


def scores(answer):
    return answer[0] if isinstance(answer, tuple) else answer["M"]


def parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class Timed:
    """A model with its trainer's optimizer, and one batch. step(), forward() -> seconds. The loss is the trainers': L1, with what is generated
    (TFR-Net) and that of every single modality (Self-MM). clock: the name of one of module time's."""

    def __init__(self, args, model, batch, clock="perf_counter"):
        self.args, self.name, self.model, self.batch, self.clock = args, args["model_name"], model, batch, getattr(time, clock)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=args.get("learning_rate", 1e-3))

    def step(self):
        self.model.train()
        labels = self.batch["labels"]["M"]
        started = self.clock()
        self.optimizer.zero_grad()
        answer = call(self.name, self.model, self.batch)
        loss = (scores(answer) - labels).abs().mean()
        if self.name == "tfr_net":
            loss = loss + answer[1].sum()
        if self.name == "self_mm":
            loss = loss + sum((answer[m] - labels).abs().mean() for m in "TAV")
        loss.backward()
        if self.args.get("grad_clip", -1.0) != -1.0:
            nn.utils.clip_grad_value_(self.model.parameters(), self.args["grad_clip"])
        self.optimizer.step()
        return self.clock() - started

    @torch.inference_mode()
    def forward(self):
        self.model.eval()
        started = self.clock()
        call(self.name, self.model, self.batch)
        return self.clock() - started
