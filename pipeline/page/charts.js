// Small makers of elements and charts. Text is always set as text, never as markup.

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const number = new Intl.NumberFormat("en");
const count = (value) => number.format(value);
const many = (value, one, more = `${one}s`) => `${count(value)} ${value === 1 ? one : more}`;
const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

function percent(part, whole) {
  if (!whole || !part) return "0 %";
  const share = (100 * part) / whole;
  if (share < 0.1) return "under 0.1 %";
  if (share > 99.9 && part < whole) return "over 99.9 %";
  return `${share >= 10 ? Math.round(share * 10) / 10 : share.toFixed(1)} %`;
}

function rate(perSecond) {
  if (perSecond >= 10) return `${count(Math.round(perSecond))} images/s`;
  if (perSecond >= 0.5) return `${perSecond.toFixed(1)} images/s`;
  return `${(60 * perSecond).toFixed(perSecond * 60 >= 10 ? 0 : 1)} images/min`;
}

function lasting(seconds) {
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function moment(time) {
  const date = new Date(typeof time === "number" ? 1000 * time : time);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/** A round number at or above `value`, for the top of an axis. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/**
 * A bar chart that is redrawn to the width it has, so that its text keeps its size on a phone.
 * bars: [{from, to, value, tip}] on an axis 0..end. ticks: [{at, text}]. told: the chart in a sentence.
 */
function barChart({ bars, end, ticks, format, told, height = 200 }) {
  const box = make("div", { class: "chart" });
  const top = ceiling(Math.max(...bars.map((bar) => bar.value)) || 1);
  function redraw(width) {
    const left = 12 + 7 * Math.max(format(top).length, format(top / 2).length);
    const [right, above, below] = [width - 6, 10, height - 26];
    const x = (at) => left + ((right - left) * at) / end;
    const y = (value) => below - ((below - above) * value) / top;
    const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told });
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
function shares(rows) {
  const most = Math.max(...rows.map((row) => row.value)) || 1;
  const list = make("dl", { class: "shares" });
  for (const row of rows) {
    const bar = make("span", { class: "length", "aria-hidden": "true" });
    bar.style.width = `${Math.max(0.5, (100 * row.value) / most)}%`;
    list.append(make("dt", {}, row.label), make("dd", {}, make("span", { class: "track" }, bar), make("b", {}, row.told)));
  }
  return list;
}

/** columns: [{title, number?}]; rows: arrays of strings or nodes. */
function table(columns, rows, caption = null) {
  const head = columns.map((c) => make("th", { scope: "col", class: c.number ? "number" : null }, c.title));
  const body = rows.map((cells) =>
    make("tr", {}, ...cells.map((cell, n) => make("td", { class: columns[n].number ? "number" : null }, cell ?? ""))),
  );
  const drawn = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  if (caption) drawn.prepend(make("caption", {}, caption));
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption ?? "Table" }, drawn);
}

const numbersOf = (chart) => make("details", { class: "numbers" }, make("summary", {}, "The numbers"), chart);
