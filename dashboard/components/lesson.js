// @ts-check

// One step of a lesson. A step is computed only while the component can be seen: a change in the meantime is requested
// when it is seen again.

/**
 * @typedef {object} LessonPicture a map over a photo with its colour bar, or an image
 * @property {string} caption
 * @property {string} [picture] URL of an image
 * @property {PackedMaps} map
 * @property {string} palette
 * @property {Limits} limits
 * @property {boolean} signed
 * @property {boolean} smooth
 * @property {Box} [box]
 * @property {number[]} frame top, left, bottom, right of a marked part, or empty
 * @property {boolean} [bare] without a photo
 * @property {string} [photo]
 * @property {number} width
 * @property {number} height
 * @property {string[]} captions one for each frame
 * @property {Limits[]} [frameLimits]
 * @property {boolean} [isWeighted] the maps are rows that the weights of the product sum
 */
/**
 * @typedef {object} LessonValue
 * @property {string} [empty]
 * @property {boolean} [pending] the shown step is outdated
 * @property {number} [step]
 * @property {string[]} titles
 * @property {string[]} paragraphs
 * @property {LessonPicture[]} pictures
 * @property {Record<string, string>} labels
 * @property {Photo} basePhoto
 * @property {number} columns
 * @property {string} code
 * @property {string} tab
 * @property {string} method
 * @property {string} otherModel
 * @property {string[]} frames names of the positions of the slider
 * @property {VectorProduct | null} product
 */
/** @typedef {LessonValue & { step: number }} Lesson */

const header = createElement("div", "viz-steps");
const stepCount = createElement("p", "viz-step-count");
const dots = createElement("div", "viz-dots");
const title = createElement("h2");
const paragraphs = createElement("div", "viz-paragraphs");
const pictures = createElement("div", "viz-pictures");
const product = createElement("div", "viz-vector-product");
const frames = createElement("label", "viz-frames");
const framesLabel = createElement("span");
const frameSlider = createElement("input");
const frameName = createElement("output");
const code = createElement("figure", "viz-code");
const codeCaption = createElement("figcaption");
const codeLines = createElement("code");
const codeBlock = createElement("pre");
const links = createElement("div", "viz-lesson-links");
const tabButton = createButton("viz-lesson-link");
const modelButton = createButton("viz-lesson-link");
const navigation = createElement("div", "viz-lesson-navigation");
const previousButton = createButton("viz-previous");
const nextButton = createButton("viz-primary-button");
const body = createElement("div", "viz-lesson-body");
const busy = createElement("p", "viz-busy");
/** @type {Lesson | null} */
let lesson = null;
let needsRequest = false;
let isVisible = false;
let userMoved = false;

title.tabIndex = -1;
paragraphs.setAttribute("role", "status");
busy.setAttribute("role", "status");
dots.setAttribute("role", "group");
codeBlock.tabIndex = 0; // so that the keyboard can scroll it
codeBlock.append(codeLines);
code.append(codeCaption, codeBlock);
header.append(stepCount, dots);
links.append(tabButton, modelButton);
navigation.append(previousButton, nextButton);
frameSlider.type = "range";
frameSlider.min = "0";
frames.append(framesLabel, frameSlider, frameName);
product.setAttribute("role", "group");
body.append(title, paragraphs, product, frames, pictures, code, links, navigation);
root.append(header, busy, body);
body.hidden = header.hidden = true;

/** Return the step in the address. */
const initialStep = () => Math.max(Number(readUrlState("s")) - 1, 0) || 0;

/** @type {((frame: number) => void)[]} of each picture with several maps: draw one of them */
let drawFrames = [];

/** @type {((weights: number[]) => void)[]} of each picture whose map is a weighted sum */
let drawSums = [];

/** @param {number} frame */
function showFrame(frame) {
  if (!lesson?.frames.length) return;
  frameSlider.value = String(frame);
  frameName.textContent = lesson.frames[frame];
  frameSlider.setAttribute("aria-valuetext", lesson.frames[frame]);
  for (const draw of drawFrames) draw(frame);
  root.dataset.frame = String(frame);
}

frameSlider.addEventListener("input", () => showFrame(Number(frameSlider.value)));

/** @param {number} step */
function requestStep(step) {
  needsRequest = false;
  root.setAttribute("aria-busy", "true");
  if (lesson) busy.textContent = lesson.labels.busy;
  trigger("select", { index: step, value: "" });
}

/** @param {number} step */
function moveTo(step) {
  if (!lesson || step < 0 || step >= lesson.titles.length || step === lesson.step) return;
  userMoved = true;
  requestStep(step);
}

previousButton.addEventListener("click", () => lesson && moveTo(lesson.step - 1));
nextButton.addEventListener("click", () => lesson && moveTo(lesson.step + 1));
tabButton.addEventListener("click", () => {
  if (!lesson) return;
  const { tab, method } = lesson;
  setUrlState("v", tab);
  emitChoice({ tab, ...(method && { method }) });
});
modelButton.addEventListener("click", () => lesson && emitChoice({ model: lesson.otherModel }));

// A component in a closed tab has no size and does not intersect.
const observer = new IntersectionObserver(
  (entries) => {
    isVisible = entries[entries.length - 1].isIntersecting;
    if (isVisible && needsRequest) requestStep(lesson ? lesson.step : initialStep());
  },
  { rootMargin: "300px" },
);
observer.observe(root);

/**
 * @param {string} name
 * @param {number} step
 * @param {number} currentStep
 */
