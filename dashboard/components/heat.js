// One map on the photo: opacity and the value under the mouse cost no call to the server.
const figure = make("figure"), stage = make("div", "viz-stage"), canvas = make("canvas");
const tools = make("div", "viz-tools"), scale = make("div", "viz-legend");
const slider = make("input"), readout = make("output", "viz-readout"), save = make("button", "viz-link", "Save PNG");
let now = null;

slider.type = "range";
slider.min = 0;
slider.max = 100;
slider.value = 75;
save.type = "button";
canvas.setAttribute("role", "img");
const knob = make("label", "viz-opacity", "Opacity");
knob.append(slider);
slider.setAttribute("aria-label", "How strongly the heat covers the photo");
tools.append(scale, knob, readout, save);
stage.append(canvas);
figure.append(stage, tools);
const empty = make("p", "viz-empty");
root.append(figure, empty);
figure.hidden = empty.hidden = true;

const redraw = () => now && paint(canvas, now.photo, now.map, slider.value / 100);
slider.addEventListener("input", redraw);

save.addEventListener("click", () => {
  const link = make("a");
  link.download = now.file;
  link.href = canvas.toDataURL("image/png");
  link.click();
});

canvas.addEventListener("pointermove", (event) => {
  if (!now) return;
  const frame = canvas.getBoundingClientRect(), [top, left, bottom, right] = now.map.box;
  const y = ((event.clientY - frame.top) / frame.height - top) / (bottom - top);
  const x = ((event.clientX - frame.left) / frame.width - left) / (right - left);
  const inside = y >= 0 && y < 1 && x >= 0 && x < 1;
  const { values, rows, columns } = now.map;
  readout.textContent = inside
    ? "here " + number(values[Math.floor(y * rows) * columns + Math.floor(x * columns)])
    : "not seen by the model";
});
canvas.addEventListener("pointerleave", () => (readout.textContent = ""));

show(async (value, current) => {
  figure.hidden = !value.map;
  empty.hidden = !value.empty;
  empty.textContent = value.empty || "";
  if (!value.map) {
    now = null;
    return;
  }
  const photo = await pixelsOf(value.photo, value.width, value.height);
  if (!current()) return;
  const { rows, columns, at } = unpack(value.map);
  const { box, limits, signed, smooth, palette } = value;
  now = { photo, file: value.file, map: { values: at(0), rows, columns, box, limits, signed, smooth, palette } };
  canvas.width = value.width;
  canvas.height = value.height;
  figure.style.setProperty("--ratio", value.width / value.height);
  canvas.setAttribute("aria-label", value.alt);
  legend(scale, palette, limits, signed, value.ends);
  redraw();
  canvas.dataset.drawn = value.file;
});
