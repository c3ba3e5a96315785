// @ts-check

// Maps of one photo beside each other. The pointer over one marks the same place on all, and each shows its value there.
// An item may have one map for each step; the step is selected here, or follows the layer that another component shows.

/** @typedef {{ name: string, limits: Limits[], signed: boolean, ends: [string, string] }} ColourScale */
/**
 * @typedef {object} HeatmapItem
 * @property {string} name
 * @property {string} alt
 * @property {string} text
 * @property {boolean} smooth
 * @property {PackedMaps} maps
 * @property {Box} box
 * @property {number} scale index of its colour scale
 * @property {number[]} factors for each step, what to multiply the values by; or empty
 */
/**
 * @typedef {object} LinkedValue
 * @property {boolean} [waiting] the server computes the maps once they can be seen
 * @property {{ heading: string, items: (HeatmapItem | null)[] }[]} [rows]
 * @property {ColourScale[]} scales
 * @property {string} palette
 * @property {string} signedPalette
 * @property {string} label
 * @property {string[]} steps names of the steps, if they are selected here
 * @property {string} follows "layer", or nothing
 * @property {string} photo
 * @property {number} width
 * @property {number} height
 */
/**
 * @typedef {Omit<HeatmapItem, "maps" | "scale"> & {
 *   heading: string, maps: Maps, scale: ColourScale, ownLegend: boolean, figure: HTMLElement, canvas: HTMLCanvasElement,
 *   mark: HTMLElement, readout: HTMLElement, legend: HTMLElement
 * }} ShownItem
 */
/** @typedef {[number, number]} Point height and width on the photo, as shares */
/** @typedef {{ node: HTMLElement, scale: ColourScale }} SharedLegend */
/** @typedef {{ value: LinkedValue, photo: ImageData | null, items: ShownItem[], legends: SharedLegend[] }} State */

const grid = createElement("div", "viz-linked-grid");
const footer = createElement("div", "viz-linked-footer");
const announcement = createElement("output", "viz-screen-reader-text");
/** @type {State | null} */
let state = null;
/** @type {number | null} null for the last step */
let step = null;
/** @type {Point | null} */
let markedPoint = null;

grid.setAttribute("role", "group");
grid.tabIndex = 0;
announcement.setAttribute("aria-live", "polite");
root.append(grid, announcement);
root.hidden = true;

/**
 * Return the element of a list with one element for each step.
 * @template Item
 * @param {Item[]} list
 */
const atStep = (list) => list[Math.min(step ?? list.length - 1, list.length - 1)];

/**
 * Return the values of an item at the current step, in the units that are shown.
 * @param {ShownItem} item
 */
function currentValues({ maps, factors }) {
  const [steps] = maps.shape;
  const factor = factors.length ? atStep(factors) : 1;
  const values = maps.at(Math.min(step ?? steps - 1, steps - 1));
  return factor === 1 ? values : values.map((value) => value * factor);
}

/**
 * Return the value that is drawn at a point of the photo; null outside the model's input.
 * @param {ShownItem} item
 * @param {Point} point
 */
function valueAt(item, [y, x]) {
  const { rows, columns } = item.maps;
  const [top, left, bottom, right] = item.box;
  const values = currentValues(item);
  const row = ((y - top) / (bottom - top)) * rows;
  const column = ((x - left) / (right - left)) * columns;
  if (row < 0 || row >= rows || column < 0 || column >= columns) return null;
  if (!item.smooth) return values[Math.floor(row) * columns + Math.floor(column)];
  const r = Math.floor(row - 0.5);
  const c = Math.floor(column - 0.5);
  const fy = row - 0.5 - r;
  const fx = column - 0.5 - c;
  const pick = (/** @type {number} */ i, /** @type {number} */ j) =>
    values[Math.min(Math.max(i, 0), rows - 1) * columns + Math.min(Math.max(j, 0), columns - 1)];
  const upper = pick(r, c) * (1 - fx) + pick(r, c + 1) * fx;
  const lower = pick(r + 1, c) * (1 - fx) + pick(r + 1, c + 1) * fx;
  return upper * (1 - fy) + lower * fy;
}

