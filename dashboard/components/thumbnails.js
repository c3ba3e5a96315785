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
 */
/**
 * @typedef {object} ThumbnailsValue
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
grid.setAttribute("role", "group");
root.append(heading, grid);

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
  if (item.note) button.append(createElement("span", "viz-note", item.note));
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
 * @param {ThumbnailsValue} value
 * @param {() => boolean} isCurrent
 */
async function draw(value, isCurrent) {
  const photo = await loadPixels(value.photo, value.width ?? 0, value.height ?? 0);
  if (!isCurrent()) return;
  heading.textContent = value.heading || "";
  heading.hidden = !value.heading;
  grid.setAttribute("aria-label", value.label || "");
  grid.dataset.size = value.size || "large";
  updateKeyedList(
    grid,
    value.items || [],
    (item) => `${value.of} ${item.key}`, // channel 3 of another layer is another channel
    (item) => createTile(item, value.of),
    (button, item) => updateTile(button, item, value, photo),
  );
}

onValueChange(draw);
