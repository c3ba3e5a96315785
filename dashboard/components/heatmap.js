// @ts-check

// One map over the photo. Opacity, threshold, colours and the value under the pointer are computed here, not on the
// server.

/**
 * @typedef {object} HeatmapValue
 * @property {string} [photo]
 * @property {string} [empty] text shown instead of a photo
 * @property {number} width
 * @property {number} height
 * @property {Box} box
 * @property {string} alt
 * @property {PackedMaps} [map]
 * @property {Limits} limits
 * @property {boolean} signed
 * @property {boolean} smooth
 * @property {{ name: string, colours: string }[]} palettes
 * @property {[string, string]} ends what a value at each end of the colour scale means
 * @property {string} file
 */
/** @typedef {{ values: Float32Array, rows: number, columns: number, box: Box, limits: Limits, signed: boolean, smooth: boolean }} ShownMap */
/** @typedef {{ photo: ImageData | null, box: Box, file: string, palettes: HeatmapValue["palettes"], ends: [string, string], map?: ShownMap }} State */

const figure = createElement("figure");
const stage = createElement("div", "viz-stage");
const canvas = createElement("canvas");
const tools = createElement("div", "viz-tools");
const scale = createElement("div", "viz-legend");
const controls = createElement("div", "viz-controls");
const readout = createElement("output", "viz-readout");
const saveButton = createButton("viz-link", translate("Save PNG"));
const paletteMenu = createElement("select");
const paletteLabel = createElement("label", "viz-choice", translate("Colours"));
const opacity = createSlider(translate("Opacity"), 75, 0);
const strongest = createSlider(translate("Show strongest"), 100, 1);
/** @type {State | null} */
let state = null;
/** @type {Float32Array} the absolute values of a signed map, or the values, in ascending order */
let sortedValues = new Float32Array();

/**
 * Create a slider in percent.
 * @param {string} name
 * @param {number} value
 * @param {number} min
 */
function createSlider(name, value, min) {
  const label = createElement("label", "viz-slider");
  const input = createElement("input");
  const amount = createElement("span", "viz-amount");
  Object.assign(input, { type: "range", min, max: 100, value });
  const showAmount = () => {
    amount.textContent = `${input.value}\u00a0%`;
  };
  input.addEventListener("input", () => {
    showAmount();
    redraw();
  });
  showAmount();
  label.append(createElement("span", "", name), input, amount);
  return { label, share: () => Number(input.value) / 100 };
}

canvas.setAttribute("role", "img");
paletteLabel.append(paletteMenu);
controls.append(opacity.label, strongest.label, paletteLabel);
tools.append(scale, readout, saveButton);
stage.append(canvas);
figure.append(stage, tools, controls);
const empty = createElement("p", "viz-empty");
root.append(figure, empty);
figure.hidden = empty.hidden = true;

/** Return the smallest value among the strongest share of the map. */
function computeThreshold() {
  const share = strongest.share();
  if (share === 1) return -Infinity;
  return sortedValues[Math.min(Math.round((1 - share) * sortedValues.length), sortedValues.length - 1)];
}

function redraw() {
  if (!state) return;
  const { photo, box, map, palettes, ends } = state;
  if (!map) {
    const blank = { values: [0], rows: 1, columns: 1, box, palette: "", limits: /** @type {Limits} */ ([0, 1]) };
    return drawMap(canvas, photo, blank, 0);
  }
  const { colours } = palettes[paletteMenu.selectedIndex] || palettes[0];
  drawLegend(scale, colours, map.limits, map.signed, ends);
  drawMap(canvas, photo, { ...map, palette: colours, threshold: computeThreshold() }, opacity.share());
}
paletteMenu.addEventListener("change", redraw);

saveButton.addEventListener("click", () => {
  const link = createElement("a");
  link.download = state?.file ?? "";
  link.href = canvas.toDataURL("image/png");
  link.click();
});

canvas.addEventListener("pointermove", (event) => {
  if (!state?.map) return;
  const { values, rows, columns, box } = state.map;
  const cell = findCell(event, box, rows, columns);
  readout.textContent = cell
    ? translate("here {value}", { value: formatNumber(values[cell[0] * columns + cell[1]]) })
    : translate("outside the model input");
});
if (props.choice_key) {
  canvas.classList.add("viz-clickable");
  canvas.addEventListener("click", (event) => {
    if (!state?.map) return;
    const cell = findCell(event, state.map.box, state.map.rows, state.map.columns);
    if (cell) emitChoice({ [props.choice_key]: cell.join() }, props.queue);
  });
}
canvas.addEventListener("pointerleave", () => {
  readout.textContent = "";
});

/**
 * Return the cell of the map under the pointer, or null outside the model's input.
 * @param {MouseEvent} event
 * @param {Box} box
 * @param {number} rows
 * @param {number} columns
 */
function findCell(event, [top, left, bottom, right], rows, columns) {
  const frame = canvas.getBoundingClientRect();
  const y = ((event.clientY - frame.top) / frame.height - top) / (bottom - top);
  const x = ((event.clientX - frame.left) / frame.width - left) / (right - left);
  return y >= 0 && y < 1 && x >= 0 && x < 1 ? [Math.floor(y * rows), Math.floor(x * columns)] : null;
}

/**
 * Fill the menu of colour maps; the selection stays while the palettes are the same.
 * @param {HeatmapValue["palettes"]} palettes
 */
function updatePaletteMenu(palettes) {
  const current = Array.from(paletteMenu.options, (option) => option.value);
  if (palettes.map(({ name }) => name).join() === current.join()) return;
  paletteMenu.replaceChildren(
    ...palettes.map(({ name }) => Object.assign(createElement("option", "", name.replace("_r", "")), { value: name })),
  );
}

/**
 * @param {HeatmapValue} value
 * @param {() => boolean} isCurrent
 */
async function draw(value, isCurrent) {
  figure.hidden = !value.photo;
  empty.hidden = !value.empty;
  empty.textContent = value.empty || "";
  if (!value.photo) {
    state = null;
    return;
  }
  const photo = await loadPixels(value.photo, value.width, value.height);
  if (!isCurrent()) return;
  const { box, limits, signed, smooth, palettes, ends, file } = value;
  state = { photo, file, palettes, ends, box };
  if (value.map) {
    const { rows, columns, at } = unpackMaps(value.map);
    const values = at(0);
    state.map = { values, rows, columns, box, limits, signed, smooth };
    sortedValues = Float32Array.from(values, (number) => (signed ? Math.abs(number) : number)).sort();
    updatePaletteMenu(palettes);
  }
  tools.hidden = controls.hidden = !value.map;
  canvas.width = value.width;
  canvas.height = value.height;
  const column = /** @type {HTMLElement | null} */ (element.closest(".column"));
  for (const node of [figure, column]) node?.style.setProperty("--ratio", String(value.width / value.height));
  canvas.setAttribute("aria-label", value.alt);
  redraw();
  canvas.dataset.drawn = value.file || "photo";
  // On a phone the small maps are far below: scroll to the map that was chosen there.
  const chosen = document.activeElement?.closest(".viz-thumbnails");
  const { bottom } = stage.getBoundingClientRect();
  if (chosen && stage.checkVisibility() && bottom < 120) stage.scrollIntoView({ block: "nearest" });
}

onValueChange(draw);
