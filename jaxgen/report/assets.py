"""The page's style and script, in the page itself: nothing is fetched."""

from __future__ import annotations

__all__ = ["SCRIPT", "STYLE"]

_LIGHT = """
  color-scheme: light;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c1c1f; --soft: #5c5c66; --edge: #dcdce0;
  --grid: #ececef; --accent: #1f5fa8; --s0: #1f5fa8; --s1: #b4480b; --s2: #1c7a3c;
  --good: #176b34; --good-back: #e2f4e7; --unsure: #7a4d00; --unsure-back: #fdf0d3;
  --bad: #a61b1b; --bad-back: #fce5e5;
"""
_DARK = """
  color-scheme: dark;
  --paper: #16171a; --card: #1f2024; --ink: #ececee; --soft: #a9a9b4; --edge: #3a3b42;
  --grid: #2d2e34; --accent: #86b8f2; --s0: #86b8f2; --s1: #f3a268; --s2: #7fd197;
  --good: #8fdba5; --good-back: #1c3625; --unsure: #f2c777; --unsure-back: #3b2f16;
  --bad: #ff9d9d; --bad-back: #452022;
"""

STYLE = (
    f":root {{{_LIGHT}}}\n"
    f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{{_DARK}}} }}\n"
    f":root[data-theme=dark] {{{_DARK}}}\n"
    """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.skip { position: absolute; left: -999px; }
.skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .4rem .8rem; }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 1.25rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: baseline;
  padding-top: 1.5rem; }
header h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; flex: 1 1 20rem;
  overflow-wrap: anywhere; }
header p { flex-basis: 100%; margin: 0; color: var(--soft); }
h2 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
a { color: var(--accent); }
button, select { font: inherit; color: var(--ink); background: var(--card);
  border: 1px solid var(--edge); border-radius: 6px; padding: .3rem .8rem; }
button:hover, select:hover { border-color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
section, .card { background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 1.25rem; margin: 1.25rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
th { font-weight: 600; }
td.long { overflow-wrap: anywhere; }
td.n, th.n { text-align: right; white-space: nowrap; }
tbody th[scope=row] { min-width: 7.5rem; }
tbody td:nth-child(2) .badge { min-width: 9rem; }
tbody tr:last-child > * { border-bottom: 0; }
.verdicts { list-style: none; margin: .75rem 0 0; padding: 0; display: grid; gap: .5rem; }
.verdicts li { border-left: 4px solid; padding: .4rem .8rem; border-radius: 4px; }
.verdicts .why { display: block; color: var(--ink); font-size: .92rem; }
.good { color: var(--good); background: var(--good-back); border-color: var(--good); }
.unsure { color: var(--unsure); background: var(--unsure-back); border-color: var(--unsure); }
.bad { color: var(--bad); background: var(--bad-back); border-color: var(--bad); }
.badge { display: inline-block; border-radius: 4px; padding: .05rem .5rem; font-size: .92rem; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 0 2rem;
  align-items: start; }
img, .frame { image-rendering: pixelated; }
.sheet { width: 100%; max-width: 560px; height: auto; border-radius: 4px; display: block; }
.across-1 { max-width: 112px; } .across-2 { max-width: 224px; }
.across-3 { max-width: 336px; } .across-4 { max-width: 448px; }
.frame { border-radius: 4px; background-repeat: no-repeat; background-color: var(--grid); }
.player { display: flex; flex-wrap: wrap; gap: .75rem 1.25rem; align-items: center; }
.controls { flex: 1 1 14rem; display: grid; gap: .6rem; }
.controls label { display: grid; gap: .15rem; color: var(--soft); font-size: .92rem; }
.controls input { width: 100%; accent-color: var(--accent); }
.controls output { font-variant-numeric: tabular-nums; }
.film { flex-basis: 100%; overflow-x: auto; border-radius: 4px; }
.film img { height: 44px; width: auto; display: block; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem; }
.maps figure { margin: 0; }
.maps img { display: block; width: 132px; height: auto; border-radius: 4px; }
figcaption { font-size: .88rem; color: var(--soft); }
.maps figcaption { max-width: 132px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr));
  gap: 1rem 1.5rem; }
.chart { margin: 0; }
.chart > svg { width: 100%; height: auto; display: block; }
.chart text { font-size: 11px; fill: var(--soft); }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); stroke-dasharray: 6 3; }
.s2 { stroke: var(--s2); stroke-dasharray: 2 3; }
.faint { stroke: var(--s0); stroke-width: 1.1; opacity: .55; }
.dot, .bar { fill: var(--s0); } .bar { opacity: .75; }
.grid { stroke: var(--grid); } .axis { stroke: var(--soft); }
.rule { stroke: var(--s1); stroke-dasharray: 4 3; }
.legend { list-style: none; margin: .1rem 0 0; padding: 0 0 0 52px; display: flex;
  flex-wrap: wrap; gap: 0 1rem; font-size: .85rem; color: var(--soft); }
.key { width: 28px; height: 8px; vertical-align: middle; }
summary { cursor: pointer; font-weight: 600; margin-top: 1rem; }
dt { font-weight: 600; margin-top: .75rem; }
dd { margin: 0; }
code { font-size: .92em; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: .85rem; margin: .5rem 0 0; }
.note { color: var(--soft); font-size: .92rem; margin: .4rem 0; }
@media print { button, .controls { display: none; } }
"""
)

SCRIPT = """
(() => {
  "use strict";
  const root = document.documentElement, button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const name = () => { button.textContent = dark() ? "Light colours" : "Dark colours"; };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();

  for (const player of document.querySelectorAll(".player")) {
    const data = JSON.parse(player.querySelector("script").textContent);
    const chain = player.querySelector("select"), draw = player.querySelector("input");
    const frame = player.querySelector(".frame"), film = player.querySelector(".film img");
    const said = player.querySelector("output"), play = player.querySelector("button");
    const scale = Math.max(1, Math.floor(224 / Math.max(data.width, data.height)));
    const wide = data.width * scale, tall = data.height * scale;
    Object.assign(frame.style, { width: wide + "px", height: tall + "px",
      backgroundSize: wide * data.draws.length + "px " + tall + "px" });
    const show = () => {
      const c = chain.selectedIndex, d = Number(draw.value);
      const text = "chain " + data.chains[c] + ", draw " + data.draws[d] + " of " + data.total;
      if (frame.dataset.chain !== String(c)) {
        frame.dataset.chain = c;
        frame.style.backgroundImage = 'url("' + data.strips[c] + '")';
        film.src = data.strips[c];
        film.alt = "All draws of chain " + data.chains[c] + " side by side, in order";
      }
      frame.style.backgroundPosition = -d * wide + "px 0";
      frame.setAttribute("aria-label", "Image at " + text + ", " + data.label);
      draw.setAttribute("aria-valuetext", text);
      said.textContent = text;
    };
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
    play.addEventListener("click", () => {
      if (timer) return stop();
      play.textContent = "Stop";
      timer = setInterval(() => {
        draw.value = (Number(draw.value) + 1) % data.draws.length;
        show();
      }, 160);
    });
    chain.addEventListener("change", show);
    draw.addEventListener("input", () => { stop(); show(); });
    player.querySelector(".controls").hidden = false;
    show();
  }
})();
"""
