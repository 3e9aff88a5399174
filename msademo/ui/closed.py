"""What Gradio would do with a visitor's words or files by itself and must not do here: fetch addresses, run ffmpeg, name files by their content alone, keep halves of uploads.

Gradio downloads an address that stands where a file is expected (a public one only, but still from this server), and hands videos to an ffmpeg on
the machine without any limit. There is no option against either, so the functions behind both are replaced.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

import gradio as gr
from gradio import processing_utils
from gradio.route_utils import GradioMultiPartParser

FETCHES = ("async_ssrf_protected_get", "async_ssrf_protected_download", "ssrf_protected_download", "save_url_to_cache")
REFUSED = "Addresses are not fetched by this page; download the file and upload it."


def _refuse(*_, **__):
    raise gr.Error(REFUSED, print_exception=False)


async def _refuse_later(*_, **__):
    _refuse()


_parse = GradioMultiPartParser.parse


async def _whole_or_nothing(parser: GradioMultiPartParser):
    """Gradio's reading of an upload. It leaves half of a file behind where somebody hangs up, or where the disk is full and needs it least."""
    try:
        return await _parse(parser)
    except BaseException:
        for file in parser._files_to_close_on_error:
            with suppress(OSError):             # what is left in its buffer need not go anywhere
                file.close()
            Path(file.name).unlink(missing_ok=True)
        raise


def close() -> None:
    """For this process, once or more often."""
    for name in FETCHES:
        setattr(processing_utils, name, _refuse_later if name.startswith("async_") else _refuse)
    processing_utils.ffmpeg_installed = lambda: False
    GradioMultiPartParser.parse = _whole_or_nothing
    # An upload's path holds a hash of this and of the file. New at every start and never written down, so that nobody guesses the path of
    # another's file, even with the file at hand.
    if not isinstance(processing_utils.hash_seed, _Seed):
        processing_utils.hash_seed = _Seed(secrets.token_bytes(32))


class _Seed(bytes):
    """Of our own making."""
