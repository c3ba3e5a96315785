// Maps of one photo beside each other. Point at a place on one: a ring marks it on all, and each tells its value there.
//
// value.rows hold items with one map a step; which step is shown is chosen here, or follows an event of another part.
const grid = make("div", "viz-linked-grid"), foot = make("div", "viz-linked-footer"), says = make("output", "viz-screen-reader-text");
let now = null, step = null, spot = null;

grid.setAttribute("role", "group");
grid.tabIndex = 0;
says.setAttribute("aria-live", "polite");
root.append(grid, says);
root.hidden = true;

const at = (list) => list[Math.min(step ?? list.length - 1, list.length - 1)];
const scaleOf = (item) => now.value.scales[item.scale];
const factorOf = (item) => (item.factors.length ? at(item.factors) : 1);

// The values of an item at the step that is shown, in the units that are shown.
function valuesOf(item) {
  const [steps] = item.maps.shape, factor = factorOf(item);
  const raw = item.maps.at(Math.min(step ?? steps - 1, steps - 1));
  return factor === 1 ? raw : raw.map((value) => value * factor);
}

function mapOf(item) {
  const { rows, columns } = item.maps, { signed, limits } = scaleOf(item), { value } = now;
  const palette = signed ? value.signedPalette : value.palette;
  return { values: valuesOf(item), rows, columns, box: item.box, limits: at(limits), signed, smooth: item.smooth, palette };
}

// The value that is drawn at a place of the photo (shares of its height and width); null where the model saw nothing.
function valueAt(item, [y, x]) {
  const { rows, columns } = item.maps, [top, left, bottom, right] = item.box, values = valuesOf(item);
  const v = ((y - top) / (bottom - top)) * rows, h = ((x - left) / (right - left)) * columns;
  if (v < 0 || v >= rows || h < 0 || h >= columns) return null;
  if (!item.smooth) return values[Math.floor(v) * columns + Math.floor(h)];
  const r = Math.floor(v - 0.5), c = Math.floor(h - 0.5), fv = v - 0.5 - r, fh = h - 0.5 - c;
  const pick = (row, column) => values[Math.min(Math.max(row, 0), rows - 1) * columns + Math.min(Math.max(column, 0), columns - 1)];
  return (pick(r, c) * (1 - fh) + pick(r, c + 1) * fh) * (1 - fv) + (pick(r + 1, c) * (1 - fh) + pick(r + 1, c + 1) * fh) * fv;
}

