// @ts-check

// The photo under a grid of patches where each patch has its own maps: attention by layer and head, or any other map.
// The pointer over a patch shows its map, without a call to the server.
//
// value.maps holds one map per (layer, head, token). Where the maps of all heads are too many bytes, value.maps holds
// the means over the heads, and value.heads those of the layer value.of; the heads of another layer are requested once
// it was shown for a moment.

/**
 * @typedef {object} PatchesValue
 * @property {PackedMaps} [maps] of shape layers, heads or 1, tokens, rows, columns
 * @property {PackedMaps} [heads] of shape heads, tokens, rows, columns
 * @property {number} [of]
 * @property {string[]} names of the tokens before the first patch, such as "class"
 * @property {Cell} patch shown first where there is no such token
 * @property {boolean} signed
 * @property {string} palette
 * @property {string} label
 * @property {"attention" | "similarity"} sentence
 * @property {PackedMaps | null} positionSimilarity
 * @property {string} similarityPalette
 * @property {string} key the same as before: the layer, the token and the pins stay; empty: nothing is kept in the URL
 * @property {Box} box
 * @property {string} photo
 * @property {number} width
 * @property {number} height
 */
/**
 * @typedef {object} State
 * @property {PatchesValue} value
 * @property {ImageData | null} photo
 * @property {Maps} maps
 * @property {Map<number | undefined, Maps>} heads by layer, where they are sent by layer
 * @property {Maps | null} positionSimilarity
 * @property {number} layer
 * @property {number} head -1 for the mean of all heads
 * @property {number | null} token under the pointer or moved to with the keys
 * @property {number[]} pins tokens whose maps stay
 */

const { main, side, stage, description } = createGrid(translate("patch grid"));
const tools = createElement("div", "viz-tools");
const scale = createElement("div", "viz-legend");
const tokenChips = createElement("div", "viz-chips");
const panels = [createPanel(), createPanel()];
const MAX_PINS = panels.length;
const HEADS_DELAY_MS = 250;
const multiples = createSmallMultiples(changeLayer, (head) => update({ head }));
/** @type {State | null} */
let state = null;

tokenChips.setAttribute("role", "group");
tokenChips.setAttribute("aria-label", translate("Tokens without a position on the photo, and pinned patches"));
stage.append(...panels.map((panel) => panel.node));
tools.append(scale, tokenChips);
main.append(stage, tools, description);
side.append(...multiples.nodes);

/** Create a canvas with a frame around the patch whose map it shows, and one around the patch under the pointer. */
function createPanel() {
  const node = createElement("div", "viz-panel");
  const canvas = createElement("canvas");
  const ownFrame = createElement("div", "viz-cursor");
  const pointerFrame = createElement("div", "viz-cursor viz-hovered");
  const name = createElement("span", "viz-token-name");
  canvas.setAttribute("role", "img");
  node.append(canvas, ownFrame, pointerFrame, name);
  return { node, canvas, ownFrame, pointerFrame, name };
}

/** @param {State} current */
const countLayers = ({ maps }) => maps.shape[0];

/** @param {State} current */
const countHeads = ({ value, maps }) => (value.heads ? value.heads.shape[0] : maps.shape[1]);

/**
 * Return the patch of a token; null for a token without a position on the photo.
 * @param {State} current
 * @param {number} token
 * @returns {Cell | null}
 */
function patchOf({ value, maps }, token) {
  const index = token - value.names.length;
  return index < 0 ? null : [Math.floor(index / maps.columns), index % maps.columns];
}

/**
 * @param {State} current
 * @param {Cell} patch
 */
const tokenOf = ({ value, maps }, [row, column]) => value.names.length + row * maps.columns + column;

/** @param {State} current */
const focusedToken = ({ pins, token }) => /** @type {number} */ (pins.at(-1) ?? token);

/**
 * Return the map of a token in a layer and head; undefined while the heads of the layer are being fetched.
 * @param {State} current
 * @param {number} layer
 * @param {number} head -1 for the mean of all heads
 * @param {number} token
 */
function mapOf({ value, maps, heads }, layer, head, token) {
  const [, headCount, tokenCount] = maps.shape;
  const indexOf = (/** @type {number} */ h) => (layer * headCount + h) * tokenCount + token;
  if (head >= 0 && value.heads) return heads.get(layer)?.at(head * tokenCount + token);
  if (head >= 0 || headCount === 1) return maps.at(indexOf(Math.max(head, 0)));
  const mean = new Float32Array(maps.at(indexOf(0)));
  for (let h = 1; h < headCount; h++) {
    for (const [i, number] of maps.at(indexOf(h)).entries()) mean[i] += number;
  }
  return mean.map((number) => number / headCount);
}

