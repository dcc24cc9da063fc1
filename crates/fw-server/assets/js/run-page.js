// The page of a run: its log, and what it says of the run stays true as the run goes on.
import { meant, off } from "./keymap.js";
import { live } from "./live.js";
import "./log-view.js";

const SOON = 150;
const AGAIN = 1200;

const log = document.querySelector("log-view");
const head = document.querySelector("[data-run]");

// The parts of the page are asked for again when the run has changed: soon, and once more for what came meanwhile.
let soon = null;
let again = null;
const fresh = () => document.dispatchEvent(new CustomEvent("fw:changed"));
let first = true;
live.subscribe(`run:${head.dataset.run}`, () => {
  if (first) { first = false; return; }
  soon ??= setTimeout(() => { soon = null; fresh(); }, SOON);
  clearTimeout(again);
  again = setTimeout(fresh, AGAIN);
});

// Keys of the log, wherever on the page: not in fields, and not where they mean something else.
const KEYS = new Set(["e", "E", "f", "F", "t", "T", "w", "W", "n", "N"]);
let going = 0;
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, dialog[open], log-view") || off()) return;
  const key = meant(event.key);
  if (key === "g") { going = Date.now(); return; }
  if (Date.now() - going < 1200 || !KEYS.has(key)) return;
  log.key(event);
});

// A click on a host's output shows it without a new page.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='?host=']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  log.choose ? (log.choose.value = new URLSearchParams(link.search).get("host")) : null;
  log.show(new URLSearchParams(link.search).get("host"));
  log.scrollIntoView({ block: "nearest" });
  log.scroll.focus({ preventScroll: true });
});
