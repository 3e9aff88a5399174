"""Looks of Gradio's own controls, beside theme.py's: buttons as wide as their words, a focus that is seen, room for progress."""

CONTROLS_CSS = """
.dark { --color-accent: var(--primary-400) !important; }
.gradio-container button.sm { flex: 0 0 auto; width: auto; align-self: flex-start; padding: .35rem .8rem; font-size: .86rem; font-weight: 500; text-align: left; }
.gradio-container .row > button.sm { align-self: center; }
.gradio-container button.sm.secondary { background: var(--background-fill-primary); color: var(--body-text-color); border: 1px solid var(--neutral-400); }
.gradio-container button.sm.secondary:hover { background: var(--background-fill-secondary); border-color: var(--color-accent); }
.dark .gradio-container button.sm.secondary, .gradio-container.dark button.sm.secondary { border-color: var(--neutral-500); }
.gradio-container button.sm.msa-example { border-color: var(--color-accent); border-radius: 999px; }
.gradio-container .msa-examples { gap: .45rem; }

/* Gradio's screen recorder sends its film to the server, which takes none. */
.banner-wrap:has(.record-button) { display: none; }

.gradio-container time, .gradio-container .playback > span { color: var(--body-text-color-subdued) !important; }

/* An empty line or plot of the page takes no room; one that something is on its way to takes enough for the progress. */
.block.hide-container:has(> .html-container > .prose:empty):not(:has(> .wrap:not(.hide))) { display: none; }
.msa-plot:has(.empty) { display: none; }
.gradio-container .pending { opacity: .75 !important; }        /* what is about to change stays readable */
.block.hide-container:has(> .wrap.full:not(.hide)) { min-height: 3.6rem; }

#linked label span, #post-linked label span { font-size: .97rem; font-weight: 650; color: var(--body-text-color); }
button:focus-visible, input:focus-visible, textarea:focus-visible, summary:focus-visible, [tabindex]:focus-visible
{ outline: 3px solid #e69f00 !important; outline-offset: 1px; }
.tab-like-container :focus-visible { outline-offset: -3px; }
[role=tab]:focus-visible, .study-scroll:focus-visible { outline-offset: -3px; }

@media (max-width: 640px) {
  #linked .head, #post-linked .head { flex-wrap: nowrap; } #linked label span, #post-linked label span { font-size: .88rem; }
  #text, #audio, #vision, #post-missing-text, #post-missing-image { min-width: 100% !important; }
  .msa-attention .xtick:nth-child(even), .msa-attention .x2tick:nth-child(even) { display: none; }
  footer .divider { display: none !important; }
}
"""
