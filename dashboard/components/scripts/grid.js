// @ts-check

// A photo under a grid of cells that is used with the pointer or the keyboard, beside a column with more.

/**
 * Append the elements to the component, which stays hidden until it has a value.
 * @param {string} role what a screen reader calls the grid
 * @param {string} [label]
 */
function createGrid(role, label) {
  const main = createElement("div", "viz-main");
  const side = createElement("div", "viz-side");
  const stage = createElement("div", "viz-stage viz-grid");
  const description = createElement("output", "viz-description");
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-roledescription", role);
  if (label) stage.setAttribute("aria-label", label);
  description.setAttribute("aria-live", "polite");
  root.append(main, side);
  root.hidden = true;
  return { main, side, stage, description };
}

/** @type {Record<string, Cell>} */
const ARROW_STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** @type {Record<string, number>} */
const LAYER_STEPS = { "[": -1, "]": 1 };

/**
 * @param {number} index
 * @param {number} length
 */
const clampIndex = (index, length) => Math.min(Math.max(index, 0), length - 1);

/**
 * Return the cell under the pointer, or null outside the grid.
 * @param {MouseEvent} event
 * @param {HTMLElement} canvas
 * @param {Box} box where on the photo the grid is
 * @param {{ rows: number, columns: number }} grid
 * @returns {Cell | null}
 */
function cellAtPointer(event, canvas, [top, left, bottom, right], { rows, columns }) {
  const frame = canvas.getBoundingClientRect();
  const row = Math.floor((((event.clientY - frame.top) / frame.height - top) / (bottom - top)) * rows);
  const column = Math.floor((((event.clientX - frame.left) / frame.width - left) / (right - left)) * columns);
  return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
}

/** @param {Float32Array[]} maps */
function concatenate(maps) {
  const values = new Float32Array(maps.length * maps[0].length);
  for (const [i, map] of maps.entries()) values.set(map, i * map.length);
  return values;
}

/**
 * Place a frame over a part of the photo.
 * @param {HTMLElement} node
 * @param {Box} box
 */
function placeFrame(node, [top, left, bottom, right]) {
  Object.assign(node.style, {
    top: `${100 * top}%`,
    left: `${100 * left}%`,
    height: `${100 * (bottom - top)}%`,
    width: `${100 * (right - left)}%`,
  });
}
