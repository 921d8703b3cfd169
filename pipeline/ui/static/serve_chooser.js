// The pictures of the source: search, status, and a grid that grows.

import { count, into, make, many } from "./elements.js";
import { ask, problem } from "./serve_api.js";

const element = (id) => document.getElementById(id);

export class Chooser {
  /** open: called with the number of a picture. */
  constructor(source, open) {
    this.open = open;
    this.found = [];
    this.status = "";
    if (!source) return;
    element("source").hidden = false;
    element("source-title").title = source;
    let waiting = 0;
    element("q").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.search(), 150);
    });
    element("more").addEventListener("click", () => this.search(this.found.length));
    this.search();
  }

  async search(start = 0) {
    const query = new URLSearchParams({ q: element("q").value, status: this.status, start });
    try {
      const page = await ask(`/api/source?${query}`);
      if (!start) {
        this.found = [];
        element("grid").replaceChildren();
        this.filters(page.statuses);
      }
      this.found.push(...page.items);
      this.total = page.found;
      element("grid").append(...page.items.map((item) => this.card(item)));
      into("counted", ...this.describe(page));
      element("more").hidden = this.found.length >= page.found;
    } catch (error) {
      problem(error);
    }
  }

  describe(page) {
    const words = element("q").value.trim();
    if (!page.of) return ["The source holds no pictures."];
    if (page.found || !words) return [`${count(page.found)} of ${many(page.of, "picture")}`];
    const clear = () => {
      element("q").value = "";
      this.search();
      element("q").focus();
    };
    return [`No name contains “${words}”. `, make("button", { type: "button", class: "quiet", on: { click: clear } }, "Clear the search")];
  }

  filters(statuses) {
    const all = Object.values(statuses).reduce((sum, n) => sum + n, 0);
    const names = Object.keys(statuses);
    element("statuses").hidden = !this.status && names.length < 2;
    const button = (status, label, n) => make("button", { type: "button", "aria-pressed": String(this.status === status), on: { click: () => { this.status = status; this.search(); } } }, label, make("b", {}, count(n)));
    into("statuses", button("", "all", all), ...names.map((status) => button(status, status, statuses[status])));
  }

  card(item) {
    const frame = make("span", { class: "frame" });
    const picture = make("img", { src: `/api/source/${item.n}/thumb`, alt: "", loading: "lazy", decoding: "async", on: { error: () => frame.replaceChildren("no preview") } });
    frame.append(picture);
    const dot = item.status ? make("span", { class: "dot", "data-status": item.status, title: item.status, role: "img", "aria-label": item.status }) : null;
    return make("li", {}, make("button", { type: "button", title: item.name, on: { click: () => this.open(item.n) } }, frame, make("span", { class: "line" }, make("span", {}, make("bdi", {}, item.name)), dot)));
  }

  /** The name of a picture in what is listed now. */
  name(n) {
    return this.found.find((item) => item.n === n)?.name ?? "";
  }

  /** The number before or after this one in what is listed now; null at an end. */
  beside(n, step) {
    const at = this.found.findIndex((item) => item.n === n);
    return at < 0 ? null : this.found[at + step]?.n ?? null;
  }
}
