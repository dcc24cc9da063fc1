// The palette: screens, hosts, jobs, runs and what to do, by a few letters. Everything found is shown as text.
import { ask } from "./ask.js";
import { copy } from "./action.js";
import { setTheme } from "./theme.js";

const RECENT = "fw-recent";
let items = [];
let at = 0;
let fleet = null;
let ready = Promise.resolve();

export function startPalette() {
  const dialog = document.getElementById("palette");
  if (!dialog) return;
  const input = dialog.querySelector("input");
  dialog.addEventListener("fw:open", () => { input.value = ""; input.focus(); fleet = null; list(""); ready = load().then(() => list(input.value)); });
  input.addEventListener("input", () => list(input.value));
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") { event.preventDefault(); choose(at + 1); }
    else if (event.key === "ArrowUp") { event.preventDefault(); choose(at - 1); }
    else if (event.key === "Enter") { event.preventDefault(); enter(dialog, event.ctrlKey || event.metaKey); }
    else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "c" && input.selectionStart === input.selectionEnd && items[at]?.cli) { event.preventDefault(); copy(items[at].cli); }
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
    const row = event.target.closest("li[data-at]");
    if (row) open(items[Number(row.dataset.at)], dialog, event.ctrlKey || event.metaKey);
  });
  remember();
}

// Who types faster than the fleet is read gets what he would have seen.
async function enter(dialog, aside) {
  await ready;
  if (dialog.open) open(items[at], dialog, aside);
}

async function load() {
  try {
    const [hosts, jobs] = await Promise.all([ask("GET", "/api/v1/hosts?limit=1000"), ask("GET", "/api/v1/jobs")]);
    fleet = { hosts: hosts.items.map((host) => host.name), jobs: jobs.map((job) => job.name) };
  } catch { fleet = { hosts: [], jobs: [] }; }
}

function remember() {
  const path = location.pathname;
  if (path.split("/").length < 3) return;
  const recent = recents().filter((one) => one !== path);
  recent.unshift(path);
  try { localStorage.setItem(RECENT, JSON.stringify(recent.slice(0, 6))); } catch { /* Only a convenience. */ }
}

function recents() {
  try { return JSON.parse(localStorage.getItem(RECENT) || "[]").filter((one) => typeof one === "string" && one.startsWith("/")); } catch { return []; }
}

const shell = (word) => /^[\w.:/=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

function all(text) {
  const found = [...document.querySelectorAll(".rail a[data-key]")].map((link) => ({ what: link.querySelector(".nav-label").textContent, kind: `g ${link.dataset.key}`, href: link.getAttribute("href") }));
  const may = (what) => document.body.dataset.may.split(" ").includes(what);
  if (may("change")) found.push({ what: "Add a host", kind: "action", href: "/settings/enrolment", cli: "fleetwright hosts invite" });
  for (const name of ["light", "dark", "system"]) found.push({ what: `Theme: ${name}`, kind: "action", act: () => setTheme(name) });
  const run = /^run\s+(.+?)\s+on\s+(.+)$/i.exec(text);
  if (run && may("run")) found.unshift({ what: `Run “${run[1]}” on ${run[2]}`, kind: "action", href: `/run?hosts=${encodeURIComponent(run[2])}&command=${encodeURIComponent(run[1])}`, cli: `fleetwright run ${shell(run[2])} --shell ${shell(run[1])}`, always: true });
  if (/^[0-9a-f]{8}-[0-9a-f-]{27}$/i.test(text)) found.unshift({ what: `Run ${text}`, kind: "run", href: `/runs/${text}`, cli: `fleetwright runs show ${text}`, always: true });
  if (!text) found.push(...recents().map((path) => ({ what: decodeURIComponent(path.slice(1)), kind: "recent", href: path })));
  for (const name of fleet?.jobs ?? []) {
    found.push({ what: name, kind: "job", href: `/jobs/${encodeURIComponent(name)}`, cli: `fleetwright jobs show ${shell(name)}` });
  }
  for (const name of fleet?.hosts ?? []) {
    found.push({ what: name, kind: "host", href: `/hosts/${encodeURIComponent(name)}`, cli: `fleetwright hosts show ${shell(name)}` });
  }
  if (text) found.push({ what: `Hosts that match ${text}`, kind: "filter", href: `/hosts?q=${encodeURIComponent(text)}`, cli: `fleetwright hosts list ${shell(text)}`, always: true });
  return found;
}

function list(raw) {
  const text = raw.trim();
  const letters = text.toLowerCase();
  const scored = all(text).map((item) => ({ item, score: item.always ? 1 : score(item.what.toLowerCase(), letters) })).filter((one) => one.score > 0);
  if (letters) scored.sort((a, b) => b.score - a.score);
  items = scored.slice(0, 30).map((one) => one.item);
  const box = document.getElementById("palette-list");
  box.replaceChildren(...items.map((item, index) => {
    const row = document.createElement("li");
    row.id = `palette-${index}`;
    row.role = "option";
    row.dataset.at = String(index);
    const what = document.createElement("span");
    what.className = "what";
    what.textContent = item.what;
    const kind = document.createElement("small");
    kind.textContent = item.kind;
    row.append(what, kind);
    return row;
  }));
  if (!items.length) { const none = document.createElement("li"); none.className = "none"; none.role = "option"; none.textContent = "Nothing found"; box.append(none); }
  choose(0);
}

function score(what, letters) {
  if (!letters) return 1;
  if (what === letters) return 100;
  if (what.startsWith(letters)) return 60;
  if (what.includes(letters)) return 40;
  let from = 0;
  for (const letter of letters) { from = what.indexOf(letter, from) + 1; if (!from) return 0; }
  return 5;
}

function choose(next) {
  at = items.length ? (next + items.length) % items.length : 0;
  const rows = document.querySelectorAll("#palette-list li[data-at]");
  rows.forEach((row, index) => row.setAttribute("aria-selected", String(index === at)));
  rows[at]?.scrollIntoView({ block: "nearest" });
  const input = document.getElementById("palette-text");
  if (rows[at]) input.setAttribute("aria-activedescendant", rows[at].id); else input.removeAttribute("aria-activedescendant");
}

function open(item, dialog, aside) {
  if (!item) return;
  dialog.close();
  if (item.act) item.act();
  else if (aside) window.open(item.href, "_blank", "noopener");
  else location.href = item.href;
}
