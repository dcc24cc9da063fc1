// The theme: the server writes it into the page, so nothing flashes; a cookie keeps it.
const YEAR = 365 * 24 * 60 * 60;

export function startTheme() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-theme-to]");
    if (button) setTheme(button.dataset.themeTo);
  });
}

export function setTheme(name) {
  document.documentElement.dataset.theme = name;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `fw-theme=${name}; Path=/; Max-Age=${YEAR}; SameSite=Lax${secure}`;
  for (const button of document.querySelectorAll("[data-theme-to]")) {
    button.setAttribute("aria-pressed", String(button.dataset.themeTo === name));
  }
}
