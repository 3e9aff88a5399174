"""The page: a header and a tab a task. Building it is apart from launching it."""

from __future__ import annotations

import logging
import math
import os
import threading

import gradio as gr
import torch
from gradio import networking

from msademo import apart, limits
from msademo.errors import InputError
from msademo.study.desk import Desk
from msademo.ui import access, closed, heaps, sweeper
from msademo.ui.api import add_clip_api
from msademo.ui.batch_api import add_batch_api
from msademo.ui.clip_tab import build_clip_tab
from msademo.ui.fitting import FittingBlocks
from msademo.ui.models import build_models_tab
from msademo.ui.post_api import add_post_api
from msademo.ui.post_tab import build_post_tab
from msademo.ui.study_tab import build_study_tab
from msademo.ui.theme import launch_options
from msademo.ui.tools import prepare, wanted
from msademo.ui.zerogpu import register

TITLE = "msademo: sentiment from words, voice and face"
HEADER = ('<header class="msa-head"><h1>msademo</h1><p>What sentiment do words, voice and face show? '
          "Take some of them away and watch the answer change.</p></header>")


def limits_line(bounds: limits.Limits) -> str:
    """What a visitor may bring and what becomes of it."""
    return (f'<p class="msa-quiet" id="msa-limits">A file may have {bounds.upload_mb} MB. Of a clip the first {bounds.clip_seconds} s count, of words the first {bounds.words}; '
            f"a picture may have {bounds.megapixels} million pixels. Uploads go after {limits.hours(bounds.keep_hours)}. {bounds.per_minute} requests "
            f"a minute are answered, and {bounds.queue} may wait.</p>")


def build_demo(analyzer, sets: str | None = None) -> gr.Blocks:
    """The demo around an Analyzer; nothing is loaded or listening yet. sets: a folder of the server with labelled sets, for the Errors tab."""
    bounds = limits.current()
    access.current(), closed.close(), sweeper.private_uploads()
    desk = Desk(analyzer, sets=sets)
    with FittingBlocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(bounds.sweep_seconds, math.ceil(3600 * bounds.keep_hours))) as demo:
        gr.HTML(HEADER + limits_line(bounds))
        with gr.Tabs() as tabs:
            with gr.Tab("Clip", id="clip"):
                clip = build_clip_tab(analyzer)
            with gr.Tab("Post", id="post"):
                post = build_post_tab(analyzer)
            with gr.Tab("Errors", id="errors") as errors:
                build_study_tab(desk, errors, tabs, clip, post)
            with gr.Tab("Models", id="models") as models:
                build_models_tab(analyzer, models, lambda: desk.runner.busy)
        add_clip_api(analyzer)
        add_post_api(analyzer)
        add_batch_api(analyzer)
    demo.sweep = lambda: sweeper.sweep(demo, desk.store.tidy)
    return demo


def warm_in_background(analyzer) -> threading.Thread:
    """Load the models while the page is already up. A broken checkpoint is logged here and told to whoever analyses."""

    def warm():
        try:
            analyzer.warm()
            if analyzer.posts.available:
                analyzer.posts.warm()
        except InputError as error:
            logging.getLogger("msademo.ui").error("%s", error)
        heaps.settle()

    thread = threading.Thread(target=warm, name="warm", daemon=True)
    thread.start()
    return thread


def share_cores() -> None:
    """Half the cores for one analysis, unless OMP_NUM_THREADS says otherwise. Two analyses at once on every core wait for
    each other's threads: a slider move then took ten times as long as on one thread each."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))


def launch(demo: gr.Blocks, analyzer, mcp: bool = False) -> None:
    """Serve until stopped; host and port by GRADIO_SERVER_NAME and GRADIO_SERVER_PORT. mcp: offer the endpoints as tools too; InputError where that cannot be."""
    if mcp := wanted(mcp):
        prepare()
    register()
    share_cores()
    heaps.share_memory()
    heaps.keep_trimmed()
    apart.prepare()
    networking.url_ok = lambda url: True       # Gradio asks its own address for 3 s and gives up starting, which a busy machine takes longer for
    warm_in_background(analyzer)
    sweeper.keep_swept(demo.sweep)
    demo.queue(default_concurrency_limit=2, max_size=limits.current().queue).launch(**launch_options(), mcp_server=mcp)