/**
 * Return the map of a token in the current layer and head, or meanwhile the mean of the heads.
 * @param {State} current
 * @param {number} token
 */
function currentMap(current, token) {
  const { layer, head } = current;
  return mapOf(current, layer, head, token) || /** @type {Float32Array} */ (mapOf(current, layer, -1, token));
}

/**
 * Place a frame around the patch of a token, or hide it.
 * @param {State} current
 * @param {HTMLElement} node
 * @param {number | null} token
 */
function framePatch(current, node, token) {
  const patch = token === null ? null : patchOf(current, token);
  node.hidden = !patch;
  if (!patch) return;
  const { rows, columns } = current.maps;
  const [top, left, bottom, right] = current.value.box;
  const height = (bottom - top) / rows;
  const width = (right - left) / columns;
  const y = top + patch[0] * height;
  const x = left + patch[1] * width;
  placeFrame(node, [y, x, y + height, x + width]);
}

/**
 * @param {State} current
 * @param {number} token
 */
function nameOf(current, token) {
  const patch = patchOf(current, token);
  return patch
    ? translate("row {row}, column {column}", { row: patch[0] + 1, column: patch[1] + 1 })
    : translate("{name} token", { name: current.value.names[token] });
}

/** @type {Record<string, Record<string, string>>} */
const SENTENCES = {
  attention: {
    patch: "The patch in {from} attends most to {to} ({value}).",
    token: "The {from} attends most to {to} ({value}).",
    patchInLayer: "The patch in {from} attends most to {to} ({value}) in layer {layer}, {head}.",
    tokenInLayer: "The {from} attends most to {to} ({value}) in layer {layer}, {head}.",
  },
  similarity: { patch: "The position embedding of the patch in {from} is most similar to that of {to} ({value})." },
};

/**
 * Describe the map of a token: the patch with its largest value and, with a pin, the value at the patch under the pointer.
 * @param {State} current
 * @param {number} token
 * @param {Float32Array} values
 */
function describeMap(current, token, values) {
  const { value, layer, head } = current;
  const prefix = value.names.length;
  const largest = values.reduce((top, v, i) => (i !== token - prefix && (top < 0 || v > values[top]) ? i : top), -1);
  const subject = patchOf(current, token) ? "patch" : "token";
  const text = SENTENCES[value.sentence][countLayers(current) > 1 ? `${subject}InLayer` : subject];
  const sentence = translate(text, {
    from: nameOf(current, token),
    to: nameOf(current, largest + prefix),
    value: formatNumber(values[largest]),
    layer: layer + 1,
    head: head < 0 ? translate("mean of all heads") : translate("head {number}", { number: head + 1 }),
  });
  const pointed = current.token;
  if (pointed === null || pointed === token || !patchOf(current, pointed) || !current.pins.length) return sentence;
  const facts = { place: nameOf(current, pointed), value: formatNumber(values[pointed - prefix]) };
  return `${sentence} ${translate("Here, in {place}: {value}.", facts)}`;
}

function redraw() {
  if (!state) return;
  const current = state;
  const { value, photo, layer, head, pins, token } = current;
  const { rows, columns } = current.maps;
  const tokens = pins.length ? pins : [/** @type {number} */ (token)];
  const maps = tokens.map((shown) => currentMap(current, shown));
  const limits = computeLimits(concatenate(maps), value.signed);
  const sentences = tokens.map((shown, i) => describeMap(current, shown, maps[i]));
  const { box, signed, palette } = value;
  stage.dataset.panels = String(tokens.length);
  for (const [i, { node, canvas, ownFrame, pointerFrame, name }] of panels.entries()) {
    node.hidden = i >= tokens.length;
    if (node.hidden) continue;
    drawMap(canvas, photo, { values: maps[i], rows, columns, box: photo && box, limits, signed, palette }, 0.8);
    canvas.setAttribute("aria-label", sentences[i]);
    name.textContent = tokens.length > 1 ? nameOf(current, tokens[i]) : "";
    ownFrame.classList.toggle("viz-pinned", pins.includes(tokens[i]));
    framePatch(current, ownFrame, tokens[i]);
    framePatch(current, pointerFrame, pins.length && token !== null && !pins.includes(token) ? token : null);
  }
  drawLegend(scale, palette, limits, signed);
  description.replaceChildren(...sentences.map((text) => createElement("span", "", text)));
  stage.dataset.state = [layer, head, token, ...pins].join();
  updateChips(current);
  side.hidden = countLayers(current) * countHeads(current) === 1;
  if (!side.hidden) drawMultiples(current);
}

