"""The process that decodes what strangers give: `python -m msademo.decoder_child FD`, started by apart.py and by nobody else.

It imports the decoders once and never looks at a file itself. For every job it forks a child, which confines itself, decodes one file,
answers with raw arrays and a line of JSON, and ends. So a file that crashes, hangs or takes over its decoder has that one child, and no
other visitor's file is in it. There is one thread here, which is what makes the fork safe.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys

import av
import numpy as np
import PIL

from msademo import confine
from msademo.decoding import decode
from msademo.errors import InputError
from msademo.link import receive
from msademo.picture import read_picture

# Decoders load some of their own parts at the first use.
LIBRARIES = tuple({os.path.dirname(os.__file__), *(os.path.dirname(os.path.dirname(package.__file__)) for package in (av, np, PIL))})


def work(job: dict, out: int, given: int | None) -> dict:
    """Do one job: arrays are written to the file `out` one after the other; shapes and all else are in the answer."""
    source = job["path"]
    if given is not None:
        with os.fdopen(given, "rb") as file:
            source = file.read()
    if job["kind"] == "clip":
        media = decode(source, job["seconds"], job["pixels"])
        arrays = {"frames": media.frames, "times": media.times, **({} if media.audio is None else {"audio": media.audio})}
        told = {"duration": media.duration, "notes": media.notes}
    else:
        picture = read_picture(source, job["pixels"])
        arrays, told = {"rgb": picture.rgb}, {"size": picture.size, "notes": picture.notes}
    with os.fdopen(out, "wb", closefd=False) as file:
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).data)
    return {"shapes": {name: array.shape for name, array in arrays.items()}, "told": told}


def child(job: dict, link: socket.socket, out: int, given: int | None) -> None:
    """One job, in a process of its own. Whatever happens, it ends here."""
    try:
        confine.bound(job["memory"], job["cpu"], job["written"])
        confine.shut_in([*LIBRARIES, *([job["path"]] if job["path"] else [])])
        try:
            answer = work(job, out, given)
        except InputError as refused:
            answer = {"refused": str(refused)}
        except MemoryError:
            answer = {"ended": "memory"}
        except (FileNotFoundError, PermissionError):    # gone meanwhile, or not ours to read
            answer = {"ended": "file"}
        link.sendall(json.dumps(answer).encode() + b"\n")
    finally:
        os._exit(0)


def serve(control: socket.socket) -> None:
    """Fork for every job, kill the child of whoever hangs up, and say how each child ended, until the server is gone."""
    woken, wake = os.pipe()
    os.set_blocking(woken, False), os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C is the server's, whose end is ours
    links: dict[int, socket.socket] = {}                # by process
    with selectors.DefaultSelector() as waiting:
        waiting.register(control, selectors.EVENT_READ)
        waiting.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is control:
                    text, files = receive(control)
                    if not text:
                        for pid in links:
                            os.kill(pid, signal.SIGKILL)
                        return
                    link = socket.socket(fileno=files[0])
                    pid = os.fork()
                    if pid == 0:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        for other in (control, waiting, *links.values()):       # other visitors' answers go through these
                            other.close()
                        child(json.loads(text), link, files[1], files[2] if len(files) > 2 else None)
                    for file in files[1:]:
                        os.close(file)
                    links[pid] = link
                    waiting.register(link, selectors.EVENT_READ, pid)
                elif key.fileobj is woken:
                    os.read(woken, 4096)
                elif key.data in links:                 # hung up: out of time, or the server is gone
                    os.kill(key.data, signal.SIGKILL)
                    waiting.unregister(key.fileobj)
            for pid in list(links):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    link = links.pop(pid)
                    if link in (key.fileobj for key in waiting.get_map().values()):
                        waiting.unregister(link)
                    try:
                        link.sendall(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
                    except OSError:
                        pass
                    link.close()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
