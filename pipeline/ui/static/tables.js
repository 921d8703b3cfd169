// The parts of the page that are not pictures.

import { barChart, numbersOf, shares, table } from "./charts.js";
import { badge, count, into, kindName, lasting, make, many, moment, percent, quiet, rate, score } from "./elements.js";

export const STATUSES = {
  cleaned: "found, removed, checked",
  hidden: "found; some of it is hidden, not removed",
  unchanged: "nothing was found",
  residual: "something is still there",
  skipped: "skipped by a limit",
  failed: "could not be processed",
};
export const REASONS = {
  residual: "Something is still there",
  "low score": "Lowest scores",
  "large mask": "Large masks",
  random: "Random",
};
const STAGES = { read: "Read", detect: "Find", segment: "Mask", inpaint: "Fill", verify: "Check", write: "Write" };
const HINTS = {
  animated: "Animations are not edited; export single frames first.",
  multipage: "Files of several pages are not edited; split them first.",
  corrupt: "The file is damaged: its pixels do not decode.",
  truncated: "The file ends too early: often an interrupted copy.",
  empty: "The file has no bytes.",
  not_an_image: "The file is no image; exclude its name in the recipe (exclude).",
  unsupported: "A format or variant that cannot be written back faithfully.",
  too_large: "Above the recipe's limits (limits.max_pixels, limits.max_bytes).",
  max_coverage: "The mask would cover more of the picture than masks.max_coverage allows.",
  missing: "The source was gone when it was read.",
  forbidden: "No permission to read the source.",
  unreachable: "The source did not answer; try again with --retry-failed.",
  format_limit: "The picture is larger than the asked format can hold.",
  edit_lost: "The written file did not hold the edit, so it was not kept.",
};
export function overview(data, filterBy) {
  const name = data.output.replace(/\/+$/, "").split("/").pop() || data.output;
  into("title", name);
  into("where", make("code", {}, data.source), make("span", { "aria-label": "to" }, " → "), make("code", {}, data.output));
  into("verdict", verdict(data));
  into("notices", ...notices(data));
  const known = [...Object.keys(STATUSES), ...Object.keys(data.statuses).filter((s) => !(s in STATUSES))];
  const there = known.filter((status) => data.statuses[status]);
  const bar = document.getElementById("share");
  bar.hidden = !there.length;
  bar.setAttribute("aria-label", there.map((s) => `${s} ${percent(data.statuses[s], data.rows)}`).join(", "));
  for (const status of there) {
    const part = make("span", { "data-status": status, title: `${status}: ${count(data.statuses[status])}` });
    part.style.flexGrow = data.statuses[status] / data.rows;
    bar.append(part);
  }
  into("tiles", ...known.map((status) => tile(data, status, filterBy)));
}

function tile(data, status, filterBy) {
  const images = data.statuses[status] ?? 0;
  const pictured = data.gallery.filter((card) => card.status === status).length;
  const inner = [
    make("span", { class: "dot", "data-status": status, "aria-hidden": "true" }),
    make("span", { class: "tile-name" }, status),
    make("b", {}, count(images)),
    make("span", { class: "tile-share" }, images ? percent(images, data.rows) : "none"),
    make("span", { class: "tile-means" }, STATUSES[status] ?? ""),
  ];
  if (!pictured) return make("li", {}, make("div", { class: `tile${images ? "" : " none"}` }, ...inner));
  const label = `${status}: ${many(images, "image")}, ${percent(images, data.rows)}. Show ${many(pictured, "picture")}.`;
  const press = { click: () => filterBy(status) };
  return make("li", {}, make("button", { type: "button", class: "tile", "aria-label": label, on: press }, ...inner));
}

function verdict(data) {
  if (!data.rows) return "Nothing is committed yet: the run has not finished its first part.";
  const has = (status) => data.statuses[status] ?? 0;
  const parts = [];
  if (has("cleaned")) parts.push(`${count(has("cleaned"))} were cleaned and checked`);
  if (has("hidden")) parts.push(`in ${count(has("hidden"))} something is hidden, not removed${data.hidden?.length ? ` (${data.hidden.join(", ")})` : ""}`);
  if (has("unchanged")) parts.push(`${count(has("unchanged"))} had nothing to remove`);
  if (has("residual")) parts.push(`${count(has("residual"))} still show something`);
  if (has("skipped")) parts.push(`${count(has("skipped"))} were skipped`);
  if (has("failed")) parts.push(`${count(has("failed"))} failed`);
  const last = parts.pop();
  return `Of ${many(data.rows, "image")}, ${parts.length ? `${parts.join(", ")} and ${last}` : last ?? "none has a known status"}.`;
}

