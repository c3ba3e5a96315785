// @ts-check

// A table of methods by metrics. A click on the name of a column puts the rows in its order, the best first.

/** @typedef {{ text: string, interval: string, value: number | null, best: boolean }} RankingCell */
/** @typedef {{ name: string, parameters: string, data: string, higher: boolean, direction: string }} RankingColumn */
/**
 * @typedef {object} RankingValue
 * @property {RankingColumn[]} [columns]
 * @property {{ name: string, cells: RankingCell[] }[]} rows
 * @property {{ name: string, cells: string[] }[]} references
 * @property {string} label
 * @property {string} corner
 */

const frame = createElement("div", "viz-table-frame");
const table = createElement("table");
frame.tabIndex = 0; // so that the keyboard can scroll it
frame.setAttribute("role", "region");
frame.append(table);
root.append(frame);
root.hidden = true;
/** @type {number | null} the column whose order the rows have */
let order = null;

/** @param {RankingColumn[]} columns */
function createHeader(columns) {
  const row = createElement("tr");
  row.append(createElement("th", "", shown?.corner));
  columns.forEach((column, i) => {
    const cell = createElement("th");
    const button = createButton("viz-sort", `${column.name} ${column.higher ? "↑" : "↓"}`);
    cell.scope = "col";
    cell.setAttribute("aria-sort", order !== i ? "none" : column.higher ? "descending" : "ascending");
    button.addEventListener("click", () => {
      order = order === i ? null : i;
      if (shown?.columns) draw(shown);
    });
    button.setAttribute("aria-label", `${column.name}: ${column.direction}`);
    cell.append(button, createElement("small", "", [column.parameters, column.data].filter(Boolean).join(", ")));
    row.append(cell);
  });
  const head = createElement("thead");
  head.append(row);
  return head;
}

/** @param {{ name: string, cells: RankingCell[] }} row */
function createRow({ name, cells }) {
  const row = createElement("tr");
  const heading = createElement("th", "", name);
  heading.scope = "row";
  row.append(heading);
  for (const cell of cells) {
    const node = createElement("td", cell.best ? "viz-best" : "", cell.text);
    if (cell.interval) node.append(createElement("small", "", cell.interval));
    row.append(node);
  }
  return row;
}

/** @param {{ name: string, cells: string[] }} row */
function createReference({ name, cells }) {
  const row = createElement("tr");
  const heading = createElement("th", "", name);
  heading.scope = "row";
  row.append(heading, ...cells.map((text) => createElement("td", "", text)));
  return row;
}

/** @param {RankingValue & { columns: RankingColumn[] }} value */
function sortRows({ rows, columns }) {
  if (order === null) return rows;
  const column = order;
  const sign = columns[column].higher ? -1 : 1;
  const keyOf = (/** @type {{ cells: RankingCell[] }} */ row) => row.cells[column].value;
  return rows.toSorted((a, b) => {
    const [first, second] = [keyOf(a), keyOf(b)];
    if (first === null || second === null) return Number(first === null) - Number(second === null);
    return sign * (first - second);
  });
}

/** @type {RankingValue | null} */
let shown = null;

/** @param {RankingValue} value */
function draw(value) {
  if (shown?.label !== value.label) order = null;
  shown = value;
  root.hidden = !value.columns;
  if (!value.columns) return table.replaceChildren();
  const chart = /** @type {RankingValue & { columns: RankingColumn[] }} */ (value);
  const body = createElement("tbody");
  const foot = createElement("tfoot");
  frame.setAttribute("aria-label", value.label);
  body.append(...sortRows(chart).map(createRow));
  foot.append(...value.references.map(createReference));
  table.replaceChildren(createHeader(chart.columns), body, foot);
}

onValueChange(draw);
