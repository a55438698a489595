"use strict";
// Makes tables of class "sortable" sort by a column: ascending, descending, as written.
const textOf = cell => (cell.querySelector(".mean") || cell).textContent.trim();
const valueOf = cell => cell.dataset.value ?? textOf(cell).replace(/−/g, "-").replace(/,/g, "");
const numberOf = text => /^[⚠\s]*[+-]?[\d.]/.test(text) ? parseFloat(text.replace(/^[⚠\s]+/, "")) : NaN;

function sortBy(table, place, direction) {
  const body = table.tBodies[0];
  const rows = [...table.written];
  if (direction !== "none") {
    const sign = direction === "ascending" ? 1 : -1;
    const keys = new Map(rows.map(row => [row, valueOf(row.cells[place])]));
    const numeric = [...keys.values()].some(key => !Number.isNaN(numberOf(key)));
    rows.sort((a, b) => {
      if (!numeric) return sign * keys.get(a).localeCompare(keys.get(b));
      const [one, other] = [numberOf(keys.get(a)), numberOf(keys.get(b))];
      return Number.isNaN(one) - Number.isNaN(other) || sign * (one - other) || 0; // cells without a number stay last
    });
  }
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.written = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = {ascending: "descending", descending: "none"}[head.getAttribute("aria-sort")] || "ascending";
      heads.forEach(one => one.removeAttribute("aria-sort"));
      if (next !== "none") head.setAttribute("aria-sort", next);
      sortBy(table, place, next);
    });
  });
}