/** @param {State} current */
function drawMultiples(current) {
  const { value, layer, head, positionSimilarity } = current;
  const { rows, columns } = current.maps;
  const token = focusedToken(current);
  multiples.draw({
    layerMaps: Array.from(
      { length: countLayers(current) },
      (_, l) => /** @type {Float32Array} */ (mapOf(current, l, -1, token)),
    ),
    headMaps: Array.from({ length: countHeads(current) + 1 }, (_, h) => mapOf(current, layer, h - 1, token)),
    layer,
    head,
    rows,
    columns,
    signed: value.signed,
    palette: value.palette,
    tokenName: nameOf(current, token),
    hasSimilarity: Boolean(positionSimilarity),
    similarity: patchOf(current, token) ? (positionSimilarity?.at(token - value.names.length) ?? null) : null,
    similarityPalette: value.similarityPalette,
  });
}

/**
 * Show a chip for each token without a position, and one for each pinned patch, which unpins it.
 * @param {State} current
 */
function updateChips(current) {
  const { value, pins } = current;
  const tokens = [...value.names.keys(), ...pins.filter((pin) => patchOf(current, pin))];
  while (tokenChips.children.length > tokens.length) tokenChips.lastChild?.remove();
  for (const [i, token] of tokens.entries()) {
    const existing = /** @type {HTMLButtonElement | undefined} */ (tokenChips.children[i]);
    const chip = existing ?? tokenChips.appendChild(createButton("viz-chip"));
    const name = nameOf(current, token);
    chip.dataset.token = String(token);
    chip.textContent = patchOf(current, token) ? `${name} ×` : name;
    chip.setAttribute("aria-pressed", String(pins.includes(token)));
    chip.setAttribute("aria-label", translate(pins.includes(token) ? "Unpin {name}" : "Pin {name}", { name }));
    chip.classList.toggle("viz-current", !pins.length && current.token === token);
  }
}

let frameRequest = 0;
let headsTimer = 0;

/** @param {Partial<State>} change */
function update(change) {
  if (!state) return;
  Object.assign(state, change);
  writeUrl(state, change);
  cancelAnimationFrame(frameRequest);
  frameRequest = requestAnimationFrame(redraw);
}

/**
 * Write the layer, head and pins into the address, counted from 1 as on the page; defaults are left out.
 * @param {State} current
 * @param {Partial<State>} change
 */
function writeUrl(current, { layer, head, pins }) {
  if (!current.value.key) return;
  if (layer !== undefined) setUrlState("l", layer === countLayers(current) - 1 ? null : layer + 1);
  if (head !== undefined) setUrlState("h", head < 0 ? null : head + 1);
  if (!pins) return;
  const patches = pins.map((pin) => patchOf(current, pin)).filter((patch) => patch !== null);
  setUrlState("p", patches.map((patch) => patch.map((i) => i + 1).join()).join(";"));
}

/**
 * Read the layer, head and pins from the address; what does not exist is left out.
 * @param {State} current
 * @returns {Partial<State>}
 */
function readUrl(current) {
  const { rows, columns } = current.maps;
  const parseIndex = (/** @type {string | null | undefined} */ text, /** @type {number} */ count) => {
    const index = /^\d+$/.test(text ?? "") ? Number(text) - 1 : -1;
    return index >= 0 && index < count ? index : null;
  };
  const tokens = (readUrlState("p") ?? "").split(";").flatMap((pair) => {
    const [row, column] = pair.split(",");
    const patch = [parseIndex(row, rows), parseIndex(column, columns)];
    return patch.includes(null) ? [] : [tokenOf(current, /** @type {Cell} */ (patch))];
  });
  const pins = [...new Set(tokens)].slice(0, MAX_PINS);
  const layer = parseIndex(readUrlState("l"), countLayers(current)) ?? countLayers(current) - 1;
  const head = parseIndex(readUrlState("h"), countHeads(current)) ?? -1;
  return { layer, head, pins, token: pins.length ? null : current.token };
}

/** @param {number} index */
function changeLayer(index) {
  if (!state) return;
  const layer = clampIndex(index, countLayers(state));
  update({ layer });
  announceLayer(state);
}

/**
 * Notify the components that follow the layer, and request its heads if they are not here.
 * @param {State} current
 */
function announceLayer({ value, heads, layer }) {
  document.dispatchEvent(new CustomEvent("viz-layer", { detail: layer }));
  clearTimeout(headsTimer);
  if (value.heads && !heads.has(layer)) {
    headsTimer = setTimeout(() => trigger("select", { index: layer, value: "heads" }), HEADS_DELAY_MS);
  }
}

/**
 * Pin a token, or unpin it; with all pins in use the last one is replaced.
 * @param {number} token
 */
