// Which key means what: what a person chose in the help, else the usual one. A map from the usual key to theirs.
const KEPT = "fw-keymap";
let own = read();

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) || "{}");
    return Object.fromEntries(Object.entries(kept).filter(([usual, key]) => usual.length === 1 && typeof key === "string" && key.length === 1));
  } catch { return {}; }
}

export const off = () => localStorage.getItem("fw-keys") === "off";

// The usual key of what this key means; a key that means something else now, or nothing, is none.
export function meant(key) {
  for (const [usual, now] of Object.entries(own)) if (now === key) return usual;
  return key in own ? "" : key;
}

export function startKeymap() {
  const box = document.querySelector("[data-keymap]");
  if (!box) return;
  const keys = [...document.querySelectorAll("#keys kbd[data-k]")];
  const problem = document.querySelector("[data-keymap-problem]");
  const tell = (text) => { problem.textContent = text; problem.hidden = !text; };
  const fields = keys.map((kbd) => {
    const usual = kbd.dataset.k;
    const row = document.createElement("p");
    row.className = "field";
    const label = document.createElement("label");
    const input = document.createElement("input");
    input.id = `keymap-${usual.codePointAt(0)}`;
    label.htmlFor = input.id;
    label.textContent = kbd.dataset.what;
    Object.assign(input, { maxLength: 1, autocomplete: "off", spellcheck: false });
    input.addEventListener("focus", () => input.select());
    input.addEventListener("change", () => set(usual, input.value.trim() || usual));
    row.append(label, input);
    box.append(row);
    return { usual, input };
  });
  function set(usual, key) {
    const taken = keys.find((kbd) => kbd.dataset.k !== usual && (own[kbd.dataset.k] ?? kbd.dataset.k) === key);
    if (taken) tell(`${key} is the key of \u201c${taken.dataset.what}\u201d; give that another one first.`);
    else {
      tell("");
      if (key === usual) delete own[usual]; else own[usual] = key;
      keep();
    }
    paint();
  }
  function keep() {
    try { localStorage.setItem(KEPT, JSON.stringify(own)); } catch { tell("This browser keeps nothing, so they are for this page alone."); }
  }
  function paint() {
    for (const { usual, input } of fields) input.value = own[usual] ?? usual;
    for (const kbd of document.querySelectorAll("#keys kbd[data-k], #keys kbd[data-shows]")) { const usual = kbd.dataset.k ?? kbd.dataset.shows; kbd.textContent = own[usual] ?? usual; }
  }
  document.querySelector("[data-keymap-reset]").addEventListener("click", () => { own = {}; tell(""); keep(); paint(); });
  paint();
}
