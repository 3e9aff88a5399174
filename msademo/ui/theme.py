"""Looks of the page: system fonts, colour-blind-safe colours that work on white and on black, and what launch() needs for them.

Nothing is loaded from another server.
"""

from __future__ import annotations

import gradio as gr
from starlette.middleware import Middleware

from msademo import limits
from msademo.ui import access, openapi
from msademo.ui.controls_style import CONTROLS_CSS
from msademo.ui.examples import EXAMPLES
from msademo.ui.gate import Gate
from msademo.ui.post_style import POST_CSS
from msademo.ui.script import HEAD
from msademo.ui.study_style import STUDY_CSS

NEGATIVE = "#d55e00"            # Okabe and Ito's colours: told apart under every common colour blindness
CONSTANT = "#8a8f98"
LINE, BAND = "#1f86c9", "rgba(86, 180, 233, 0.35)"

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
_CONTRAST = {"body_text_color_subdued": "*neutral_500", "block_info_text_color": "*neutral_500", "input_placeholder_color": "*neutral_500",
             "color_accent": "*primary_600", "button_primary_background_fill": "*primary_600", "button_primary_background_fill_hover": "*primary_700"}
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

CSS = """
.gradio-container { max-width: 1720px !important; margin: 0 auto !important; overflow: clip !important; }
.gradio-container .html-container { padding: 2px 4px !important; }
.msa-head h1 { font-size: 1.7rem; font-weight: 700; margin: 0; }
.msa-head p { font-size: 1.05rem; margin: .2rem 0 0; color: var(--body-text-color); }
.msa-step { font-size: 1rem; font-weight: 650; margin: 0; color: var(--body-text-color); }
.msa-title { font-size: 1.05rem; font-weight: 650; margin: 0; }
.msa-say, .msa figcaption { font-size: .92rem; line-height: 1.4; color: var(--body-text-color); margin: .35rem 0 0; }
.msa { color: var(--body-text-color); margin: 0; }
.msa-small { font-size: .82rem; color: var(--body-text-color); opacity: .8; }
.msa ul { margin: 0; padding-left: 1.1rem; }
.msa-notes { border-left: 3px solid #e69f00; padding: .2rem .7rem; font-size: .9rem; }
.msa-alert { border-left: 4px solid #d55e00; padding: .3rem .7rem; font-weight: 550; }
.msa-quiet { padding: .1rem .2rem; font-size: .9rem; color: var(--body-text-color); opacity: .8; }
#msa-stage { background: var(--body-background-fill); padding: .3rem 0 .5rem; gap: .5rem; border-bottom: 1px solid var(--border-color-primary); }
@media (min-width: 800px) and (min-height: 760px) { #msa-stage { position: sticky; top: 0; z-index: 30; } }
#msa-stage .block { padding: .5rem .8rem; } #score { padding: .2rem .3rem !important; min-height: 5.2rem; }
#score .wrap.full { background: var(--body-background-fill); opacity: 1; }
#msa-results { gap: .35rem; } #msa-results .msa-title { margin-top: .9rem; }

.msa-models { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: .3rem 1.4rem; }
.msa-model h3 { font-size: .95rem; font-weight: 650; margin: 0; }
.msa-model h3 small { display: block; font-size: .8rem; font-weight: 400; opacity: .8; }
.msa-model:not(:only-child) .msa-score b { font-size: 1.7rem; } .msa-model:not(:only-child) .msa-score span { font-size: 1rem; }
.msa-model:not(:only-child) .msa-scale { height: 2.4rem; margin: .2rem .7rem 0; } .msa-model:not(:only-child) .msa-tick i { display: none; }
.msa-model:not(:only-child) .msa-say { font-size: .84rem; line-height: 1.35; min-height: 2.7em; margin: .1rem 0 0; }
.msa-score { display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem .8rem; }
.msa-score b { font-size: 2.3rem; line-height: 1.1; font-variant-numeric: tabular-nums; }
.msa-score span { font-size: 1.3rem; font-weight: 600; }
.msa-scale { position: relative; height: 3.6rem; margin: .35rem 2rem 0; }
.msa-bar { position: absolute; top: .45rem; left: 0; right: 0; height: .7rem; border-radius: .35rem;
           background: linear-gradient(90deg, #d55e00, #f0c9a0 42%, #e4e4e4 50%, #a5cbe6 58%, #0072b2); }
.msa-moved { position: absolute; top: .7rem; height: .2rem; background: var(--body-text-color); }
.msa-dot, .msa-ring { position: absolute; top: .8rem; border-radius: 50%; transform: translate(-50%, -50%); box-sizing: border-box; }
.msa-dot { width: 1.25rem; height: 1.25rem; background: var(--body-text-color); border: 3px solid var(--body-background-fill);
           transition: left .25s; }
.msa-ring { width: 1rem; height: 1rem; border: 3px solid var(--body-text-color); background: var(--body-background-fill); }
.msa-tick { position: absolute; top: 1.35rem; transform: translateX(-50%); text-align: center; font-size: .78rem; line-height: 1.15;
            color: var(--body-text-color); opacity: .8; white-space: nowrap; }
.msa-tick i { display: block; font-style: normal; }

.msa-row { display: grid; grid-template-columns: 3.4rem 1fr; gap: .5rem; align-items: start; margin-top: .35rem; }
.msa-row > span { font-size: .85rem; font-weight: 600; }
.msa-words { position: relative; max-height: 15rem; overflow: hidden auto; }
.msa-lanes { position: relative; height: calc(var(--wide) * 1.4em); font-size: .88rem; }
.msa-word { position: absolute; left: max(0px, min(var(--x), 100% - var(--l) * .56em - 8px)); top: calc(var(--w) * 1.4em); white-space: nowrap; line-height: 1.35em;
            border-left: 2px solid #0072b2; padding-left: 3px; }
.msa-flow s, .msa-flow span { margin-right: .35em; }
s.msa-gone { text-decoration: line-through 2px; opacity: .72; border-color: #8a8f98; }
.msa-wave { display: block; width: 100%; height: 44px; }
.msa-wave path { fill: #0072b2; } .dark .msa-wave path { fill: #56b4e9; }
.msa-wave rect { fill: var(--background-fill-primary); opacity: .82; }
.msa-frames { display: flex; gap: 2px; }
.msa-frames span { flex: 1 1 0; min-width: 0; position: relative; }
.msa-frames img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 3px; }
.msa-frames .msa-gone img, .msa-frames .msa-none img { filter: grayscale(1); opacity: .28; }
.msa-frames .msa-none::after { content: "no face"; position: absolute; inset: auto 0 0 0; font-size: .62rem; text-align: center; overflow: hidden; }
.msa-cover { display: block; width: 100%; height: 7px; margin-top: 3px; background: #0072b2; border-radius: 2px; }
.dark .msa-cover { background: #56b4e9; }
.msa-cover .gone { fill: #c9ccd1; } .dark .msa-cover .gone { fill: #3d434d; }
.msa-cover .none { fill: #e69f00; }
.msa-axis { display: flex; justify-content: space-between; font-size: .78rem; color: var(--body-text-color); opacity: .8; font-variant-numeric: tabular-nums; }

.msa-maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: .6rem; }
.msa-maps h4 { font-size: .88rem; font-weight: 600; margin: 0 0 .15rem; }
.msa-maps img { display: block; width: 100%; height: 150px; image-rendering: pixelated; border: 1px solid var(--border-color-primary);
                background: repeating-linear-gradient(45deg, #b9bdc4 0 2px, transparent 2px 7px); }
.msa-key { display: inline-block; width: 8rem; height: .7rem; vertical-align: middle; border-radius: 2px;
           background: linear-gradient(90deg, #440154, #3b528b, #21918c, #5ec962, #fde725); }
.msa-numbers, .msa-numbers tr, .msa-numbers th, .msa-numbers td { border: 0 !important; background: none !important; }
.msa-numbers { width: 100%; border-collapse: collapse; font-size: .88rem; color: var(--body-text-color); }
.msa-numbers th { text-align: left; font-weight: 600; padding: .35rem .4rem 0 0; vertical-align: top; }
.msa-numbers td { text-align: right; padding: .35rem 0 0; font-variant-numeric: tabular-nums; vertical-align: top; }
.msa-numbers .msa-means td { text-align: left; font-size: .8rem; opacity: .8; padding: 0 0 .2rem; }
.msa-times { display: flex; flex-wrap: wrap; gap: .2rem .5rem; font-size: .85rem; max-height: 11rem; overflow: auto; margin-top: .3rem; }
.msa-times small { color: var(--body-text-color); opacity: .8; font-variant-numeric: tabular-nums; }
.msa summary { cursor: pointer; font-size: .9rem; }

.msa-plot .js-plotly-plot .xtick text, .msa-plot .js-plotly-plot .x2tick text, .msa-plot .js-plotly-plot .ytick text, .msa-plot .js-plotly-plot .y2tick text, .msa-plot .js-plotly-plot .xtitle,
.msa-plot .js-plotly-plot .ytitle, .msa-plot .js-plotly-plot .y2title, .msa-plot .js-plotly-plot .legendtext, .msa-plot .js-plotly-plot .annotation-text,
.msa-plot .js-plotly-plot .cbaxis text, .msa-plot .js-plotly-plot .cbtitle text { fill: var(--body-text-color) !important; }
.msa-plot .js-plotly-plot .gridlayer path { stroke: var(--border-color-primary) !important; }
.msa-plot { border: 0 !important; background: transparent !important; padding: 0 !important; }
@media (max-width: 640px) {
  .msa-tick i { display: none; }
  .msa-scale { height: 2.4rem; margin: .35rem .7rem 0; }
  .msa-lanes { height: calc(var(--narrow) * 1.4em); }
  .msa-word { top: calc(var(--n) * 1.4em); }
  .msa-frames span:nth-child(even) { display: none; }
  .msa-row { grid-template-columns: 1fr; gap: .1rem; }
}
@media (prefers-reduced-motion: reduce) { .msa-dot { transition: none; } }
"""


def admits(user: str, password: str) -> bool:
    return access.current().admits(user, password)


def launch_options() -> dict:
    """Arguments of Blocks.launch that belong to the page itself; where to listen stays with GRADIO_SERVER_NAME and _PORT."""
    theme = gr.themes.Default(primary_hue="blue", secondary_hue="orange", neutral_hue="slate", font=_FONTS, font_mono=_MONO).set(**_CONTRAST)
    return {"theme": theme, "css": CSS + CONTROLS_CSS + POST_CSS + STUDY_CSS, "head": HEAD, "allowed_paths": [str(EXAMPLES)], "max_file_size": f"{limits.current().upload_mb}mb", "show_error": True,
            "auth": admits if access.current().login else None,
            "app_kwargs": {"routes": openapi.routes(), "middleware": [Middleware(Gate)]}, "share": False, "ssr_mode": False, "state_session_capacity": 100, "footer_links": ["api", "settings"],
            "run_history": False}           # Gradio would keep every call in the browser, words and answers
