// @ts-check

// Curves over epochs as SVG. Drawn again for every width, so that the text keeps its size on a phone.

/** @typedef {{ name: string, x: number[], y: number[], colour: number, dashed: boolean, faint: boolean }} Curve */
/**
 * @typedef {object} CurvesValue
 * @property {Curve[]} [lines]
 * @property {[string, string]} axes names of the axes
 * @property {[number[], number[]]} ticks
 * @property {{ at: number, name: string }[]} marks annotated places on the x axis
 * @property {string} caption
 * @property {string} alt
 */
/** @typedef {CurvesValue & { lines: Curve[] }} Chart */
/** @typedef {(value: number) => number} Axis from a value to a position in pixels */
/** @typedef {{ line: Curve, rows: string[], top: number }} CurveName */

const figure = createElement("figure");
const readout = createElement("output", "viz-values");
const caption = createElement("figcaption");
const HEIGHT = 280;
const TOP = 26;
const BOTTOM = HEIGHT - 36;
const LEFT = 34;
const LINE_HEIGHT = 16;
const textContext = getContext(createElement("canvas"));
/** @type {Chart | null} */
let chart = null;
let drawnWidth = 0;
/** @type {number | null} */
let currentEpoch = null;

/** @param {number} value */
const format = (value) => value.toFixed(1);

/** @param {number[]} values */
const last = (values) => values[values.length - 1];

/** @param {string} text */
function measureWidth(text) {
  textContext.font = `700 13px ${getComputedStyle(root).fontFamily}`;
  return textContext.measureText(text).width;
}

/**
 * Return the labels at the ends of the curves: name and last value, in two rows where the chart is narrow.
 * @param {Curve[]} lines
 * @param {boolean} narrow
 * @returns {CurveName[]}
 */
function createNames(lines, narrow) {
  return lines
    .filter((line) => !line.faint)
    .map((line) => {
      const space = line.name.indexOf(" ");
      const rows = narrow && space > 0 ? [line.name.slice(0, space), line.name.slice(space + 1)] : [line.name];
      rows[rows.length - 1] += ` ${format(last(line.y))}`;
      return { line, rows, top: 0 };
    });
}

/**
 * Set the vertical position of each label, so that labels do not overlap and stay inside the chart.
 * @param {CurveName[]} names
 * @param {Axis} y
 */
function arrangeNames(names, y) {
  let free = 0;
  names.sort((a, b) => y(last(a.line.y)) - y(last(b.line.y)));
  for (const name of names) {
    name.top = Math.max(y(last(name.line.y)) - ((name.rows.length - 1) * LINE_HEIGHT) / 2, free);
    free = name.top + name.rows.length * LINE_HEIGHT + 3;
  }
  let floor = BOTTOM + 8;
  for (const name of names.toReversed()) {
    name.top = Math.min(name.top, floor - (name.rows.length - 1) * LINE_HEIGHT);
    floor = name.top - LINE_HEIGHT - 3;
  }
}

/**
 * Create the mark at the end of a curve: besides its colour each has a shape of its own, a disc, a square or a diamond.
 * @param {number} colour
 * @param {number} x
 * @param {number} y
 */
function createMarker(colour, x, y) {
  if (colour === 0) return createSvg("circle", { cx: x, cy: y, r: 4 });
  const transform = colour === 2 ? `rotate(45 ${x} ${y})` : "";
  return createSvg("rect", { x: x - 3.5, y: y - 3.5, width: 7, height: 7, transform });
}

/**
 * @param {SVGElement} svg
 * @param {Chart} chart
 * @param {Axis} x
 * @param {Axis} y
 * @param {{ first: number, last: number, right: number }} range
 */
