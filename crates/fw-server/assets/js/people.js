// Users and sessions, as the API gives them to whoever looks. All of it is put in as text.
import { ask } from "./ask.js";
import { sayTimes } from "./fresh.js";
import { live } from "./live.js";

const body = document.querySelector("[data-people]");
const told = document.querySelector("[data-people-say]");

function cell(row, content, className = "", head = false) {
  const made = document.createElement(head ? "th" : "td");
  if (head) made.scope = "row";
  made.className = className;
  made.append(content);
  row.append(made);
}

function time(at) {
  if (!at) return "never";
  const made = document.createElement("time");
  made.dateTime = at;
  made.dataset.ago = "";
  made.textContent = at;
  return made;
}

function button(text, api, data = {}) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = `button small${data.danger ? " danger" : ""}`;
  made.textContent = text;
  made.dataset.api = api;
  delete data.danger;
  Object.assign(made.dataset, data);
  return made;
}

function actions(...buttons) {
  const made = document.createDocumentFragment();
  for (const one of buttons) made.append(one, " ");
  return made;
}

const ROWS = {
  users(row, user) {
    const path = `/api/v1/users/${encodeURIComponent(user.name)}`;
    cell(row, user.name, "", true);
    cell(row, user.role, "soft");
    cell(row, user.disabled ? "disabled" : user.set_up ? "active" : "has not set a password", user.disabled ? "tone-bad" : "soft");
    cell(row, user.totp ? "yes" : "no", "soft");
    cell(row, time(user.last_sign_in), "num");
    const reset = button("New link", `POST ${path}/reset`, { confirmTitle: `Reset ${user.name}?`, confirm: "They are signed out, and must choose a new password with the link that is shown once.", confirmYes: "Make link" });
    reset.addEventListener("fw:done", (event) => link(event.detail));
    const able = user.disabled
      ? button("Enable", `PATCH ${path}`, { body: JSON.stringify({ disabled: false }), then: "" })
      : button("Disable", `PATCH ${path}`, { body: JSON.stringify({ disabled: true }), then: "", danger: true, confirmTitle: `Disable ${user.name}?`, confirm: "They are signed out at once and may not sign in until they are enabled again.", confirmYes: "Disable" });
    cell(row, actions(reset, able), "num");
  },
  sessions(row, session) {
    cell(row, session.user, "", true);
    cell(row, session.address, "mono soft");
    cell(row, session.agent, "soft cut");
    cell(row, session.current ? "this one" : time(session.used_at), "num");
    cell(row, time(session.created_at), "num");
    cell(row, session.current ? "" : button("Sign out", `DELETE /api/v1/sessions/${session.id}`, { danger: true, then: "" }), "num");
  },
};

function link(made) {
  const box = document.querySelector("[data-link-made]");
  if (!box || !made?.link) return;
  box.hidden = false;
  box.querySelector("[data-link-text]").textContent = made.link;
  box.querySelector("[data-link-copy]").dataset.copy = made.link;
}

async function load() {
  const kind = body.dataset.people;
  try {
    const found = await ask("GET", `/api/v1/${kind}`);
    body.replaceChildren(...(found.items ?? found).map((one) => { const row = document.createElement("tr"); ROWS[kind](row, one); return row; }));
    told.hidden = body.children.length > 0;
    told.textContent = "None yet.";
    sayTimes();
  } catch (problem) {
    told.hidden = false;
    told.textContent = problem.text;
  }
}

document.querySelector("[data-user-new]")?.addEventListener("fw:done", (event) => { link(event.detail); load(); });
// Who is added, changed, signs in or out is in the audit.
live.subscribe("touched", (rows, kind) => { if (kind === "delta" && rows.audit) load(); });
load();
