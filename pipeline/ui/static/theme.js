// Light and dark: the system's, until a person chooses.

export function theme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const update = () => document.getElementById("theme").setAttribute("aria-pressed", String(isDark()));
  try {
    const kept = localStorage.getItem("cleanplate theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {
    // No storage for this file: the system's colours.
  }
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("cleanplate theme", root.dataset.theme);
    } catch {
      // The choice lasts as long as the page is open.
    }
    update();
  });
  system.addEventListener("change", update);
  update();
}
