"""Looks of the Post tab, beside theme.py's."""

POST_CSS = """
#post-stage { background: var(--body-background-fill); padding: .3rem 0 .5rem; gap: .5rem; border-bottom: 1px solid var(--border-color-primary); }
@media (min-width: 800px) and (min-height: 760px) { #post-stage { position: sticky; top: 0; z-index: 20; } }
#post-stage .block { padding: .5rem .8rem; } #post-answer { padding: .2rem .3rem !important; min-height: 5.2rem; }
#post-answer .wrap.full { background: var(--body-background-fill); opacity: 1; }
#post-results { gap: .35rem; } #post-results .msa-title { margin-top: .9rem; }
#post-text textarea, #post-captions textarea { unicode-bidi: plaintext; }
.post-path { display: grid; grid-template-columns: 5.2rem 1fr 8.4rem; gap: .1rem .6rem; align-items: center; margin-top: .3rem; font-size: .92rem; }
.post-path > span { font-weight: 600; } .post-path > b { font-weight: 600; font-variant-numeric: tabular-nums; }
.post-bar { display: flex; height: 1.15rem; border-radius: 3px; overflow: hidden; }
.post-bar i { font-style: normal; font-size: .76rem; line-height: 1.15rem; text-align: center; overflow: hidden; white-space: nowrap; transition: flex-basis .25s;
              flex: 0 0 calc(var(--p) * 100%); min-width: 0; font-variant-numeric: tabular-nums; }
.post-before { height: .3rem; margin-top: 2px; opacity: .75; }
.post-negative { background: #d55e00; color: #000; } .post-neutral { background: #d3d5d9; color: #000; } .post-positive { background: #0072b2; color: #fff; }
.post-key { display: inline-block; width: .75rem; height: .75rem; border-radius: 2px; margin: 0 .25rem 0 .7rem; vertical-align: -1px; }
.post-words { line-height: 1.9; font-size: .98rem; max-height: 14rem; overflow: hidden auto; }
.post-words span, .post-words s { padding: .1rem .2rem; border-radius: 3px; margin-inline-end: .15rem; overflow-wrap: anywhere; }
.post-words span { background: rgba(31, 134, 201, calc(var(--r, 0) * .6)); }
.post-left { display: grid; grid-template-columns: minmax(150px, 260px) 1fr; gap: .8rem; align-items: start; }
.post-tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .9rem; }
.post-tiles h4 { font-size: .95rem; font-weight: 650; margin: 0 0 .2rem; }
.post-tiles figure { margin: 0; }
.post-pic { position: relative; width: min(100%, 22rem * var(--shape)); aspect-ratio: var(--shape); min-height: 4px; background: var(--pic) center / 100% 100%; border-radius: 4px; overflow: hidden; }
.post-pic img, .post-pic svg { position: absolute; left: var(--x); top: var(--y); width: var(--w); height: var(--h); display: block; }
.post-pic img { opacity: var(--msa-overlay, .6); }
.post-pic rect { fill: #8a8f98; } .post-pic path { stroke: #6b7079; stroke-width: .06; }
.post-quote { font-size: .88rem; font-style: italic; margin: .35rem 0 0; color: var(--body-text-color); overflow-wrap: anywhere; }
.post-opacity { display: flex; flex-wrap: wrap; gap: .2rem .7rem; align-items: center; font-size: .9rem; color: var(--body-text-color); }
.post-opacity input { width: 11rem; accent-color: #1f86c9; }
.post-scale { display: inline-block; width: 7rem; height: .7rem; border-radius: 2px; background: linear-gradient(90deg, #000004, #420a68, #932667, #dd513a, #fca50a, #fcffa4); }
@media (max-width: 640px) {
  .post-path { grid-template-columns: 4.4rem 1fr; } .post-path > b { grid-column: 2; }
  .post-left { grid-template-columns: 1fr; } .post-tiles { grid-template-columns: 1fr 1fr; gap: .7rem; }
}
@media (prefers-reduced-motion: reduce) { .post-bar i { transition: none; } }
"""
