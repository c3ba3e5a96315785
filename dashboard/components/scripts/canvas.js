// @ts-check

// Decode the numbers that Python sent, and draw maps in false colours over a photo. Limits, interpolation and blending
// are those of vizlib.render.overlay, so the page shows what the library saves.

const root = /** @type {HTMLElement} */ (element.firstElementChild);

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [className]
 * @param {unknown} [text]
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function createElement(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = /** @type {string} */ (text);
  return node;
}

/** @param {string} className */
function createButton(className = "", text = "") {
  const button = createElement("button", className, text);
  button.type = "button";
  return button;
}

/** @param {string} text */
function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/**
 * @param {PackedMaps} packed
 * @returns {Maps}
 */
function unpackMaps(packed) {
  const { shape } = packed;
  const [rows, columns] = shape.slice(-2);
  const size = rows * columns;
  if (packed.floats) {
    const values = new Float32Array(decodeBase64(packed.floats).buffer);
    return { rows, columns, shape, at: (i) => values.subarray(i * size, (i + 1) * size) };
  }
  const steps = decodeBase64(packed.bytes ?? "");
  const ends = new Float32Array(decodeBase64(packed.ends ?? "").buffer);
  return {
    rows,
    columns,
    shape,
    at(i) {
      const low = ends[2 * i];
      const step = (ends[2 * i + 1] - low) / 255;
      return Float32Array.from(steps.subarray(i * size, (i + 1) * size), (value) => low + value * step);
    },
  };
}

/**
 * Return the limits of a colour scale as vizlib.render.compute_limits does: the 99.5th percentile at the top, and for
 * signed values symmetric about 0.
 * @param {Float32Array} values
 * @param {boolean} signed
 * @returns {Limits}
 */
function computeLimits(values, signed) {
  const sorted = Float32Array.from(values, (value) => (signed ? Math.abs(value) : value)).sort();
  const position = 0.995 * (sorted.length - 1);
  const below = Math.floor(position);
  const next = sorted[Math.min(below + 1, sorted.length - 1)];
  let top = sorted[below] + (position - below) * (next - sorted[below]);
  if (signed) return [-(top || 1), top || 1];
  if (top <= sorted[0]) top = sorted[sorted.length - 1];
  return top > sorted[0] ? [sorted[0], top] : [sorted[0], sorted[0] + 1];
}

/** @type {Record<string, Uint8Array>} */
const paletteCache = {};

/** @param {string} text */
function decodePalette(text) {
  paletteCache[text] ??= decodeBase64(text);
  return paletteCache[text];
}

/**
 * For the centre of each pixel along one side of the photo, return the two cells of the map to interpolate between and
 * the weight of the second; a first cell of -1 is outside the map.
 * @param {number} pixels
 * @param {number} low where the map begins, as a share of the side
 * @param {number} high where it ends
 * @param {number} cells
 * @param {boolean} smooth
 * @returns {[Int32Array, Int32Array, Float32Array]}
 */
function computeInterpolation(pixels, low, high, cells, smooth) {
  const first = new Int32Array(pixels);
  const second = new Int32Array(pixels);
  const weight = new Float32Array(pixels);
  for (let i = 0; i < pixels; i++) {
    const position = (((i + 0.5) / pixels - low) / (high - low)) * cells;
    if (position < 0 || position >= cells) {
      first[i] = -1;
      continue;
    }
    const cell = smooth ? Math.floor(position - 0.5) : Math.floor(position);
    first[i] = Math.max(cell, 0);
    second[i] = smooth ? Math.min(cell + 1, cells - 1) : first[i];
    weight[i] = smooth ? position - 0.5 - cell : 0;
  }
  return [first, second, weight];
}

/**
 * Draw a map with an opacity over the pixels of a photo, or over nothing.
 * @param {HTMLCanvasElement} canvas
 * @param {ImageData | null} photo
 * @param {DrawnMap} map
 * @param {number} opacity
 */
