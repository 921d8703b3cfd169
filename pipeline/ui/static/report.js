// Start: read the data, draw the page, wire the controls.

import { Full } from "./dialog.js";
import { count, into, kindName, make, many, quiet } from "./elements.js";
import { Gallery, block } from "./gallery.js";
import { REASONS, findings, overview, problems, provenance, recall, speed, stages } from "./tables.js";
import { theme } from "./theme.js";

const data = block("data");
const dialog = new Full(data);
const gallery = new Gallery(data, dialog);
dialog.gallery = gallery;
const control = (id) => document.getElementById(id);

function refilter() {
  const limit = Number(control("by-score").value);
  control("score-text").value = limit >= 1 ? "any" : limit.toFixed(2);
  gallery.filter({
    search: control("search").value, status: control("by-status").value, kind: control("by-kind").value,
    why: control("by-why").value, mark: control("by-mark").value, score: limit,
  });
}

function options(id, values, name) {
  for (const value of [...new Set(values)]) control(id).append(make("option", { value }, name(value)));
}

function wire() {
  options("by-status", data.gallery.map((card) => card.status), (value) => value);
  options("by-kind", gallery.cards.flatMap((item) => item.kinds), kindName);
  options("by-why", data.gallery.map((card) => card.why), (value) => REASONS[value] ?? value);
  const tools = control("tools");
  let waiting = 0;
  control("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(refilter, 120);
  });
  tools.addEventListener("change", refilter);
  control("by-score").addEventListener("input", refilter);
  tools.addEventListener("reset", () => setTimeout(() => { masks(); refilter(); }));
  tools.addEventListener("submit", (event) => event.preventDefault());
  const masks = () => document.body.classList.toggle("no-masks", !control("show-mask").checked);
  control("show-mask").addEventListener("change", masks);
  masks();
  control("export").addEventListener("click", () => gallery.export());
  control("forget").addEventListener("click", () => {
    if (confirm(`Clear ${many(gallery.marks.size, "decision")}?`)) gallery.forget();
  });
  refilter();
}

function filterBy(status) {
  control("tools").reset();
  control("by-status").value = status;
  setTimeout(() => { control("by-status").value = status; refilter(); });
  control("pictures").scrollIntoView();
  control("pictures").focus({ preventScroll: true });
}

function help() {
  const line = (keys, text) => make("li", {}, ...keys.flatMap((key) => [make("kbd", {}, key), " "]), text);
  into("help",
    make("ul", {}, line(["←", "→", "↑", "↓"], "move between pictures"), line(["k"], "keep: it is as it should be"),
      line(["r"], "redo: something was missed or the fill is poor; do it again with a larger mask"),
      line(["w"], "wrong: nothing should have been removed here; restore the source"),
      line(["Enter"], "full size"), line(["s"], "to the slider, then ← and →; Esc leaves it"), line(["m"], "masks on and off")),
    quiet("The same key again takes a decision back. Decisions stay in this browser; Export writes marks.json. This command carries them out, with the recipe of this output:"),
    make("pre", {}, `cleanplate run ${data.source} ${data.output} --review marks.json`));
}

theme();
overview(data, filterBy);
findings(data);
recall(data);
speed(data);
stages(data);
problems(data);
provenance(data);
help();
const few = data.gallery.length < data.rows;
into("sampled", !data.gallery.length ? "No pictures on this page." : few
  ? `${count(data.gallery.length)} of ${many(data.rows, "image")}, riskiest first: what is still there, lowest scores, large masks, then random ones (seed ${data.seed}).`
  : `All ${many(data.rows, "image")}, riskiest first.`);
wire();
document.documentElement.dataset.ready = "yes";
