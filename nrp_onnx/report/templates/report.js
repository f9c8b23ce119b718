"use strict";
const keyOf = (cell, numeric) => {
  if (!numeric) return cell.textContent;
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
};
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const table = heading.closest("table");
    const numeric = heading.classList.contains("number");
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const compare = (rowA, rowB) => {
      const a = keyOf(rowA.cells[heading.cellIndex], numeric);
      const b = keyOf(rowB.cells[heading.cellIndex], numeric);
      // Gaps come last, whichever way.
      if (a === null || b === null) return (a === null) - (b === null);
      const order = numeric ? a - b : a.localeCompare(b, "en", { numeric: true });
      return ascending ? order : -order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  });
}
// On paper nothing can be opened.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
