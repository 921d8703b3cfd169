// A handle between two pictures that lie on one another: .before is cut at --x.

import { make } from "./elements.js";

/** Puts labels, a handle and a range input into `pic`; the pointer pulls it anywhere, the keyboard by the input. */
export function slide(pic, label) {
  pic.append(make("span", { class: "side left", "aria-hidden": "true" }, "before"), make("span", { class: "side right", "aria-hidden": "true" }, "after"));
  pic.append(make("div", { class: "handle", "aria-hidden": "true" }));
  const slider = make("input", { type: "range", class: "slider", min: 0, max: 100, value: 50, "aria-label": label });
  const show = () => {
    pic.style.setProperty("--x", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % before, ${100 - slider.value} % after`);
  };
  slider.addEventListener("input", show);
  const pull = (event) => {
    const rect = pic.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - rect.left)) / rect.width);
    show();
  };
  pic.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pic.setPointerCapture(event.pointerId);
    pull(event);
  });
  pic.addEventListener("pointermove", (event) => pic.hasPointerCapture(event.pointerId) && pull(event));
  show();
  pic.append(slider);
  return slider;
}
