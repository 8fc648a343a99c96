// What is decided about the examples: by keys and buttons, kept in the browser, as files.
(() => {
  const { table, rows, filters, cellOf, go, move, say } = page;
  const find = (id) => document.getElementById(id);
  const run = table.dataset.run;
  const place = `deel_influence ${run}`;
  const kinds = ["keep", "relabel", "drop", "skip"];
  const pick = find("pick");
  const notice = find("notice");
  const byId = new Map(rows.map((row) => [idOf(row), row]));
  const classes = new Map(
    Array.from(find("classes")?.options ?? [], (option) => [option.dataset.number, option.value]));
  // Names by what tables have in their place.
  const written = (names) => new Map(Array.from(names, (name) => [plain(name), name]));
  const idsWritten = written(byId.keys());
  const classesWritten = written(classes.values());
  // The classes that labels are sets of, if they are.
  const parts = Array.from(document.querySelectorAll("#parts li"), (part) => part.textContent);
  const partsWritten = written(parts);
  const together = " + ";
  const noClass = "(none)";
  // By id, in the order in which they were made.
  let decided = new Map();
  const past = [];

  function idOf(row) {
    return cellOf(row, "id").dataset.value;
  }

  function tell(text) {
    notice.textContent = text;
    notice.hidden = text === "";
  }

  function paint(row) {
    const made = decided.get(idOf(row));
    const cell = cellOf(row, "decision");
    const text = made?.decision === "relabel" ? `→ ${made.label}` : made?.decision ?? "";
    cell.textContent = text;
    cell.dataset.value = text;
    if (made) row.dataset.decision = made.decision;
    else delete row.dataset.decision;
  }

  function count() {
    let done = 0;
    let skipped = 0;
    for (const row of rows) {
      if (row.dataset.decision === "skip") skipped += 1;
      else if (row.dataset.decision) done += 1;
    }
    find("counter").textContent =
      `${done} of ${rows.length} decided` + (skipped ? `, ${skipped} skipped` : "");
    find("undo").disabled = past.length === 0;
  }

  // Make changes, pairs of an id and a decision or undefined; return what was before.
  function change(pairs) {
    const before = pairs.map(([id]) => [id, decided.get(id)]);
    for (const [id, made] of pairs) {
      decided.delete(id);
      if (made) decided.set(id, made);
      if (byId.has(id)) paint(byId.get(id));
    }
    count();
    return before;
  }

  function keepInBrowser() {
    try {
      localStorage.setItem(place, asJson());
    } catch (error) {
      tell(`This browser keeps no decisions (${error.name}). Export them before you leave.`);
    }
  }

  function decide(row, decision, label, focus) {
    // A label that is given already is kept.
    const kept = decision === "relabel" && label === classes.get(row.dataset.label);
    const made = kept ? { decision: "keep", label: "" } : { decision, label };
    past.push(change([[idOf(row), made]]));
    count();
    keepInBrowser();
    say(`Example ${idOf(row)}: ${row.dataset.decision === "relabel" ? `now ${label}`
      : row.dataset.decision}. ${find("counter").textContent}.`);
    move(1, focus);
  }

  function undo(row, focus) {
    const before = past.pop();
    if (!before) return;
    change(before);
    keepInBrowser();
    if (before.length === 1) go(byId.get(before[0][0]), focus);
    say(`Undone. ${find("counter").textContent}.`);
  }

  // The name that a text stands for: in full, whatever the case, or by its beginning.
  function nameAmong(names, text) {
    const wanted = text.trim().toLowerCase();
    if (names.includes(text)) return text;
    const same = names.filter((name) => name.toLowerCase() === wanted);
    const begun = names.filter((name) => wanted && name.toLowerCase().startsWith(wanted));
    return [same, begun].find((found) => found.length === 1)?.[0];
  }

  // The set of all classes that a text names, as tables write it.
  function setOf(text, nameOf) {
    if (parts.length && text === noClass) return noClass;
    const wanted = text.split(together).map(nameOf);
    if (!parts.length || wanted.includes(undefined)) return undefined;
    return parts.filter((name) => wanted.includes(name)).join(together);
  }

  function classOf(text) {
    return nameAmong(Array.from(classes.values()), text)
      ?? setOf(text.trim(), (name) => nameAmong(parts, name));
  }

  function openPick() {
    find("class-name").value = "";
    find("pick-error").textContent = "";
    pick.showModal();
    find("class-name").focus();
  }

  const acts = {
    keep: (row, focus) => decide(row, "keep", "", focus),
    suggest: (row, focus) => decide(row, "relabel", classes.get(row.dataset.predicted), focus),
    choose: () => openPick(),
    drop: (row, focus) => decide(row, "drop", "", focus),
    skip: (row, focus) => decide(row, "skip", "", focus),
    undo,
  };
  const keys = { k: "keep", s: "suggest", c: "choose", d: "drop", n: "skip", u: "undo" };
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const forClasses = ["suggest", "choose"];

  function onKey(event) {
    const row = event.target.closest("tr.example");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = event.key === "Enter" && event.target === row ? "keep" : keys[event.key.toLowerCase()];
    if (event.key in steps) move(steps[event.key], true);
    else if (event.key === "/") filters.search.focus();
    else if (classes.has(event.key)) decide(row, "relabel", classes.get(event.key), true);
    else if (act && (classes.size || !forClasses.includes(act))) acts[act](row, true);
    else return;
    event.preventDefault();
  }

  // Files

  function entries() {
    return Array.from(decided, ([id, made]) => ({ id, ...made }));
  }

  function asJson() {
    return `${JSON.stringify({ run, decisions: entries() }, null, 1)}\n`;
  }

  // A control character, or another that steers, as Python writes it.
  function escaped(char) {
    const code = char.codePointAt(0);
    const short = { 9: "\\t", 10: "\\n", 13: "\\r" }[code];
    const hex = code.toString(16);
    if (short) return short;
    if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
  }

  // A text as tables hold it, which steers nothing and which no spreadsheet takes for a formula.
  function plain(text) {
    const line = text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
      (char) => "\u00ad\u200c\u200d".includes(char) ? char : escaped(char));
    return /^\s*[=+\-@＝＋－＠]/.test(line) ? `'${line}` : line;
  }

  function asCsv() {
    const cell = (text) => `"${plain(text).replaceAll('"', '""')}"`;
    const lines = entries().map((made) => `${cell(made.id)},${made.decision},${cell(made.label)}`);
    return [`# run: ${run}`, "id,decision,label", ...lines, ""].join("\n");
  }

  function save(kind) {
    const [text, type] = kind === "csv" ? [asCsv(), "text/csv"] : [asJson(), "application/json"];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `decisions.${kind}`;
    link.click();
    // Once the browser has begun to read it.
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`${decided.size} decisions exported.`);
  }

  // The cells of a CSV file, line by line.
  function cellsOf(text) {
    const pattern = /(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r?\n|$)/y;
    const lines = [];
    let line = [];
    while (pattern.lastIndex < text.length || line.length) {
      const found = pattern.exec(text);
      if (!found) throw new Error(`line ${lines.length + 1} is no line of CSV`);
      line.push(found[1]?.replaceAll('""', '"') ?? found[2]);
      if (found[3] === ",") continue;
      lines.push(line);
      line = [];
    }
    return lines.filter((cells) => cells.some((cell) => cell !== ""));
  }

  function ofCsv(text) {
    const lines = cellsOf(text.replace(/^\ufeff/, ""));
    const comments = [];
    while (lines[0]?.[0].startsWith("#")) comments.push(lines.shift()[0]);
    const head = lines.shift() ?? [];
    const of = (cells, name) => cells[head.indexOf(name)] ?? "";
    const told = comments.map((line) => /^#\s*run:\s*(\S+)/.exec(line)?.[1]).find(Boolean);
    const decisions = lines.map((cells) => ({
      id: of(cells, "id"),
      decision: of(cells, "decision").trim(),
      label: of(cells, "label"),
    }));
    return { run: told ?? (lines.length ? of(lines[0], "run") : ""), decisions };
  }

  // The decisions of a file, as pairs of id and decision; all of them, or an error.
  function read(text) {
    const file = text.trimStart().startsWith("{") ? JSON.parse(text) : ofCsv(text);
    if (file.run !== run || !Array.isArray(file.decisions)) {
      throw new Error(`it is of the run ${file.run || "of no name"}, and this page of ${run}`);
    }
    return file.decisions.map((entry, place) => {
      const { id, decision, label } = { label: "", ...entry };
      const name = classesWritten.get(plain(String(label)))
        ?? setOf(String(label), (part) => partsWritten.get(plain(part)));
      const fits = decision === "relabel" ? name !== undefined : String(label) === "";
      if (!["string", "number"].includes(typeof id) || !kinds.includes(decision) || !fits) {
        throw new Error(`decision ${place + 1} (${id}: ${decision} ${label}) cannot be`);
      }
      return [idsWritten.get(plain(String(id))) ?? String(id), { decision, label: name ?? "" }];
    });
  }

  async function load(file) {
    try {
      const pairs = read(await file.text());
      past.push(change(pairs));
      count();
      keepInBrowser();
      tell("");
      say(`${pairs.length} decisions imported. ${find("counter").textContent}.`);
    } catch (error) {
      tell(`Not imported: ${file.name}: ${error.message}. Nothing was changed.`);
    }
  }

  function restore() {
    let text = null;
    try {
      text = localStorage.getItem(place);
      if (text) change(read(text));
    } catch (error) {
      tell(`Earlier decisions could not be read: ${error.message}.`);
      // Put aside, so that the next decision does not take their place.
      if (text) localStorage.setItem(`${place} unread`, text);
    }
    count();
  }

  document.querySelectorAll("[data-act]").forEach((button) => {
    button.addEventListener("click", () => {
      if (page.current()) acts[button.dataset.act](page.current(), false);
    });
  });
  table.addEventListener("keydown", onKey);
  document.querySelectorAll("[data-export]").forEach((button) => {
    button.addEventListener("click", () => save(button.dataset.export));
  });
  find("import").addEventListener("change", async (event) => {
    const input = event.target;
    if (input.files.length) await load(input.files[0]);
    // So that the same file can be chosen again.
    input.value = "";
  });
  pick?.querySelector("form").addEventListener("submit", (event) => {
    const name = classOf(find("class-name").value);
    if (name === undefined) {
      event.preventDefault();
      find("pick-error").textContent = "No class, or more than one, has this name.";
      return;
    }
    pick.addEventListener("close", () => decide(page.current(), "relabel", name, true), { once: true });
  });
  find("pick-close")?.addEventListener("click", () => pick.close());
  restore();
})();
