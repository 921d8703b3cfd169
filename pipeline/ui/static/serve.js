// Start: ask what there is, wire pictures, board and panel together.

import { count, into, make, many } from "./elements.js";
import { ask, problem } from "./serve_api.js";
import { Board } from "./serve_canvas.js";
import { Chooser } from "./serve_chooser.js";
import { Panel } from "./serve_panel.js";
import { theme } from "./theme.js";

const element = (id) => document.getElementById(id);
const state = { picture: null, running: false };
let start, board, panel, chooser, looking;

const button = (label, title, call, more = {}) => make("button", { type: "button", "aria-label": title, title, on: { click: call }, ...more }, label);

function places(work) {
  element("pictures").hidden = work;
  element("work").hidden = !work;
  into("to-pictures", work ? "Pictures" : "Back");
  element("to-pictures").hidden = !work && !state.picture;
  if (work) board.fit();
}

// --- pictures ---

async function open(asking, n = null, name = "") {
  try {
    problem(null);
    const picture = await asking();
    state.picture = { ...picture, n };
    board.reset(state.picture);
    panel.setResult(null, null);
    panel.setFinds([]);
    into("found-text", "Looking …");
    into("name", picture.name);
    element("name").title = picture.name;
    into("facts", `${count(picture.width)} × ${count(picture.height)} · ${picture.format}`);
    element("size").max = Math.max(40, Math.round(Math.max(picture.width, picture.height) / 4));
    setSize(Math.max(8, Math.round(Math.max(picture.width, picture.height) / 24)));
    steps();
    places(true);
    show("mask");
    element("view").focus({ preventScroll: true });
    await find();
  } catch (error) {
    problem(name ? new Error(`${name}: ${error.message}`) : error);
  }
}

const openFile = (file) => open(() => {
  if (file.size > start.max_bytes) throw new Error(`${(file.size / 2 ** 20).toFixed(0)} MB; the limit here is ${(start.max_bytes / 2 ** 20).toFixed(0)} MB (--max-bytes).`);
  return ask("/api/pictures", { body: file, headers: { "x-name": encodeURIComponent(file.name || "pasted") } });
}, null, file.name);
const openFrom = (n) => open(() => ask(`/api/pictures/from/${n}`, { method: "POST" }), n, chooser.name(n));

function steps() {
  const { n } = state.picture;
  const step = (label, title, by) => {
    const to = n === null ? null : chooser.beside(n, by);
    return button(label, title, () => openFrom(to), { disabled: to === null });
  };
  into("steps", ...(n === null ? [] : [step("←", "Previous picture", -1), step("→", "Next picture", 1)]));
}

// --- finding and running ---

async function find() {
  looking?.abort();
  looking = new AbortController();
  const { id } = state.picture;
  try {
    const { finds } = await ask(`/api/pictures/${id}/find`, { body: { recipe: panel.recipe }, signal: looking.signal });
    const drawn = await board.drawn(finds);
    if (state.picture.id !== id) return;
    board.finds = drawn;
    panel.setFinds(finds);
    document.documentElement.dataset.found = String(finds.length);
  } catch (error) {
    if (error.name !== "AbortError") into("found-text", "Nothing could be looked for.");
    problem(error);
  }
}

/** The object under a point, found by Segment Anything, joins the mask. */
async function pick(point) {
  const picture = state.picture;
  try {
    problem(null);
    const { mask } = await ask(`/api/pictures/${picture.id}/object`, { body: { recipe: panel.recipe, point } });
    if (state.picture !== picture) return;
    if (mask) await board.add(point, mask);
    else problem(new Error("No object was found there."));
  } catch (error) {
    problem(error);
  }
}

async function run() {
  if (!state.picture || state.running || panel.runButton.disabled) return;
  state.running = true;
  ready();
  const picture = state.picture;
  try {
    problem(null);
    const body = { recipe: panel.recipe, on: [...panel.on], strokes: board.strokes.map(({ mode, size, points }) => ({ mode, size, points })) };
    const result = await ask(`/api/pictures/${picture.id}/run`, { body });
    if (state.picture !== picture) return;
    board.result = result;
    panel.setResult(picture, result);
    show("result");
    board.slider.focus({ preventScroll: true });
    // Beside each other, the panel is scrolled to the result; below each other, it follows the picture.
    if (matchMedia("(max-width: 900px)").matches) element("view").scrollIntoView({ block: "start" });
    else element("result").scrollIntoView({ block: "nearest" });
  } catch (error) {
    problem(error);
  } finally {
    state.running = false;
    ready();
  }
}

function ready() {
  const some = panel.on.size > 0 || board.strokes.some((stroke) => stroke.mode !== "erase");
  panel.runButton.disabled = state.running || !some;
  panel.runButton.firstChild.textContent = state.running ? "Running …" : board.result ? "Run again" : "Run";
  for (const [id, list] of [["undo", board.strokes], ["redo", board.undone], ["clear", board.strokes]]) element(id).disabled = !list.length;
}

