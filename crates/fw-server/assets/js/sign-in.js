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