function togglePin(token) {
  if (!state) return;
  const { pins } = state;
  const isPinned = pins.includes(token);
  update({ pins: isPinned ? pins.filter((pin) => pin !== token) : [...pins.slice(0, MAX_PINS - 1), token], token });
}

/** @param {MouseEvent} event */
function tokenAtPointer(event) {
  const panel = panels.find(({ canvas }) => canvas.contains(/** @type {Node} */ (event.target)));
  if (!state || !panel) return null;
  const patch = cellAtPointer(event, panel.canvas, state.value.box, state.maps);
  return patch && tokenOf(state, patch);
}

/**
 * Return the chip that an event is about.
 * @param {Event} event
 */
function chipOf(event) {
  return /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest(".viz-chip"));
}

stage.addEventListener("pointermove", (event) => {
  const token = event.pointerType === "mouse" ? tokenAtPointer(event) : null;
  if (token !== null && token !== state?.token) update({ token });
});
stage.addEventListener("click", (event) => {
  const token = tokenAtPointer(event);
  if (token !== null) togglePin(token);
});
tokenChips.addEventListener("pointerover", (event) => {
  const chip = event.pointerType === "mouse" && chipOf(event);
  if (chip) update({ token: Number(chip.dataset.token) });
});
tokenChips.addEventListener("focusin", (event) => {
  const chip = chipOf(event);
  if (chip?.matches(":focus-visible")) update({ token: Number(chip.dataset.token) });
});
tokenChips.addEventListener("click", (event) => {
  const chip = chipOf(event);
  if (!state || !chip) return;
  const token = Number(chip.dataset.token);
  togglePin(token);
  if (patchOf(state, token)) stage.focus({ preventScroll: true }); // the chip is removed with the pin
});

// With a pin its map stays, and only the value at the patch under the pointer is removed.
function clearPointed() {
  if (state?.pins.length && state.token !== null) update({ token: null });
}
stage.addEventListener("pointerleave", clearPointed);
tokenChips.addEventListener("pointerleave", clearPointed);

root.addEventListener("keydown", (event) => {
  if (!state) return;
  const { pins, maps, value } = state;
  if (event.key === "Escape" && pins.length) {
    event.preventDefault();
    return update({ token: pins.at(-1), pins: pins.slice(0, -1) });
  }
  const layerStep = LAYER_STEPS[event.key];
  if (layerStep) {
    event.preventDefault();
    return changeLayer(state.layer + layerStep);
  }
  if (event.target !== stage) return; // the other keys belong to the focused button
  const token = state.token ?? focusedToken(state);
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return togglePin(token);
  }
  const step = ARROW_STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  const [row, column] = patchOf(state, token) || value.patch;
  const patch = /** @type {Cell} */ ([
    clampIndex(row + step[0], maps.rows),
    clampIndex(column + step[1], maps.columns),
  ]);
  update({ token: tokenOf(state, patch) });
});

/**
 * @param {PatchesValue} value
 * @param {() => boolean} isCurrent
 */
async function draw(value, isCurrent) {
  if (!value.maps) {
    root.hidden = true;
    state = null;
    return;
  }
  const photo = await loadPixels(value.photo, value.width, value.height);
  if (!isCurrent()) return;
  const previous = state;
  const maps = unpackMaps(value.maps);
  const { shape, rows, columns } = maps;
  const headCount = value.heads ? value.heads.shape[0] : shape[1];
  const sameKey = previous && value.key && previous.value.key === value.key ? previous : null;
  const sameShape = previous && previous.maps.shape.join() === shape.join() ? previous : null; // only another photo
  state = {
    value,
    photo,
    maps,
    heads: sameKey ? sameKey.heads : new Map(),
    positionSimilarity: value.positionSimilarity && unpackMaps(value.positionSimilarity),
    layer: sameShape ? sameShape.layer : shape[0] - 1,
    head: sameShape && sameShape.head < headCount ? sameShape.head : -1,
    token: value.names.length ? 0 : value.patch[0] * columns + value.patch[1],
    pins: [],
  };
  if (sameKey) Object.assign(state, { token: sameKey.token, pins: sameKey.pins });
  else if (!previous && value.key) Object.assign(state, readUrl(state));
  else writeUrl(state, { pins: state.pins, ...(!sameShape && { layer: state.layer, head: state.head }) });
  if (value.heads) state.heads.set(value.of, unpackMaps(value.heads));
  for (const { canvas } of panels) Object.assign(canvas, { width: value.width, height: value.height });
  multiples.resize(columns, rows);
  stage.style.setProperty("--ratio", String(value.width / value.height));
  stage.setAttribute("aria-label", value.label);
  root.hidden = false;
  redraw();
  if (!sameKey && countLayers(state) > 1) announceLayer(state);
}

onValueChange(draw);
