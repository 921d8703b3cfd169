// The pictures: cards that are filled when they come near the screen, filters, search and marks.

import { table } from "./charts.js";
import { badge, count, draw, into, kindName, make, many, percent, quiet, score } from "./elements.js";
import { slide } from "./slider.js";
import { STATUSES } from "./tables.js";

export const MARKS = { k: "keep", r: "redo", w: "wrong" };
/** "wrong" takes an edit back; a row that has none has nothing to take back. */
const markable = (card, mark) => card.attempt && (mark !== "wrong" || !["failed", "unchanged"].includes(card.status));
export const block = (id) => JSON.parse(document.getElementById(id).textContent);
const whole = new Map(); // picture data of cards that were seen, by number

export function picturesOf(n) {
  if (!whole.has(n)) whole.set(n, block(`pictures-${n}`));
  return whole.get(n);
}

/** The parts of a picture that can be compared: before, mask, after, boxes, and a handle to pull. */
export function compare(card, pictures, source = pictures) {
  const [width, height] = source.box ? [source.box[2] - source.box[0], source.box[3] - source.box[1]] : pictures.size;
  const image = (src, alt) => make("img", { src, alt, decoding: "async", loading: "lazy", draggable: "false", width, height });
  const pic = make("div", { class: `pic ${width / height > 4 / 3 ? "broad" : "tall"}` });
  pic.style.setProperty("--ratio", width / height);
  const over = source === pictures && pictures.mask ? make("img", { src: pictures.mask, alt: "", class: "mask", decoding: "async", draggable: "false" }) : null;
  const both = source.before && source.after;
  if (source.after) pic.append(image(source.after, `${card.name}, after`));
  if (source === pictures) pic.append(boxes(card.left, width, height));
  if (source.before) pic.append(make("div", { class: "before" }, image(source.before, `${card.name}, before`), over));
  if (!both) return { pic, slider: null };
  return { pic, slider: slide(pic, `Compare before and after: ${card.name}`) };
}

