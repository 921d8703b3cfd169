// The settings beside the picture: what to look for, what was found, masks, filler, result, recipe.

import { badge, into, kindName, make, many, oneName, percent, quiet, score } from "./elements.js";
import { ask, problem } from "./serve_api.js";

const section = (id, title, ...inner) => make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title), ...inner);
const button = (label, call, more = {}) => make("button", { type: "button", on: { click: call }, ...more }, label);
const size = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

export class Panel {
  /** calls: find(), masks(), run(), on(numbers), light(number or null), cover(boxes). */
  constructor(recipe, choices, calls) {
    this.recipe = recipe;
    this.choices = choices;
    this.calls = calls;
    this.finds = [];
    this.on = new Set();
    this.touched = new Map(); // find -> what a person chose, which a threshold does not change
    this.runButton = button("Run", () => calls.run(), { class: "strong", id: "run", disabled: true, "aria-keyshortcuts": "Control+Enter" });
    this.runButton.append(make("kbd", { "aria-hidden": "true" }, "Ctrl ↵"));
    document.getElementById("panel").replaceChildren(
      this.kinds(), this.found(), this.masks(), this.fill(), section("result", "Result", make("div", { id: "result-body" })), this.file(), make("div", { id: "go" }, this.runButton));
    document.getElementById("result").hidden = true;
  }

  // --- what to look for ---

  kinds() {
    const usable = this.choices.kinds.filter(({ name, lacks }) => !lacks || this.recipe.remove.includes(name));
    const others = this.choices.kinds.filter((kind) => !usable.includes(kind));
    const more = others.length ? make("details", { class: "more-kinds" }, make("summary", {}, `${others.length} more kinds need settings`), make("ul", {}, ...others.map(({ name, lacks }) => make("li", {}, `${kindName(name)}: ${lacks}`)))) : null;
    return section("kinds", "Look for", make("div", { class: "kinds-head", "aria-hidden": "true" }, make("span", {}, "Kind"), make("span", {}, "Lowest score (auto: the detector's own)")), ...usable.map(({ name }) => this.kind(name)), more);
  }

