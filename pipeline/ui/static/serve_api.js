// Asking the server, and showing that it is at work.

import { into, make } from "./elements.js";

let pending = 0;
let timer = 0;

/** The answer to a request, as JSON. Throws an Error with the server's words. */
export async function ask(path, { body, headers, signal, method = body === undefined ? "GET" : "POST" } = {}) {
  pending += 1;
  watch();
  try {
    const raw = body instanceof Blob || body === undefined;
    const answer = await fetch(path, { method, headers, signal, body: raw ? body : JSON.stringify(body) });
    const text = await answer.text();
    if (answer.ok) return JSON.parse(text);
    throw new Error(errorOf(text) ?? `${answer.status} ${answer.statusText}`);
  } catch (error) {
    if (error instanceof TypeError) throw new Error("The server does not answer. Is `cleanplate serve` still running?");
    throw error;
  } finally {
    pending -= 1;
    if (!pending) rest();
  }
}

function errorOf(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return text || null;
  }
}

function watch() {
  document.body.classList.add("busy");
  timer ||= setInterval(async () => {
    try {
      const { doing, seconds, waiting } = await (await fetch("/api/state")).json();
      if (!timer) return;
      const others = waiting > 1 ? ` · ${waiting - 1} waiting` : "";
      into("doing", doing ? `${doing} · ${seconds.toFixed(1)} s${others}` : "");
    } catch {
      // The request that is waited for tells what is wrong.
    }
  }, 350);
}

function rest() {
  clearInterval(timer);
  timer = 0;
  document.body.classList.remove("busy");
  into("doing", "");
}

export function problem(error) {
  if (error?.name === "AbortError") return;
  const box = document.getElementById("problem");
  box.hidden = !error;
  if (!error) return;
  const close = make("button", { type: "button", class: "quiet", "aria-label": "Close", on: { click: () => problem(null) } }, "✕");
  box.replaceChildren(make("span", {}, error.message), close);
}
