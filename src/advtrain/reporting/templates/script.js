const all = (place, what) => [...place.querySelectorAll(what)];

function element(tag, attributes, text = "") {
  const made = Object.assign(document.createElement(tag), attributes);
  made.textContent = text;
  return made;
}

// ---------------------------------------------------------------- the theme
const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : dark.matches;
}

function nameTheme() {
  theme.textContent = isDark() ? "Light theme" : "Dark theme";
}

theme.addEventListener("click", () => {
  const chosen = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  nameTheme();
  try {
    localStorage.setItem(THEME, chosen);
  } catch {
    // Where storage is forbidden, the choice is for this visit.
  }
});
dark.addEventListener("change", nameTheme);
nameTheme();
theme.hidden = false;

// ---------------------------------------------------------------- tables: sort and filter
const NOTHING = "–";

// What stands in a cell, without its small print.
function said(cell) {
  const place = cell.querySelector("a") ?? cell.firstChild;
  return place?.nodeName === "SMALL" ? "" : (place?.textContent.trim() ?? "");
}

// The number that a text begins with: 81.3 ± 0.4, −3.1, 8/255; NaN where there is none.
function number(text) {
  const [, above, below] = /^([−+-]?[\d.]+)(?:\/(\d+))?/.exec(text) ?? [];
  return above ? Number(above.replace("−", "-")) / Number(below ?? 1) : NaN;
}

function compare(one, other) {
  const [a, b] = [number(one), number(other)];
  if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
  return one.localeCompare(other, "en", { numeric: true });
}

// A row, and the row of notes below it, which stays with it.
function groups(body) {
  const found = [];
  for (const row of body.rows) {
    if (row.classList.contains("notes")) found.at(-1).push(row);
    else found.push([row]);
  }
  return found;
}

function sort(table, heads, place, order) {
  const written = table.rowsAsWritten;
  const sorted = [...written];
  if (order !== "none") {
    const sign = order === "ascending" ? 1 : -1;
    const keys = new Map(written.map((rows) => [rows, said(rows[0].cells[place])]));
    sorted.sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      // What has no number stands last in either order.
      if (a === NOTHING || b === NOTHING) return (a === NOTHING) - (b === NOTHING);
      return sign * compare(a, b);
    });
  }
  heads.forEach((head, index) => {
    if (index === place && order !== "none") head.setAttribute("aria-sort", order);
    else head.removeAttribute("aria-sort");
  });
  table.tBodies[0].append(...sorted.flat());
}

const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

function makeSortable(table) {
  const heads = all(table, "thead th");
  table.rowsAsWritten = groups(table.tBodies[0]);
  heads.forEach((head, place) => {
    const button = element("button", { type: "button", className: "sort" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      sort(table, heads, place, NEXT[head.getAttribute("aria-sort") ?? "none"]);
    });
  });
}

// Names, budgets and notes; a word is not looked for among the accuracies.
function words(rows, heads) {
  const named = [...rows[0].cells].filter(
    (cell, place) => !cell.classList.contains("number") || heads[place].textContent.includes("ε"),
  );
  return [...named, ...rows.slice(1)].map((one) => one.textContent.toLowerCase());
}

function makeFilterable(table) {
  const heads = all(table, "thead th");
  const rows = table.rowsAsWritten;
  const caption = table.caption.textContent.trim();
  const tools = element("div", { className: "tools" });
  const label = element("label", {}, "Filter ");
  const box = element("input", { type: "search", placeholder: "method, ε, flag …" });
  box.setAttribute("aria-label", `Filter ${caption}`);
  const count = element("output", {}, `${rows.length} rows`);
  label.append(box);
  tools.append(label, count);
  table.closest(".scroll").before(tools);
  box.addEventListener("input", () => {
    const asked = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const group of rows) {
      const texts = words(group, heads);
      const fits = asked.every((word) => texts.some((text) => text.includes(word)));
      for (const row of group) row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown < rows.length ? `${shown} of ${rows.length} rows` : `${shown} rows`;
  });
}

for (const table of all(document, "table.sheet")) {
  makeSortable(table);
  makeFilterable(table);
}

// ---------------------------------------------------------------- lineage
let left = null;
const back = element("button", { type: "button", className: "back" }, "Back to the number");
back.addEventListener("click", () => {
  left.focus();
  left.scrollIntoView({ block: "center" });
  back.remove();
});

// Which evaluation a number is of: the attack above it, at the budget of its row, and the weights.
function evaluationOf(link) {
  const cell = link.closest("td");
  const heads = all(cell.closest("table"), "thead th").map((head) => head.textContent.trim());
  const at = heads.indexOf("attacked at ε");
  if (at < 0) return null;
  const budget = said(cell.parentNode.cells[at]).replace("/", "_");
  const weights = cell.parentNode.cells[heads.indexOf("weights")]?.textContent ?? "last";
  return { attack: heads[cell.cellIndex].split(/[,\s]/)[0], budget, weights };
}

function markEvaluation(target, asked) {
  for (const row of all(target, "tr.evaluation")) {
    const [attack, , budget, weights = "last"] = row.dataset.name.split("-");
    const one = { attack, budget, weights };
    const fits = asked !== null && Object.keys(one).every((part) => one[part] === asked[part]);
    row.classList.toggle("asked", fits);
  }
}

function copyButtons(place) {
  for (const command of all(place, "code.command")) {
    if (command.nextElementSibling) continue;
    const button = element("button", { type: "button", className: "copy" }, "Copy");
    button.setAttribute("aria-label", `Copy ${command.textContent}`);
    button.addEventListener("click", () => copy(command, button));
    command.after(button);
  }
}

async function copy(command, button) {
  try {
    await navigator.clipboard.writeText(command.textContent);
    button.textContent = "Copied";
  } catch {
    // Without leave to write the clipboard: what is selected can be copied by hand.
    getSelection().selectAllChildren(command);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

// The buttons of a thousand cells are made when somebody looks.
addEventListener("toggle", (event) => event.target.open && copyButtons(event.target), true);

// A link into a closed <details> opens it, and those around it.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let place = target; place; place = place.parentElement) {
    if (place.tagName === "DETAILS") place.open = true;
  }
  // One cell in a group needs no second click.
  const cells = all(target, ":scope > details.cell");
  if (cells.length === 1) cells[0].open = true;
  target.scrollIntoView();
}

addEventListener("hashchange", reveal);
addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  const target = document.getElementById(decodeURIComponent(link.hash.slice(1)));
  if (target?.matches("details.group, details.cell")) {
    left = link;
    markEvaluation(target, evaluationOf(link));
    target.querySelector("summary").after(back);
  }
  // A second click on the same link changes no hash.
  if (link.hash === location.hash) reveal();
});
reveal();

// ---------------------------------------------------------------- print
let folded = [];
addEventListener("beforeprint", () => {
  folded = all(document, "details.fold:not([open])");
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
