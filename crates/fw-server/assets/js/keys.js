// Keys. Off in fields, and where a person switched them off; a key has its way by mouse, too.
import { openDialog } from "./action.js";
import { meant, off, startKeymap } from "./keymap.js";
import { here, moveRow } from "./rows.js";

let going = 0;

export function startKeys() {
  document.addEventListener("keydown", onKey);
  startKeymap();
  const box = document.querySelector("[data-keys-off]");
  if (box) {
    box.checked = localStorage.getItem("fw-keys") === "off";
    box.addEventListener("change", () => localStorage.setItem("fw-keys", box.checked ? "off" : "on"));
  }
}

function onKey(event) {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault(); openDialog("palette"); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.key === "Escape") { escape(event); return; }
  if (at(event).closest("input:not([type=checkbox]), textarea, select, [contenteditable], dialog[open]") || off()) return;
  if (going && Date.now() - going < 1200) {
    going = 0;
    const link = document.querySelector(`.rail a[data-key="${CSS.escape(event.key)}"]`);
    if (link) { event.preventDefault(); link.click(); }
    return;
  }
  const act = KEYS[meant(event.key)];
  if (act && act(event) !== false) event.preventDefault();
}

// Whose key it is. A dialog that was just closed keeps the focus until the next paint; its keys are the page's.
function at(event) {
  return event.target.closest("dialog:not([open])") ? document.body : event.target;
}

function escape(event) {
  if (document.querySelector("dialog[open]")) return;
  const menu = document.querySelector("details.menu[open]");
  if (menu) { menu.open = false; menu.querySelector("summary").focus(); return; }
  if (at(event).matches("input, textarea, select")) { event.target.blur(); return; }
  document.querySelector(".crumb a:last-of-type")?.click();
}

const click = (selector) => { const found = document.querySelector(selector); if (!found) return false; found.click(); };

const KEYS = {
  g: () => { going = Date.now(); },
  "/": () => { const field = document.querySelector("[data-slash]"); if (!field) return false; field.focus(); field.select?.(); },
  "?": () => openDialog("keys"),
  j: () => moveRow(1),
  k: () => moveRow(-1),
  x: () => { const tick = here()?.querySelector("[data-tick]"); if (!tick) return false; tick.click(); },
  Enter: (event) => { if (at(event).closest("a, button, summary, input")) return false; const row = here(); if (!row) return false; location.href = row.dataset.href; },
  o: () => { const row = here(); if (!row) return false; window.open(row.dataset.href, "_blank", "noopener"); },
  r: () => click("[data-r]:not([disabled])"),
  ".": () => {
    const menu = document.querySelector("main details.menu");
    if (menu) { menu.open = true; menu.querySelector(".menu-item")?.focus(); return; }
    const first = document.querySelector("main .head-actions :is(a[href], button):not([disabled], [rel])");
    if (!first) return false;
    first.focus();
  },
  "[": () => click("a[rel=prev]"),
  "]": () => click("a[rel=next]"),
};
