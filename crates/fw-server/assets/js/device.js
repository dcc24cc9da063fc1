// A command line that wants to be signed in: who asks is shown by its code, then a person says yes or no.
import { ask2 } from "./action.js";
import { ask } from "./ask.js";

const card = document.querySelector("[data-device]");
const find = (name) => card.querySelector(`[data-device-${name}]`);
const shown = (name, text) => { find(name).textContent = text; };
const time = (at) => new Date(at).toLocaleTimeString();
let code = "";

if (card) {
  const form = find("ask");
  // The code leaves the address, so that nothing keeps it and a reload does not try it again.
  code = new URLSearchParams(location.search).get("code") || "";
  history.replaceState(null, "", location.pathname);
  form.elements.code.value = code;
  form.addEventListener("submit", (event) => { event.preventDefault(); look(form); });
  find("approve").addEventListener("click", () => settle("approve"));
  find("refuse").addEventListener("click", () => settle("refuse"));
  if (code) look(form); else form.elements.code.focus();
}

function told(part, problem) {
  const box = part.querySelector("[data-problem]");
  box.textContent = problem ? problem.text || String(problem) : "";
  box.hidden = !problem;
}

async function look(form) {
  code = form.elements.code.value.trim();
  told(form, null);
  try {
    const device = await ask("POST", "/api/v1/session/device/show", { code });
    shown("code", device.code);
    shown("host", device.host);
    shown("address", device.address);
    shown("agent", device.agent);
    shown("begun", time(device.begun_at));
    shown("until", time(device.expires_at));
    form.hidden = true;
    find("found").hidden = false;
    find("title").focus();
  } catch (problem) {
    told(form, problem);
    form.elements.code.select();
  }
}

async function settle(verb) {
  const part = find("found");
  const buttons = [find("approve"), find("refuse")];
  told(part, null);
  for (const button of buttons) button.disabled = true;
  try {
    await ask2("POST", `/api/v1/session/device/${verb}`, { code });
    part.hidden = true;
    find("done").hidden = false;
    const yes = verb === "approve";
    shown("said", yes ? "Confirmed: the command line signs in now." : "Refused: the command line is not signed in.");
    shown("next", yes ? "Go back to the terminal; this page can be closed." : "If it was not you who asked, tell an admin: somebody tried to act in your name.");
  } catch (problem) {
    if (problem instanceof Error) told(part, problem);
  } finally { for (const button of buttons) button.disabled = false; }
}
