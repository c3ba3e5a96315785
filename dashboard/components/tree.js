// @ts-check

// The modules of a network as a tree: <details> for a module with children, a button for one without. A click chooses
// the layer.

/**
 * @typedef {object} TreeRow
 * @property {string} name
 * @property {string} role
 * @property {string} shape empty where the layer cannot be chosen
 * @property {string} parameters
 * @property {string} flops
 * @property {string} tooltip
 */
/** @typedef {{ model?: string, chosen?: string, rows?: TreeRow[] }} TreeValue */

const tree = createElement("div", "viz-tree-children");
const header = createElement("div", "viz-tree-row viz-tree-header");
/** @type {Set<string>} names of the modules that the user opened, while the model stays the same */
const opened = new Set();
/** @type {string | undefined} */
let model;
let drawnRows = "";

for (const title of [translate("Layer"), translate("Output"), translate("Params"), "FLOPs"]) {
  header.append(createElement("span", "", title));
}
header.setAttribute("aria-hidden", "true");
root.append(header, tree);

/** @param {string} name */
const parentName = (name) => name.split(".").slice(0, -1).join(".");

/**
 * Return the nearest ancestor among the shown modules, or "".
 * @param {string} name
 * @param {Set<string>} shownNames
 */
function findShownParent(name, shownNames) {
  for (let ancestor = parentName(name); ancestor; ancestor = parentName(ancestor)) {
    if (shownNames.has(ancestor)) return ancestor;
  }
  return "";
}

/**
 * @param {HTMLElement} node
 * @param {TreeRow} row
 * @param {string} parent
 */
function fillRow(node, row, parent) {
  node.classList.add("viz-tree-row");
  node.dataset.layer = row.name;
  node.title = row.tooltip;
  const name = createElement("span", "viz-layer-name");
  const shortName = parent ? row.name.slice(parent.length + 1) : row.name;
  name.append(createElement("b", "", shortName), createElement("i", "", row.role));
  node.append(name);
  for (const text of [row.shape, row.parameters, row.flops]) node.append(createElement("span", "viz-count", text));
  if (row.shape) node.addEventListener("click", () => emitChoice({ layer: row.name }, "inside-event-queue"));
}

/** @param {TreeRow[]} rows */
function drawRows(rows) {
  const shownNames = new Set(rows.map((row) => row.name));
  const parents = new Set(rows.map((row) => findShownParent(row.name, shownNames)));
  /** @type {Record<string, HTMLElement>} */
  const containers = { "": tree };
  tree.replaceChildren();
  for (const row of rows) {
    const parent = findShownParent(row.name, shownNames);
    if (!parents.has(row.name)) {
      const leaf = createButton();
      fillRow(leaf, row, parent);
      containers[parent].append(leaf);
      continue;
    }
    const details = createElement("details");
    const summary = createElement("summary");
    const children = createElement("div", "viz-tree-children");
    fillRow(summary, row, parent);
    details.open = opened.has(row.name);
    details.addEventListener("toggle", () => {
      if (details.open) opened.add(row.name);
      else opened.delete(row.name);
    });
    details.append(summary, children);
    containers[parent].append(details);
    containers[row.name] = children;
  }
}

/**
 * Open the ancestors of the chosen layer and scroll it into view inside the tree.
 * @param {HTMLElement} chosen
 */
function revealRow(chosen) {
  const { clientHeight } = tree;
  for (const details of tree.querySelectorAll("details")) {
    if (details.contains(chosen) && details.firstElementChild !== chosen) details.open = true;
  }
  if (!clientHeight) return;
  const top = chosen.getBoundingClientRect().top - tree.getBoundingClientRect().top;
  if (top < 0 || top > clientHeight - 30) tree.scrollTop += top - clientHeight / 2;
}

/** @param {TreeValue} value */
function draw(value) {
  const rows = value.rows || [];
  const serialised = JSON.stringify(rows);
  root.hidden = !rows.length;
  if (value.model !== model) opened.clear();
  model = value.model;
  if (serialised !== drawnRows) drawRows(rows); // unchanged rows stay: a click may have begun on one
  drawnRows = serialised;
  for (const node of tree.querySelectorAll("[aria-current]")) node.removeAttribute("aria-current");
  if (!value.chosen) return;
  const chosen = /** @type {HTMLElement | null} */ (tree.querySelector(`[data-layer="${CSS.escape(value.chosen)}"]`));
  chosen?.setAttribute("aria-current", "true");
  if (chosen) revealRow(chosen);
}

onValueChange(draw);
