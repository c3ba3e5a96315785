// Point at a patch and see its map: attention by layer and head, or any other map per patch. No call to the server.
//
// value.maps holds one map per (layer, head, token); value.names are the tokens before the first patch ("class").
const stage = make("div", "viz-stage viz-grid"), canvas = make("canvas"), cursor = make("div", "viz-cursor");
const says = make("output", "viz-says"), scale = make("div", "viz-legend"), tokens = make("div", "viz-chips");
const layers = make("div", "viz-many"), heads = make("div", "viz-many");
const main = make("div", "viz-main"), side = make("div", "viz-side"), tools = make("div", "viz-tools");
const layersTitle = make("h3", "", "Layers"), headsTitle = make("h3", "", "Heads");
let now = null;

stage.tabIndex = 0;
stage.setAttribute("role", "application");
stage.setAttribute("aria-roledescription", "patch grid");
canvas.setAttribute("role", "img");
says.setAttribute("aria-live", "polite");
stage.append(canvas, cursor);
tools.append(scale, tokens);
main.append(stage, says, tools);
side.append(headsTitle, heads, layersTitle, layers);
root.append(main, side);
root.hidden = true;

const shape = () => now.maps.shape; // [layers, heads, tokens, rows, columns]
const tokenOf = ([row, column]) => now.value.names.length + row * now.maps.columns + column;

// The map of a token in a layer; the mean over the heads for head -1.
function mapOf(layer, head, token) {
  const [, count, all] = shape(), index = (h) => (layer * count + h) * all + token;
  if (head >= 0) return now.maps.at(index(head));
  const mean = new Float32Array(now.maps.at(index(0)));
  for (let h = 1; h < count; h++) now.maps.at(index(h)).forEach((value, i) => (mean[i] += value));
  return mean.map((value) => value / count);
}

function draw(node, photo, values, limits, opacity) {
  const { rows, columns } = now.maps, { box, signed, palette } = now.value;
  paint(node, photo, { values, rows, columns, box: photo ? box : null, limits, signed, smooth: false, palette }, opacity);
}

// Small multiples on one scale, so that they can be compared.
function many(node, maps, names, chosen, choose) {
  const all = new Float32Array(maps.length * maps[0].length);
  maps.forEach((map, i) => all.set(map, i * map.length));
  const limits = limitsOf(all, now.value.signed);
  while (node.children.length > maps.length) node.lastChild.remove();
  maps.forEach((map, i) => {
    let button = node.children[i];
    if (!button) {
      button = make("button", "viz-tile");
      button.type = "button";
      button.append(make("canvas"), make("span", "viz-name"));
      node.append(button);
    }
    const small = button.firstChild;
    small.width = now.maps.columns;
    small.height = now.maps.rows;
    draw(small, null, map, limits, 1);
    button.lastChild.textContent = names[i];
    button.setAttribute("aria-pressed", i === chosen);
    button.onclick = () => choose(i);
  });
}

function mark([row, column]) {
  const { rows, columns } = now.maps, [top, left, bottom, right] = now.value.box;
  const tall = (bottom - top) / rows, wide = (right - left) / columns;
  cursor.hidden = now.token >= 0;
  Object.assign(cursor.style, {
    top: 100 * (top + row * tall) + "%", left: 100 * (left + column * wide) + "%",
    height: 100 * tall + "%", width: 100 * wide + "%",
  });
}

