// @ts-check

// The photo under the cells of a layer. The frame is the theoretical receptive field of the cell under the pointer; the
// heat of a clicked cell is its effective receptive field, which the server computes.

/**
 * @typedef {object} FieldLayer
 * @property {string} name
 * @property {(number | null)[]} size of the theoretical receptive field in pixels, height and width; null if unbounded
 * @property {number[]} jump pixels from one cell to the next
 * @property {number[]} centre of the first cell's field
 * @property {PackedMaps} values activations of the strongest channels of each cell
 * @property {PackedMaps} channels their numbers
 */
/**
 * @typedef {object} FieldValue
 * @property {string} photo
 * @property {number} width
 * @property {number} height
 * @property {Box} box
 * @property {[number, number]} input height and width of the model's input
 * @property {FieldLayer[]} [layers]
 * @property {[string, number, number]} cell the clicked cell: layer, row, column
 * @property {{ map: PackedMaps, size: number }} effective
 * @property {string} palette
 */
/** @typedef {Omit<FieldLayer, "values" | "channels"> & { values: Maps, channels: Maps }} Layer */
/**
 * @typedef {object} State
 * @property {FieldValue} value
 * @property {ImageData | null} photo
 * @property {Layer[]} layers
 * @property {{ rows: number, columns: number, values: Float32Array, top: number }} effective
 * @property {number} layer
 * @property {number} row
 * @property {number} column
 */

const { main, side, stage, description } = createGrid(
  translate("grid of cells"),
  translate(
    "The photo in the cells of a layer: arrow keys move, brackets change the layer, Enter computes the effective receptive field",
  ),
);
const canvas = createElement("canvas");
const fieldFrame = createElement("div", "viz-theoretical-field");
const cursor = createElement("div", "viz-cursor");
const layerChips = createElement("div", "viz-chips");
const channelList = createElement("ol", "viz-strongest-channels");
/** @type {State | null} */
let state = null;

canvas.setAttribute("role", "img");
stage.append(canvas, fieldFrame, cursor);
main.append(stage, description);
side.append(createElement("h3", "", translate("Layer")), layerChips);
side.append(createElement("h3", "", translate("Its strongest channels")), channelList);

/**
 * Place a frame around pixels of the model's input; what lies outside the input is padding and not on the photo.
 * @param {HTMLElement} node
 * @param {number[]} edges top, left, bottom, right in pixels
 * @param {FieldValue} value
 */
function framePixels(node, edges, { box, input }) {
  const shares = edges.map((edge, i) => {
    const axis = i % 2;
    const pixel = Math.min(Math.max(edge, 0), input[axis]);
    const share = box[axis] + (pixel / input[axis]) * (box[axis + 2] - box[axis]);
    return Math.min(Math.max(share, 0), 1);
  });
  placeFrame(node, /** @type {Box} */ (shares));
}

/**
 * Return the edges of a cell's theoretical receptive field in pixels of the input.
 * @param {Layer} layer
 * @param {Cell} cell
 * @param {[number, number]} input
 */
function computeFieldEdges({ size, centre, jump }, cell, input) {
  const low = cell.map((i, axis) => (size[axis] === null ? 0 : centre[axis] + i * jump[axis] - size[axis] / 2));
  const high = low.map((edge, axis) => (size[axis] === null ? input[axis] : edge + size[axis]));
  return [...low, ...high];
}

/**
 * @param {Layer} layer
 * @param {boolean} pinned
 * @param {State} state
 */
function describeCell(layer, pinned, { value, row, column }) {
  const [fieldHeight, fieldWidth] = layer.size;
  const [height, width] = value.input;
  const facts = { row: row + 1, column: column + 1, layer: layer.name, wide: `${fieldHeight} × ${fieldWidth}` };
  const effectiveSize = Math.round(value.effective.size);
  const wide = `${effectiveSize} × ${effectiveSize}`;
  const unbounded = fieldHeight === null || fieldWidth === null;
  let theoretical = translate("Row {row}, column {column} of {layer} has a receptive field of {wide} pixels.", facts);
  if (unbounded) {
    theoretical = translate(
      "The receptive field of row {row}, column {column} of {layer} is the whole model input.",
      facts,
    );
  } else if (fieldHeight >= height && fieldWidth >= width) {
    theoretical = translate(
      "Row {row}, column {column} of {layer} has a receptive field of {wide} pixels, larger than the model input.",
      facts,
    );
  }
  let effective = translate("Click to compute its effective receptive field.");
  if (pinned && unbounded)
    effective = translate("Its effective receptive field on this photo is about {wide} pixels.", { wide });
  else if (pinned)
    effective = translate("Its effective receptive field on this photo is about {wide} of them.", { wide });
  return `${theoretical} ${effective}`;
}

/**
 * @param {Layer} layer
 * @param {number} cellIndex
 */
function drawStrongestChannels({ values, channels }, cellIndex) {
  const items = Array.from({ length: values.shape[0] }, (_, i) => ({
    channel: channels.at(i)[cellIndex],
    activation: values.at(i)[cellIndex],
  }));
  const largest = Math.max(...items.map(({ activation }) => Math.abs(activation)), 1e-9);
  channelList.replaceChildren(
    ...items.map(({ channel, activation }) => {
      const item = createElement("li", "viz-bar-row");
      const fill = createElement("span", "viz-fill");
      fill.style.width = `${(Math.max(activation, 0) / largest) * 100}%`;
      item.append(
        createElement("span", "viz-name", translate("channel {number}", { number: channel })),
        createElement("span", "viz-share", formatNumber(activation)),
        fill,
      );
      return item;
    }),
  );
}

