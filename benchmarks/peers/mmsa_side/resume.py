"""A training that was stopped goes on after its last whole epoch."""

import os
import time
from pathlib import Path

import torch


def written(path, write):
    """Whole or not at all."""
    temporary = path.with_name("." + path.name)
    with open(temporary, "wb") as file:
        write(file)
    os.replace(temporary, path)


class Memory:
    """The model, Adam and torch's random numbers after every epoch, a file each in folder. MMSA's trainers keep the state of their loop in local variables, so what
    was stopped goes through its epochs again without their batches: what each had reached is put in its place, and validation decides as it did. Not for a
    trainer that itself learns from batches (Self-MM's)."""

    def __init__(self, folder, model):
        self.folder, self.model, self.optimizer, self.before, self.started = Path(folder), model, None, 0.0, time.monotonic()
        memory = self

        class Watched(torch.optim.Adam):                                # trainers make it for themselves
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                memory.optimizer = self

        torch.optim.Adam = Watched

    def path(self, epoch):
        return self.folder / f"epoch-{epoch}.pth"

    def holds(self, epoch):
        return self.path(epoch).is_file()

    def seconds(self):
        """Spent on training, in all processes."""
        return self.before + time.monotonic() - self.started

    def keep(self, epoch):
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "random": torch.get_rng_state(), "seconds": self.seconds()}
        written(self.path(epoch), lambda file: torch.save(state, file))

    def restore(self, epoch):
        state = torch.load(self.path(epoch), weights_only=True)
        self.model.load_state_dict(state["model"]), self.optimizer.load_state_dict(state["optimizer"]), torch.set_rng_state(state["random"])
        self.before, self.started = state["seconds"], time.monotonic()

    def forget(self):
        for path in self.folder.glob("epoch-*.pth"):
            path.unlink()
