"""The Post tab: a picture and its words come in at the left; at the right what each path and both together make of them.

A slider move shows the answer first and then, from the same mask, where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from uuid import uuid4

import gradio as gr
from gradio.components.plot import PlotData

from msademo import limits
from msademo.corruption import check_seed
from msademo.errors import InputError
from msademo.models.spro import STAGES
from msademo.post_analyzer import HALVES, OpenedPost
from msademo.post_results import PostCurve, PostResult
from msademo.ui import figures, pictures, post_figures
from msademo.ui.guard import alert, guarded, guarded_steps, quiet
from msademo.ui.keys import own_key
from msademo.ui.post_layout import inputs, results, stage

DETAILS = ("notes", "left", "overlays", "told", "origin")
SHOW_RESULT = """() => {
  const shown = document.querySelector("#post-message .msa-alert") || document.querySelector("#post-stage");
  if (innerWidth < 800) shown.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
}"""


@dataclass(frozen=True)
class Wish:
    """What the sliders say. missing: a ratio a half of the post."""

    missing: dict[str, float] = field(default_factory=lambda: dict.fromkeys(HALVES, 0.0))
    seed: int = 0

    @classmethod
    def of(cls, text: float | None, image: float | None, seed: float | None) -> "Wish":
        """From the page's widgets, in their order. InputError for an empty number field."""
        return cls({"text": float(text or 0.0), "image": float(image or 0.0)}, check_seed(seed))

    @property
    def shared(self) -> float | None:
        """The ratio both halves have in common; None when they differ."""
        ratios = set(self.missing.values())
        return ratios.pop() if len(ratios) == 1 else None


@dataclass(frozen=True)
class Opened:
    """What the page remembers of a post: its picture's file, its text, the post taken apart, and a name for this opening of it."""

    path: str | None
    text: str
    post: OpenedPost
    token: str = field(default_factory=lambda: uuid4().hex)

    @property
    def captions(self) -> tuple[str, str, str]:
        """What the three boxes hold."""
        return self.post.captions.texts() if self.post.captions else ("", "", "")


def open_post(posts, before: Opened | None, path: str | None, text: str | None, boxes: tuple[str, ...], say) -> Opened:
    """Take a post apart, or of the one that is open only what has changed: its words, its captions."""
    given = (text or "").strip()
    if path is None and not given:
        raise InputError("There is nothing to analyse yet; click an example, give a picture, or type some words.")
    if before is None or before.path != path or path is None:
        return Opened(path, given, posts.open(path, given, say=say))
    now = before if given == before.text else Opened(path, given, posts.with_text(before.post, given))
    return now if boxes == before.captions else replace(now, post=posts.with_captions(now.post, dict(zip(STAGES, boxes))))


def details(opened: Opened, result: PostResult) -> tuple[str, ...]:
    """The panels of DETAILS, in their order."""
    picture = opened.post.post.picture
    return (pictures.notes_list(result.notes), post_figures.left(picture, result), post_figures.overlays(picture, result),
            post_figures.captions_told(result), pictures.origin(result))


def curve_panel(curve: PostCurve | None, wish: Wish, result_probability: float | None) -> tuple[PlotData | None, str]:
    if curve is None:
        return None, quiet("The robustness curve is being drawn: fifty masks of growing size …")
    return (figures.plot(post_figures.curve_figure(curve, wish.shared, result_probability)),
            f'<p class="msa-say">{post_figures.curve_sentence(curve, wish.shared, result_probability)}</p>')


def still_true(drawn: tuple | None, opened: Opened | None, wish: Wish, checkpoint: str) -> PostCurve | None:
    """The curve last drawn, if it is of this post, seed and checkpoint: one asked for earlier may arrive after they changed."""
    return drawn[1] if drawn is not None and opened is not None and drawn[0] == (opened.token, wish.seed, checkpoint) else None


def on_curve(result: PostResult) -> float:
    """The probability the curve is drawn of: that of the complete post's class."""
    fusion = result.paths["fusion"]
    return float(fusion.now[fusion.complete.argmax()])


