// What is shown once: a join command with who has joined by it, and a new token.
import { ask } from "./ask.js";

const shell = (word) => /^[\w.:/=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
let known = null;
let left = 0;
let timer = 0;

document.querySelector("[data-enrol]")?.addEventListener("fw:done", async (event) => {
  const made = event.detail;
  const line = `fleetwright agent join ${shell(made.join)}`;
  document.querySelector("[data-enrol-none]").hidden = true;
  document.querySelector("[data-enrol-made]").hidden = false;
  document.querySelector("[data-enrol-command]").textContent = line;
  document.querySelector("[data-enrol-copy]").dataset.copy = line;
  document.querySelector("[data-enrol-until]").textContent = new Date(made.expires_at).toLocaleString();
  const warning = document.querySelector("[data-enrol-warning]");
  warning.hidden = !made.warning;
  warning.textContent = made.warning || "";
  document.querySelector("[data-enrol-joined]").replaceChildren();
  left = made.uses;
  known = new Set((await hosts()).map((host) => host.id));
  wait();
});

async function hosts() {
  const all = [];
  let cursor = "";
  do {
    const page = await ask("GET", `/api/v1/hosts?limit=1000${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    all.push(...page.items);
    cursor = page.next;
  } while (cursor);
  return all;
}

function wait() {
  const box = document.querySelector("[data-enrol-wait]");
  box.className = "waiting";
  box.querySelector("use").setAttribute("href", "#s-run");
  box.querySelector(".icon").setAttribute("class", "icon c-run");
  box.querySelector("span").textContent = left === 1 ? "Waiting for the host…" : `Waiting for ${left} hosts…`;
  clearInterval(timer);
  timer = setInterval(look, 1500);
}

async function look() {
  if (document.hidden) return;
  let all;
  try { all = await hosts(); } catch { return; }
  for (const host of all) {
    if (known.has(host.id)) continue;
    known.add(host.id);
    left -= 1;
    joined(host);
  }
  if (left > 0) return;
  clearInterval(timer);
  const box = document.querySelector("[data-enrol-wait]");
  box.className = "waiting done";
  box.querySelector("use").setAttribute("href", "#s-ok");
  box.querySelector(".icon").setAttribute("class", "icon c-ok");
  box.querySelector("span").textContent = "Joined";
}

function joined(host) {
  const row = document.createElement("li");
  const link = document.createElement("a");
  link.href = `/hosts/${encodeURIComponent(host.name)}`;
  link.textContent = host.name;
  const run = document.createElement("a");
  run.href = `/run?hosts=${encodeURIComponent(host.name)}`;
  run.className = "button small";
  run.textContent = "Run a command";
  row.append(link, run);
  document.querySelector("[data-enrol-joined]").append(row);
}

document.querySelector("[data-token]")?.addEventListener("fw:done", (event) => {
  document.querySelector("[data-token-made]").hidden = false;
  document.querySelector("[data-token-text]").textContent = event.detail.token;
  document.querySelector("[data-token-copy]").dataset.copy = event.detail.token;
});
