// Charts and tables.

import { draw, make } from "./elements.js";

/** A round number at or above `value`, for the top of an axis. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/**
 * A bar chart that is redrawn to the width it has, so that its text keeps its size on a phone.
 * bars: [{from, to, value, tip}] on an axis 0..end. ticks: [{at, text}]. caption: the chart in a sentence.
 */
export function barChart({ bars, end, ticks, format, caption, height = 200 }) {
  const box = make("div", { class: "chart" });
  const top = ceiling(Math.max(...bars.map((bar) => bar.value)) || 1);
  function redraw(width) {
    const left = 12 + 7 * Math.max(format(top).length, format(top / 2).length);
    const [right, above, below] = [width - 6, 10, height - 26];
    const x = (at) => left + ((right - left) * at) / end;
    const y = (value) => below - ((below - above) * value) / top;
    const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": caption });
    for (const value of [0, top / 2, top]) {
      svg.append(draw("line", { x1: left, x2: right, y1: y(value), y2: y(value), class: value ? "grid" : "axis" }));
      svg.append(draw("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, value ? format(value) : "0"));
    }
    for (const bar of bars) {
      if (!bar.value) continue;
      const wide = x(bar.to) - x(bar.from);
      const gap = wide > 6 ? 2 : 0;
      const high = Math.max(1.5, below - y(bar.value));
      const shape = { x: x(bar.from) + gap / 2, y: below - high, width: Math.max(1, wide - gap), height: high };
      svg.append(draw("rect", { ...shape, rx: Math.min(3, wide / 4), class: "bar" }, draw("title", {}, bar.tip)));
    }
    let free = -Infinity;
    for (const tick of ticks) {
      const wide = 6.6 * tick.text.length;
      const middle = Math.min(Math.max(x(tick.at), left + wide / 2), right - wide / 2);
      if (middle - wide / 2 < free) continue;
      free = middle + wide / 2 + 8;
      svg.append(draw("text", { x: middle, y: height - 8, "text-anchor": "middle" }, tick.text));
    }
    box.replaceChildren(svg);
  }
  let drawn = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width > 40 && width !== drawn) redraw((drawn = width));
  }).observe(box);
  return box;
}

/** Rows of label, bar and value. */
export function shares(rows) {
  const most = Math.max(...rows.map((row) => row.value)) || 1;
  const list = make("dl", { class: "shares" });
  for (const row of rows) {
    const bar = make("span", { class: "length", "aria-hidden": "true" });
    bar.style.width = `${Math.max(0.5, (100 * row.value) / most)}%`;
    list.append(make("dt", {}, row.label), make("dd", {}, make("span", { class: "track" }, bar), make("b", {}, row.text)));
  }
  return list;
}

/** columns: [{title, number?}]; rows: arrays of strings or nodes. */
export function table(columns, rows, caption = null) {
  const head = columns.map((c) => make("th", { scope: "col", class: c.number ? "number" : null }, c.title));
  const body = rows.map((cells) =>
    make("tr", {}, ...cells.map((cell, n) => make("td", { class: columns[n].number ? "number" : null }, cell ?? ""))),
  );
  const drawn = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  if (caption) drawn.prepend(make("caption", {}, caption));
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption ?? "Table" }, drawn);
}

export const numbersOf = (chart) => make("details", { class: "numbers" }, make("summary", {}, "The numbers"), chart);
