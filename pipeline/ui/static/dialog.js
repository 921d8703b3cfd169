// One picture at full size: slider, side by side, or a cut at full resolution.

import { badge, make, many, percent, score } from "./elements.js";
import { MARKS, compare, missing, picturesOf } from "./gallery.js";
import { REASONS } from "./tables.js";

const VIEWS = { slider: "Slider", side: "Side by side", close: "Close-up" };

export class Full {
  constructor(data) {
    this.data = data;
    this.box = document.getElementById("full");
    this.view = "slider";
    this.n = null;
    this.box.addEventListener("keydown", (event) => this.pressed(event));
    this.box.addEventListener("click", (event) => event.target === this.box && this.box.close());
    this.box.addEventListener("close", () => this.closed());
  }

  open(n) {
    this.n = n;
    this.draw();
    if (!this.box.open) this.box.showModal();
    this.stage.focus();
  }

  closed() {
    const item = this.gallery.cards[this.n];
    this.n = null;
    if (!item.node.hidden) item.node.focus();
  }

  draw() {
    const card = this.data.gallery[this.n];
    const pictures = picturesOf(this.n);
    const views = Object.keys(VIEWS).filter((v) => (v === "close" ? pictures.close : v === "slider" || pictures.before));
    const view = views.includes(this.view) ? this.view : "slider";
    const button = (name, label, call, more = {}) => make("button", { type: "button", "aria-label": label, on: { click: call }, ...more }, name);
    const choose = views.map((v) => button(VIEWS[v], null, () => { this.view = v; this.draw(); this.box.querySelector(`[data-view=${v}]`).focus(); }, { "aria-pressed": String(v === view), "data-view": v }));
    this.stage = make("div", { class: "stage", tabindex: "-1", "data-view": view }, ...this.staged(card, pictures, view));
    this.marks = this.gallery.buttons(this.n);
    const place = this.gallery.visible.findIndex((item) => item.n === this.n) + 1;
    this.box.replaceChildren(
      make("header", {}, make("h2", { id: "full-name" }, card.name), badge(card.status, card.hidden), button("✕", "Close", () => this.box.close(), { class: "quiet close" })),
      this.stage,
      make("div", { class: "bar" },
        make("div", { class: "views", role: "group", "aria-label": "View" }, ...choose),
        this.marks,
        make("div", { class: "steps" }, button("←", "Previous picture", () => this.step(-1), { class: "quiet" }),
          make("span", {}, place ? `${place} of ${this.gallery.visible.length}` : ""), button("→", "Next picture", () => this.step(1), { class: "quiet" }))),
      this.facts(card, pictures));
    this.describe();
  }

  staged(card, pictures, view) {
    const lacks = missing(card, pictures);
    const note = lacks ? [make("p", { class: "lacks alone" }, lacks)] : [];
    if (!pictures.size) return note;
    if (view === "side") {
      const one = (name, part) => make("figure", {}, compare(card, pictures, { ...part }).pic, make("figcaption", {}, name));
      const masked = make("figure", {}, compare(card, { ...pictures, after: null }).pic, make("figcaption", {}, pictures.mask ? "mask" : "no mask"));
      masked.classList.add("masked");
      return [one("before", { before: pictures.before }), masked, ...(pictures.after ? [one("after", { after: pictures.after })] : []), ...note];
    }
    const { pic, slider } = view === "close" ? compare(card, pictures, pictures.close) : compare(card, pictures);
    this.slider = slider;
    return [pic, ...note];
  }

  facts(card, pictures) {
    const list = (finds) => finds.map((f) => `${f.kind} ${score(f.score)}`).join(", ");
    const pairs = [
      ["Cause", card.error && `${card.error.stage}/${card.error.kind}: ${card.error.message}`],
      ["Still there", list(card.left)], ["Found", list(card.finds)],
      ["Masked", card.coverage ? percent(card.coverage, 1) : null],
      ["Filled by", card.inpainter && `${card.inpainter}, ${many(card.passes ?? 0, "pass", "passes")}`],
      ["Note", card.note], ["Size", card.size[0] && `${card.size[0]} × ${card.size[1]} pixels`],
      ["Close-up", pictures.close && `x ${pictures.close.box[0]} to ${pictures.close.box[2]}, y ${pictures.close.box[1]} to ${pictures.close.box[3]}, at full resolution`],
      ["Shown as", REASONS[card.why] ?? card.why], ["Source", card.uri && make("code", {}, card.uri)], ["Image id", make("code", {}, card.id)],
    ];
    return make("dl", { class: "facts" }, ...pairs.filter(([, v]) => v).flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]));
  }

  describe() {
    if (this.n === null || !this.marks) return;
    const mark = this.gallery.marks.get(this.data.gallery[this.n].id);
    for (const button of this.marks.children) button.setAttribute("aria-pressed", button.dataset.mark === mark);
  }

  step(by) {
    const { visible } = this.gallery;
    const next = visible[visible.findIndex((item) => item.n === this.n) + by];
    if (next) this.open(next.n);
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pulling = event.target.matches(".slider");
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in MARKS) this.gallery.mark(this.n, MARKS[key]);
    else if (!pulling && key === "ArrowLeft") this.step(-1);
    else if (!pulling && key === "ArrowRight") this.step(1);
    else if (key === "s") this.slider?.focus();
    else if (key === "m") document.getElementById("show-mask").click();
    else return;
    event.preventDefault();
  }
}