function redraw() {
  const { value, layer, head, patch } = now, { columns } = now.maps, [depth, count] = shape();
  const token = now.token >= 0 ? now.token : tokenOf(patch), values = mapOf(layer, head, token);
  const limits = limitsOf(values, value.signed);
  draw(canvas, now.photo, values, limits, 0.8);
  legend(scale, value.palette, limits, value.signed);
  mark(patch);
  const own = now.token >= 0 ? -1 : patch[0] * columns + patch[1];
  const best = values.reduce((top, v, i) => (i !== own && (top < 0 || v > values[top]) ? i : top), -1);
  const who = now.token >= 0 ? `The ${value.names[token]} token` : `The patch in row ${patch[0] + 1}, column ${patch[1] + 1}`;
  const at = `row ${Math.floor(best / columns) + 1}, column ${(best % columns) + 1}`;
  const where = depth > 1 ? ` in layer ${layer + 1}, ${head < 0 ? "mean of all heads" : "head " + (head + 1)}` : "";
  says.textContent = `${who} ${value.verb} ${at} (${number(values[best])})${where}.`;
  canvas.setAttribute("aria-label", says.textContent);
  stage.dataset.state = [layer, head, token].join();
  [...tokens.children].forEach((chip, i) => chip.setAttribute("aria-pressed", i === now.token));
  side.hidden = depth * count === 1;
  if (side.hidden) return;
  const headMaps = [mapOf(layer, -1, token), ...Array.from({ length: count }, (_, h) => mapOf(layer, h, token))];
  headsTitle.textContent = `Heads of layer ${layer + 1}`;
  many(heads, headMaps, ["mean", ...Array.from({ length: count }, (_, h) => String(h + 1))], head + 1, (i) => go({ head: i - 1 }));
  const layerMaps = Array.from({ length: depth }, (_, l) => mapOf(l, head, token));
  layersTitle.textContent = head < 0 ? "Layers, mean of all heads" : `Layers, head ${head + 1}`;
  many(layers, layerMaps, Array.from({ length: depth }, (_, l) => String(l + 1)), layer, (i) => go({ layer: i }));
}

let asked = 0;
function go(change) {
  Object.assign(now, change);
  cancelAnimationFrame(asked);
  asked = requestAnimationFrame(redraw);
}

function patchAt(event) {
  const frame = canvas.getBoundingClientRect(), [top, left, bottom, right] = now.value.box;
  const row = Math.floor((((event.clientY - frame.top) / frame.height - top) / (bottom - top)) * now.maps.rows);
  const column = Math.floor((((event.clientX - frame.left) / frame.width - left) / (right - left)) * now.maps.columns);
  return row >= 0 && row < now.maps.rows && column >= 0 && column < now.maps.columns ? [row, column] : null;
}

canvas.addEventListener("pointermove", (event) => {
  const patch = now && event.pointerType === "mouse" && patchAt(event);
  if (patch) go({ patch, token: -1 });
});
canvas.addEventListener("pointerleave", () => now && now.pinned && go(now.pinned));
stage.addEventListener("click", (event) => {
  const patch = now && patchAt(event);
  if (!patch) return;
  go({ patch, token: -1, pinned: { patch, token: -1 } });
  cursor.classList.add("viz-pinned");
});

stage.addEventListener("keydown", (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const turn = { "[": -1, "]": 1 }[event.key];
  if (!now || (!step && !turn)) return;
  event.preventDefault();
  if (turn) return go({ layer: Math.min(Math.max(now.layer + turn, 0), shape()[0] - 1) });
  const limit = [now.maps.rows, now.maps.columns];
  const patch = now.patch.map((old, i) => Math.min(Math.max(old + step[i], 0), limit[i] - 1));
  go({ patch, token: -1, pinned: { patch, token: -1 } });
});

show(async (value, current) => {
  if (!value.maps) {
    root.hidden = true;
    now = null;
    return;
  }
  const photo = await pixelsOf(value.photo, value.width, value.height);
  if (!current()) return;
  const maps = unpack(value.maps), [depth, , ] = maps.shape;
  const start = { patch: value.patch, token: value.names.length ? 0 : -1 };
  now = { value, photo, maps, layer: depth - 1, head: -1, ...start, pinned: start };
  canvas.width = value.width;
  canvas.height = value.height;
  stage.style.setProperty("--ratio", value.width / value.height);
  stage.setAttribute("aria-label", value.label);
  tokens.replaceChildren(...value.names.map((name, i) => {
    const chip = make("button", "viz-chip", name + " token");
    chip.type = "button";
    chip.addEventListener("click", () => go({ token: i, pinned: { patch: now.patch, token: i } }));
    return chip;
  }));
  root.hidden = false;
  redraw();
});