function notices(data) {
  const parts = [];
  const left = data.planned - data.committed;
  if (left > 0) {
    parts.push(`The run is not complete: ${count(data.committed)} of ${many(data.planned, "planned row")} are committed. Run the same command again to continue.`);
  }
  if (data.unreadable.length) {
    parts.push(`${many(data.unreadable.length, "part")} could not be read, rows not counted: ${data.unreadable.slice(0, 5).join("; ")}`);
  }
  return parts.map((text) => make("p", { class: "notice" }, text));
}

export function findings(data) {
  if (!data.kinds.length) {
    into("kinds", quiet(`Nothing was found. Looked for: ${data.remove.map(kindName).join(", ") || "nothing"}.`));
  } else {
    const columns = [{ title: "Kind" }, ...["Images", "Share", "Detections", "Still there"].map((title) => ({ title, number: true }))];
    const rows = data.kinds.map((k) => [
      kindName(k.kind), count(k.images), percent(k.images, data.rows), count(k.finds),
      k.left_images ? many(k.left_images, "image") : "none",
    ]);
    into("kinds", table(columns, rows, "Detections by kind"));
  }
  const { edges, counts } = data.coverage;
  const masked = counts.reduce((a, b) => a + b, 0);
  if (!masked) return into("coverage", quiet("No picture has a mask."));
  const tidy = (share) => `${+(100 * share).toFixed(2)} %`;
  const range = (n) => (n ? `${tidy(edges[n])} to ${tidy(edges[n + 1])}` : `up to ${tidy(edges[1])}`);
  const bars = counts.map((value, n) => ({ from: n, to: n + 1, value, tip: `${range(n)} of the picture: ${many(value, "image")}` }));
  const most = counts.indexOf(Math.max(...counts));
  const caption = `${many(masked, "image")} with a mask; most often ${range(most)} of the picture.`;
  const chart = barChart({ bars, end: counts.length, ticks: edges.map((at, n) => ({ at: n, text: tidy(at) })), format: (v) => (Number.isInteger(v) ? count(v) : ""), caption });
  const numbers = table([{ title: "Masked share" }, { title: "Images", number: true }], counts.map((c, n) => [range(n), count(c)]));
  return into("coverage", chart, quiet(caption), numbersOf(numbers));
}

export function speed(data) {
  const timed = data.sessions.filter((session) => session.seconds);
  const rows = data.sessions.map((s) => [
    s.started ? moment(s.started) : s.run_id, count(s.rows), s.seconds ? lasting(s.seconds) : "not known",
    s.seconds ? rate(s.rows / s.seconds) : "–", s.complete ? "yes" : "no",
  ]);
  const columns = [{ title: "Started" }, { title: "Images", number: true }, { title: "Took", number: true }, { title: "Rate", number: true }, { title: "Finished" }];
  if (!timed.length) {
    return into("speed", quiet("Nothing tells when the parts were committed."), data.sessions.length ? table(columns, rows, "Starts") : "");
  }
  const shown = timed.slice(-12);
  const bars = [];
  const ticks = [];
  let start = 0;
  for (const session of shown) {
    const bins = session.bins.length ? session.bins : [[0, session.seconds, session.rows]];
    for (const [at, length, images] of bins) {
      const tip = `${rate(images / length)}, ${lasting(at)} after the start at ${moment(session.started)}`;
      bars.push({ from: start + at, to: start + at + length, value: images / length, tip });
    }
    ticks.push({ at: start, text: shown.length > 1 ? moment(session.started) : "start" });
    start += session.seconds;
  }
  ticks.push({ at: start, text: lasting(start) });
  const images = timed.reduce((sum, s) => sum + s.rows, 0);
  const seconds = timed.reduce((sum, s) => sum + s.seconds, 0);
  const caption = `${rate(images / seconds)} on average: ${many(images, "image")} in ${lasting(seconds)}${timed.length > 1 ? `, over ${timed.length} starts` : ""}.`;
  const slow = Math.max(...bars.map((bar) => bar.value)) < 0.5;
  const scaled = slow ? bars.map((bar) => ({ ...bar, value: 60 * bar.value })) : bars;
  const chart = barChart({ bars: scaled, end: start, ticks, format: (v) => `${+v.toPrecision(3)}${slow ? "/min" : "/s"}`, caption });
  return into("speed", chart, quiet(caption), numbersOf(table(columns, rows, "Starts of the command")));
}

export function stages(data) {
  const spent = Object.entries(data.stages).filter(([, ms]) => ms > 0);
  if (!spent.length) return into("stages", quiet("No stage has a time yet."));
  const sum = spent.reduce((total, [, ms]) => total + ms, 0);
  const rows = spent.map(([stage, ms]) => ({ label: STAGES[stage] ?? stage, value: ms, text: `${lasting(ms / data.rows / 1000)}, ${percent(ms, sum)}` }));
  return into("stages", shares(rows), quiet(`A worker's time per image, ${lasting(sum / data.rows / 1000)} in all. Workers run side by side.`));
}

