// @ts-check

// Deletion and insertion curves of a map. The pointer, or the slider below, selects a step: both photos at that step are
// shown with their scores.

/** @typedef {{ name: string, scores: number[], captions: string[] }} PerturbationLine */
/**
 * @typedef {object} PerturbationValue
 * @property {string} [sprite] URL of one image with all photos: a row for each line, a column for each step
 * @property {[number, number]} tile width and height of a photo in it
 * @property {number[]} fractions
 * @property {string[]} steps
 * @property {PerturbationLine[]} lines
 * @property {number} first the step that is shown at first
 * @property {string} heading
 * @property {string} axis
 * @property {string} slider
 * @property {string} alt
 */

const heading = createElement("h3");
const chart = createElement("div", "viz-perturbation-chart");
const slider = createElement("input");
const sliderLabel = createElement("label", "viz-perturbation-slider");
const sliderName = createElement("span");
const amount = createElement("output", "viz-amount");
const photos = createElement("div", "viz-perturbation-photos");
slider.type = "range";
sliderLabel.append(sliderName, slider, amount);
root.append(heading, chart, sliderLabel, photos);
root.hidden = true;
const WIDTH = 420;
const HEIGHT = 150;
const EDGE = { left: 34, right: 8, top: 8, bottom: 24 };
let step = 0;
let sprite = new Image();
/** @type {PerturbationValue | null} */
let shown = null;

/** @param {number} fraction */
const toX = (fraction) => EDGE.left + fraction * (WIDTH - EDGE.left - EDGE.right);

/**
 * Return a function from a score to its position: from 0 to 1 for probabilities, else from the lowest to the highest.
 * @param {number[]} scores
 */
function createScale(scores) {
  const areProbabilities = scores.every((score) => score >= 0 && score <= 1);
  const low = areProbabilities ? 0 : Math.min(...scores);
  const high = areProbabilities ? 1 : Math.max(...scores);
  const toY = (/** @type {number} */ score) =>
    HEIGHT - EDGE.bottom - ((score - low) / (high - low || 1)) * (HEIGHT - EDGE.top - EDGE.bottom);
  return { low, high, toY };
}

/** @param {PerturbationValue} value */
function createChart(value) {
  const { fractions, lines, axis, alt } = value;
  const { low, high, toY } = createScale(lines.flatMap((line) => line.scores));
  const svg = createSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": alt });
  for (const score of [low, (low + high) / 2, high]) {
    const y = toY(score);
    svg.append(createSvg("line", { class: "viz-grid-line", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y, y2: y }));
    svg.append(
      createSvg(
        "text",
        { class: "viz-tick", x: EDGE.left - 6, y: y + 4, "text-anchor": "end" },
        Number(score.toPrecision(2)),
      ),
    );
  }
  for (const fraction of [0, 0.5, 1]) {
    const text = `${100 * fraction}\u00a0%`;
    const anchor = fraction === 1 ? "end" : "middle";
    svg.append(createSvg("text", { class: "viz-tick", x: toX(fraction), y: HEIGHT - 8, "text-anchor": anchor }, text));
  }
  svg.append(createSvg("text", { class: "viz-axis", x: toX(0.75), y: HEIGHT - 8, "text-anchor": "middle" }, axis));
  const cross = createSvg("line", { class: "viz-crosshair", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
  svg.append(cross);
  const markers = lines.map((line, i) => {
    const points = line.scores.map(
      (score, k) => `${k ? "L" : "M"}${toX(fractions[k]).toFixed(1)} ${toY(score).toFixed(1)}`,
    );
    const style = i ? " viz-dashed" : "";
    svg.append(createSvg("path", { class: `viz-curve viz-colour-${i}${style}`, d: points.join("") }));
    const marker = createSvg("circle", { class: `viz-marker viz-colour-${i}`, r: 5 });
    svg.append(marker);
    return marker;
  });
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const position = ((event.clientX - frame.left) / frame.width) * WIDTH;
    const distances = fractions.map((fraction) => Math.abs(toX(fraction) - position));
    showStep(distances.indexOf(Math.min(...distances)));
  });
  const move = () => {
    const x = toX(fractions[step]);
    cross.setAttribute("x1", String(x));
    cross.setAttribute("x2", String(x));
    markers.forEach((marker, i) => {
      marker.setAttribute("cx", String(x));
      marker.setAttribute("cy", String(toY(lines[i].scores[step])));
    });
  };
  return { svg, move };
}

/** @type {() => void} */
let moveCrosshair = () => {};

/** @param {number} chosen */
function showStep(chosen) {
  if (!shown) return;
  step = chosen;
  slider.value = String(step);
  amount.textContent = shown.steps[step];
  slider.setAttribute("aria-valuetext", shown.lines.map((line) => line.captions[step]).join("; "));
  moveCrosshair();
  drawPhotos();
}

slider.addEventListener("input", () => showStep(Number(slider.value)));

function drawPhotos() {
  if (!shown) return;
  const [width, height] = shown.tile;
  shown.lines.forEach((line, i) => {
    const figure = /** @type {HTMLElement} */ (photos.children[i]);
    const canvas = /** @type {HTMLCanvasElement} */ (figure.querySelector("canvas"));
    const caption = /** @type {HTMLElement} */ (figure.querySelector("figcaption"));
    canvas.setAttribute("aria-label", line.captions[step]);
    caption.textContent = line.captions[step];
    if (!sprite.complete || !sprite.naturalWidth) return;
    getContext(canvas).drawImage(sprite, step * width, i * height, width, height, 0, 0, width, height);
    canvas.dataset.step = String(step);
  });
}

/**
 * @param {PerturbationLine} line
 * @param {number} number
 * @param {[number, number]} tile
 */
function createFigure(line, number, [width, height]) {
  const figure = createElement("figure");
  const canvas = createElement("canvas");
  const name = createElement("span", `viz-perturbation-name viz-colour-${number}`, line.name);
  Object.assign(canvas, { width, height });
  canvas.setAttribute("role", "img");
  figure.append(name, canvas, createElement("figcaption"));
  return figure;
}

/** @param {PerturbationValue} value */
function draw(value) {
  shown = value.sprite ? value : null;
  root.hidden = !shown;
  if (!shown || !value.sprite) return;
  heading.textContent = value.heading;
  sliderName.textContent = value.slider;
  slider.min = "0";
  slider.max = String(value.fractions.length - 1);
  photos.replaceChildren(...value.lines.map((line, i) => createFigure(line, i, value.tile)));
  const { svg, move } = createChart(value);
  moveCrosshair = move;
  chart.replaceChildren(svg);
  sprite = new Image();
  sprite.onload = drawPhotos;
  sprite.src = value.sprite;
  showStep(value.first);
}

onValueChange(draw);
