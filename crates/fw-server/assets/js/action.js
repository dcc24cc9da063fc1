// Actions: forms and buttons that ask the API, and say what it answered.
//
// <form data-api="POST /api/v1/runs" data-then="/runs/{id}"> sends its fields as JSON. A field's `name` is the key (`a.b` nests),
// `data-as` says what it is: number, list (by commas), map (k=v by commas), lines, flag, many (fields of one name make a list).
// Empty fields are left out.
// <button data-api="POST /api/v1/jobs/x/run" data-confirm="…"> sends nothing, or what `data-body` says.
import { ask } from "./ask.js";
import { refresh } from "./fresh.js";

export function startActions() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.matches("form[data-api]")) { event.preventDefault(); send(form, form.querySelector("button.primary, button:not([type=button])")); }
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-api], [data-copy], [data-open], [data-close], [data-act]");
    if (!button) {
      for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
      return;
    }
    if (button.dataset.api) send(button, button);
    else if (button.dataset.copy !== undefined) copy(button.dataset.copy);
    else if (button.dataset.open) openDialog(button.dataset.open);
    else if (button.dataset.close !== undefined) button.closest("dialog")?.close("no");
    else if (button.dataset.act === "sign-out") signOut();
  });
  document.querySelector("[data-step-up]")?.addEventListener("submit", stepUp);
  const notice = sessionStorage.getItem("fw-notice");
  if (notice) { sessionStorage.removeItem("fw-notice"); say(notice, "ok"); }
}

export function openDialog(id) {
  const dialog = document.getElementById(id);
  if (!dialog || dialog.open) return;
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
  dialog.showModal();
  dialog.dispatchEvent(new CustomEvent("fw:open"));
}

export async function copy(text) {
  try { await navigator.clipboard.writeText(text); say("Copied"); }
  catch { say(`Copy it by hand:\n${text}`); }
}

export function say(text, tone = "") {
  const box = document.querySelector("[data-toasts]");
  if (!box) return;
  const toast = document.createElement("div");
  toast.className = `toast ${tone}`;
  toast.textContent = text;
  box.append(toast);
  setTimeout(() => toast.remove(), tone === "bad" ? 12000 : 4000);
}

// Asks before what cannot be undone; beyond ten things their number must be typed.
export function confirm({ title, text, yes = "Go on", typed = "" }) {
  const dialog = document.getElementById("confirm");
  dialog.querySelector("#confirm-title").textContent = title;
  dialog.querySelector("[data-confirm-text]").textContent = text;
  dialog.querySelector("[data-confirm-yes]").textContent = yes;
  dialog.querySelector("[data-confirm-want]").textContent = typed;
  const row = dialog.querySelector("[data-confirm-typed]");
  const input = row.querySelector("input");
  const button = dialog.querySelector("[data-confirm-yes]");
  row.hidden = !typed;
  input.value = "";
  button.disabled = Boolean(typed);
  input.oninput = () => { button.disabled = Boolean(typed) && input.value.trim() !== typed; };
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

async function send(element, button) {
  const data = element.dataset;
  if (data.confirm) {
    const sure = await confirm({ title: data.confirmTitle || "Are you sure?", text: data.confirm, yes: data.confirmYes, typed: data.confirmTyped });
    if (!sure) return;
  }
  const [method, path] = data.api.split(" ");
  const box = element.querySelector?.("[data-problem]");
  if (box) box.hidden = true;
  if (button) button.disabled = true;
  try {
    const body = element.tagName === "FORM" ? bodyOf(element) : data.body ? JSON.parse(data.body) : undefined;
    const answer = await ask2(method, fill(path, element), body);
    await done(element, answer);
  } catch (problem) {
    if (problem === CANCELLED) return;
    if (box) { box.textContent = problem.text || String(problem); box.hidden = false; } else say(problem.text || String(problem), "bad");
  } finally {
    if (button) button.disabled = false;
  }
}

async function done(element, answer) {
  const data = element.dataset;
  element.dispatchEvent(new CustomEvent("fw:done", { bubbles: true, detail: answer }));
  if (answer?.warning) sessionStorage.setItem("fw-notice", answer.warning);
  if (data.then !== undefined) {
    if (data.said && !answer?.warning) sessionStorage.setItem("fw-notice", data.said);
    location.href = data.then.replace(/\{(\w+)\}/g, (_, key) => encodeURIComponent(answer?.[key] ?? ""));
    return;
  }
  if (data.said) say(data.said, "ok");
  if (element.tagName === "FORM" && data.stay === undefined) element.reset();
  element.closest("dialog")?.close("done");
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
  await refresh();
}

// A path may name fields of its form: /api/v1/hosts/{host}/labels.
function fill(path, element) {
  return path.replace(/\{(\w+)\}/g, (_, key) => encodeURIComponent(element.elements?.[key]?.value ?? ""));
}

export function bodyOf(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || (field.type === "radio" && !field.checked)) continue;
    const value = read(field);
    if (value === undefined) continue;
    if (field.dataset.as === "many") { (body[field.name] ??= []).push(value); continue; }
    const keys = field.name.split(".");
    let into = body;
    for (const key of keys.slice(0, -1)) into = into[key] ??= {};
    into[keys.at(-1)] = value;
  }
  return body;
}

function read(field) {
  const text = field.dataset.raw !== undefined ? field.value : field.value.trim();
  const as = field.dataset.as;
  if (as === "flag") return field.checked;
  if (as === "path") return undefined;
  if (field.type === "checkbox") return field.checked ? field.value : undefined;
  if (text === "") return undefined;
  if (as === "number") return Number(text);
  if (as === "list") return text.split(",").map((one) => one.trim()).filter(Boolean);
  if (as === "lines") return text.split("\n").map((one) => one.trim()).filter(Boolean);
  if (as === "map") return Object.fromEntries(text.split(/[,\n]/).map((one) => one.trim()).filter(Boolean).map((one) => { const [key, ...rest] = one.split("="); return [key.trim(), rest.join("=").trim()]; }));
  return text;
}

const CANCELLED = Symbol("cancelled");
let stepping = null;

// Asks the API; when it wants to know once more who asks, asks the person and tries again.
export async function ask2(method, path, body) {
  try { return await ask(method, path, body); }
  catch (problem) {
    if (!/step_?up/i.test(problem.code)) throw problem;
    const dialog = document.getElementById("step-up");
    dialog.querySelector("[data-step-up-text]").textContent = problem.detail || problem.message;
    dialog.returnValue = "no";
    dialog.showModal();
    const confirmed = await new Promise((done) => { stepping = done; dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }); });
    stepping = null;
    if (!confirmed) throw CANCELLED;
    return ask(method, path, body);
  }
}

async function stepUp(event) {
  event.preventDefault();
  const form = event.target;
  const box = form.querySelector("[data-problem]");
  box.hidden = true;
  try {
    await ask("POST", "/api/v1/session/step-up", bodyOf(form));
    form.reset();
    form.closest("dialog").close("yes");
  } catch (problem) { box.textContent = problem.text; box.hidden = false; }
}

async function signOut() {
  try { await ask("DELETE", "/api/v1/session"); } catch { /* Whoever is signed out already is where he wants to be. */ }
  location.href = "/sign-in";
}

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  if (event.target.matches("[data-everything]")) {
    const hosts = event.target.form.elements.hosts;
    hosts.disabled = event.target.checked;
  }
});