function drawMap(canvas, photo, map, opacity) {
  const { width, height } = canvas;
  const context = getContext(canvas);
  const image = context.createImageData(width, height);
  const pixels = image.data;
  const background = photo?.data;
  const { values, columns, signed = false, smooth = false, threshold = -Infinity } = map;
  const [top, left, bottom, right] = map.box ?? [0, 0, 1, 1];
  const [y0, y1, fy] = computeInterpolation(height, top, bottom, map.rows, smooth);
  const [x0, x1, fx] = computeInterpolation(width, left, right, columns, smooth);
  const [low, high] = map.limits;
  const span = high - low || 1;
  const colours = decodePalette(map.palette);
  const coverage = new Float32Array(256);
  for (let i = 0; i < 256; i++) {
    coverage[i] = background ? opacity * (signed ? Math.abs((2 * i) / 255 - 1) : i / 255) ** 0.6 : 1;
  }
  for (let y = 0, i = 0; y < height; y++) {
    const above = y0[y] * columns;
    const below = y1[y] * columns;
    for (let x = 0; x < width; x++, i += 4) {
      pixels[i + 3] = 255;
      if (y0[y] < 0 || x0[x] < 0) {
        // not part of the model's input: grey and dimmed
        const grey = background ? ((background[i] + background[i + 1] + background[i + 2]) / 3) * 0.35 : 128;
        pixels[i] = pixels[i + 1] = pixels[i + 2] = grey;
        continue;
      }
      const upper = values[above + x0[x]] * (1 - fx[x]) + values[above + x1[x]] * fx[x];
      const lower = values[below + x0[x]] * (1 - fx[x]) + values[below + x1[x]] * fx[x];
      const value = upper * (1 - fy[y]) + lower * fy[y];
      const colour = Math.round(Math.min(Math.max((value - low) / span, 0), 1) * 255);
      const alpha = (signed ? Math.abs(value) : value) < threshold ? 0 : coverage[colour];
      for (let k = 0; k < 3; k++) {
        pixels[i + k] = (background ? background[i + k] * (1 - alpha) : 0) + (alpha && colours[3 * colour + k] * alpha);
      }
    }
  }
  context.putImageData(image, 0, 0);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasRenderingContext2DSettings} [settings]
 */
function getContext(canvas, settings) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", settings));
}

/**
 * The pixels loaded last: a component draws many maps on one photo.
 * @type {{ url?: string, width?: number, pixels: Promise<ImageData | null> }}
 */
let lastPhoto = { pixels: Promise.resolve(null) };

/**
 * Return the pixels of a photo at a size; null without a photo.
 * @param {string | null | undefined} url
 * @param {number} width
 * @param {number} height
 */
function loadPixels(url, width, height) {
  if (lastPhoto.url === url && lastPhoto.width === width) return lastPhoto.pixels;
  const pixels = new Promise((/** @type {(pixels: ImageData | null) => void} */ resolve) => {
    if (!url) return resolve(null);
    const image = new Image();
    image.onload = () => {
      const canvas = createElement("canvas");
      canvas.width = width;
      canvas.height = height;
      const context = getContext(canvas, { willReadFrequently: true });
      context.drawImage(image, 0, 0, width, height);
      resolve(context.getImageData(0, 0, width, height));
    };
    image.src = url;
  });
  lastPhoto = { url: url ?? undefined, width, pixels };
  return pixels;
}

/** @param {number} value */
function formatNumber(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  return (size >= 1e4 || size < 1e-3 ? value.toExponential(1) : value.toPrecision(3)).replace("-", "−");
}

/**
 * Draw a colour bar with the values at its ends.
 * @param {HTMLElement} node
 * @param {string} palette
 * @param {Limits} limits
 * @param {boolean} signed
 * @param {[string, string]} [endLabels] what a value at each end means
 */
function drawLegend(node, palette, limits, signed, endLabels = ["", ""]) {
  const colours = decodePalette(palette);
  const stops = [];
  const bar = createElement("div", "viz-bar");
  const numbers = createElement("div", "viz-numbers");
  for (let i = 0; i < 256; i += 15) stops.push(`rgb(${colours[3 * i]} ${colours[3 * i + 1]} ${colours[3 * i + 2]})`);
  bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const [low, high] = limits.map(formatNumber);
  const [lowLabel, highLabel] = endLabels;
  for (const [value, label] of [[low, lowLabel], ...(signed ? [["0", ""]] : []), [high, highLabel]]) {
    const number = createElement("span", "", value);
    if (label) number.append(createElement("small", "", label));
    numbers.append(number);
  }
  node.replaceChildren(bar, numbers);
}

let drawCount = 0;

/**
 * Draw now and whenever Python sends a new value. An asynchronous drawing calls `isCurrent` before it changes the page: a
 * newer value may have arrived meanwhile.
 * @param {(value: any, isCurrent: () => boolean) => unknown} draw
 */
function onValueChange(draw) {
  const redraw = () => {
    const count = ++drawCount;
    draw(props.value || {}, () => count === drawCount);
  };
  watch("value", redraw);
  redraw();
}