function figureOf(item) {
  const figure = make("figure"), stage = make("div", "viz-linked-stage"), canvas = make("canvas"), ring = make("div", "viz-pointer-mark");
  const words = make("figcaption"), readout = make("span", "viz-linked-value"), bar = make("div", "viz-legend");
  [canvas.width, canvas.height] = [now.value.width, now.value.height];
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", item.alt);
  ring.hidden = true;
  stage.append(canvas, ring);
  const head = make("div", "viz-linked-name");
  head.append(make("strong", "", item.name), readout);
  words.append(head);
  if (item.alone) words.append(bar);
  if (item.text) words.append(make("p", "", item.text));
  figure.append(stage, words);
  const here = (event) => {
    const box = stage.getBoundingClientRect();
    point([(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width]);
  };
  stage.addEventListener("pointermove", here);
  stage.addEventListener("pointerdown", here);
  return Object.assign(item, { figure, canvas, ring, readout, bar });
}

function point(to) {
  if (!now) return;
  spot = to;
  for (const item of now.items) {
    item.ring.hidden = !to;
    const value = to && valueAt(item, to);
    item.readout.textContent = !to ? "" : value === null ? say("not in the input") : number(value);
    if (to) Object.assign(item.ring.style, { top: 100 * to[0] + "%", left: 100 * to[1] + "%" });
  }
}

function redraw() {
  for (const item of now.items) {
    const map = mapOf(item);
    paint(item.canvas, now.photo, map, 0.8);
    if (item.alone) legend(item.bar, map.palette, map.limits, map.signed, scaleOf(item).ends);
  }
  now.bars.forEach(({ node, scale }) => legend(node, scale.signed ? now.value.signedPalette : now.value.palette, at(scale.limits), scale.signed, scale.ends));
  root.dataset.step = step ?? "";
  point(spot);
}

function choose(wanted) {
  step = wanted;
  for (const button of foot.querySelectorAll("button")) button.setAttribute("aria-pressed", Number(button.dataset.step) === step);
  redraw();
}

// What several pictures share stands below all of them: their scales, and the units to choose from.
function shared(value) {
  now.bars = value.scales.filter((scale) => !scale.alone).map((scale) => {
    const block = make("div", "viz-linked-scale"), node = make("div", "viz-legend");
    block.append(make("span", "", scale.name), node);
    return { block, node, scale };
  });
  const units = make("div", "viz-units");
  units.setAttribute("role", "group");
  units.setAttribute("aria-label", say("Units of all values"));
  value.steps.forEach((name, i) => {
    const button = make("button", "viz-chip", name);
    button.type = "button";
    button.dataset.step = i;
    button.setAttribute("aria-pressed", i === step);
    button.addEventListener("click", () => choose(i));
    units.append(button);
  });
  foot.replaceChildren(...now.bars.map(({ block }) => block), ...(value.steps.length ? [units] : []));
  foot.hidden = !foot.children.length;
}

grid.addEventListener("pointerleave", (event) => {
  if (event.pointerType !== "mouse") return; // a finger that is lifted leaves what it asked for
  point(null);
  says.textContent = "";
});
grid.addEventListener("keydown", (event) => {
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!now || (!move && event.key !== "Escape")) return;
  event.preventDefault();
  if (!move) point(null);
  else point((spot || [0.5, 0.5]).map((old, i) => Math.min(Math.max(old + (spot ? move[i] / 28 : 0), 0.01), 0.99)));
  says.textContent = spot ? now.items.map((item) => `${item.row ? item.row + ", " : ""}${item.name}: ${item.readout.textContent}`).join("; ") : "";
});
grid.addEventListener("blur", () => {
  point(null);
  says.textContent = "";
});
let heard = null; // the layer another part shows, perhaps before there is anything to show here
document.addEventListener("viz-layer", (event) => {
  heard = event.detail;
  if (now?.value.follows !== "layer") return;
  step = heard;
  redraw();
});

// A value that waits is asked for once somebody can see where it will be.
let seen = false;
function ask() {
  if (seen && props.value?.waiting) trigger("select", { index: 0, value: "seen" });
}
new IntersectionObserver((entries) => {
  seen = entries.at(-1).isIntersecting;
  ask();
}).observe(root);

show(async (value, current) => {
  root.classList.toggle("viz-pending", Boolean(value.waiting));
  if (value.waiting) root.hidden = false;
  if (value.waiting) return ask();
  if (!value.rows) {
    root.hidden = true;
    now = null;
    return;
  }
  const photo = await pixelsOf(value.photo, value.width, value.height);
  if (!current()) return;
  if (value.follows === "layer") step = heard;
  if (value.steps.length) step = Math.min(step ?? 0, value.steps.length - 1);
  const rows = value.rows.map((row) => row.items.map((item) => item && { ...item, row: row.heading, maps: unpack(item.maps) }));
  const items = rows.flat().filter(Boolean), users = value.scales.map((_, i) => items.filter((item) => item.scale === i).length);
  value = { ...value, scales: value.scales.map((scale, i) => ({ ...scale, alone: users[i] < 2 })) };
  items.forEach((item) => (item.alone = value.scales[item.scale].alone));
  now = { value, photo, items, bars: [] };
  grid.dataset.columns = Math.max(...rows.map((row) => row.length));
  grid.dataset.headed = value.rows.some((row) => row.heading);
  grid.setAttribute("aria-label", value.label);
  root.style.setProperty("--ratio", value.width / value.height);
  grid.replaceChildren(...rows.flatMap((row, i) => [
    ...(value.rows[i].heading ? [make("h3", "", value.rows[i].heading)] : []),
    ...row.filter(Boolean).map((item) => figureOf(item).figure),
  ]), foot);
  shared(value);
  root.hidden = false;
  redraw();
});
