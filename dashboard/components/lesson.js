// One step of a lesson. It is worked out only while it can be seen: what has changed meanwhile is asked for on return.
const top_ = make("div", "viz-steps"), where = make("p", "viz-step-count"), dots = make("div", "viz-dots");
const title = make("h2"), words = make("div", "viz-paragraphs"), pictures = make("div", "viz-pictures");
const code = make("figure", "viz-code"), codeTitle = make("figcaption"), lines = make("code"), block = make("pre");
const ways = make("div", "viz-lesson-links"), see = make("button", "viz-lesson-link"), other = make("button", "viz-lesson-link");
const ends = make("div", "viz-lesson-navigation"), back = make("button", "viz-previous"), next = make("button", "viz-primary-button");
const body = make("div", "viz-lesson-body"), busy = make("p", "viz-busy");
let now = null, owed = false, seen = false, moved = false;

for (const button of [see, other, back, next]) button.type = "button";
title.tabIndex = -1;
words.setAttribute("role", "status");
busy.setAttribute("role", "status");
dots.setAttribute("role", "group");
block.tabIndex = 0; // so that the keyboard can scroll it
block.append(lines);
code.append(codeTitle, block);
top_.append(where, dots);
ways.append(see, other);
ends.append(back, next);
body.append(title, words, pictures, code, ways, ends);
root.append(top_, busy, body);
body.hidden = top_.hidden = true;

const opening = () => Math.max(placed("s") - 1, 0) || 0; // the step that the address asks for, until there is one

function ask(step) {
  owed = false;
  root.setAttribute("aria-busy", "true");
  if (now) busy.textContent = now.labels.busy;
  trigger("select", { index: step, value: "" });
}

function go(step) {
  if (step < 0 || step >= now.titles.length || step === now.step) return;
  moved = true;
  ask(step);
}

back.addEventListener("click", () => go(now.step - 1));
next.addEventListener("click", () => go(now.step + 1));
see.addEventListener("click", () => {
  place("v", now.tab);
  choose({ tab: now.tab, ...(now.method && { method: now.method }) });
});
other.addEventListener("click", () => choose({ model: now.other }));

// Whatever is owed is asked for once it can be seen; a tab that is not open has no size.
new IntersectionObserver((entries) => {
  seen = entries[entries.length - 1].isIntersecting;
  if (seen && owed) ask(now ? now.step : opening());
}, { rootMargin: "300px" }).observe(root);

function dot(name, step) {
  const button = make("button", "viz-dot");
  button.type = "button";
  button.title = name;
  button.setAttribute("aria-label", `${step + 1}. ${name}`);
  if (step === now.step) button.setAttribute("aria-current", "step");
  button.addEventListener("click", () => go(step));
  return button;
}

// A map on the photo with its colour bar, or a still.
async function drawn(picture, ground) {
  const figure = make("figure"), caption = make("figcaption", "", picture.caption);
  if (picture.picture) {
    const image = make("img");
    image.src = picture.picture;
    image.alt = picture.caption;
    figure.append(image, caption);
    return figure;
  }
  const canvas = make("canvas"), scale = make("div", "viz-legend"), { rows, columns, at } = unpack(picture.map);
  const { photo: source, width, height } = picture.photo ? picture : ground;
  Object.assign(canvas, { width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", picture.caption);
  const photo = picture.bare ? null : await pixelsOf(source, width, height);
  paint(canvas, photo, { ...picture, values: at(0), rows, columns }, 0.8);
  if (picture.frame.length) framed(canvas, picture.frame);
  legend(scale, picture.palette, picture.limits, picture.signed);
  figure.append(canvas, caption, scale);
  return figure;
}

function framed(canvas, [y0, x0, y1, x1]) {
  const pen = canvas.getContext("2d"), { width, height } = canvas;
  for (const [colour, line] of [["#000", 5], ["#fff", 2.5]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = line;
    pen.strokeRect(x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height);
  }
}

show(async (value, current) => {
  if (value.empty) {
    now = null;
    busy.textContent = value.empty;
    body.hidden = top_.hidden = true;
    return root.removeAttribute("aria-busy");
  }
  if (value.pending || value.step === undefined) {
    owed = true;
    if (seen) ask(value.step ?? opening());
    return;
  }
  const figures = await Promise.all(value.pictures.map((one) => drawn(one, value.ground)));
  if (!current()) return;
  now = value;
  const { labels, step, titles } = value, dotted = dots.contains(document.activeElement);
  where.textContent = labels.step;
  dots.setAttribute("aria-label", labels.steps);
  dots.replaceChildren(...titles.map(dot));
  title.textContent = titles[step];
  words.replaceChildren(...value.paragraphs.map((text) => make("p", "", text)));
  pictures.replaceChildren(...figures);
  pictures.dataset.columns = value.columns;
  code.hidden = !value.code;
  codeTitle.textContent = labels.code;
  lines.textContent = value.code;
  see.textContent = labels.see;
  other.textContent = labels.other;
  other.hidden = !value.other;
  back.textContent = labels.previous;
  next.textContent = `${labels.next}: ${titles[step + 1]}`;
  back.disabled = step === 0;
  next.hidden = step === titles.length - 1;
  busy.textContent = "";
  body.hidden = top_.hidden = false;
  root.removeAttribute("aria-busy");
  root.dataset.step = step;
  place("s", step ? step + 1 : null);
  if (!moved) return;
  moved = false;
  if (dotted) dots.children[step].focus();
  else title.focus({ preventScroll: true });
  if (root.getBoundingClientRect().top < 0) root.scrollIntoView({ block: "start" });
});
