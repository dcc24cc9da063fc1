// Lists: a row that keys move, and ticks that outlive a refresh.
const ticked = new Set();
let current = "";

export function startRows() {
  document.addEventListener("change", (event) => {
    const tick = event.target;
    if (tick.matches("[data-tick]")) { tick.checked ? ticked.add(tick.dataset.tick) : ticked.delete(tick.dataset.tick); paint(); }
    if (tick.matches("[data-tick-all]")) {
      for (const one of document.querySelectorAll("[data-tick]")) tick.checked ? ticked.add(one.dataset.tick) : ticked.delete(one.dataset.tick);
      paint();
    }
  });
  document.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-href]");
    if (row && !event.target.closest("a, button, input, label, summary") && document.getSelection()?.isCollapsed !== false) location.href = row.dataset.href;
    const run = event.target.closest("[data-run-chosen]");
    if (run && ticked.size) { event.preventDefault(); location.href = `/run?hosts=${encodeURIComponent([...ticked].join(","))}`; }
  });
  document.addEventListener("fw:fresh", paint);
  paint();
}

export const chosen = () => [...ticked];

function paint() {
  for (const tick of document.querySelectorAll("[data-tick]")) tick.checked = ticked.has(tick.dataset.tick);
  const all = document.querySelector("[data-tick-all]");
  const count = document.querySelectorAll("[data-tick]").length;
  if (all) { all.checked = count > 0 && ticked.size >= count; all.indeterminate = ticked.size > 0 && ticked.size < count; }
  const say = document.querySelector("[data-chosen]");
  if (say) { say.hidden = !ticked.size; say.textContent = `${ticked.size} selected`; }
  for (const row of document.querySelectorAll("tr.here")) row.classList.remove("here");
  here()?.classList.add("here");
}

export function here() {
  return current ? document.querySelector(`tr[data-key="${CSS.escape(current)}"]`) : null;
}

export function moveRow(by) {
  const rows = [...document.querySelectorAll("tr[data-href]")];
  if (!rows.length) return false;
  const at = rows.findIndex((row) => row.dataset.key === current);
  const next = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? (by > 0 ? 0 : rows.length - 1) : at + by))];
  current = next.dataset.key;
  paint();
  next.scrollIntoView({ block: "nearest" });
  next.querySelector("th a, td a")?.focus({ preventScroll: true });
}
