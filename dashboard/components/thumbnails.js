// @ts-check

// Small maps as buttons: the methods, or the channels of a layer. A click emits a choice under the key props.choice_key.

/**
 * @typedef {object} Thumbnail
 * @property {string} key
 * @property {string} name
 * @property {string} hint
 * @property {PackedMaps | null} map
 * @property {Limits} limits
 * @property {boolean} signed
 * @property {boolean} smooth
 * @property {string} [note]
 * @property {Record<string, { share: number, text: string }>} [scores] by the key of an order
 */
/**
 * @typedef {object} Ranking how items are ordered by measured scores
 * @property {number} key what the scores belong to; steps with another one are out of date
 * @property {string} state "waiting", "running" or "done"
 * @property {number} fraction of the measurement that is done
 * @property {{ key: string, name: string }[]} orders
 * @property {string} label
 * @property {string} button
 */
/** @typedef {{ step: true, key: number, state: string, fraction: number, scores: Record<string, Thumbnail["scores"]> }} RankingStep */
/**
 * @typedef {object} ThumbnailsValue
 * @property {Ranking} [ranking]
 * @property {Thumbnail[]} [items]
 * @property {string | null} chosen
 * @property {string} label
 * @property {string} of what the items belong to: a layer, or nothing
 * @property {string} heading
 * @property {string} size "small" or "large"
 * @property {string} palette
 * @property {string} signedPalette
 * @property {string} [photo]
 * @property {number} [width]
 * @property {number} [height]
 * @property {Box} [box]
 */

const heading = createElement("h2");
const grid = createElement("div", "viz-tiles");
const toolbar = createElement("div", "viz-ranking");
const orderLabel = createElement("label", "viz-choice");
const orderName = createElement("span");
const orderMenu = createElement("select");
const measureButton = createButton("viz-ranking-button");
const progress = createElement("progress");
grid.setAttribute("role", "group");
progress.max = 1;
progress.setAttribute("aria-label", translate("Progress"));
orderLabel.append(orderName, orderMenu);
toolbar.append(orderLabel, measureButton, progress);
toolbar.hidden = true;
root.append(heading, toolbar, grid);
/** @type {ThumbnailsValue | null} */
let shown = null;
let wasStopped = false; // a step that was under way at the stop still arrives

const starter = createStarter(() => {
  if (!shown?.ranking) return;
  wasStopped = false;
  shown.ranking.state = "running";
  updateToolbar(shown);
  trigger("submit");
});

function stopMeasuring() {
  starter.cancel();
  wasStopped = true;
  trigger("stop");
}

measureButton.addEventListener("click", () => {
  if (!shown?.ranking) return;
  if (shown.ranking.state !== "running") return starter.start();
  stopMeasuring();
  shown.ranking.state = "waiting";
  updateToolbar(shown);
});
orderMenu.addEventListener("change", () => shown && redraw(shown, () => true));

/** @param {ThumbnailsValue} value */
function updateToolbar({ ranking }) {
  toolbar.hidden = !ranking;
  if (!ranking) return;
  const { orders, label, button, state, fraction } = ranking;
  const chosen = orderMenu.value;
  orderName.textContent = label;
  orderMenu.replaceChildren(
    ...orders.map(({ key, name }) => Object.assign(createElement("option", "", name), { value: key })),
  );
  orderMenu.value = chosen;
  measureButton.hidden = state === "done";
  measureButton.textContent = state === "running" ? translate("Stop") : button;
  progress.hidden = state !== "running";
  progress.value = fraction;
  toolbar.dataset.state = state;
}

/**
 * Return the items in the chosen order, those without a score last.
 * @param {ThumbnailsValue} value
 */
function sortItems({ items = [] }) {
  const order = orderMenu.value;
  const shareOf = (/** @type {Thumbnail} */ item) => item.scores?.[order]?.share ?? -1;
  return order && !toolbar.hidden ? items.toSorted((a, b) => shareOf(b) - shareOf(a)) : items;
}

/**
 * Return the value with the scores of a step; null for a step that is out of date.
 * @param {RankingStep} step
 */
function mergeStep({ key, state, fraction, scores }) {
  const ranking = shown?.ranking;
  if (!shown || !ranking || ranking.key !== key || (wasStopped && state === "running")) return null;
  Object.assign(ranking, { state, fraction });
  for (const item of shown.items || []) item.scores = scores[item.key] ?? item.scores;
  return shown;
}

/**
 * @param {Thumbnail} item
 * @param {string} of
 */
function createTile(item, of) {
  const button = createButton("viz-tile");
  button.dataset.key = item.key;
  button.addEventListener("click", () => emitChoice({ [props.choice_key]: item.key, of }, props.queue));
  return button;
}

/**
 * @param {HTMLButtonElement} button
 * @param {Thumbnail} item
 * @param {ThumbnailsValue} value
 * @param {ImageData | null} photo
 */
function updateTile(button, item, value, photo) {
  button.title = item.hint || item.name;
  button.setAttribute("aria-pressed", String(item.key === value.chosen));
  const picture = item.map
    ? drawThumbnail(item, item.map, value, photo)
    : createElement("span", "viz-not-computed", translate("runs when chosen"));
  button.replaceChildren(picture, createElement("span", "viz-name", item.name));
  const order = toolbar.hidden ? "" : orderMenu.value;
  const note = order ? (item.scores?.[order]?.text ?? "–") : item.note;
  if (note) button.append(createElement("span", "viz-note", note));
}

/**
 * @param {Thumbnail} item
 * @param {PackedMaps} packed
 * @param {ThumbnailsValue} value
 * @param {ImageData | null} photo
 */
function drawThumbnail({ limits, signed, smooth }, packed, value, photo) {
  const canvas = createElement("canvas");
  const { rows, columns, at } = unpackMaps(packed);
  const palette = signed ? value.signedPalette : value.palette;
  const box = photo && value.box;
  canvas.width = value.width || columns;
  canvas.height = value.height || rows;
  canvas.setAttribute("aria-hidden", "true");
  drawMap(canvas, photo, { values: at(0), rows, columns, box, limits, signed, smooth, palette }, 0.85);
  return canvas;
}

/**
 * @param {ThumbnailsValue | RankingStep} value
 * @param {() => boolean} isCurrent
 */
async function draw(value, isCurrent) {
  if ("step" in value) {
    const merged = mergeStep(value);
    if (!merged) return;
    return orderMenu.value ? redraw(merged, isCurrent) : updateToolbar(merged);
  }
  const before = shown?.ranking;
  if (before?.state === "running" && before.key !== value.ranking?.key) stopMeasuring();
  else if (before?.state === "running" && value.ranking?.state === "waiting") {
    Object.assign(value.ranking, { state: "running", fraction: before.fraction }); // it goes on for another method
  }
  shown = value;
  return redraw(value, isCurrent);
}

/**
 * @param {ThumbnailsValue} value
 * @param {() => boolean} isCurrent
 */
async function redraw(value, isCurrent) {
  const photo = await loadPixels(value.photo, value.width ?? 0, value.height ?? 0);
  if (!isCurrent()) return;
  heading.textContent = value.heading || "";
  heading.hidden = !value.heading;
  grid.setAttribute("aria-label", value.label || "");
  grid.dataset.size = value.size || "large";
  updateToolbar(value);
  updateKeyedList(
    grid,
    sortItems(value),
    (item) => `${value.of} ${item.key}`, // channel 3 of another layer is another channel
    (item) => createTile(item, value.of),
    (button, item) => updateTile(button, item, value, photo),
  );
}

onValueChange(draw);
