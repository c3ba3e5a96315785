// Point at a cell of a layer: the frame is all it can see, the heat what it goes by. Only a click asks the server.
const { main, side, stage, says } = gridOf(
  say("grid of cells"),
  say("The photo in the cells of a layer: arrow keys move, brackets change the layer, Enter computes the effective receptive field"),
);
const canvas = make("canvas"), reach = make("div", "viz-theoretical-field"), cursor = make("div", "viz-cursor");
const chips = make("div", "viz-chips"), best = make("ol", "viz-strongest-channels");
let now = null;

canvas.setAttribute("role", "img");
stage.append(canvas, reach, cursor);
main.append(stage, says);
side.append(make("h3", "", say("Layer")), chips, make("h3", "", say("Its strongest channels")), best);

// From pixels of the model's input to shares of the photo's sides.
const share = (pixel, axis) => {
  const { box, input } = now.value;
  return box[axis] + (pixel / input[axis]) * (box[axis + 2] - box[axis]);
};

function frame(node, edges) { // what lies beyond the input is padding, and not on the photo
  const { input } = now.value, held = edges.map((edge, i) => Math.min(Math.max(edge, 0), input[i % 2]));
  lay(node, held.map((edge, i) => Math.min(Math.max(share(edge, i % 2), 0), 1)));
}

function fieldOf(layer, row, column) {
  const at = [row, column], whole = now.value.input;
  const low = at.map((i, k) => (layer.size[k] === null ? 0 : layer.centre[k] + i * layer.jump[k] - layer.size[k] / 2));
  const high = low.map((edge, k) => (layer.size[k] === null ? whole[k] : edge + layer.size[k]));
  return [low[0], low[1], high[0], high[1]];
}

function redraw() {
  const { value, photo, layer, row, column } = now, one = now.layers[layer], { rows, columns } = one.values;
  const [pinnedLayer, pinnedRow, pinnedColumn] = value.cell;
  const pinned = one.name === pinnedLayer && row === pinnedRow && column === pinnedColumn;
  const map = pinned ? now.effective : null;
  if (map) {
    paint(canvas, photo, { ...map, box: value.box, limits: [0, map.top], signed: false, smooth: true, palette: value.palette }, 0.8);
  } else {
    const still = { values: new Float32Array(1), rows: 1, columns: 1, box: value.box, limits: [0, 1], palette: value.palette };
    paint(canvas, photo, still, 0);
  }
  const [height, width] = value.input, edges = fieldOf(one, row, column);
  frame(reach, edges);
  frame(cursor, [(row * height) / rows, (column * width) / columns, ((row + 1) * height) / rows, ((column + 1) * width) / columns]);
  const at = row * columns + column, found = [];
  for (let i = 0; i < one.values.shape[0]; i++) found.push([one.channels.at(i)[at], one.values.at(i)[at]]);
  const [tall, wide] = one.size, size = Math.round(value.effective.size);
  const wider = tall !== null && tall >= height && wide >= width;
  const facts = { row: row + 1, column: column + 1, layer: one.name, wide: `${tall} × ${wide}` };
  const can = tall === null ? say("The receptive field of row {row}, column {column} of {layer} is the whole model input.", facts)
    : wider ? say("Row {row}, column {column} of {layer} has a receptive field of {wide} pixels, larger than the model input.", facts)
      : say("Row {row}, column {column} of {layer} has a receptive field of {wide} pixels.", facts);
  const used = !pinned ? say("Click to compute its effective receptive field.")
    : tall === null ? say("Its effective receptive field on this photo is about {wide} pixels.", { wide: `${size} × ${size}` })
      : say("Its effective receptive field on this photo is about {wide} of them.", { wide: `${size} × ${size}` });
  says.textContent = `${can} ${used}`;
  canvas.setAttribute("aria-label", says.textContent);
  stage.dataset.state = [one.name, row, column, pinned].join();
  [...chips.children].forEach((node, i) => node.setAttribute("aria-pressed", i === layer));
  const most = Math.max(...found.map(([, amount]) => Math.abs(amount)), 1e-9);
  best.replaceChildren(...found.map(([channel, amount]) => {
    const item = make("li", "viz-bar-row"), fill = make("span", "viz-fill");
    fill.style.width = (Math.max(amount, 0) / most) * 100 + "%";
    item.append(make("span", "viz-name", say("channel {number}", { number: channel })), make("span", "viz-share", number(amount)), fill);
    return item;
  }));
}

let asked = 0;
function go(moved) {
  Object.assign(now, moved);
  const { rows, columns } = now.layers[now.layer].values;
  now.row = within(now.row, rows);
  now.column = within(now.column, columns);
  cancelAnimationFrame(asked);
  asked = requestAnimationFrame(redraw);
}

// The same place of the photo in another layer; what it really goes by is only asked for by a click.
function change(to) {
  const from = now.layers[now.layer].values, { rows, columns } = now.layers[to].values;
  const row = Math.floor(((now.row + 0.5) * rows) / from.rows), column = Math.floor(((now.column + 0.5) * columns) / from.columns);
  go({ layer: to, row, column });
}

function pin() {
  const name = now.layers[now.layer].name;
  trigger("select", { index: [name, now.row, now.column], value: name });
}

function cellAt(event) {
  const cell = cellUnder(event, canvas, now.value.box, now.layers[now.layer].values);
  return cell && { row: cell[0], column: cell[1] };
}

function back() {
  const [name, row, column] = now.value.cell, layer = now.layers.findIndex((one) => one.name === name);
  go({ layer, row, column });
}

canvas.addEventListener("pointermove", (event) => {
  const cell = now && event.pointerType === "mouse" && cellAt(event);
  if (cell) go(cell);
});
canvas.addEventListener("pointerleave", () => now && now.layers[now.layer].name === now.value.cell[0] && back());
canvas.addEventListener("click", (event) => {
  const cell = now && cellAt(event);
  if (!cell) return;
  go(cell);
  pin();
});
stage.addEventListener("keydown", (event) => {
  const step = STEPS[event.key], other = LAYERS[event.key];
  if (!now || (!step && !other && event.key !== "Enter")) return;
  event.preventDefault();
  if (event.key === "Enter") return pin();
  if (other) return change(within(now.layer + other, now.layers.length));
  go({ row: now.row + step[0], column: now.column + step[1] });
});

show(async (value, current) => {
  root.hidden = !value.layers;
  if (root.hidden) {
    now = null;
    return;
  }
  const photo = await pixelsOf(value.photo, value.width, value.height);
  if (!current()) return;
  const layers = value.layers.map((one) => ({ ...one, values: unpack(one.values), channels: unpack(one.channels) }));
  const { rows, columns, at } = unpack(value.effective.map), values = at(0);
  now = { value, photo, layers, effective: { rows, columns, values, top: limitsOf(values, false)[1] } };
  canvas.width = value.width;
  canvas.height = value.height;
  stage.style.setProperty("--ratio", value.width / value.height);
  chips.replaceChildren(...layers.map((one, i) => {
    const chip = make("button", "viz-chip", one.name);
    chip.type = "button";
    chip.addEventListener("click", () => change(i));
    return chip;
  }));
  back();
});
