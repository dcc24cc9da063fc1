// My account: what codes are made from and recovery codes, which are shown this once, and never kept in the page.
const find = (name) => document.querySelector(`[data-${name}]`);
const shown = (name, text) => { find(name).textContent = text; };

find("totp-begin")?.addEventListener("fw:done", ({ detail: { secret, address, picture } }) => {
  find("totp-off").hidden = true;
  find("totp-made").hidden = false;
  shown("totp-secret", secret.match(/.{1,4}/g).join(" "));
  shown("totp-address", address);
  const svg = new DOMParser().parseFromString(picture, "image/svg+xml").documentElement;
  find("totp-picture").replaceChildren(document.importNode(svg, true));
  find("totp-copy").dataset.copy = secret;
  find("totp-address-copy").dataset.copy = address;
  document.getElementById("code").focus();
});

find("totp-confirm")?.addEventListener("fw:done", ({ detail: { codes } }) => {
  find("totp-made").hidden = true;
  find("totp-done").hidden = false;
  shown("totp-state", "on");
  shown("totp-codes", codes.join("\n"));
  find("totp-codes-copy").dataset.copy = codes.join("\n");
  find("totp-codes").focus();
});

// Two fields are compared here; which password is good enough the server says.
const form = find("password");
form?.addEventListener("input", () => {
  const { password, again } = form.elements;
  again.setCustomValidity(password.value === again.value ? "" : "The two passwords differ.");
});
