// Running a command: which hosts are meant is asked while it is typed, and said again on the button.
import { confirm } from "./action.js";

const form = document.querySelector("[data-run-form]");
const preview = document.getElementById("preview");
const button = form.querySelector("[data-submit-run]");
const field = (name) => form.elements.namedItem(name);
let count = 0;
let waiting = 0;
let asked = 0;

const shell = (word) => /^[\w.:/=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

function say() {
  count = Number(preview.querySelector("[data-count]")?.dataset.count || 0);
  button.textContent = count ? `Run on ${count} host${count === 1 ? "" : "s"}` : "Run";
  button.disabled = !count || !field("command.shell").value.trim();
  const words = ["fleetwright run", shell(field("hosts").value.trim() || "*"), "--shell", shell(field("command.shell").value)];
  for (const [name, flag] of [["user", "--user"], ["cwd", "--cwd"], ["timeout", "--timeout"], ["parallel", "--parallel"], ["max_failures", "--max-failures"], ["start_within", "--start-within"]]) {
    if (field(name).value.trim()) words.push(flag, shell(field(name).value.trim()));
  }
  const line = words.join(" ");
  form.querySelector("[data-cli]").textContent = line;
  form.querySelector("[data-copy-cli]").dataset.copy = line;
}

async function look() {
  const mine = ++asked;
  const answer = await fetch(`/run/preview?hosts=${encodeURIComponent(field("hosts").value)}`, { headers: { "HX-Request": "true" } }).catch(() => null);
  if (mine !== asked || !answer?.ok) return;
  const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
  preview.replaceChildren(...parsed.body.childNodes);
  say();
}

form.addEventListener("input", (event) => {
  say();
  if (event.target === field("hosts")) { button.disabled = true; clearTimeout(waiting); waiting = setTimeout(look, 250); }
});

// Beyond ten hosts a person says how many are meant.
let sure = false;
form.addEventListener("submit", async (event) => {
  if (sure || count <= 10) { sure = false; return; }
  event.preventDefault();
  event.stopImmediatePropagation();
  const yes = await confirm({ title: `Run on ${count} hosts?`, text: `It begins at once on all ${count}. It can be cancelled, but what it has done stays done.`, yes: `Run on ${count} hosts`, typed: String(count) });
  if (yes) { sure = true; form.requestSubmit(); }
}, true);

say();
