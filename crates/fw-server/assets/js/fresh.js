// Keeps a page true: parts with `data-live` are asked for again when the stream says that something of theirs changed, and
// changed in place (`data-from`: where, when no part shows more than that); relative times go on. A page that nobody sees asks for nothing, and asks at once when it is seen again.
import { live } from "./live.js";

const EVERY = 5000;        // While the stream is down.
const SLOWLY = 30000;      // What only the time of day changes, such as the end of a maintenance, no event tells.
const AT_MOST = 100;       // Not more often than this, and never while an answer is under way.
const BUSY = 1000;         // While a dialog or a menu is open.
const AGAIN = 600;         // The audit is written before what it tells of.
const TIMES_EVERY = 10000;

// What a part shows; one that is not here shows something of all. The page of a run hears of its own run by itself.
const KINDS = {
  audit: ["audit"],
  tokens: ["audit"],
  rail: ["hosts"],
  runs: ["runs"],
  run: [],
  changes: ["changes"],
  change: ["changes"],
  banner: ["audit"],
  hosts: ["hosts", "runs", "audit"],
  jobs: ["jobs", "runs", "audit"],
  job: ["jobs", "runs", "audit"],
};
const ALL = ["hosts", "jobs", "runs", "changes", "audit"];

let away = false;
let asking = null;
let waiting = 0;
let asked = 0;

export function startFresh() {
  setInterval(() => { if (!document.hidden && live.state !== "connected") refresh(); }, EVERY);
  setInterval(() => { if (!document.hidden) refresh(); }, SLOWLY);
  setInterval(sayTimes, TIMES_EVERY);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  // Whoever learns of a change sooner says so here.
  document.addEventListener("fw:changed", () => refresh());
  const kinds = new Set();
  for (const part of document.querySelectorAll("[data-live][id]")) for (const kind of KINDS[part.dataset.live] ?? ALL) kinds.add(kind);
  if (kinds.size) live.subscribe("touched", (rows, kind) => heard(kinds, rows, kind));
  sayTimes();
}

// With a snapshot something may have changed since the page was made.
function heard(kinds, rows, kind) {
  if (kind === "delta" && !Object.keys(rows).some((one) => kinds.has(one))) return;
  soon();
  if (kind === "delta" && rows.audit) setTimeout(soon, AGAIN);
}

// Takes together what comes in one go, and lets the server answer before it is asked again.
function soon() {
  if (waiting || document.hidden) return;
  waiting = setTimeout(look, Math.max(0, asked + AT_MOST - Date.now()));
}

async function look() {
  await asking;
  if (busy()) { waiting = setTimeout(look, BUSY); return; }
  waiting = 0;
  asked = Date.now();
  refresh();
}

export function refresh() {
  const parts = [...document.querySelectorAll("[data-live][id]")];
  if (!parts.length || busy()) return Promise.resolve();
  asking ??= ask(parts).finally(() => { asking = null; });
  return asking;
}

// A dialog, a menu or a selection of text must not change under a hand.
function busy() {
  if (document.querySelector("dialog[open], details.menu[open]")) return true;
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && document.activeElement?.tagName !== "INPUT");
}

async function ask(parts) {
  const from = parts.every((part) => part.dataset.from) ? parts[0].dataset.from : "";
  try {
    const answer = await fetch(from || location.href, { headers: { "HX-Request": "true" }, credentials: "same-origin" });
    // Who fills in a form is not sent away from it.
    if (answer.status === 401 && from) return;
    if (answer.status === 401) { location.href = answer.headers.get("HX-Redirect") || "/sign-in"; return; }
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of parts) {
      const now = fresh.getElementById(part.id);
      if (now) morph(part, now);
    }
    sayTimes();
    document.dispatchEvent(new CustomEvent("fw:fresh"));
    setAway(false);
  } catch {
    setAway(true);
  }
}

// Changes what differs and leaves the rest, so that focus, scroll and ticks stay.
export function morph(old, now) {
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName) { old.replaceWith(now.cloneNode(true)); return; }
  if (old.nodeType === Node.TEXT_NODE) { if (old.data !== now.data) old.data = now.data; return; }
  if (old.nodeType !== Node.ELEMENT_NODE || old === document.activeElement && old.matches("input, textarea, select")) return;
  if (old.hasAttribute("data-keep")) return;
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name) && name !== "open" && name !== "class") old.removeAttribute(name);
  for (const { name, value } of now.attributes) if (old.getAttribute(name) !== value && name !== "value" && name !== "open") old.setAttribute(name, value);
  morphChildren(old, now);
}

function morphChildren(old, now) {
  const keyed = new Map();
  for (const child of old.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let at = old.firstChild;
  for (const child of [...now.childNodes]) {
    const same = child.dataset?.key ? keyed.get(child.dataset.key) : null;
    if (same) {
      if (same !== at) old.insertBefore(same, at); else at = at.nextSibling;
      morph(same, child);
    } else if (at && !at.dataset?.key && !child.dataset?.key && at.nodeName === child.nodeName) {
      const next = at.nextSibling;
      morph(at, child);
      at = next;
    } else {
      old.insertBefore(document.importNode(child, true), at);
    }
  }
  while (at) { const next = at.nextSibling; at.remove(); at = next; }
}

function setAway(is) {
  if (is === away) return;
  away = is;
  const banner = document.querySelector("[data-offline]");
  if (banner) banner.hidden = !is;
}

export function sayTimes() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const at = Date.parse(time.dateTime);
    if (Number.isNaN(at)) continue;
    time.textContent = relative(at, now);
    time.title = `${new Date(at).toLocaleString()} (${time.dateTime})`;
  }
  for (const time of document.querySelectorAll("time[data-clock]")) {
    const at = Date.parse(time.dateTime);
    if (!Number.isNaN(at)) time.title = `${new Date(at).toLocaleString()} for you (${time.dateTime})`;
  }
}

function relative(at, now) {
  if (at > now + 999) return `in ${about(at - now)}`;
  return now - at < 1000 ? "just now" : `${about(now - at)} ago`;
}

function about(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}