/**
 * Create the figure of an item.
 * @param {HeatmapItem} item
 * @param {string} heading
 * @param {ColourScale} scale
 * @param {boolean} ownLegend
 * @param {Photo} photo
 * @returns {ShownItem}
 */
function createItem(item, heading, scale, ownLegend, { width, height }) {
  const figure = createElement("figure");
  const stage = createElement("div", "viz-linked-stage");
  const canvas = createElement("canvas");
  const mark = createElement("div", "viz-pointer-mark");
  const caption = createElement("figcaption");
  const name = createElement("div", "viz-linked-name");
  const readout = createElement("span", "viz-linked-value");
  const legend = createElement("div", "viz-legend");
  Object.assign(canvas, { width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", item.alt);
  mark.hidden = true;
  stage.append(canvas, mark);
  name.append(createElement("strong", "", item.name), readout);
  caption.append(name);
  if (ownLegend) caption.append(legend);
  if (item.text) caption.append(createElement("p", "", item.text));
  figure.append(stage, caption);
  const markPointer = (/** @type {PointerEvent} */ event) => {
    const frame = stage.getBoundingClientRect();
    markPoint([(event.clientY - frame.top) / frame.height, (event.clientX - frame.left) / frame.width]);
  };
  stage.addEventListener("pointermove", markPointer);
  stage.addEventListener("pointerdown", markPointer);
  return { ...item, heading, scale, ownLegend, maps: unpackMaps(item.maps), figure, canvas, mark, readout, legend };
}

/** @param {Point | null} point */
function markPoint(point) {
  if (!state) return;
  markedPoint = point;
  for (const item of state.items) {
    item.mark.hidden = !point;
    item.readout.textContent = "";
    if (!point) continue;
    const value = valueAt(item, point);
    item.readout.textContent = value === null ? translate("not in the input") : formatNumber(value);
    Object.assign(item.mark.style, { top: `${100 * point[0]}%`, left: `${100 * point[1]}%` });
  }
}

function redraw() {
  if (!state) return;
  const { value, photo, items, legends } = state;
  const paletteOf = (/** @type {ColourScale} */ { signed }) => (signed ? value.signedPalette : value.palette);
  const drawScale = (/** @type {HTMLElement} */ node, /** @type {ColourScale} */ scale) =>
    drawLegend(node, paletteOf(scale), atStep(scale.limits), scale.signed, scale.ends);
  for (const item of items) {
    const { rows, columns } = item.maps;
    const { box, smooth, scale } = item;
    const limits = atStep(scale.limits);
    const map = { values: currentValues(item), rows, columns, box, limits, signed: scale.signed, smooth };
    drawMap(item.canvas, photo, { ...map, palette: paletteOf(scale) }, 0.8);
    if (item.ownLegend) drawScale(item.legend, scale);
  }
  for (const { node, scale } of legends) drawScale(node, scale);
  root.dataset.step = String(step ?? "");
  markPoint(markedPoint);
}

/** @param {number} index */
function selectStep(index) {
  step = index;
  for (const button of footer.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.step) === step));
  }
  redraw();
}

/**
 * Show below all maps the colour scales that several of them share, and the buttons of the steps.
 * @param {ColourScale[]} scales
 * @param {string[]} steps
 */
function drawFooter(scales, steps) {
  footer.replaceChildren();
  const legends = scales.map((scale) => {
    const block = createElement("div", "viz-linked-scale");
    const node = createElement("div", "viz-legend");
    block.append(createElement("span", "", scale.name), node);
    footer.append(block);
    return { node, scale };
  });
  if (steps.length) {
    const units = createElement("div", "viz-units");
    units.setAttribute("role", "group");
    units.setAttribute("aria-label", translate("Units of all values"));
    for (const [i, name] of steps.entries()) {
      const button = createButton("viz-chip", name);
      button.dataset.step = String(i);
      button.setAttribute("aria-pressed", String(i === step));
      button.addEventListener("click", () => selectStep(i));
      units.append(button);
    }
    footer.append(units);
  }
  footer.hidden = !footer.children.length;
  return legends;
}

