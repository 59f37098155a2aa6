"use strict";
// Sorting, filtering, enlarging, printing and finding a record; the page is complete and readable without any of it.

function sortBy(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const index = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.cells[index];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (typeof x === "number" && typeof y === "number") return x - y;
    // A missing number is a text: last, whichever way the others are sorted.
    if (typeof x !== typeof y) return (typeof x === "number" ? -1 : 1) * (down ? -1 : 1);
    return x.localeCompare(y, "en", { numeric: true });
  };
  const rows = [...body.rows].sort((a, b) => (down ? -compare(a, b) : compare(a, b)));
  body.append(...rows);
}

function filterTable(form) {
  const body = form.nextElementSibling.querySelector("tbody");
  const choices = [...form.querySelectorAll("select")].filter((s) => s.value);
  const wanted = form.querySelector("input").value.trim().toLowerCase();
  let visible = 0;
  for (const row of body.rows) {
    const chosen = choices.every((s) => row.cells[s.dataset.column].textContent === s.value);
    row.hidden = !(chosen && row.textContent.toLowerCase().includes(wanted));
    visible += row.hidden ? 0 : 1;
  }
  form.querySelector("output").textContent = `${visible} of ${body.rows.length} rows`;
}

for (const header of document.querySelectorAll("thead th")) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}
for (const form of document.querySelectorAll(".filters")) {
  form.addEventListener("input", () => filterTable(form));
  form.addEventListener("submit", (event) => event.preventDefault());
  filterTable(form);
}

const dialog = document.querySelector("dialog");
const canvas = dialog.querySelector(".canvas");
let scale = 1;

// `factor` 0 makes the whole figure fit.
function zoom(factor) {
  const drawing = canvas.querySelector("svg");
  const { width, height } = drawing.viewBox.baseVal;
  const fitting = Math.min(canvas.clientWidth, (canvas.clientHeight * width) / height);
  scale = factor ? Math.min(12, Math.max(0.5, scale * factor)) : 1;
  drawing.style.width = `${fitting * scale}px`;
}

for (const figure of document.querySelectorAll("figure")) {
  const drawing = figure.querySelector(".drawing");
  const enlarge = () => {
    canvas.replaceChildren(drawing.querySelector("svg").cloneNode(true));
    dialog.showModal();
    zoom(0);
  };
  drawing.addEventListener("click", enlarge);
  figure.querySelector(".enlarge").addEventListener("click", enlarge);
}
for (const button of dialog.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
}
dialog.addEventListener("keydown", (event) => {
  const factor = { "+": 1.25, "=": 1.25, "-": 0.8, 0: 0 }[event.key];
  if (factor !== undefined) zoom(factor);
});
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

// Parts of a figure that tell their record: on pointing or focus a box says it, a click or Enter goes to the record.
// Events are taken from the document, so that the copy in the dialog answers as well.
const tip = document.querySelector(".tip");
let told = null;
function tell(mark) {
  told = mark;
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  // Nothing outside an open dialog is seen above it.
  (mark.closest("dialog") || document.body).append(tip);
  placeTip();
}
function placeTip() {
  if (tip.hidden) return;
  const place = told.getBoundingClientRect();
  const left = Math.min(place.x + place.width / 2 + 10, innerWidth - tip.offsetWidth - 8);
  const above = place.y - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above < 4 ? place.y + place.height + 8 : above}px`;
}
function follow(event) {
  const mark = event.target.closest(".mark[data-target]");
  if (!mark || (event.type === "keydown" && event.key !== "Enter")) return;
  event.stopPropagation();
  event.preventDefault();
  dialog.close();
  tip.hidden = true;
  if (location.hash === `#${mark.dataset.target}`) reveal();
  else location.hash = mark.dataset.target;
}
for (const mark of document.querySelectorAll("figure .mark")) {
  mark.setAttribute("aria-label", mark.querySelector("title").textContent);
  mark.setAttribute("role", mark.dataset.target ? "link" : "img");
  mark.querySelector("title").remove();
}
for (const [name, shows] of [["pointerover", true], ["focusin", true], ["pointerout", false], ["focusout", false]]) {
  document.addEventListener(name, (event) => {
    const mark = event.target.closest && event.target.closest(".mark");
    if (mark && shows) tell(mark);
    else if (mark) tip.hidden = true;
  });
}
document.addEventListener("click", follow, true);
document.addEventListener("keydown", follow, true);
addEventListener("scroll", placeTip, true);

// A figure of several series has a button for each that takes it out.
for (const figure of document.querySelectorAll("figure")) {
  const parts = [...figure.querySelectorAll("[data-series]")];
  const names = [...new Set(parts.map((part) => part.dataset.series))];
  if (names.length < 2) continue;
  const bar = document.createElement("div");
  bar.className = "series";
  bar.textContent = "Show: ";
  for (const name of names) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const part of parts) if (part.dataset.series === name) part.style.display = shown ? "" : "none";
    });
    bar.append(button);
  }
  figure.prepend(bar);
}

// What a link leads to may be folded away, or filtered out; a link to a chapter shows its beginning.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target || target.tagName === "SECTION") return;
  for (let part = target; part; part = part.parentElement) {
    if (part.tagName === "DETAILS") part.open = true;
  }
  target.hidden = false;
  target.scrollIntoView({ block: "center", behavior: "instant" });
  if (target.tagName === "TR") target.focus({ preventScroll: true });
}
addEventListener("hashchange", reveal);
reveal();
