"""Values that no page sends: refused in one sentence.

Gradio checks what comes for a component before any of our functions is called, and answers what does not fit with text of its libraries: many lines,
the value itself and paths of the server in it, in the answer and in the log.
"""

from __future__ import annotations

import gradio as gr

UNFIT = "What was sent does not fit what is asked for here; reload the page, or see its API page for what each parameter takes."
LONGEST = 300           # characters of a sentence of Gradio's own that is passed on, such as which kinds of files may be uploaded


def mended(value):
    """JSON with every half of a letter (a lone surrogate) replaced: an answer that held one could not be sent."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {mended(key): mended(inner) for key, inner in value.items()}
    return [mended(inner) for inner in value] if isinstance(value, list) else value


class FittingBlocks(gr.Blocks):
    """Blocks that say in one sentence that a value does not fit, and log nothing of it."""

    async def preprocess_data(self, block_fn, inputs, *args, **kwargs):
        try:
            return await super().preprocess_data(block_fn, mended(inputs), *args, **kwargs)
        except gr.Error as error:
            said = str(error.message)
            ours = said and "\n" not in said and len(said) <= LONGEST and not said.startswith("Value")         # that one quotes it
            raise gr.Error(said if ours else UNFIT, print_exception=False) from None
        except Exception:
            raise gr.Error(UNFIT, print_exception=False) from None
