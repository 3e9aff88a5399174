"""What the page does in the browser beyond Gradio: the keys that its widgets leave out."""

# Gradio's slider announces a move when the pointer lets go; arrow keys and Enter in its number field announce it here. A list that closes
# when an option of it is pressed leaves the letting go to the slider under it, which is no move.
SLIDERS = """
addEventListener("keyup", (event) => {
  const field = event.target;
  const moved = field.type === "range" && /^(Arrow|Page|Home|End)/.test(event.key);
  const typed = field.type === "number" && event.key === "Enter";
  if (moved || typed) field.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
});
let pressed = null;
addEventListener("pointerdown", (event) => { pressed = event.target; }, true);
addEventListener("pointerup", (event) => {
  if (event.isTrusted && event.target.type === "range" && event.target !== pressed) event.stopImmediatePropagation();
}, true);
"""

# Arrow keys go from tab to tab, as everywhere else; Gradio's tabs only know Tab and Enter.
TABS = """
addEventListener("keydown", (event) => {
  const at = event.target.closest && event.target.closest("[role=tab]");
  if (!at || event.ctrlKey || event.altKey || event.metaKey) return;
  const all = [...at.parentNode.querySelectorAll("[role=tab]")].filter((tab) => tab.offsetParent && tab.ariaDisabled !== "true"), here = all.indexOf(at);
  const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const next = all[(to + all.length) % all.length];
  next.click();
  next.focus();
});
"""

HEAD = f'\n<meta name="viewport" content="width=device-width, initial-scale=1">\n<script>{SLIDERS}{TABS}</script>\n'
