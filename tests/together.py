"""Started by torchrun in tests: commands of the trainer one after the other in one group, for starting processes takes longer than they do.

The first argument is a JSON list of command lines. At the end process 1 fails while process 0 waits for it.
"""

import json
import sys

import torch

from train import processes
from train.__main__ import main

torch.set_num_threads(1)
with processes.joined("tests", True):
    for command in json.loads(sys.argv[1]):
        assert main(command) == 0
        processes.from_main(None)           # what process 0 wrote, the next command may read
    assert processes.world() == 2
    if processes.rank() == 1:
        raise RuntimeError("process 1 fails")
    processes.add_up(torch.zeros(1))
    print("never said: process 0 waited in vain")
