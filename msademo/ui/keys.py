"""A visitor's own key for the language model: typed into a field of the page, sent along with the one request that needs it, kept nowhere.

Gradio remembers what a page's fields held as long as a session lasts; of this field it is made to forget it before the request is answered.
"""

from __future__ import annotations

import html

import gradio as gr
from gradio.context import LocalContext

from msademo.errors import InputError
from msademo.guidance.chat import ChatSettings, has_key, usable_key
from msademo.ui.guard import asking


def host() -> str | None:
    """Where a key goes; None where the address is unusable, which whoever asks is told."""
    try:
        return ChatSettings.from_environment().host
    except InputError:
        return None


def key_field(name: str, writer, gets: str) -> gr.Textbox:
    """A password field that is there while the writer is the language model. gets: what that model is shown."""
    told = f"It goes, with {gets}, to {host() or 'the language model'} through this server, for each request anew, and is kept nowhere."
    if has_key():
        told += " Left empty, the server's own key is used."
    field = gr.Textbox(label="Your own key for the language model", info=html.escape(told), type="password", max_lines=1, max_length=300, visible=False, elem_id=name,
                       html_attributes=gr.InputHTMLAttributes(autocomplete="off", spellcheck=False))
    writer.change(lambda chosen: gr.Textbox(visible=chosen == "openai", value=""), writer, field, queue=False, api_visibility="private", show_progress="hidden")
    return field


def _forget(field: gr.Textbox) -> None:
    """Out of the session that Gradio keeps for this page."""
    request, demo = asking(), LocalContext.blocks.get(None)
    holder = getattr(demo, "state_holder", None)
    if holder is None or request is None or request.session_hash not in holder:
        return
    config = holder[request.session_hash].config_values.get(field._id) or {}
    if "props" in config:
        config["props"]["value"] = ""


def own_key(field: gr.Textbox, writer, typed: str | None) -> dict[str, str]:
    """{"key": ...} for whoever asks the language model, {} where nobody is asked or none was typed. InputError, which never quotes it, for
    what is no key."""
    _forget(field)
    if writer != "openai":
        return {}
    given = (typed or "").strip()
    return {"key": usable_key(given)} if given else {}
