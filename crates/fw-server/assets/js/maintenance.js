// The form that switches a maintenance on: the command line that does the same is said while it is typed.
const form = document.querySelector("[data-maintenance]");
const field = (name) => form.elements.namedItem(name);
const shell = (word) => /^[\w.:/=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

function say() {
  const text = (name) => field(name).value.trim();
  const words = ["fleetwright maintenance on", field("everything").checked ? "--everything" : shell(text("hosts") || "*")];
  words.push("--reason", shell(text("reason")));
  for (const [name, flag] of [["for", "--for"], ["message", "--message"], ["every", "--every"], ["timezone", "--timezone"]]) {
    if (text(name)) words.push(flag, shell(text(name)));
  }
  if (field("stop_running").checked) words.push("--stop-running");
  else if (!text("every")) words.push("--drain");
  const line = words.join(" ");
  form.querySelector("[data-cli]").textContent = line;
  form.querySelector("[data-copy-cli]").dataset.copy = line;
}

form.addEventListener("input", say);
form.addEventListener("change", say);
form.addEventListener("reset", () => setTimeout(say));
say();