function createDot(name, step, currentStep) {
  const button = createButton("viz-dot");
  button.title = name;
  button.setAttribute("aria-label", `${step + 1}. ${name}`);
  if (step === currentStep) button.setAttribute("aria-current", "step");
  button.addEventListener("click", () => moveTo(step));
  return button;
}

/**
 * @param {LessonPicture} picture
 * @param {Photo} basePhoto
 */
async function createPicture(picture, basePhoto) {
  const figure = createElement("figure");
  const caption = createElement("figcaption", "", picture.caption);
  if (picture.picture) {
    const image = createElement("img");
    image.src = picture.picture;
    image.alt = picture.caption;
    figure.append(image, caption);
    return { figure };
  }
  const canvas = createElement("canvas");
  const scale = createElement("div", "viz-legend");
  const { rows, columns, at } = unpackMaps(picture.map);
  const { photo: url, width, height } = picture.photo ? picture : basePhoto;
  Object.assign(canvas, { width, height });
  canvas.setAttribute("role", "img");
  const photo = picture.bare ? null : await loadPixels(url, width, height);
  const { palette, signed, smooth, box } = picture;
  const drawFrame = (/** @type {number} */ index) => {
    const limits = picture.frameLimits?.[index] ?? picture.limits;
    drawMap(canvas, photo, { values: at(index), rows, columns, palette, limits, signed, smooth, box }, 0.8);
    drawLegend(scale, palette, limits, signed);
    caption.textContent = picture.captions[index] ?? picture.caption;
    canvas.setAttribute("aria-label", caption.textContent);
  };
  const drawSum = (/** @type {number[]} */ weights) => {
    const values = new Float32Array(rows * columns);
    weights.forEach((weight, i) => {
      at(i).forEach((value, k) => {
        values[k] += weight * value;
      });
    });
    drawMap(canvas, photo, { values, rows, columns, palette, limits: picture.limits, signed, smooth, box }, 0.8);
  };
  drawFrame(0);
  if (picture.frame.length) strokeFrame(canvas, picture.frame);
  figure.append(canvas, caption, scale);
  return {
    figure,
    drawFrame: picture.captions.length ? drawFrame : undefined,
    drawSum: picture.isWeighted ? drawSum : undefined,
  };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} frame
 */
function strokeFrame(canvas, [top, left, bottom, right]) {
  const context = getContext(canvas);
  const { width, height } = canvas;
  const strokes = /** @type {const} */ ([
    ["#000", 5],
    ["#fff", 2.5],
  ]);
  for (const [colour, lineWidth] of strokes) {
    context.strokeStyle = colour;
    context.lineWidth = lineWidth;
    context.strokeRect(left * width, top * height, (right - left) * width, (bottom - top) * height);
  }
}

/**
 * @param {Lesson} value
 * @param {HTMLElement[]} figures
 */
function showStep(value, figures) {
  const { labels, step, titles } = value;
  stepCount.textContent = labels.step;
  dots.setAttribute("aria-label", labels.steps);
  dots.replaceChildren(...titles.map((name, i) => createDot(name, i, step)));
  title.textContent = titles[step];
  paragraphs.replaceChildren(...value.paragraphs.map((text) => createElement("p", "", text)));
  pictures.replaceChildren(...figures);
  pictures.dataset.columns = String(value.columns);
  product.hidden = !value.product;
  if (value.product) {
    drawVectorProduct(product, value.product, (weights) => {
      for (const draw of drawSums) draw(weights);
      root.dataset.weights = weights.join();
    });
  }
  frames.hidden = !value.frames.length;
  framesLabel.textContent = labels.frame;
  frameSlider.max = String(value.frames.length - 1);
  showFrame(0);
  code.hidden = !value.code;
  codeCaption.textContent = labels.code;
  codeLines.textContent = value.code;
  tabButton.textContent = labels.see;
  modelButton.textContent = labels.other;
  modelButton.hidden = !value.otherModel;
  previousButton.textContent = labels.previous;
  nextButton.textContent = `${labels.next}: ${titles[step + 1]}`;
  previousButton.disabled = step === 0;
  nextButton.hidden = step === titles.length - 1;
  busy.textContent = "";
  body.hidden = header.hidden = false;
  root.removeAttribute("aria-busy");
  root.dataset.step = String(step);
  setUrlState("s", step ? step + 1 : null);
}

/**
 * @param {LessonValue} value
 * @param {() => boolean} isCurrent
 */
async function draw(value, isCurrent) {
  if (value.empty) {
    lesson = null;
    busy.textContent = value.empty;
    body.hidden = header.hidden = true;
    return root.removeAttribute("aria-busy");
  }
  if (value.pending || value.step === undefined) {
    needsRequest = true;
    if (isVisible) requestStep(value.step ?? initialStep());
    return;
  }
  const drawn = await Promise.all(value.pictures.map((picture) => createPicture(picture, value.basePhoto)));
  if (!isCurrent()) return;
  const figures = drawn.map(({ figure }) => figure);
  drawFrames = drawn.flatMap(({ drawFrame }) => drawFrame ?? []);
  drawSums = drawn.flatMap(({ drawSum }) => drawSum ?? []);
  lesson = /** @type {Lesson} */ (value);
  const dotHadFocus = dots.contains(document.activeElement);
  showStep(lesson, figures);
  if (!userMoved) return;
  userMoved = false;
  const focused = dotHadFocus ? /** @type {HTMLElement} */ (dots.children[lesson.step]) : title;
  focused.focus({ preventScroll: !dotHadFocus });
  if (root.getBoundingClientRect().top < 0) root.scrollIntoView({ block: "start" });
}

onValueChange(draw);
