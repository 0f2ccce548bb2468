// Light, dark or as the system has it; before anything is drawn, so that nothing flickers.
"use strict";
(() => {
  const NAMES = { auto: "as the system", light: "light", dark: "dark" };
  const order = Object.keys(NAMES);
  const read = () => {
    try { return localStorage.getItem("theme") || "auto"; } catch { return "auto"; }
  };
  const apply = (theme) => {
    const known = theme in NAMES ? theme : "auto";
    if (known === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = known;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${NAMES[known]}`;
    return known;
  };
  let theme = apply(read());
  document.addEventListener("DOMContentLoaded", () => {
    apply(theme);
    document.getElementById("theme").addEventListener("click", () => {
      theme = apply(order[(order.indexOf(theme) + 1) % order.length]);
      try { localStorage.setItem("theme", theme); } catch { /* it holds for this visit */ }
      dispatchEvent(new Event("theme"));
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("theme")));
})();
