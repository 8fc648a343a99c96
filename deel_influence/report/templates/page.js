"use strict";
(() => {
  const table = document.getElementById("examples");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const status = document.getElementById("status");
  const filter = document.getElementById("label-filter");
  const names = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => typeof a === "string" ? names.compare(a, b) : a - b;

  function valueOf(row, key) {
    const cell = row.querySelector(`td[data-key="${key}"]`).dataset;
    return "text" in cell ? cell.value : Number(cell.value);
  }

  document.documentElement.classList.add("live");

  function sortBy(button) {
    const head = button.closest("th");
    const opposite = { ascending: "descending", descending: "ascending" };
    const order = opposite[head.getAttribute("aria-sort")] || button.dataset.first;
    const sign = order === "ascending" ? 1 : -1;
    const key = button.dataset.key;
    // The rows are in the order of rank, in which equal values stay.
    const sorted = rows
      .map((row) => [valueOf(row, key), row])
      .sort((a, b) => sign * compare(a[0], b[0]));
    body.append(...sorted.map((pair) => pair[1]));
    table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    status.textContent = `Sorted by ${button.textContent}, ${order}.`;
  }

  function filterByLabel() {
    rows.forEach((row) => {
      row.hidden = filter.value !== "" && row.dataset.label !== filter.value;
    });
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = `${shown} of ${rows.length} examples shown.`;
  }

  function show(view) {
    table.className = view;
    document.querySelectorAll("button[data-view]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    });
  }

  const large = document.getElementById("large");

  function enlarge(picture) {
    large.querySelector("button").replaceChildren(picture.cloneNode());
    large.querySelector("p").textContent = picture.alt;
    large.showModal();
  }

  table.querySelectorAll("button.enlarge").forEach((button) => {
    button.addEventListener("click", () => enlarge(button.firstElementChild));
  });
  table.querySelectorAll("th button").forEach((button) => {
    button.addEventListener("click", () => sortBy(button));
  });
  document.querySelectorAll("button[data-view]").forEach((button) => {
    button.addEventListener("click", () => show(button.dataset.view));
  });
  if (filter) {
    // A browser may restore an earlier choice on reload.
    filter.value = "";
    filter.addEventListener("change", filterByLabel);
  }
  // Wide rows are hard to read on a narrow screen.
  if (window.matchMedia("(max-width: 640px)").matches) show("cards");
})();
