// One map on the photo: opacity, threshold, colours and the value under the mouse cost no call to the server.
const figure = make("figure"), stage = make("div", "viz-stage"), canvas = make("canvas");
const tools = make("div", "viz-tools"), scale = make("div", "viz-legend"), controls = make("div", "viz-controls");
const readout = make("output", "viz-readout"), save = make("button", "viz-link", say("Save PNG"));
const menu = make("select"), menuLabel = make("label", "viz-choice", say("Colours"));
const opacity = slider(say("Opacity"), 75, 0), strongest = slider(say("Show strongest"), 100, 1);
let now = null, sorted = null; // the sizes of the values, from small to large

function slider(name, value, min) {
  const label = make("label", "viz-slider"), input = make("input"), said = make("span", "viz-amount");
  Object.assign(input, { type: "range", min, max: 100, value });
  const tell = () => (said.textContent = input.value + "\u00a0%");
  input.addEventListener("input", () => (tell(), redraw()));
  tell();
  label.append(make("span", "", name), input, said);
  return { label, input };
}

save.type = "button";
canvas.setAttribute("role", "img");
menuLabel.append(menu);
controls.append(opacity.label, strongest.label, menuLabel);
tools.append(scale, readout, save);
stage.append(canvas);
figure.append(stage, tools, controls);
const empty = make("p", "viz-empty");
root.append(figure, empty);
figure.hidden = empty.hidden = true;

// The size a value must have to be among the strongest; all are when nothing is hidden.
const least = () => {
  const share = strongest.input.value / 100;
  return share === 1 ? -Infinity : sorted[Math.min(Math.round((1 - share) * sorted.length), sorted.length - 1)];
};

function redraw() {
  if (!now) return;
  if (!now.map) return paint(canvas, now.photo, { ...now.blank, limits: [0, 1], values: [0], rows: 1, columns: 1 }, 0);
  const { colours } = now.palettes[menu.selectedIndex] || now.palettes[0];
  now.map.palette = colours;
  legend(scale, colours, now.map.limits, now.map.signed, now.ends);
  paint(canvas, now.photo, { ...now.map, least: least() }, opacity.input.value / 100);
}
menu.addEventListener("change", redraw);

save.addEventListener("click", () => {
  const link = make("a");
  link.download = now.file;
  link.href = canvas.toDataURL("image/png");
  link.click();
});

canvas.addEventListener("pointermove", (event) => {
  if (!now?.map) return;
  const frame = canvas.getBoundingClientRect(), [top, left, bottom, right] = now.map.box;
  const y = ((event.clientY - frame.top) / frame.height - top) / (bottom - top);
  const x = ((event.clientX - frame.left) / frame.width - left) / (right - left);
  const inside = y >= 0 && y < 1 && x >= 0 && x < 1;
  const { values, rows, columns } = now.map;
  readout.textContent = inside
    ? say("here {value}", { value: number(values[Math.floor(y * rows) * columns + Math.floor(x * columns)]) })
    : say("outside the model input");
});
canvas.addEventListener("pointerleave", () => (readout.textContent = ""));

// The menu of colours keeps its choice while the kind of map stays the same.
function offer(palettes) {
  if (palettes.map((one) => one.name).join() === [...menu.options].map((one) => one.value).join()) return;
  menu.replaceChildren(...palettes.map(({ name }) => Object.assign(make("option", "", name.replace("_r", "")), { value: name })));
}

show(async (value, current) => {
  figure.hidden = !value.photo;
  empty.hidden = !value.empty;
  empty.textContent = value.empty || "";
  if (!value.photo) {
    now = null;
    return;
  }
  const photo = await pixelsOf(value.photo, value.width, value.height);
  if (!current()) return;
  const { box, limits, signed, smooth, palettes, ends, file } = value;
  now = { photo, file, palettes, ends, blank: { box, palette: "" } };
  if (value.map) {
    const { rows, columns, at } = unpack(value.map), values = at(0);
    now.map = { values, rows, columns, box, limits, signed, smooth };
    sorted = Float32Array.from(values, (one) => (signed ? Math.abs(one) : one)).sort();
    offer(palettes);
  }
  tools.hidden = controls.hidden = !value.map;
  canvas.width = value.width;
  canvas.height = value.height;
  for (const node of [figure, element.closest(".column")]) node?.style.setProperty("--ratio", value.width / value.height);
  canvas.setAttribute("aria-label", value.alt);
  redraw();
  canvas.dataset.drawn = value.file || "photo";
  // Chosen from the small maps far below, on a phone: the answer comes into sight.
  const chosen = document.activeElement?.closest(".viz-thumbnails"), { bottom } = stage.getBoundingClientRect();
  if (chosen && stage.checkVisibility() && bottom < 120) stage.scrollIntoView({ block: "nearest" });
});
