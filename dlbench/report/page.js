"use strict";
// Sorting, filtering and enlarging; the page is complete and readable without any of it.

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
  form.querySelector("output").textContent = `${visible} of ${body.rows.length} cases`;
}

for (const header of document.querySelectorAll("th")) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}
for (const form of document.querySelectorAll(".filters")) {
  form.addEventListener("input", () => filterTable(form));
  form.addEventListener("submit", (event) => event.preventDefault());
  filterTable(form);
}
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => {
    dialog.querySelector("div").replaceChildren(button.querySelector("svg").cloneNode(true));
    dialog.showModal();
  });
}
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
