"""What a process may do before it looks at a stranger's file: so much memory and time, no other file, no connection.

Limits of resources hold on Linux and, but for memory, on macOS. Landlock, a part of newer Linux kernels, takes away the file system and the
network; where it is absent, a decoder that was taken over could read what the server's user can read (docs/safety.md says so).
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446        # system calls; the same numbers on every architecture
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}     # how many there are by version of Landlock; 16 from 5 on
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38


class _Rules(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def bound(memory: int, seconds: int, written: int) -> None:
    """memory: bytes over what the process has now; seconds: of CPU time; written: bytes of the largest file. For good."""
    used = 0
    if sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
    for what, most in ((resource.RLIMIT_AS, used + memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, written), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        last = most + 1 if what == resource.RLIMIT_CPU and most != hard else most       # the first says why it kills, the last only kills
        try:
            resource.setrlimit(what, (most, last))
        except (ValueError, OSError):           # macOS knows no limit of memory
            pass


def version() -> int:
    """Of Landlock; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, 0, 1))


def shut_in(readable: Iterable[str]) -> bool:
    """From now on this process opens nothing but `readable`, files and folders, to read; it starts no program, connects nowhere by TCP and
    signals nobody outside. False where the kernel cannot do that."""
    known = version()
    if not known:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    rules = _Rules((1 << _FILE_RIGHTS.get(known, 16)) - 1, 0b11 if known >= 4 else 0, 0b11 if known >= 6 else 0)
    ruleset = libc.syscall(_CREATE, ctypes.byref(rules), 24 if known >= 6 else 16 if known >= 4 else 8, 0)
    if ruleset < 0:
        return False
    for path in readable:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _Beneath(_READ_FILE | (_READ_FOLDER if os.path.isdir(path) else 0), at)
        libc.syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
        os.close(at)
    done = libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and libc.syscall(_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return done
