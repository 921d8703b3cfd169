// The picture, its mask and the brush. Strokes are kept as lines in the picture's own pixels: the server draws them
// again at full size, and undo takes the last one away.

import { draw, make } from "./elements.js";
import { slide } from "./slider.js";

const RED = "#ff2846";
const SIDE = 2048; // of the canvas: a photograph's full size would cost a phone its memory

export class Board {
  /** changed: called when the mask is another one. toggle: with the number of a find that was pressed. pick: with a
      point whose object is asked for; it answers by `add`. */
  constructor({ changed, toggle, pick }) {
    this.view = document.getElementById("view");
    this.sheet = document.getElementById("sheet");
    this.changed = changed;
    this.toggle = toggle;
    this.pick = pick;
    this.tool = "paint";
    this.size = 40;
    this.zoom = 1;
    this.at = [0, 0];
    this.reset(null);
    this.sheet.addEventListener("pointerdown", (event) => this.down(event));
    this.sheet.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) this.sheet.addEventListener(name, (event) => this.up(event));
    this.sheet.addEventListener("pointerleave", () => (this.cursor.hidden = true));
    this.view.addEventListener("keydown", (event) => this.pressed(event));
    this.view.addEventListener("focus", () => this.showCursor(this.view.matches(":focus-visible")));
    this.view.addEventListener("blur", () => (this.cursor.hidden = true));
    this.view.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    new ResizeObserver(() => this.fit()).observe(this.view);
  }

  reset(picture) {
    this.picture = picture;
    this.finds = [];
    this.on = new Set();
    this.strokes = [];
    this.undone = [];
    this.result = null;
    this.lit = null;
    this.zoom = 1;
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.cursor = make("div", { id: "cursor", hidden: true, "aria-hidden": "true" });
    this.boxes = draw("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
    this.sheet.replaceChildren();
    if (!picture) return;
    this.scale = Math.min(1, SIDE / Math.max(picture.width, picture.height));
    this.canvas.width = Math.max(1, Math.round(picture.width * this.scale));
    this.canvas.height = Math.max(1, Math.round(picture.height * this.scale));
    this.boxes.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
    this.at = [picture.width / 2, picture.height / 2];
    this.show("mask");
  }

  /** Show the mask over the picture, or the result beside it. */
  show(what) {
    this.shown = what === "result" && this.result ? "result" : "mask";
    this.sheet.dataset.show = this.shown;
    const { name } = this.picture;
    const image = (src, alt) => make("img", { src, alt, draggable: "false" });
    const before = image(`/api/pictures/${this.picture.id}/view`, `${name}, before`);
    if (this.shown === "mask") {
      this.sheet.replaceChildren(before, this.canvas, this.boxes, this.cursor);
      this.compose();
    } else {
      const pic = make("div", { class: "pic" }, image(`/api/pictures/${this.picture.id}/results/${this.result.id}/view`, `${name}, after`));
      const left = draw("svg", { class: "boxes", viewBox: `0 0 ${this.picture.width} ${this.picture.height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
      left.append(...this.result.left.map(({ box }) => boxed(box)));
      pic.append(left, make("div", { class: "before" }, before));
      this.slider = slide(pic, `Compare before and after: ${name}`);
      this.sheet.replaceChildren(pic);
    }
    this.fit();
  }

  /** The finds with their masks as red pictures, which `finds` takes. */
  drawn(finds) {
    return Promise.all(finds.map(async (find) => ({ ...find, drawn: find.mask && (await tinted(find.mask.png)) })));
  }

  setOn(on) {
    this.on = on;
    this.compose();
  }

  light(n) {
    this.lit = n;
    this.outline();
  }

  compose() {
    const pen = this.canvas.getContext("2d");
    pen.globalCompositeOperation = "source-over";
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const [n, { mask, drawn }] of this.finds.entries()) {
      if (!drawn || !this.on.has(n)) continue;
      const [x0, y0, x1, y1] = mask.box.map((side) => side * this.scale);
      pen.drawImage(drawn, x0, y0, x1 - x0, y1 - y0);
    }
    for (const stroke of this.strokes) this.drawStroke(stroke, 0);
    this.outline();
    this.changed();
  }

  outline() {
    this.boxes.replaceChildren(...this.finds.map(({ box }, n) => boxed(box, `${this.on.has(n) ? "on" : "off"}${n === this.lit ? " lit" : ""}`)));
  }

  drawStroke({ mode, size, points, mask, drawn }, from) {
    const pen = this.canvas.getContext("2d");
    if (mode === "object") {
      pen.globalCompositeOperation = "source-over";
      const [x0, y0, x1, y1] = mask.box.map((side) => side * this.scale);
      return pen.drawImage(drawn, x0, y0, x1 - x0, y1 - y0);
    }
    pen.globalCompositeOperation = mode === "paint" ? "source-over" : "destination-out";
    pen.strokeStyle = pen.fillStyle = RED;
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = Math.max(1, size * this.scale);
    pen.beginPath();
    const [first, ...rest] = points.slice(Math.max(0, from - 1));
    if (!rest.length) { // A line without length is not drawn, whatever its caps.
      pen.arc(first[0] * this.scale, first[1] * this.scale, pen.lineWidth / 2, 0, 2 * Math.PI);
      return pen.fill();
    }
    pen.moveTo(first[0] * this.scale, first[1] * this.scale);
    for (const [x, y] of rest) pen.lineTo(x * this.scale, y * this.scale);
    return pen.stroke();
  }

  // --- the brush ---

  begin(point) {
    this.undone = [];
    this.strokes.push({ mode: this.tool, size: this.size, points: [point] });
    this.drawStroke(this.strokes.at(-1), 0);
  }

  extend(point) {
    const stroke = this.strokes.at(-1);
    const [x, y] = stroke.points.at(-1);
    if (Math.hypot(point[0] - x, point[1] - y) < Math.max(1, stroke.size / 12)) return;
    stroke.points.push(point);
    this.drawStroke(stroke, stroke.points.length - 1);
  }

  /** The object under a point joins the mask, as a stroke that can be taken back. mask: as a find's. */
  async add(point, mask) {
    this.strokes.push({ mode: "object", size: 1, points: [point], mask, drawn: await tinted(mask.png) });
    this.undone = [];
    this.compose();
  }

  undo() {
    if (!this.strokes.length) return;
    this.undone.push(this.strokes.pop());
    this.compose();
  }

  redo() {
    if (!this.undone.length) return;
    this.strokes.push(this.undone.pop());
    this.compose();
  }

  clear() {
    this.undone = this.strokes.reverse();
    this.strokes = [];
    this.compose();
  }

  /** A stroke over a box: what was left there joins the mask. */
  cover([x0, y0, x1, y1]) {
    const [wide, high] = [x1 - x0, y1 - y0];
    const half = Math.min(wide, high) / 2;
    const points = wide >= high ? [[x0 + half, (y0 + y1) / 2], [x1 - half, (y0 + y1) / 2]] : [[(x0 + x1) / 2, y0 + half], [(x0 + x1) / 2, y1 - half]];
    this.strokes.push({ mode: "paint", size: 2.4 * half, points });
  }

  point(event) {
    const rect = this.sheet.getBoundingClientRect();
    return [((event.clientX - rect.left) / rect.width) * this.picture.width, ((event.clientY - rect.top) / rect.height) * this.picture.height].map((v) => Math.round(10 * v) / 10);
  }

  down(event) {
    if (event.button || this.shown !== "mask" || this.pulling) return;
    this.at = this.point(event);
    if (this.tool === "hand") {
      this.pan = { x: event.clientX, y: event.clientY, left: this.view.scrollLeft, top: this.view.scrollTop, moved: false, mouse: event.pointerType === "mouse" };
      return;
    }
    event.preventDefault();
    if (this.tool === "object") return this.pick(this.at);
    this.view.classList.add("pointed"); // The brush shows where one is; a frame is for the keyboard.
    this.view.focus({ preventScroll: true });
    this.sheet.setPointerCapture(event.pointerId);
    this.pulling = event.pointerId;
    this.begin(this.at);
  }

  move(event) {
    if (this.shown !== "mask") return;
    if (this.pan) {
      const [dx, dy] = [event.clientX - this.pan.x, event.clientY - this.pan.y];
      this.pan.moved ||= Math.hypot(dx, dy) > 5;
      if (this.pan.moved && this.pan.mouse) this.view.scrollTo(this.pan.left - dx, this.pan.top - dy);
      return;
    }
    const many = event.getCoalescedEvents?.() ?? [];
    for (const one of many.length ? many : [event]) {
      this.at = this.point(one);
      if (this.pulling === event.pointerId) this.extend(this.at);
    }
    this.showCursor(event.pointerType === "mouse" || this.pulling === event.pointerId);
  }

  up(event) {
    if (this.pan && event.type === "pointerup" && !this.pan.moved) this.press();
    this.pan = null;
    if (this.pulling !== event.pointerId) return;
    this.pulling = null;
    if (event.type === "pointercancel") this.strokes.pop(); // Two fingers: the browser zooms, nobody paints.
    this.compose();
  }

  /** Switch the smallest find under the point. */
  press() {
    const [x, y] = this.at;
    const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
    const under = [...this.finds.keys()].filter((n) => {
      const [x0, y0, x1, y1] = this.finds[n].box;
      return x >= x0 && x <= x1 && y >= y0 && y <= y1;
    });
    under.sort((a, b) => area(this.finds[a]) - area(this.finds[b]));
    if (under.length) this.toggle(under[0]);
  }

  pressed(event) {
    this.view.classList.remove("pointed");
    if (this.shown !== "mask" || event.ctrlKey || event.metaKey || event.altKey || !this.picture) return;
    const step = Math.max(4, ["hand", "object"].includes(this.tool) ? Math.max(this.picture.width, this.picture.height) / 60 : this.size / 2);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) {
      const from = this.at;
      const [dx, dy] = moves[event.key];
      this.at = [Math.min(Math.max(0, from[0] + dx), this.picture.width), Math.min(Math.max(0, from[1] + dy), this.picture.height)];
      if (event.shiftKey && ["paint", "erase"].includes(this.tool)) this.keyed(from, this.at);
      this.showCursor(true);
      this.reveal();
    } else if (event.key === " " && this.tool === "hand") this.press();
    else if (event.key === " " && this.tool === "object") this.pick(this.at);
    else if (event.key === " ") this.keyed(this.at);
    else return;
    event.preventDefault();
  }

  /** A stroke by keyboard; a line that goes on where the last one ended is the same stroke. */
  keyed(from, to = null) {
    const last = this.strokes.at(-1);
    const goesOn = to && last && last.mode === this.tool && last.size === this.size && last.points.at(-1) === from;
    if (goesOn) last.points.push(to);
    else this.strokes.push({ mode: this.tool, size: this.size, points: to ? [from, to] : [from] });
    this.undone = [];
    this.compose();
  }

  showCursor(shown) {
    this.cursor.hidden = !shown || !this.picture || this.shown !== "mask";
    if (this.cursor.hidden) return;
    const screen = this.sheet.clientWidth / this.picture.width;
    const wide = Math.max(4, this.size * screen);
    this.cursor.classList.toggle("cross", ["hand", "object"].includes(this.tool));
    Object.assign(this.cursor.style, { left: `${this.at[0] * screen}px`, top: `${this.at[1] * screen}px`, width: `${wide}px`, height: `${wide}px` });
  }

  /** Scroll so that the brush stays in view. */
  reveal() {
    const screen = this.sheet.clientWidth / this.picture.width;
    const [x, y] = [this.sheet.offsetLeft - this.view.offsetLeft + this.at[0] * screen, this.sheet.offsetTop - this.view.offsetTop + this.at[1] * screen];
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.view;
    if (x < scrollLeft + 20 || x > scrollLeft + clientWidth - 20) this.view.scrollLeft = x - clientWidth / 2;
    if (y < scrollTop + 20 || y > scrollTop + clientHeight - 20) this.view.scrollTop = y - clientHeight / 2;
  }

  // --- size and zoom ---

  fit() {
    if (!this.picture) return;
    const { width, height } = this.picture;
    const [wide, high] = [this.view.clientWidth - 32, this.view.clientHeight - 32];
    if (wide < 40 || high < 40) return;
    const whole = Math.min(wide / width, high / height, 3);
    this.screen = whole * this.zoom;
    this.sheet.style.width = `${Math.max(1, Math.round(width * this.screen))}px`;
    this.sheet.style.height = `${Math.max(1, Math.round(height * this.screen))}px`;
    this.zoomed?.(this.screen);
    this.showCursor(!this.cursor.hidden);
  }

  zoomBy(factor, middle = null) {
    const rect = this.view.getBoundingClientRect();
    const [x, y] = middle ?? [rect.left + rect.width / 2, rect.top + rect.height / 2];
    const sheet = this.sheet.getBoundingClientRect();
    const [u, v] = [(x - sheet.left) / sheet.width, (y - sheet.top) / sheet.height];
    this.zoom = factor ? Math.min(16, Math.max(1, this.zoom * factor)) : 1;
    this.fit();
    const after = this.sheet.getBoundingClientRect();
    this.view.scrollBy(after.left + u * after.width - x, after.top + v * after.height - y);
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.zoomBy(Math.exp(-event.deltaY / 300), [event.clientX, event.clientY]);
  }
}

async function tinted(png) {
  const picture = new Image();
  picture.src = png;
  await picture.decode();
  const red = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight);
  const pen = red.getContext("2d");
  pen.drawImage(picture, 0, 0);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = RED;
  pen.fillRect(0, 0, red.width, red.height);
  return red;
}

function boxed([x0, y0, x1, y1], kind = "") {
  return draw("rect", { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0), class: kind, rx: 2 });
}