/** How much of what was there was found: an estimate, with its interval drawn on 0 to 100 %. */
export function recall(data) {
  if (!data.recall.length) {
    return into("recall", quiet("Not estimated. A run cannot know what it did not see: that takes pictures whose truth is known, or a person who looks at a random sample for what was missed."));
  }
  const rows = data.recall.map((one) => {
    const spread = make("span", { class: "spread", "aria-hidden": "true" }, make("i"), make("b"));
    spread.firstChild.style.left = `${100 * one.low}%`;
    spread.firstChild.style.width = `${100 * (one.high - one.low)}%`;
    spread.lastChild.style.left = `${100 * one.recall}%`;
    const few = one.images && one.images < 50;
    const least = few ? "too few to tell" : `at least ${percent(one.low, 1)}`;
    return [kindName(one.kind), spread, least, `${percent(one.low, 1)} to ${percent(one.high, 1)}`, one.images ? count(one.images) : "–"];
  });
  const columns = [{ title: "Kind" }, { title: "0 to 100 %" }, ...["Recall", "95 % interval", "Images"].map((title) => ({ title, number: true }))];
  const methods = [...new Set(data.recall.map((one) => one.method).filter(Boolean))];
  return into("recall", table(columns, rows, "Recall by kind"), quiet(methods.length ? `${methods.join("; ")}.` : "Of the things that are there, the share that was found."));
}

export function problems(data) {
  const numbered = (title) => ({ title, number: true });
  if (!data.left.length) into("left", quiet(data.rows ? "The check found nothing that is still there." : "No rows yet."));
  else {
    const columns = [{ title: "Kind" }, { title: "Seen by" }, numbered("Images"), numbered("Detections"), numbered("Highest score")];
    const rows = data.left.map((l) => [kindName(l.kind), make("code", {}, l.detector), count(l.images), count(l.finds), score(l.highest)]);
    into("left", table(columns, rows, "Still detected"));
  }
  if (!data.causes.length) return into("causes", quiet("No image failed and none was skipped."));
  const columns = [{ title: "Cause" }, numbered("Images"), { title: "For example" }];
  const rows = data.causes.map((cause) => [
    make("div", { class: "cause" }, badge(cause.status), make("code", {}, `${cause.stage}/${cause.kind}`), HINTS[cause.kind] ? make("p", {}, HINTS[cause.kind]) : null),
    count(cause.images),
    make("div", { class: "example" }, make("b", {}, cause.name), make("p", {}, cause.message)),
  ]);
  return into("causes", table(columns, rows, "Causes"));
}

/** What filled the masks; a mosaic and a blur hide what is below them, and say so. */
function fillers(data) {
  const hides = (name) => (/^(pixelate|blur|stylise|fill)$/.test(name) ? ", hides only" : "");
  return Object.entries(data.inpainters).map(([name, rows]) => `${name} (${many(rows, "image")}${hides(name)})`).join(", ") || "nothing";
}

export function provenance(data) {
  const panel = (title, ...inner) => make("section", { class: "panel" }, make("h3", {}, title), ...inner);
  const pair = (term, value) => [make("dt", {}, term), make("dd", {}, value)];
  const versions = Object.keys(data.versions);
  const facts = make("dl", { class: "facts" },
    ...pair("Source", make("code", {}, data.source)), ...pair("Output", make("code", {}, data.output)),
    ...pair("First started", moment(data.started)), ...pair("Recipe", make("code", {}, data.digest)),
    ...pair("Filled by", fillers(data)),
    ...pair("Code", make("code", {}, versions.join(", ") || "–")), ...pair("Page made", moment(data.generated)));
  const weights = Object.entries(data.weights).map(([name, sha256]) => [name, make("code", { class: "hash" }, sha256)]);
  const packages = Object.entries(data.packages).map(([name, version]) => [name, make("code", {}, version)]);
  into("run-panels",
    panel("Identity", facts, versions.length > 1 ? quiet("Rows were made by more than one version of the code.") : null),
    panel("Recipe", make("pre", { tabindex: "0", "aria-label": "Recipe" }, data.recipe)),
    panel("Weights", weights.length ? table([{ title: "Name" }, { title: "sha256" }], weights, "Weights") : quiet("No weights were needed.")),
    panel("Packages", table([{ title: "Package" }, { title: "Version" }], packages, "Packages")));
  into("foot", `cleanplate report, made ${moment(data.generated)}. This file is complete in itself and loads nothing. It holds pictures of your data, before and after: share it with the same care.`);
}
