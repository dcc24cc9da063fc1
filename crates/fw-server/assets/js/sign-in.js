// Signing in: name and password, then a code when the account has an authenticator.
import { ask } from "./ask.js";

const form = document.querySelector("[data-sign-in]");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const box = form.querySelector("[data-problem]");
  const code = form.querySelector("[data-totp]");
  const button = form.querySelector("button");
  box.hidden = true;
  button.disabled = true;
  const body = { name: form.elements.name.value.trim(), password: form.elements.password.value };
  const totp = form.elements.totp.value.trim();
  if (totp) body.totp = totp;
  try {
    await ask("POST", "/api/v1/session", body);
    location.href = form.dataset.next || "/";
  } catch (problem) {
    if (/totp|second/i.test(problem.code) && code.hidden) {
      code.hidden = false;
      code.querySelector("input").focus();
    } else {
      box.textContent = problem.text;
      box.hidden = false;
      (totp ? form.elements.totp : form.elements.password).select();
    }
  } finally { button.disabled = false; }
});

// The link has its secret behind `#`, which no server and no proxy sees. The first user chooses a name, too.
const setUp = document.querySelector("[data-set-up]");
if (setUp) {
  const secret = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  const box = setUp.querySelector("[data-problem]");
  const tell = (text) => { box.textContent = text; box.hidden = false; };
  const first = setUp.querySelector("[data-first]");
  ask("GET", "/api/v1/setup").then((state) => { first.hidden = !state.needed; first.querySelector("input").required = state.needed; }, (problem) => tell(problem.text));
  if (!secret) tell("This address has no secret behind #. Open the whole link.");
  setUp.addEventListener("submit", async (event) => {
    event.preventDefault();
    box.hidden = true;
    const { password, again, name } = setUp.elements;
    if (password.value !== again.value) { tell("The two passwords differ."); return; }
    const body = { secret, password: password.value };
    if (!first.hidden) body.name = name.value.trim();
    try { await ask("POST", "/api/v1/setup", body); location.href = "/"; } catch (problem) { tell(problem.text); }
  });
}
