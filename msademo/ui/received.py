"""Files that a program sends with a call: uploaded before, or written out in the call itself. Nothing else on the server is read, and no address is fetched."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Mapping
from urllib.parse import unquote

from gradio.utils import get_upload_folder

from msademo import temporary
from msademo.errors import InputError
from msademo.study.sets import inside

MOST_BYTES = 50_000_000         # of a file written out in a call, which goes through memory several times
UPLOADED = "/gradio_api/file="
ELSEWHERE = "A file must be uploaded first (gradio_client's handle_file does it, or POST /gradio_api/upload) or be sent as a data: address; addresses are not fetched."
NOT_READABLE = "The file's data: address cannot be read; write it as data:video/mp4;base64, and the file in base64."


def name_of(given) -> str | None:
    """What a sent file is called, without folders; None where nothing tells."""
    name = given.get("orig_name") or given.get("path") if isinstance(given, Mapping) else given
    return os.path.basename(name)[:200] or None if isinstance(name, str) and not name.startswith("data:") else None


def _uploaded(path: str) -> str:
    """The real path of an uploaded file. Whether another file is there or not is told to nobody."""
    try:
        found = inside(Path(get_upload_folder()), Path.cwd() / path)
    except (OSError, ValueError):           # no path at all: too long, or with a zero byte
        found = None
    if found is None:
        raise InputError(ELSEWHERE)
    return str(found)


def _written_out(address: str) -> tuple[bytes, str]:
    """Content and file ending of a data: address."""
    head, comma, body = address.partition(",")
    kind, *rest = head[len("data:"):].split(";")
    if not comma or "base64" not in rest:
        raise InputError(NOT_READABLE)
    if len(body) * 3 // 4 > MOST_BYTES:
        raise InputError(f"A file in a data: address may have {MOST_BYTES // 1_000_000} MB; upload a larger one first (POST /gradio_api/upload).")
    try:
        return base64.b64decode(body, validate=True), mimetypes.guess_extension(kind.strip().lower()) or ""
    except (binascii.Error, ValueError):
        raise InputError(NOT_READABLE) from None


@contextmanager
def received(given) -> Iterator[str | None]:
    """The path of a sent file while the block lasts; None where none was sent. InputError for anything that was not sent by the caller.

    given: what gradio_client makes of handle_file, the path or address that an upload got here, or a data: address with the file in base64.
    """
    if given is None or given == "":
        yield None
        return
    path = given.get("path") if isinstance(given, Mapping) else given
    if not isinstance(path, str):
        raise InputError(ELSEWHERE)
    if not path.startswith("data:"):
        # An upload's own address names its path; it is taken from the disk and asked of no server.
        yield _uploaded(unquote(path.partition(UPLOADED)[2]) if path.startswith(("http://", "https://")) and UPLOADED in path else path)
        return
    content, ending = _written_out(path)
    handle, name = tempfile.mkstemp(suffix=ending, dir=temporary.folder())
    try:
        with open(handle, "wb") as file:
            file.write(content)
        yield name
    finally:
        os.unlink(name)