function drawAxes(svg, { ticks: [xTicks, yTicks], axes, marks }, x, y, range) {
  const { right } = range;
  for (const tick of yTicks) {
    svg.append(createSvg("line", { class: "viz-grid-line", x1: LEFT, x2: right, y1: y(tick), y2: y(tick) }));
    svg.append(createSvg("text", { class: "viz-tick", x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, tick));
  }
  for (const tick of xTicks.filter((value) => value >= range.first && value <= range.last)) {
    svg.append(createSvg("text", { class: "viz-tick", x: x(tick), y: BOTTOM + 18, "text-anchor": "middle" }, tick));
  }
  svg.append(createSvg("text", { class: "viz-axis", x: 0, y: 12 }, axes[1]));
  svg.append(createSvg("text", { class: "viz-axis", x: right, y: HEIGHT - 3, "text-anchor": "end" }, axes[0]));
  for (const { at, name } of marks) {
    svg.append(createSvg("line", { class: "viz-annotation", x1: x(at), x2: x(at), y1: TOP - 6, y2: BOTTOM }));
    svg.append(createSvg("text", { class: "viz-tick", x: x(at) + 6, y: TOP - 2 }, name));
  }
}

/**
 * @param {SVGElement} svg
 * @param {Curve[]} lines
 * @param {Axis} x
 * @param {Axis} y
 */
function drawCurves(svg, lines, x, y) {
  for (const line of lines) {
    const points = line.x.map((value, i) => `${i ? "L" : "M"}${format(x(value))} ${format(y(line.y[i]))}`);
    const style = (line.dashed ? " viz-dashed" : "") + (line.faint ? " viz-faint" : "");
    svg.append(createSvg("path", { class: `viz-curve viz-colour-${line.colour}${style}`, d: points.join("") }));
  }
}

/**
 * @param {SVGElement} svg
 * @param {CurveName[]} names
 * @param {Axis} x
 * @param {Axis} y
 * @param {number} left
 */
function drawNames(svg, names, x, y, left) {
  arrangeNames(names, y);
  for (const { line, rows, top } of names) {
    const text = createSvg("text", { class: `viz-curve-name viz-colour-${line.colour}`, x: left });
    text.append(...rows.map((row, i) => createSvg("tspan", { x: left, y: top + 4 + i * LINE_HEIGHT }, row)));
    const marker = createMarker(line.colour, x(last(line.x)), y(last(line.y)));
    marker.setAttribute("class", `viz-marker viz-colour-${line.colour}`);
    svg.append(marker, text);
  }
}

/**
 * Show the values of the epoch that is nearest to the pointer, or that the arrow keys select.
 * @param {SVGElement} svg
 * @param {Chart} chart
 * @param {Axis} x
 * @param {number} width
 */
function addReadout(svg, { lines, axes }, x, width) {
  const crosshair = createSvg("line", { class: "viz-crosshair", y1: TOP - 6, y2: BOTTOM, visibility: "hidden" });
  svg.append(crosshair);
  const epochs = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const showEpoch = (/** @type {number | null} */ epoch) => {
    currentEpoch = epoch;
    crosshair.setAttribute("visibility", epoch === null ? "hidden" : "visible");
    if (epoch === null) {
      readout.textContent = "";
      return;
    }
    crosshair.setAttribute("x1", String(x(epoch)));
    crosshair.setAttribute("x2", String(x(epoch)));
    const measured = lines.filter((line) => !line.faint && line.x.includes(epoch));
    const values = measured.map((line) => `${line.name} ${format(line.y[line.x.indexOf(epoch)])}`);
    readout.textContent = `${axes[0]} ${epoch}: ${values.join(", ")}`;
  };
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const position = ((event.clientX - frame.left) / frame.width) * width;
    showEpoch(epochs.reduce((a, b) => (Math.abs(x(b) - position) < Math.abs(x(a) - position) ? b : a)));
  });
  svg.addEventListener("pointerleave", () => showEpoch(null));
  svg.addEventListener("blur", () => showEpoch(null));
  svg.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    const step = event.key === "ArrowLeft" ? -1 : 1;
    const start = step > 0 ? 0 : epochs.length - 1;
    const index = currentEpoch === null ? start : epochs.indexOf(currentEpoch) + step;
    showEpoch(epochs[Math.min(Math.max(index, 0), epochs.length - 1)]);
  });
}

/**
 * @param {Chart} chart
 * @param {number} width
 */
function createChart(chart, width) {
  const { lines, ticks, alt } = chart;
  const names = createNames(lines, width < 520);
  const right = width - Math.max(...names.flatMap(({ rows }) => rows.map(measureWidth))) - 18;
  const first = Math.min(...lines.map((line) => line.x[0]));
  const end = Math.max(...lines.map((line) => last(line.x)));
  const low = ticks[1][0];
  const high = last(ticks[1]);
  /** @type {Axis} */
  const x = (value) => LEFT + ((value - first) / (end - first || 1)) * (right - LEFT);
  /** @type {Axis} */
  const y = (value) => BOTTOM - ((value - low) / (high - low)) * (BOTTOM - TOP);
  const svg = createSvg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": alt, tabindex: 0 });
  drawAxes(svg, chart, x, y, { first, last: end, right });
  drawCurves(svg, lines, x, y);
  drawNames(svg, names, x, y, right + 12);
  addReadout(svg, chart, x, width);
  return svg;
}

function redraw() {
  const width = Math.round(root.clientWidth);
  if (!chart || !width || width === drawnWidth) return; // a component in a closed tab has no width yet
  drawnWidth = width;
  readout.textContent = "";
  figure.replaceChildren(createChart(chart, width), readout, caption);
}

root.append(figure);
new ResizeObserver(redraw).observe(root);

/** @param {CurvesValue} value */
function draw(value) {
  chart = value.lines ? /** @type {Chart} */ (value) : null;
  drawnWidth = 0;
  currentEpoch = null;
  figure.hidden = !chart;
  if (!chart) return figure.replaceChildren();
  caption.textContent = chart.caption;
  redraw();
}

onValueChange(draw);
