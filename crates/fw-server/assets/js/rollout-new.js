// A rollout is planned before it can be begun, and what is begun is what was planned.
import { ask } from "./ask.js";
import { confirm } from "./action.js";

const form = document.querySelector("[data-rollout-form]");
const box = form.querySelector("[data-plan-of]");
const problem = form.querySelector("[data-problem]");
const start = form.querySelector("[data-start]");
let planned = null;
let hosts = 0;

const make = (tag, text, name = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
};

const list = (items) => {
  const element = document.createElement("ul");
  element.className = "plain";
  for (const item of items) element.append(make("li", item));
  return element;
};

const many = (n) => `${n} host${n === 1 ? "" : "s"}`;

function show(plan) {
  const parts = [];
  for (const wave of plan.waves) {
    parts.push(make("h3", wave.name), make("p", wave.words, "sub"));
    if (wave.gates?.length) parts.push(list(wave.gates));
    parts.push(make("p", wave.hosts.join(", "), "mono wrap"));
  }
  parts.push(make("h3", "What may fail"), make("p", `${plan.budget === 1 ? "1 failed host ends" : `${plan.budget} failed hosts end`} it: ${plan.budget_words}.`), make("p", `${many(plan.max_in_flight)} at once: ${plan.max_in_flight_words}.`));
  if (plan.predicted_words) parts.push(make("h3", "How long"), make("p", plan.predicted_words));
  parts.push(make("h3", "In its way"));
  parts.push(plan.conflicts.length ? list(plan.conflicts.map((one) => one.message)) : make("p", "Nothing.", "sub"));
  box.replaceChildren(...parts);
}

form.querySelector("[data-plan]").addEventListener("click", async () => {
  problem.hidden = true;
  const text = form.elements.text.value;
  try {
    const plan = await ask("POST", "/api/v1/rollouts/plan", { text });
    hosts = plan.waves.reduce((all, wave) => all + wave.hosts.length, 0);
    show(plan);
    planned = text;
    start.disabled = false;
    start.textContent = `Start on ${many(hosts)}`;
  } catch (error) {
    problem.textContent = error.text || String(error);
    problem.hidden = false;
    start.disabled = true;
  }
});

form.elements.text.addEventListener("input", () => { start.disabled = form.elements.text.value !== planned; });

// Beyond ten hosts a person says how many are meant.
let sure = false;
form.addEventListener("submit", async (event) => {
  if (sure || hosts <= 10) { sure = false; return; }
  event.preventDefault();
  event.stopImmediatePropagation();
  const yes = await confirm({ title: `Start on ${many(hosts)}?`, text: "The first wave begins as soon as its gates are passed.", yes: "Start", typed: String(hosts) });
  if (yes) { sure = true; form.requestSubmit(); }
}, true);