// --- tools ---

function show(what) {
  board.show(what);
  for (const one of element("shows").children) {
    one.setAttribute("aria-pressed", String(one.dataset.show === board.shown));
    if (one.dataset.show === "result") one.disabled = !board.result;
  }
  for (const id of ["brushes", "acts"]) element(id).hidden = board.shown === "result";
  document.querySelector(".size").hidden = board.shown === "result";
}

function choose(tool) {
  board.tool = tool;
  element("sheet").dataset.tool = tool;
  for (const one of element("brushes").children) one.setAttribute("aria-pressed", String(one.dataset.tool === tool));
}

function setSize(size) {
  const { min, max } = element("size");
  board.size = Math.min(Number(max), Math.max(Number(min), size));
  element("size").value = board.size;
  element("size-text").value = `${board.size} px`;
  board.showCursor(!board.cursor.hidden);
}

function tools() {
  into("shows", button("Mask", "Show the mask (1)", () => show("mask"), { "data-show": "mask" }), button("Result", "Show the result (2)", () => show("result"), { "data-show": "result", disabled: true }));
  into("brushes", ...[["hand", "Hand", "Hand: switch finds, move the picture (v)"], ["paint", "Paint", "Paint the mask (b)"], ["erase", "Erase", "Erase the mask (e)"], ["object", "Object", start.choices.clicks ? `Mask the object under a click: ${start.choices.clicks}` : "Mask the object under a click (o)"]].map(([tool, label, title]) => button(label, title, () => choose(tool), { "data-tool": tool, disabled: tool === "object" && Boolean(start.choices.clicks) })));
  into("acts", button("↶", "Undo (Ctrl Z)", () => board.undo(), { id: "undo", disabled: true }), button("↷", "Redo (Ctrl Shift Z)", () => board.redo(), { id: "redo", disabled: true }), button("Clear", "Take all strokes away", () => board.clear(), { id: "clear", disabled: true }));
  const zoom = make("span", { role: "status" });
  into("zooms", button("−", "Zoom out (-)", () => board.zoomBy(0.7)), zoom, button("+", "Zoom in (+)", () => board.zoomBy(1 / 0.7)), button("Fit", "Fit (0)", () => board.zoomBy(0)));
  board.zoomed = (screen) => (zoom.textContent = `${Math.round(100 * screen)} %`);
  element("size").addEventListener("input", () => setSize(Number(element("size").value)));
  choose(matchMedia("(pointer: coarse)").matches ? "hand" : "paint"); // A finger that scrolls must not paint.
}

const KEYS = {
  b: () => choose("paint"), o: () => start.choices.clicks ?? choose("object"), e: () => choose("erase"), v: () => choose("hand"), m: () => element("sheet").classList.toggle("quiet"),
  "[": () => setSize(Math.round(board.size / 1.25)), "]": () => setSize(Math.round(board.size * 1.25) + 1),
  "+": () => board.zoomBy(1 / 0.7), "=": () => board.zoomBy(1 / 0.7), "-": () => board.zoomBy(0.7), 0: () => board.zoomBy(0),
  1: () => show("mask"), 2: () => show("result"),
};

function pressed(event) {
  if (element("work").hidden) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "enter") run();
    else if (event.target.matches("input[type=search]")) return;
    else if (key === "z" && !event.shiftKey) board.undo();
    else if (key === "y" || (key === "z" && event.shiftKey)) board.redo();
    else return;
  } else if (key in KEYS && !event.altKey && !event.target.matches("input[type=search], select, input[type=range]")) KEYS[key]();
  else return;
  event.preventDefault();
}

function intake() {
  element("drop").addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", () => {
    const [file] = element("file").files;
    element("file").value = "";
    if (file) openFile(file);
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (file) openFile(file);
    else problem(new Error("That was no file. Drop a picture from a folder, or save it first."));
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) openFile(file);
  });
  element("to-pictures").addEventListener("click", () => places(element("work").hidden));
}

async function begin() {
  theme();
  start = await ask("/api/start");
  board = new Board({ changed: () => panel && ready(), toggle: (n) => panel.toggle(n), pick });
  tools();
  panel = new Panel(start.recipe, start.choices, {
    find, run, on: (on) => { board.setOn(on); ready(); }, light: (n) => board.light(n),
    cover: (left) => { for (const { box } of left) board.cover(box); show("mask"); ready(); },
  });
  chooser = new Chooser(start.source, openFrom);
  const names = start.formats;
  into("limits", `${names.slice(0, -1).join(", ")} or ${names.at(-1)}, up to ${many(Math.round(start.max_bytes / 2 ** 20), "MB", "MB")} and ${Math.round(start.max_pixels / 1e6)} megapixels`);
  intake();
  addEventListener("keydown", pressed);
  places(false);
  document.documentElement.dataset.ready = "yes";
}

begin().catch(problem);
