// Small makers of elements and charts. Text is always set as text, never as markup.

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const number = new Intl.NumberFormat("en");
export const count = (value) => number.format(value);
export const many = (value, one, more = `${one}s`) => `${count(value)} ${value === 1 ? one : more}`;
export const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

export function percent(part, whole) {
  if (!whole || !part) return "0 %";
  const share = (100 * part) / whole;
  if (share < 0.1) return "under 0.1 %";
  if (share > 99.9 && part < whole) return "over 99.9 %";
  return `${share >= 10 ? Math.round(share * 10) / 10 : share.toFixed(1)} %`;
}

export function rate(perSecond) {
  if (perSecond >= 10) return `${count(Math.round(perSecond))} images/s`;
  if (perSecond >= 0.5) return `${perSecond.toFixed(1)} images/s`;
  return `${(60 * perSecond).toFixed(perSecond * 60 >= 10 ? 0 : 1)} images/min`;
}

export function lasting(seconds) {
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function moment(time) {
  const date = new Date(typeof time === "number" ? 1000 * time : time);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

export const KINDS = {
  text: "Text", watermark: "Watermarks", "static-watermark": "Static watermarks", face: "Faces", plate: "Number plates",
  logo: "Logos", person: "Persons", vehicle: "Vehicles", code: "Codes", object: "Objects", everything: "Everything", given: "Given",
};
const ONE = { everything: "Everything", given: "Given", text: "Text" };
/** A kind as a heading of many; oneName: of one thing. */
export const kindName = (kind) => KINDS[kind] ?? kind;
export const oneName = (kind) => ONE[kind] ?? (KINDS[kind] ? KINDS[kind].replace(/s$/, "") : kind);
export const badge = (status, by = []) =>
  make("span", { class: "badge", "data-status": status }, status === "hidden" && by.length ? `${status} (${by.join(", ")})` : status);
export const into = (id, ...nodes) => document.getElementById(id).replaceChildren(...nodes);
export const quiet = (text) => make("p", { class: "quiet-text" }, text);
