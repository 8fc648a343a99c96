"use strict";
(() => {
  const table = document.getElementById("examples");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const status = document.getElementById("status");
  const filter = document.getElementById("label-filter");
  const cellOf = (row, key) => row.querySelector(`td[data-key="${key}"]`).dataset;
  const names = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => "text" in a
    ? names.compare(a.value, b.value)
    : Number(a.value) - Number(b.value);

  document.documentElement.classList.add("live");

  function sortBy(button) {
    const head = button.closest("th");
    const opposite = { ascending: "descending", descending: "ascending" };
    const order = opposite[head.getAttribute("aria-sort")] || button.dataset.first;
    const sign = order === "ascending" ? 1 : -1;
    const key = button.dataset.key;
    // Equal values stay in the order of rank.
    rows.sort((a, b) =>
      sign * compare(cellOf(a, key), cellOf(b, key)) || cellOf(a, "rank").value - cellOf(b, "rank").value);
    body.append(...rows);
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