def build_post_tab(analyzer) -> dict | None:
    """Lay out the tab inside the current Blocks and wire it to `analyzer.posts`; without a checkpoint there is one sentence, and None comes
    back. Else its components by name, and "analyse", which makes an event analyse what is in them."""
    posts = analyzer.posts
    if not posts.available:
        gr.HTML(alert("Posts need the checkpoint spro.safetensors, which is not here; train it with `python -m train spro`, then start the page again."),
                elem_id="post-absent")
        return None
    rest = limits.current().rest_seconds
    opened = gr.State(None, time_to_live=rest)                  # Opened
    curve = gr.State(None, time_to_live=rest)                   # ((token, seed, checkpoint), PostCurve)
    probability = gr.State(None, time_to_live=rest)             # on the page, of the complete post's class
    linked_at = gr.State(0.0)                                   # where the linked slider was left
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            page = inputs()
        with gr.Column(scale=9, min_width=320):
            page |= stage()
            page |= results()
    sliders, boxes = [page[f"missing_{half}"] for half in HALVES], [page[name] for name in STAGES]
    wishes, panels, curve_at = [*sliders, page["seed"]], [page[name] for name in DETAILS], [page["curve"], page["curve_text"]]

    def open_and_show(before, path, text, *values, progress=gr.Progress()):
        wish = Wish.of(*values[:len(wishes)])
        now = open_post(posts, before, path, text, values[len(wishes):], lambda what, share: progress(share, desc=what))
        result = posts.analyze(now.post, wish.missing, wish.seed)
        return ("", now, *now.captions, on_curve(result), gr.Column(visible=True), post_figures.answer(result), *details(now, result))

    def move(opened, drawn, *values):
        """The answer at once, then where it comes from."""
        if opened is None:
            yield (gr.skip(),) * (5 + len(DETAILS))
            return
        wish = Wish.of(*values)
        result = posts.analyze(opened.post, wish.missing, wish.seed, overlays=False)
        known = still_true(drawn, opened, wish, posts.file)
        yield ("", on_curve(result), post_figures.answer(result), *curve_panel(known, wish, on_curve(result)), *[gr.skip()] * len(DETAILS))
        yield (*[gr.skip()] * 5, *details(opened, posts.analyze(opened.post, wish.missing, wish.seed)))

    def caption(opened, written, *values, key=None):
        """New captions, and where they come from in the picture. written: a source, or the texts in the boxes. key: the visitor's own."""
        if opened is None:
            raise InputError("The post was put away after a rest; press Analyse to open it again.")
        if opened.post.seen is None:
            raise InputError("There is no picture to write about; add one and analyse again.")
        wish = Wish.of(*values)
        now = replace(opened, post=posts.with_captions(opened.post, written, **own_key(page["key"], written, key)))
        return ("", now, *now.captions, *details(now, posts.analyze(now.post, wish.missing, wish.seed)))

    def draw_curve(opened, drawn, *values):
        wish = Wish.of(*values)
        if opened is None or still_true(drawn, opened, wish, posts.file) is not None:
            return gr.skip(), gr.skip()
        return gr.skip(), ((opened.token, wish.seed, posts.file), posts.curve(opened.post, seed=wish.seed))

    def place_curve(opened, drawn, probability, *values):
        wish = Wish.of(*values)
        known = still_true(drawn, opened, wish, posts.file)
        return gr.skip(), *([gr.skip()] * 2 if known is None or probability is None else curve_panel(known, wish, probability))

    def link(linked, before):
        value = 0.0 if linked is None else float(linked)
        return (value, *[gr.skip() if value == before else value] * len(HALVES))

    def average(*ratios):
        value = round(sum(v or 0.0 for v in ratios) / len(ratios), 2)
        return value, value

    quietly = {"api_visibility": "private", "show_progress": "hidden"}
    latest = {**quietly, "trigger_mode": "always_last"}

    def then_curve(event):
        event = event.then(guarded(2)(draw_curve), [opened, curve, *wishes], [page["message"], curve], concurrency_limit=1, **quietly)
        return event.then(guarded(3, cost=0)(place_curve), [opened, curve, probability, *wishes], [page["message"], *curve_at], **quietly)

    def analysing(trigger):
        outputs = [page["message"], opened, *boxes, probability, page["column"], page["answer"], *panels]
        event = trigger(guarded(len(outputs))(open_and_show), [opened, page["image"], page["text"], *wishes, *boxes], outputs,
                        api_visibility="private", show_progress="full", show_progress_on=page["answer"], concurrency_limit=2)
        return then_curve(event.then(None, None, None, js=SHOW_RESULT, api_visibility="private"))

    def moving(trigger, **how):
        outputs = [page["message"], probability, page["answer"], *curve_at, *panels]
        return trigger(guarded_steps(len(outputs))(move), [opened, curve, *wishes], outputs, concurrency_limit=2, concurrency_id="post-move", **how)

    analysing(page["go"].click)
    for button, item in page["examples"]:
        fill = lambda item=item: (item["file"], item["text"], quiet(item["note"]), "")
        analysing(button.click(fill, None, [page["image"], page["text"], page["note"], page["message"]], **quietly).then)

    moving(page["linked"].release(link, [page["linked"], linked_at], [linked_at, *sliders], queue=False, **latest).then, **latest)
    for slider in sliders:
        slider.release(average, sliders, [page["linked"], linked_at], queue=False, **latest)
        moving(slider.release, **latest)
    page["again"].click(lambda seed: (seed or 0) + 1, page["seed"], page["seed"], queue=False, **quietly)
    then_curve(moving(page["seed"].change, **latest))

    page["image"].input(lambda: "", None, page["note"], queue=False, **quietly)         # what an example is about, another picture is not

    outputs = [page["message"], opened, *boxes, *panels]
    written = lambda opened, *values: caption(opened, dict(zip(STAGES, values)), *values[len(STAGES):])
    page["use"].click(guarded(len(outputs))(written), [opened, *boxes, *wishes], outputs, **quietly)
    page["write"].click(guarded(len(outputs))(lambda opened, writer, key, *values: caption(opened, writer, *values, key=key)),
                        [opened, page["writer"], page["key"], *wishes], outputs, api_visibility="private", show_progress="full",
                        show_progress_on=page["told"], concurrency_limit=2)
    return {**page, "analyse": analysing}
