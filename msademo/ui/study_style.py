"""Looks of the Errors and Models tabs, beside theme.py's."""

STUDY_CSS = """
#study-results, #study-item, #study-last { gap: .5rem; background: var(--body-background-fill); } #study-results .msa-title, #study-item .msa-title { margin-top: .8rem; }
.study-bar { height: .6rem; border-radius: .3rem; background: var(--border-color-primary); overflow: hidden; margin: .3rem 0; }
.study-bar i { display: block; height: 100%; background: #0072b2; transition: width .3s; } .dark .study-bar i { background: #56b4e9; }
.study-notes { padding-left: 1.6rem !important; }
.study-scroll { overflow-x: auto; width: 0; min-width: 100%; }
.study-metrics, .study-confusion, .study-items, .study-metrics tr, .study-confusion tr, .study-items tr, .study-metrics thead, .study-confusion thead, .study-items thead { border: 0 !important; background: none !important; }
.study-metrics, .study-confusion, .study-items { border-collapse: collapse; color: var(--body-text-color); font-variant-numeric: tabular-nums; }
.study-metrics th, .study-metrics td { padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; font-size: .92rem; border: 0 !important;
                                       border-bottom: 1px solid var(--border-color-primary) !important; background: none !important; }
.study-metrics small { opacity: .85; font-size: .82rem; white-space: nowrap; }
.study-confusion caption { text-align: left; font-size: .92rem; padding-bottom: .2rem; }
.study-confusion th { font-size: .85rem; font-weight: 600; padding: .2rem .35rem; border: 0 !important; background: none !important; }
.study-confusion td { border: 1px solid var(--border-color-primary) !important; padding: 0 !important; text-align: center; min-width: 2.3rem; height: 2.1rem; }
.study-confusion thead td { border: 0 !important; } .study-confusion thead th { text-align: center; }
.study-confusion .study-right { background: rgba(0, 114, 178, calc(var(--s) * .5)) !important; } .study-confusion .study-wrong { background: rgba(213, 94, 0, calc(var(--s) * .5)) !important; }
.study-confusion button { width: 100%; min-height: 2.1rem; font-weight: 650; color: inherit; background: none; border: 0; cursor: pointer; text-decoration: underline; }
.study-confusion button[aria-pressed=true] { outline: 3px solid var(--body-text-color); outline-offset: -3px; }
.study-scatter { width: 100%; max-width: 27rem; display: block; }
.dark .study-scatter [fill="#0072b2"] { fill: #56b4e9; } .dark .study-scatter [fill="#d55e00"] { fill: #f0863c; }
.study-scatter text { font-size: 10px; fill: var(--body-text-color); }
.study-grid path { stroke: var(--border-color-primary); fill: none; } .study-grid .study-even { stroke: var(--body-text-color); stroke-dasharray: 4 4; opacity: .6; }
.study-scatter [data-pick] { cursor: pointer; fill-opacity: .75; stroke: var(--body-background-fill); stroke-width: 1; }
.study-scatter [data-pick]:hover, .study-scatter [data-pick]:focus { fill-opacity: 1; stroke: var(--body-text-color); stroke-width: 2.5; outline: none; }
.study-items { width: 100%; } .study-items th:nth-child(2) { width: 42%; } .study-items th:last-child { width: 11rem; } .study-items td[data-name] { white-space: nowrap; }
.study-items th { text-align: left; font-size: .85rem; font-weight: 600; padding: .2rem .5rem; border: 0 !important; background: none !important; }
.study-items td { padding: .35rem .5rem !important; vertical-align: top; font-size: .92rem; border: 0 !important; border-top: 1px solid var(--border-color-primary) !important; background: none !important; }
.study-items tr[data-pick] { cursor: pointer; } .study-items tr[data-pick]:hover td { background: rgba(86, 180, 233, .14) !important; }
.study-items p { margin: .1rem 0 0; overflow-wrap: anywhere; }
.study-confusion button, .study-items button, .study-list .msa-say button, .study-moved button { background: none !important; color: inherit !important; border-radius: 0 !important; padding: 0 !important; margin: 0 !important; box-shadow: none !important; }
.study-items td > button { font-weight: 650 !important; text-decoration: underline; text-align: left; overflow-wrap: anywhere; min-height: 24px; }
.study-items td > button[aria-pressed=true] { border-left: 4px solid #e69f00 !important; padding-left: .3rem !important; }
.study-items th button, .study-list .msa-say button, .study-turn button, .study-moved button { text-decoration: underline; color: inherit; font: inherit; cursor: pointer; }
.study-items th button[aria-pressed=true]::after { content: " \\25BE"; }
.study-turn button { padding: .4rem .9rem; margin-right: .5rem; border: 1px solid var(--border-color-primary); border-radius: 4px; } .study-turn button[disabled] { opacity: .45; cursor: default; }
.study-pic { width: 6.5rem; } .study-pic img { max-width: 6rem; max-height: 5rem; border-radius: 4px; display: block; margin: 0; }
.study-badges i { display: inline-block; font-style: normal; font-size: .8rem; border: 1px solid var(--border-color-primary); border-radius: 3px; padding: 0 .3rem; margin: 0 .2rem .2rem 0; white-space: nowrap; }
.study-badges .study-tag { border-color: #e69f00; } .study-note { border-left: 3px solid #e69f00; padding-left: .5rem; } .study-trouble { font-style: italic; }
.study-title { font-size: 1.1rem; font-weight: 650; margin: .3rem 0 0; color: var(--body-text-color); }
.study-moved { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: .8rem; margin-top: .5rem; } .study-moved h4 { font-size: .95rem; font-weight: 650; margin: 0; }
.model-card { border-top: 1px solid var(--border-color-primary); padding: .5rem 0 .7rem; }
.model-card h3 { font-size: 1.05rem; font-weight: 650; margin: 0; color: var(--body-text-color); overflow-wrap: anywhere; } .model-card h3 small { font-weight: 400; opacity: .85; }
.model-card dl { display: grid; grid-template-columns: 8rem 1fr; gap: .15rem .8rem; margin: .4rem 0 0; font-size: .92rem; }
.model-card dt { font-weight: 600; } .model-card dd { margin: 0; overflow-wrap: anywhere; }
.model-card .study-metrics td, .model-card .study-metrics th { padding: .1rem 1.1rem .1rem 0; white-space: nowrap; }
#models-purpose p { margin: .2rem 0 .4rem; line-height: 1.45; } #models-purpose h2:not(:first-child) { margin-top: .7rem; } #models-purpose li { margin: .15rem 0; }
.model-card pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; font-size: .92rem; margin: .3rem 0 0; background: none; color: inherit; padding: 0; }
.model-used { display: inline-block; border: 2px solid #0072b2; border-radius: 3px; padding: 0 .4rem; font-size: .8rem; font-weight: 600; }
@media (max-width: 640px) {
  .study-items thead { display: none; } .study-items tr { display: grid; grid-template-columns: 5.6rem auto 1fr; border-top: 1px solid var(--border-color-primary); padding: .4rem 0; }
  .study-items td { border: 0 !important; padding: .1rem .3rem !important; grid-column: 2 / span 2; } .study-items .study-pic { grid-column: 1; grid-row: 1 / span 4; width: auto; }
  .study-items td:nth-child(3), .study-items td:nth-child(5) { grid-column: 2; } .study-items td:nth-child(4), .study-items td:nth-child(6) { grid-column: 3; } .study-items td[data-name] { white-space: normal; }
  .study-pic img { max-width: 5.2rem; } .study-items td[data-name]:not(:empty)::before { content: attr(data-name) ": "; font-weight: 600; }
  .study-confusion td { min-width: 1.9rem; } .study-confusion th { padding: .2rem .2rem; } .model-card dl { grid-template-columns: 1fr; gap: 0; } .model-card dd { margin-bottom: .3rem; }
}
@media (prefers-reduced-motion: reduce) { .study-bar i { transition: none; } }
"""