  kind(name) {
    const check = make("input", { type: "checkbox", checked: this.recipe.remove.includes(name), "data-kind": name });
    const least = this.recipe.detect[name]?.min_score ?? 0;
    const output = make("output", {}, least ? score(least) : "auto");
    const range = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: least, "aria-label": `Lowest score of ${kindName(name)}`, "data-threshold": name });
    range.addEventListener("input", () => {
      const value = Number(range.value);
      output.value = value ? score(value) : "auto";
      this.recipe.detect[name] = { ...(this.recipe.detect[name] ?? {}), min_score: value || null };
      this.settle();
      this.changed();
    });
    check.addEventListener("change", () => {
      const boxes = [...document.querySelectorAll("[data-kind]")];
      const remove = boxes.filter((box) => box.checked).map((box) => box.dataset.kind);
      if (!remove.length) {
        check.checked = true;
        return problem(new Error("Look for one kind at least. To fill only what you paint, switch the finds off."));
      }
      this.recipe.remove = remove;
      this.changed();
      return this.calls.find();
    });
    return make("div", { class: "kind" }, make("label", {}, check, kindName(name)), range, output);
  }

  // --- what was found ---

  found() {
    const all = (on) => () => {
      this.finds.forEach((_, n) => this.touched.set(n, on));
      this.settle();
    };
    return section("found", "Found", make("p", { id: "found-text", class: "quiet-text", role: "status" }, "…"), make("ul", { id: "finds" }), make("div", { class: "row", id: "found-all", hidden: true }, button("All", all(true)), button("None", all(false))));
  }

  setFinds(finds) {
    const places = (list) => JSON.stringify(list.map(({ kind, box }) => [kind, box]));
    // Other masks of the same finds: what was switched by hand stays so.
    if (places(finds) !== places(this.finds)) this.touched = new Map();
    this.finds = finds;
    const rows = finds.map((find, n) => {
      const check = make("input", { type: "checkbox", "data-find": n, on: { change: () => this.toggle(n, check.checked) } });
      const bar = make("span", { class: "length" });
      bar.style.width = `${100 * find.score}%`;
      const light = (on) => () => this.calls.light(on ? n : null);
      const label = make("label", { on: { pointerenter: light(true), pointerleave: light(false), focusin: light(true), focusout: light(false) } }, check,
        make("span", { class: "what" }, make("span", {}, oneName(find.kind)), make("code", { title: find.detector }, find.detector)),
        make("span", { class: "track", "aria-hidden": "true" }, bar), make("span", { class: "score" }, score(find.score)));
      return make("li", {}, label);
    });
    into("finds", ...rows);
    into("found-text", finds.length ? `${many(finds.length, "detection")}. Switch off what should stay.` : "Nothing was found. Paint what should be removed.");
    document.getElementById("found-all").hidden = finds.length < 2;
    this.settle();
  }

  toggle(n, on = !this.on.has(n)) {
    this.touched.set(n, on);
    this.settle();
  }

  /** Which finds are on: those above the thresholds, unless a person chose otherwise. */
  settle() {
    const above = (find) => find.allowed && find.score >= (this.recipe.detect[find.kind]?.min_score ?? 0);
    this.on = new Set([...this.finds.keys()].filter((n) => this.touched.get(n) ?? above(this.finds[n])));
    for (const check of document.querySelectorAll("[data-find]")) {
      const n = Number(check.dataset.find);
      check.checked = this.on.has(n);
      check.closest("label").classList.toggle("below", !above(this.finds[n]));
    }
    this.calls.on(this.on);
  }

  // --- masks and filler ---

  choose(label, name, options, value, call) {
    const list = make("select", { "data-choice": name }, ...options.map(({ name: option, lacks }) => make("option", { value: option, selected: option === value, disabled: Boolean(lacks), title: lacks }, lacks ? `${option} (not here)` : option)));
    list.addEventListener("change", () => call(list.value));
    return make("label", { class: "line" }, make("span", {}, label), list);
  }

  masks() {
    const { masks } = this.recipe;
    const output = make("output", {}, percent(masks.grow, 1));
    const range = make("input", { type: "range", min: 0, max: 0.6, step: 0.01, value: masks.grow, "data-choice": "grow" });
    range.addEventListener("input", () => (output.value = percent(Number(range.value), 1)));
    range.addEventListener("change", () => {
      masks.grow = Number(range.value);
      this.changed();
      this.calls.find();
    });
    const segmenter = this.choose("Segmenter", "segmenter", this.choices.segmenters, masks.segmenter, (value) => {
      masks.segmenter = value;
      if (value !== "sam") masks.checkpoint = null;
      this.changed();
      this.calls.find();
    });
    return section("masks", "Mask", segmenter, make("label", { class: "line", title: "A share of each box's shorter side" }, make("span", {}, "Widen by"), range, output));
  }

  fill() {
    const { inpaint } = this.recipe;
    const others = Object.entries(inpaint.per_kind ?? {}).map(([kind, name]) => `${kindName(kind).toLowerCase()} with ${name}`);
    const list = this.choose("Inpainter", "inpainter", this.choices.inpainters, inpaint.name, (value) => {
      inpaint.name = value;
      this.changed();
    });
    return section("fill", "Fill", list, others.length ? quiet(`The recipe fills ${others.join(", ")}.`) : null);
  }

  // --- result ---

  setResult(picture, result) {
    document.getElementById("result").hidden = !result;
    if (!result) return;
    const left = result.left.length;
    const kept = result.jpeg_blocks_equal ? "every JPEG block as it was" : result.pixels_equal ? "every pixel as it was" : result.pixels_equal === false ? "not all pixels are as they were" : "converted to another format";
    const base = `/api/pictures/${picture.id}/results/${result.id}`;
    const pairs = [
      ["Outside", make("span", { class: result.pixels_equal ? "yes" : "" }, kept)], ["Masked", `${percent(result.coverage, 1)} of the picture`],
      ["Filled by", result.inpainter], ["Took", `${result.seconds.toFixed(1)} s`], ["File", `${result.format}, ${size(result.bytes)} (source ${size(picture.bytes)})`],
      ["Metadata", result.metadata_dropped.length ? `without ${result.metadata_dropped.join(", ")}` : null], ["Note", result.note],
    ];
    into("result-body",
      make("p", {}, badge(left ? "residual" : "cleaned"), " ", left ? `${many(left, "thing")} still found: ${result.left.map((f) => `${oneName(f.kind).toLowerCase()} ${score(f.score)}`).join(", ")}` : "not found again"),
      make("dl", { class: "facts" }, ...pairs.filter(([, v]) => v).flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)])),
      make("div", { class: "row" }, make("a", { class: "button strong", href: `${base}/file`, download: "", id: "download" }, "Download"), make("a", { class: "button", href: `${base}/mask`, download: "" }, "Mask"),
        left ? button("Add the rest to the mask", () => this.calls.cover(result.left)) : null));
  }

  // --- recipe ---

  file() {
    const shown = make("pre", { id: "yaml", tabindex: "0", "aria-label": "Recipe" });
    const details = make("details", {}, make("summary", {}, "Show"), shown);
    details.addEventListener("toggle", () => this.changed());
    return section("recipe", "Recipe", quiet("Thresholds, masks and inpainter as a file for cleanplate run --recipe. Switched detections and strokes belong to this picture only."), details,
      make("div", { class: "row" }, button("Save recipe.yaml", () => this.save(), { id: "save" }), button("Copy", () => this.copy())));
  }

  async yaml() {
    return (await ask("/api/recipe", { body: { recipe: this.recipe } })).yaml;
  }

  async save() {
    try {
      const url = URL.createObjectURL(new Blob([await this.yaml()], { type: "application/yaml" }));
      make("a", { href: url, download: "recipe.yaml" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
    } catch (error) {
      problem(error);
    }
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(await this.yaml());
    } catch (error) {
      problem(error);
    }
  }

  /** The recipe is another one: what is shown of it follows. */
  changed() {
    if (!document.querySelector("#recipe details")?.open) return;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(async () => {
      try {
        into("yaml", await this.yaml());
      } catch (error) {
        problem(error);
      }
    }, 200);
  }
}
