"use strict";
const page = (() => {
  const table = document.getElementById("examples");
  const body = table.tBodies[0];
  const status = document.getElementById("status");
  const large = document.getElementById("large");
  const pager = document.getElementById("pager");
  const perPage = Number(table.dataset.perPage);
  const find = (id) => document.getElementById(id);
  const filters = {
    search: find("search"),
    given: find("label-filter"),
    predicted: find("predicted-filter"),
    disputed: find("disputed"),
    undecided: find("undecided"),
  };
  const names = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => typeof a === "string" ? names.compare(a, b) : a - b;
  const texts = new WeakMap();

  // All examples in the order of rank; those beyond the first page wait where nothing is drawn.
  const rows = Array.from(body.rows).concat(Array.from(find("rest")?.content.children ?? []));
  let order = rows;
  let view = rows;
  let at = 0;
  let current = null;

  document.documentElement.classList.add("live");

  function say(text) {
    status.textContent = text;
  }

  // All rows have the same cells; to look for one by its place is faster by far.
  const places = new Map(Array.from(rows[0].children, (cell, i) => [cell.dataset.key, i]));

  function cellOf(row, key) {
    return row.children[places.get(key)];
  }

  function valueOf(row, key) {
    const cell = cellOf(row, key).dataset;
    return "text" in cell ? cell.value : Number(cell.value);
  }

  // Keep the head of a table in sight where the table is no wider than its box.
  function fit() {
    const desk = document.querySelector(".desk");
    const box = table.parentElement;
    document.documentElement.style.setProperty("--desk", `${desk.offsetHeight}px`);
    box.classList.toggle("fits", table.className === "rows" && table.offsetWidth <= box.clientWidth);
  }

  // Draw the rows of one page.
  function draw() {
    const first = at * perPage;
    const shown = view.slice(first, first + perPage);
    body.replaceChildren(...shown);
    const pages = Math.max(1, Math.ceil(view.length / perPage));
    pager.hidden = pages < 2;
    pager.querySelector("span").textContent =
      `${first + 1}–${first + shown.length} of ${view.length}`;
    pager.querySelector("[data-step='-1']").disabled = at === 0;
    pager.querySelector("[data-step='1']").disabled = at >= pages - 1;
    if (!current?.isConnected) mark(shown[0] ?? null);
    fit();
  }

  function turn(step) {
    at += step;
    current = null;
    draw();
    table.scrollIntoView({ block: "start" });
    say(`Examples ${pager.querySelector("span").textContent}.`);
  }

  // Make a row the one that is decided about; it alone is reached by Tab.
  function mark(row) {
    for (const old of body.querySelectorAll("[aria-current]")) {
      old.removeAttribute("aria-current");
      old.removeAttribute("tabindex");
    }
    current = row;
    if (!row) return;
    row.setAttribute("aria-current", "true");
    row.tabIndex = 0;
  }

  // Mark a row of the list, on another page if need be.
  function go(row, focus) {
    const place = view.indexOf(row);
    if (place < 0) return;
    if (!row.isConnected) {
      at = Math.floor(place / perPage);
      draw();
    }
    mark(row);
    if (focus) row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }

  function move(step, focus) {
    go(view[view.indexOf(current) + step], focus);
  }

  function sortBy(button) {
    const head = button.closest("th");
    const opposite = { ascending: "descending", descending: "ascending" };
    const direction = opposite[head.getAttribute("aria-sort")] || button.dataset.first;
    const sign = direction === "ascending" ? 1 : -1;
    const key = button.dataset.key;
    // The rows are in the order of rank, in which equal values stay.
    order = rows
      .map((row) => [valueOf(row, key), row])
      .sort((a, b) => sign * compare(a[0], b[0]))
      .map((pair) => pair[1]);
    table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    choose();
    say(`Sorted by ${button.textContent}, ${direction}.`);
  }

  // What the search looks into: ids, names, and what is written of the input.
  function textOf(row) {
    if (!texts.has(row)) {
      const cells = row.querySelectorAll("td.id, td.given, td.predicted, td.wide");
      texts.set(row, Array.from(cells, (cell) => cell.textContent).join("\n").toLowerCase());
    }
    return texts.get(row);
  }

  // Keep to the rows that the filters admit.
  function choose() {
    const wanted = filters.search.value.trim().toLowerCase();
    const given = filters.given?.value ?? "";
    const predicted = filters.predicted?.value ?? "";
    view = order.filter((row) =>
      (given === "" || row.dataset.label === given) &&
      (predicted === "" || row.dataset.predicted === predicted) &&
      (!filters.disputed?.checked || row.classList.contains("differs")) &&
      (!filters.undecided.checked || !row.dataset.decision || row.dataset.decision === "skip") &&
      (wanted === "" || textOf(row).includes(wanted)));
    at = 0;
    current = null;
    draw();
    document.querySelectorAll(".matrix button").forEach((cell) => {
      const chosen = cell.dataset.given === given && cell.dataset.predicted === predicted;
      cell.setAttribute("aria-pressed", String(chosen));
    });
    say(`${view.length} of ${rows.length} examples shown.`);
  }

  function chooseCell(cell) {
    const again = cell.getAttribute("aria-pressed") === "true";
    filters.given.value = again ? "" : cell.dataset.given;
    filters.predicted.value = again ? "" : cell.dataset.predicted;
    choose();
  }

  function show(kind) {
    table.className = kind;
    document.querySelectorAll("button[data-view]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.view === kind));
    });
    fit();
  }

  function enlarge(picture) {
    large.querySelector("button").replaceChildren(picture.cloneNode());
    large.querySelector("p").textContent = picture.alt;
    large.showModal();
  }

  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr.example");
    const picture = event.target.closest("button.enlarge");
    const head = event.target.closest("th button");
    if (head) sortBy(head);
    if (row) {
      mark(row);
      if (!event.target.closest("button, summary")) row.focus({ preventScroll: true });
    }
    if (picture) enlarge(picture.firstElementChild);
  });
  table.addEventListener("focusin", (event) => {
    const row = event.target.closest("tr.example");
    if (row && row !== current) mark(row);
  });
  document.querySelectorAll("button[data-view]").forEach((button) => {
    button.addEventListener("click", () => show(button.dataset.view));
  });
  pager.querySelectorAll("button").forEach((button) => {
    button.addEventListener("click", () => turn(Number(button.dataset.step)));
  });
  document.querySelectorAll(".matrix button").forEach((cell) => {
    cell.addEventListener("click", () => chooseCell(cell));
  });
  for (const filter of Object.values(filters)) {
    if (!filter) continue;
    // A browser may restore an earlier choice on reload.
    if (filter.type === "checkbox") filter.checked = false;
    else filter.value = "";
    filter.addEventListener(filter.type === "search" ? "input" : "change", choose);
  }
  window.addEventListener("resize", fit);
  // Wide rows are hard to read on a narrow screen.
  if (window.matchMedia("(max-width: 640px)").matches) show("cards");
  draw();
  return { table, rows, filters, cellOf, go, move, say, current: () => current };
})();
