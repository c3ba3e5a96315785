// Shared by every part: unpack the numbers Python sent, and draw maps in false colours upon a photo.
// The drawing repeats vizlib.render.overlay, so the page shows what the library saves.

const root = element.firstElementChild;

function make(tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

function bytesOf(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// {shape, floats} or {shape, bytes, ends} -> {shape, at(i): the i-th map as Float32Array}
function unpack(packed) {
  const [rows, columns] = packed.shape.slice(-2), size = rows * columns;
  if (packed.floats) {
    const all = new Float32Array(bytesOf(packed.floats).buffer);
    return { rows, columns, shape: packed.shape, at: (i) => all.subarray(i * size, (i + 1) * size) };
  }
  const steps = bytesOf(packed.bytes), ends = new Float32Array(bytesOf(packed.ends).buffer);
  return {
    rows, columns, shape: packed.shape,
    at(i) {
      const low = ends[2 * i], step = (ends[2 * i + 1] - low) / 255;
      return Float32Array.from(steps.subarray(i * size, (i + 1) * size), (value) => low + value * step);
    },
  };
}

// As vizlib.render.color_scale.compute_limits: symmetric about 0 for signed values, the 99.5th percentile at the top.
function limitsOf(values, signed) {
  const sorted = Float32Array.from(values, (v) => (signed ? Math.abs(v) : v)).sort();
  const place = 0.995 * (sorted.length - 1), below = Math.floor(place);
  const next = sorted[Math.min(below + 1, sorted.length - 1)];
  let top = sorted[below] + (place - below) * (next - sorted[below]);
  if (signed) return [-(top || 1), top || 1];
  if (top <= sorted[0]) top = sorted[sorted.length - 1];
  return top > sorted[0] ? [sorted[0], top] : [sorted[0], sorted[0] + 1];
}

const palettes = {};
const paletteOf = (text) => (palettes[text] ??= bytesOf(text));

// Where the centres of `pixels` along one side of the photo lie on a map of `cells` that spans from `low` to `high`.
function places(pixels, low, high, cells, smooth) {
  const first = new Int32Array(pixels), second = new Int32Array(pixels), share = new Float32Array(pixels);
  for (let i = 0; i < pixels; i++) {
    const place = (((i + 0.5) / pixels - low) / (high - low)) * cells;
    if (place < 0 || place >= cells) { first[i] = -1; continue; }
    const cell = smooth ? Math.floor(place - 0.5) : Math.floor(place);
    first[i] = Math.max(cell, 0);
    second[i] = smooth ? Math.min(cell + 1, cells - 1) : first[i];
    share[i] = smooth ? place - 0.5 - cell : 0;
  }
  return [first, second, share];
}

// Draw one map {values, rows, columns, box, limits, signed, smooth, palette} with an opacity; `photo` is ImageData or null.
// Where the map says `least`, smaller values leave the photo as it is; of signed ones, those nearer to 0.
function paint(canvas, photo, map, opacity) {
  const { width, height } = canvas, pen = canvas.getContext("2d");
  const picture = pen.createImageData(width, height), out = picture.data, under = photo && photo.data;
  const [top, left, bottom, right] = map.box || [0, 0, 1, 1];
  const [y0, y1, fy] = places(height, top, bottom, map.rows, map.smooth);
  const [x0, x1, fx] = places(width, left, right, map.columns, map.smooth);
  const [low, high] = map.limits, span = high - low || 1, values = map.values, table = paletteOf(map.palette);
  const least = map.least ?? -Infinity;
  const cover = new Float32Array(256);
  for (let i = 0; i < 256; i++) {
    cover[i] = under ? opacity * Math.pow(map.signed ? Math.abs((2 * i) / 255 - 1) : i / 255, 0.6) : 1;
  }
  for (let y = 0, i = 0; y < height; y++) {
    const above = y0[y] * map.columns, below = y1[y] * map.columns;
    for (let x = 0; x < width; x++, i += 4) {
      out[i + 3] = 255;
      if (y0[y] < 0 || x0[x] < 0) { // what the model never saw: grey and dim
        const grey = under ? ((under[i] + under[i + 1] + under[i + 2]) / 3) * 0.35 : 128;
        out[i] = out[i + 1] = out[i + 2] = grey;
        continue;
      }
      const upper = values[above + x0[x]] * (1 - fx[x]) + values[above + x1[x]] * fx[x];
      const lower = values[below + x0[x]] * (1 - fx[x]) + values[below + x1[x]] * fx[x];
      const value = upper * (1 - fy[y]) + lower * fy[y];
      const colour = Math.round(Math.min(Math.max((value - low) / span, 0), 1) * 255);
      const c = (map.signed ? Math.abs(value) : value) < least ? 0 : cover[colour];
      for (let k = 0; k < 3; k++) out[i + k] = (under ? under[i + k] * (1 - c) : 0) + (c && table[3 * colour + k] * c);
    }
  }
  pen.putImageData(picture, 0, 0);
}

// A photo's pixels at a size, ready to be drawn upon; the last photo's are kept, as maps follow each other on one.
let opened = {};
function pixelsOf(address, width, height) {
  if (opened.address === address && opened.width === width) return opened.pixels;
  const pixels = new Promise((done) => {
    if (!address) return done(null);
    const image = new Image();
    image.onload = () => {
      const canvas = make("canvas");
      canvas.width = width;
      canvas.height = height;
      const pen = canvas.getContext("2d", { willReadFrequently: true });
      pen.drawImage(image, 0, 0, width, height);
      done(pen.getImageData(0, 0, width, height));
    };
    image.src = address;
  });
  opened = { address, width, pixels };
  return pixels;
}

function number(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  return (size >= 1e4 || size < 1e-3 ? value.toExponential(1) : value.toPrecision(3)).replace("-", "−");
}

// The colour bar: its colours, and the raw values at its ends, each with what it stands for.
function legend(node, palette, limits, signed, ends) {
  const table = paletteOf(palette), stops = [], bar = make("div", "viz-bar"), numbers = make("div", "viz-numbers");
  for (let i = 0; i < 256; i += 15) stops.push(`rgb(${table[3 * i]} ${table[3 * i + 1]} ${table[3 * i + 2]})`);
  bar.style.background = "linear-gradient(to right, " + stops.join(", ") + ")";
  const [low, high] = limits.map(number), [left, right] = ends || ["", ""];
  numbers.append(...[[low, left], ...(signed ? [["0", ""]] : []), [high, right]].map(([value, word]) => {
    const end = make("span", "", value);
    if (word) end.append(make("small", "", word));
    return end;
  }));
  node.replaceChildren(bar, numbers);
}

// Draw again whenever Python sends a new value, and once now; an older drawing that comes late is dropped.
let turn = 0;
function show(draw) {
  const again = () => { const mine = ++turn; draw(props.value || {}, () => mine === turn); };
  watch("value", again);
  again();
}