grid.addEventListener("pointerleave", (event) => {
  if (event.pointerType !== "mouse") return; // after a touch the values stay
  markPoint(null);
  announcement.textContent = "";
});
/** @type {Record<string, Point>} */
const KEY_MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
grid.addEventListener("keydown", (event) => {
  const move = KEY_MOVES[event.key];
  if (!state || (!move && event.key !== "Escape")) return;
  event.preventDefault();
  if (!move) markPoint(null);
  else if (!markedPoint) markPoint([0.5, 0.5]);
  else {
    const moved = markedPoint.map((share, axis) => Math.min(Math.max(share + move[axis] / 28, 0.01), 0.99));
    markPoint(/** @type {Point} */ (moved));
  }
  const values = state.items.map(
    ({ heading, name, readout }) => `${heading ? `${heading}, ` : ""}${name}: ${readout.textContent}`,
  );
  announcement.textContent = markedPoint ? values.join("; ") : "";
});
grid.addEventListener("blur", () => {
  markPoint(null);
  announcement.textContent = "";
});

/** @type {number | null} the layer that another component shows, maybe before this one has a value */
let shownLayer = null;
document.addEventListener("viz-layer", (event) => {
  shownLayer = /** @type {CustomEvent} */ (event).detail;
  if (state?.value.follows !== "layer") return;
  step = shownLayer;
  redraw();
});

let isVisible = false;
function requestWhenVisible() {
  if (isVisible && props.value?.waiting) trigger("select", { index: 0, value: "seen" });
}
const observer = new IntersectionObserver((entries) => {
  isVisible = entries[entries.length - 1].isIntersecting;
  requestWhenVisible();
});
observer.observe(root);

/**
 * @param {LinkedValue} value
 * @param {() => boolean} isCurrent
 */
async function draw(value, isCurrent) {
  root.classList.toggle("viz-pending", Boolean(value.waiting));
  if (value.waiting) {
    root.hidden = false;
    return requestWhenVisible();
  }
  if (!value.rows) {
    root.hidden = true;
    state = null;
    return;
  }
  const photo = await loadPixels(value.photo, value.width, value.height);
  if (!isCurrent()) return;
  if (value.follows === "layer") step = shownLayer;
  if (value.steps.length) step = Math.min(step ?? 0, value.steps.length - 1);
  const allItems = value.rows.flatMap((row) => row.items).filter((item) => item !== null);
  const isShared = value.scales.map((_, i) => allItems.filter((item) => item.scale === i).length > 1);
  const rows = value.rows.map(({ heading, items }) => ({
    heading,
    items: items
      .filter((item) => item !== null)
      .map((item) => createItem(item, heading, value.scales[item.scale], !isShared[item.scale], value)),
  }));
  const sharedScales = value.scales.filter((_, i) => isShared[i]);
  state = { value, photo, items: rows.flatMap((row) => row.items), legends: drawFooter(sharedScales, value.steps) };
  grid.dataset.columns = String(Math.max(...value.rows.map((row) => row.items.length)));
  grid.dataset.headed = String(value.rows.some((row) => row.heading));
  grid.setAttribute("aria-label", value.label);
  root.style.setProperty("--ratio", String(value.width / value.height));
  grid.replaceChildren(
    ...rows.flatMap(({ heading, items }) => [
      ...(heading ? [createElement("h3", "", heading)] : []),
      ...items.map((item) => item.figure),
    ]),
    footer,
  );
  root.hidden = false;
  redraw();
}

onValueChange(draw);
