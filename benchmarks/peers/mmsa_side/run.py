"""Run by the interpreter that has MMSA (numpy and torch beside it, nothing of msademo): `run.py JOB.json` trains one model with one seed by MMSA's own
trainer and hyper-parameters and writes its predictions as .npz; `run.py --serve` times steps on demand, a line of JSON each way."""

import json
import logging
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch

from batches import MODALITIES, Clips, Enough, Loader, measured_clips, read_pickle, statistics_of
from models import Timed, call, configure, library, parameters, scores
from resume import Memory, written


def told(path, content):
    written(path, lambda file: file.write(json.dumps(content).encode()))


class Job:
    """One model, one seed. Each of train, predict and time does what is not done yet."""

    def __init__(self, job):
        self.job, self.folder, self.name, self.measured = job, Path(job["folder"]), job["model"], Path(job["measured"])
        self.predictions = Path(job["predictions"])
        build, self.trainer_of, seeded, hyper_parameters = library()
        self.splits = read_pickle(job["pickle"], job["clean"] if self.name == "tfr_net" else None)
        train = self.splits["train"]
        self.statistics, self.text_steps = statistics_of(train), train["text"].shape[1]
        up = lambda n: -(-n // 25) * 25 if self.name == "tfr_net" else n         # its heads over time divide the lengths
        self.steps = {m: up(train[m].shape[1]) for m in MODALITIES}
        seeded(job["seed"])
        self.args = configure(hyper_parameters, self.name, job["dataset"], job["seed"], [train[m].shape[2] for m in MODALITIES], self.steps, len(train["labels"]), self.folder)
        self.model = build(self.args)

    def say(self, text):
        print(f"{self.job['label']}: {text}", flush=True)

    def load(self):
        self.model.load_state_dict(torch.load(self.args["model_save_path"], weights_only=True))
        self.model.eval()

    def train(self):
        if (self.folder / "trained.json").is_file():
            return
        logger, handler = logging.getLogger("MMSA"), logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(f"{self.job['label']}: %(message)s"))
        logger.addHandler(handler), logger.setLevel(logging.INFO)
        clips = {split: Clips(self.name, arrays, *self.statistics, self.steps) for split, arrays in self.splits.items()}
        first = int(self.name == "self_mm")                                      # it looks through the labels once before its first epoch
        memory = None if self.name == "self_mm" else Memory(self.folder, self.model)
        loaders = {"train": Loader(clips["train"], self.args["batch_size"], True, self.job["epochs"] and self.job["epochs"] + first, self.say, memory),
                   "valid": Loader(clips["valid"], self.args["batch_size"])}
        trainer, started = self.trainer_of(self.args), time.monotonic()
        try:
            trainer.do_train(self.model, loaders)
        except Enough:
            self.say(f"stopped after {self.job['epochs']} epochs, as asked")
        epochs = loaders["train"].epoch - first - bool(self.job["epochs"] and loaders["train"].epoch > self.job["epochs"] + first)
        taken = memory.seconds() if memory else time.monotonic() - started
        self.load()
        found = trainer.do_test(self.model, loaders["valid"])
        told(self.folder / "trained.json", {"valid_loss": float(found["Loss"]), "seconds": taken, "epochs": epochs, "clips": len(clips["train"])})
        if memory:
            memory.forget()

    def clips(self, base, case, composition):
        return measured_clips(self.name, base, case, composition, self.text_steps, *self.statistics, self.steps)

    def predict(self):
        self.load()
        base = dict(np.load(self.measured / "base.npz"))
        self.predictions.mkdir(exist_ok=True)
        todo = [case for case in self.job["cases"] if not (self.predictions / case).is_file()]
        started = said = time.monotonic()
        for number, name in enumerate(todo, start=1):
            case, rows = dict(np.load(self.measured / name)), []
            for composition in range(len(base["audio"])):
                with torch.inference_mode():
                    rows.append(torch.cat([scores(call(self.name, self.model, batch)).reshape(-1) for batch in Loader(self.clips(base, case, composition), 32)]).numpy())
            written(self.predictions / name, lambda file: np.savez(file, scores=np.stack(rows)))
            if time.monotonic() - said > 15:
                said = time.monotonic()
                self.say(f"{number} of {len(todo)} masks predicted, ETA {(said - started) / number * (len(todo) - number) / 60:.1f} min")

    def time(self):
        if (self.folder / "timing.json").is_file():
            return
        base, case = (dict(np.load(self.measured / name)) for name in ("base.npz", self.job["cases"][-1]))
        timed = Timed(self.args, self.model, self.clips(base, case, 0).batch(np.arange(min(self.job["batch"], len(base["labels"])))))
        median = lambda action: statistics.median([action() for _ in range(9)][2:])
        told(self.folder / "timing.json", {"step": median(timed.step), "forward": median(timed.forward), "parameters": parameters(self.model)})


def serve():
    """{"model", "shapes": {modality: [T, D]}, "batch", "rate", "clock"} builds a model on random clips and answers its parameters; {"model", "do": "step" or
    "forward"} answers seconds. Whatever MMSA prints goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    build, _, _, hyper_parameters = library()
    held = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "do" in asked:
            answer = {"seconds": getattr(held[asked["model"]], asked["do"])()}
        else:
            name, shapes, batch, rng = asked["model"], asked["shapes"], asked["batch"], np.random.default_rng(0)
            steps, dims = {m: shapes[m][0] for m in MODALITIES}, {m: shapes[m][1] for m in MODALITIES}
            arrays = {m: rng.standard_normal((batch, *shapes[m])).astype(np.float32) for m in MODALITIES} | {"labels": rng.uniform(-3, 3, batch).astype(np.float32)}
            arrays |= {f"{m}_lengths": np.full(batch, steps[m]) for m in MODALITIES} | {f"{m}_missing": rng.random((batch, steps[m])) < asked["rate"] for m in MODALITIES}
            args = configure(hyper_parameters, name, "mosi", 0, list(dims.values()), steps, batch, ".")
            zeros, ones = ({m: np.full(dim, value, np.float32) for m, dim in dims.items()} for value in (0, 1))
            held[name] = Timed(args, build(args), Clips(name, arrays, zeros, ones, steps).batch(np.arange(batch)), asked["clock"])
            answer = {"parameters": parameters(held[name].model)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        work = Job(json.loads(Path(sys.argv[1]).read_text()))
        torch.set_num_threads(work.job["threads"])
        torch.set_flush_denormal(True)          # Adam's means of what gets no gradient end there: MFN's steps took three times as long after four epochs
        work.train()
        work.predict()
        work.time()