function boxes(finds, width, height) {
  const svg = draw("svg", { class: "boxes", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const { box } of finds) {
    if (box.length !== 4) continue;
    const [x, y, x1, y1] = box;
    svg.append(draw("rect", { x, y, width: Math.max(0, x1 - x), height: Math.max(0, y1 - y), "vector-effect": "non-scaling-stroke" }));
  }
  return svg;
}

/** Why a card has no picture, or only one. */
export function missing(card, pictures) {
  if (!pictures.before && !pictures.after) return card.error ? "No picture could be made of it." : "The source is gone, has changed or does not decode, and there is no output.";
  if (!pictures.before) return "Only after: the source is gone, has changed since, or does not decode.";
  if (!pictures.after) return card.status === "unchanged" ? "Nothing was found; nothing was changed." : "No output: this is the source.";
  return null;
}

export class Gallery {
  constructor(data, dialog) {
    this.data = data;
    this.dialog = dialog;
    this.list = document.getElementById("gallery");
    this.key = `cleanplate marks ${data.digest} ${data.output}`;
    this.marks = this.remembered();
    this.cards = data.gallery.map((card, n) => this.card(card, n));
    this.list.append(...this.cards.map((card) => card.node));
    this.visible = this.cards;
    this.current = this.cards[0] ?? null;
    this.seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) this.fill(this.cards[target.dataset.n]);
    }, { rootMargin: "500px" });
    for (const card of this.cards) this.seen.observe(card.node);
    this.list.addEventListener("keydown", (event) => this.pressed(event));
    this.list.addEventListener("focusin", (event) => {
      const node = event.target.closest(".card");
      if (node) this.choose(this.cards[node.dataset.n]);
    });
    this.choose(this.current);
    this.describe();
  }

  card(card, n) {
    const least = card.finds.length ? Math.min(...card.finds.map((find) => find.score ?? 0)) : null;
    const kinds = [...new Set([...card.finds, ...card.left].map((find) => find.kind))];
    const frame = make("div", { class: "frame" });
    const open = make("button", { type: "button", class: "open", "aria-label": `Full size: ${card.name}`, on: { click: () => this.dialog.open(n) } }, "⤢");
    const words = [];
    if (card.error) words.push(`${card.error.stage}/${card.error.kind}: ${card.error.message}`);
    if (kinds.length) words.push(kinds.map((k) => `${kindName(k).toLowerCase()} ${card.finds.filter((f) => f.kind === k).length || ""}`.trim()).join(", "));
    if (least !== null) words.push(`least sure ${score(least)}`);
    if (card.coverage) words.push(`${percent(card.coverage, 1)} masked`);
    const node = make("li", { class: "card", "data-n": n, "data-id": card.id, tabindex: "-1", "aria-label": `${card.name}, ${card.status}` },
      make("div", { class: "shot" }, frame, open),
      make("div", { class: "text" },
        make("div", { class: "line" }, make("span", { class: "name", title: card.name }, card.name), badge(card.status, card.hidden)),
        make("p", { class: "about" }, words.join(" · ") || STATUSES[card.status] || "")),
      this.buttons(n));
    return { node, frame, card, n, least, kinds, text: `${card.name}\n${card.id}\n${card.uri ?? ""}`.toLowerCase(), filled: false, slider: null };
  }

  buttons(n) {
    const made = Object.entries(MARKS).map(([key, mark]) =>
      make("button", { type: "button", "data-mark": mark, "aria-pressed": "false", "aria-keyshortcuts": key, disabled: !markable(this.data.gallery[n], mark), on: { click: () => this.mark(n, mark) } },
        mark, make("kbd", { "aria-hidden": "true" }, key)));
    return make("div", { class: "choices", role: "group", "aria-label": "Decision" }, ...made);
  }

  fill(item) {
    if (item.filled) return;
    item.filled = true;
    this.seen.unobserve(item.node);
    const pictures = picturesOf(item.n);
    const lacks = missing(item.card, pictures);
    if (pictures.size) {
      const { pic, slider } = compare(item.card, pictures);
      item.slider = slider;
      item.frame.append(pic);
      if (slider) slider.tabIndex = item === this.current ? 0 : -1;
    }
    if (lacks) item.frame.append(make("p", { class: pictures.size ? "lacks" : "lacks alone" }, lacks));
  }

  // --- marks ---

  remembered() {
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) ?? "[]");
      const cards = new Map(this.data.gallery.map((card) => [card.id, card]));
      // A mark judges one attempt: one that was given to an earlier attempt says nothing of this one.
      const still = stored.filter(({ image_id, attempt, mark }) => cards.get(image_id)?.attempt === attempt && Object.values(MARKS).includes(mark));
      return new Map(still.map(({ image_id, mark }) => [image_id, mark]));
    } catch {
      return new Map(); // No storage for this file: marks last as long as the page is open.
    }
  }

  mark(n, mark) {
    const card = this.data.gallery[n];
    const { id } = card;
    if (!markable(card, mark)) return;
    if (this.marks.get(id) === mark) this.marks.delete(id);
    else this.marks.set(id, mark);
    this.describe();
  }

  /** The marks as `cleanplate run --review` reads them. */
  listed() {
    return this.data.gallery.filter(({ id }) => this.marks.has(id)).map(({ id, attempt }) => ({ image_id: id, attempt, mark: this.marks.get(id) }));
  }

  forget() {
    this.marks.clear();
    this.describe();
  }

  describe() {
    try {
      localStorage.setItem(this.key, JSON.stringify(this.listed()));
    } catch {
      // As above.
    }
    for (const item of this.cards) {
      const mark = this.marks.get(item.card.id);
      item.node.dataset.mark = mark ?? "";
      item.node.setAttribute("aria-label", `${item.card.name}, ${item.card.status}${mark ? `, marked ${mark}` : ""}`);
      for (const button of item.node.querySelectorAll("[data-mark]")) button.setAttribute("aria-pressed", button.dataset.mark === mark);
    }
    const counts = Object.values(MARKS).map((mark) => [mark, [...this.marks.values()].filter((m) => m === mark).length]);
    into("marked", this.marks.size ? counts.filter(([, c]) => c).map(([mark, c]) => `${c} ${mark}`).join(", ") : "No marks yet");
    for (const id of ["export", "forget"]) document.getElementById(id).disabled = !this.marks.size;
    this.dialog.describe?.();
  }

  export() {
    const body = JSON.stringify({ recipe_digest: this.data.digest, marks: this.listed() }, null, 1);
    const url = URL.createObjectURL(new Blob([body], { type: "application/json" }));
    make("a", { href: url, download: "marks.json" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // --- moving and choosing ---

  choose(item) {
    for (const [other, on] of [[this.current, false], [item, true]]) {
      if (!other) continue;
      other.node.tabIndex = on ? 0 : -1;
      for (const control of other.node.querySelectorAll("button, input")) control.tabIndex = on ? 0 : -1;
    }
    this.current = item;
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.current) return;
    const pulling = event.target.matches(".slider");
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in MARKS) this.mark(this.current.n, MARKS[key]);
    else if (key === "Enter" && event.target.matches(".card")) this.dialog.open(this.current.n);
    else if (key === "m") document.getElementById("show-mask").click();
    else if (key === "s" && !pulling) this.current.slider?.focus();
    else if (key === "Escape" && pulling) this.current.node.focus();
    else if (!pulling && this.step(key)) return void event.preventDefault();
    else return;
    event.preventDefault();
  }

  step(key) {
    const columns = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity };
    if (!(key in moves)) return false;
    const at = this.visible.indexOf(this.current) + moves[key];
    const next = this.visible[Math.min(Math.max(at, 0), this.visible.length - 1)];
    next?.node.focus();
    return true;
  }

  filter(wanted) {
    const words = wanted.search.trim().toLowerCase();
    this.visible = this.cards.filter((item) => {
      const mark = this.marks.get(item.card.id) ?? "none";
      const shown = (!wanted.status || item.card.status === wanted.status) && (!wanted.kind || item.kinds.includes(wanted.kind)) &&
        (!wanted.why || item.card.why === wanted.why) && (!wanted.mark || mark === wanted.mark) &&
        (wanted.score >= 1 || (item.least !== null && item.least <= wanted.score)) && (!words || item.text.includes(words));
      item.node.hidden = !shown;
      return shown;
    });
    if (!this.visible.includes(this.current)) this.choose(this.visible[0] ?? null);
    into("shown", `${count(this.visible.length)} of ${many(this.cards.length, "picture")}`);
    this.elsewhere(words);
  }

  /** Rows that match the search but have no picture on this page. */
  elsewhere(words) {
    const place = document.getElementById("elsewhere");
    place.hidden = words.length < 3;
    if (place.hidden) return;
    this.index ??= block("index");
    this.lower ??= this.index.name.map((name) => name.toLowerCase());
    const known = new Set(this.data.gallery.map((card) => card.id.slice(0, 16)));
    const hex = /^[0-9a-f]+$/.test(words) ? words.slice(0, 16) : null;
    const found = [];
    let more = 0;
    this.index.id.forEach((id, n) => {
      if (!((hex && id.startsWith(hex)) || this.lower[n].includes(words)) || known.has(id)) return;
      if (found.length < 30) found.push(n);
      else more += 1;
    });
    const { name, id, status, statuses, cause, causes, score: scores, coverage } = this.index;
    const rows = found.map((n) => [
      make("b", { class: "name" }, name[n]), make("code", {}, `${id[n]}…`), badge(statuses[status[n]]),
      cause[n] < 0 ? "" : causes[cause[n]], score(scores[n]), coverage[n] ? percent(coverage[n], 1) : "–",
    ]);
    const columns = [{ title: "File" }, { title: "Image id" }, { title: "Status" }, { title: "Cause" }, { title: "Least sure", number: true }, { title: "Masked", number: true }];
    const all = this.data.indexed < this.data.rows ? `the ${count(this.data.indexed)} rows that this page knows by name` : `all ${count(this.data.rows)} rows`;
    place.replaceChildren(make("h3", {}, "Without a picture on this page"),
      found.length ? table(columns, rows, `Other rows that match, of ${all}`) : quiet(`No other row matches, of ${all}.`),
      more ? quiet(`And ${count(more)} more: search for a longer part of the name.`) : "");
  }
}
