"""A decoder whose files have taken it over: it does what stands in them. The stand-in for files that nobody should keep in a repository."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import time

import numpy as np

from msademo import decoder_child


def write(out: int, *arrays: np.ndarray) -> None:
    for array in arrays:
        os.write(out, array.tobytes())


def attempt(action) -> str:
    try:
        return f"did {action()}"
    except Exception as error:
        return type(error).__name__


def hostile(job: dict, out: int, given: int | None) -> dict:
    with open(job["path"], encoding="utf-8") as file:
        order, _, rest = file.read().partition(" ")
    frames, times = np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2)
    honest = {"shapes": {"frames": frames.shape, "times": times.shape}, "told": {"duration": 1.0, "notes": []}}
    if order == "crash":
        ctypes.string_at(0)
    if order == "abort":
        os.abort()
    if order == "sleep":
        time.sleep(600)
    if order == "spin":
        while True:
            pass
    if order == "eat":
        return [bytearray(64 << 20) for _ in range(10_000)] and {}
    if order == "fill":
        while True:
            os.write(out, bytes(1 << 20))
    if order == "quit":
        os._exit(0)
    if order == "kill-parent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(2)
    if order == "lie":
        write(out, frames)
        return {**honest, "shapes": json.loads(rest)}
    if order == "tell":
        write(out, frames, times)
        return {**honest, "told": json.loads(rest)}
    if order == "shout":
        return {"refused": "x" * 1_000_000}
    if order == "babble":
        for handle in range(3, 64):             # wherever the link is
            attempt(lambda: os.write(handle, b"\x80\x04no json\n"))
        os._exit(0)
    if order == "spy":
        server = int(rest)
        write(out, frames, times)
        seen = [attempt(lambda: len(open("/etc/passwd").read())), attempt(lambda: len(open(f"/proc/{server}/environ", "rb").read())),
                attempt(lambda: socket.create_connection(("127.0.0.1", 9), 1)), attempt(lambda: os.kill(server, 0)),
                attempt(lambda: open(job["path"] + ".new", "w")), ",".join(sorted(os.environ))]
        return {**honest, "told": {"duration": 1.0, "notes": seen}}
    write(out, frames, times)
    return honest


if __name__ == "__main__":
    decoder_child.work = hostile
    decoder_child.serve(socket.socket(fileno=int(sys.argv[1])))