function redraw() {
  if (!state) return;
  const { value, photo, row, column } = state;
  const layer = state.layers[state.layer];
  const { rows, columns } = layer.values;
  const [pinnedLayer, pinnedRow, pinnedColumn] = value.cell;
  const pinned = layer.name === pinnedLayer && row === pinnedRow && column === pinnedColumn;
  const { box, palette } = value;
  if (pinned) {
    const { effective } = state;
    drawMap(canvas, photo, { ...effective, box, limits: [0, effective.top], smooth: true, palette }, 0.8);
  } else {
    drawMap(canvas, photo, { values: [0], rows: 1, columns: 1, box, limits: [0, 1], palette }, 0);
  }
  const [height, width] = value.input;
  framePixels(fieldFrame, computeFieldEdges(layer, [row, column], value.input), value);
  const cellEdges = [row * height, column * width, (row + 1) * height, (column + 1) * width];
  framePixels(
    cursor,
    cellEdges.map((edge, i) => edge / (i % 2 ? columns : rows)),
    value,
  );
  description.textContent = describeCell(layer, pinned, state);
  canvas.setAttribute("aria-label", description.textContent);
  stage.dataset.state = [layer.name, row, column, pinned].join();
  for (const [i, chip] of [...layerChips.children].entries()) {
    chip.setAttribute("aria-pressed", String(i === state.layer));
  }
  drawStrongestChannels(layer, row * columns + column);
}

let frameRequest = 0;

/** @param {Partial<State>} change */
function moveTo(change) {
  if (!state) return;
  Object.assign(state, change);
  const { rows, columns } = state.layers[state.layer].values;
  state.row = clampIndex(state.row, rows);
  state.column = clampIndex(state.column, columns);
  cancelAnimationFrame(frameRequest);
  frameRequest = requestAnimationFrame(redraw);
}

/**
 * Show the same place of the photo in another layer.
 * @param {number} layer
 */
function changeLayer(layer) {
  if (!state) return;
  const previous = state.layers[state.layer].values;
  const { rows, columns } = state.layers[layer].values;
  const row = Math.floor(((state.row + 0.5) * rows) / previous.rows);
  const column = Math.floor(((state.column + 0.5) * columns) / previous.columns);
  moveTo({ layer, row, column });
}

/** Request the effective receptive field of the current cell from the server. */
function pinCell() {
  if (!state) return;
  const { name } = state.layers[state.layer];
  trigger("select", { index: [name, state.row, state.column], value: name });
}

function returnToPinnedCell() {
  if (!state) return;
  const [name, row, column] = state.value.cell;
  moveTo({ layer: state.layers.findIndex((layer) => layer.name === name), row, column });
}

/** @param {MouseEvent} event */
function findCell(event) {
  return state && cellAtPointer(event, canvas, state.value.box, state.layers[state.layer].values);
}

canvas.addEventListener("pointermove", (event) => {
  const cell = event.pointerType === "mouse" && findCell(event);
  if (cell) moveTo({ row: cell[0], column: cell[1] });
});
canvas.addEventListener("pointerleave", () => {
  if (state && state.layers[state.layer].name === state.value.cell[0]) returnToPinnedCell();
});
canvas.addEventListener("click", (event) => {
  const cell = findCell(event);
  if (!cell) return;
  moveTo({ row: cell[0], column: cell[1] });
  pinCell();
});
stage.addEventListener("keydown", (event) => {
  const step = ARROW_STEPS[event.key];
  const layerStep = LAYER_STEPS[event.key];
  if (!state || (!step && !layerStep && event.key !== "Enter")) return;
  event.preventDefault();
  if (event.key === "Enter") return pinCell();
  if (layerStep) return changeLayer(clampIndex(state.layer + layerStep, state.layers.length));
  moveTo({ row: state.row + step[0], column: state.column + step[1] });
});

/**
 * @param {FieldValue} value
 * @param {() => boolean} isCurrent
 */
async function draw(value, isCurrent) {
  root.hidden = !value.layers;
  if (!value.layers) {
    state = null;
    return;
  }
  const photo = await loadPixels(value.photo, value.width, value.height);
  if (!isCurrent()) return;
  const layers = value.layers.map((layer) => ({
    ...layer,
    values: unpackMaps(layer.values),
    channels: unpackMaps(layer.channels),
  }));
  const { rows, columns, at } = unpackMaps(value.effective.map);
  const values = at(0);
  const effective = { rows, columns, values, top: computeLimits(values, false)[1] };
  state = { value, photo, layers, effective, layer: 0, row: 0, column: 0 };
  canvas.width = value.width;
  canvas.height = value.height;
  stage.style.setProperty("--ratio", String(value.width / value.height));
  layerChips.replaceChildren(
    ...layers.map((layer, i) => {
      const chip = createButton("viz-chip", layer.name);
      chip.addEventListener("click", () => changeLayer(i));
      return chip;
    }),
  );
  returnToPinnedCell();
}

onValueChange(draw);
