// Curves over epochs. Drawn anew for every width, so that the letters keep their size on a phone.
const figure = make("figure"), readout = make("output", "viz-values"), words = make("figcaption");
const HEIGHT = 280, TOP = 26, BOTTOM = 36, LEFT = 34, LINE = 16;
const pen = make("canvas").getContext("2d");
let now = null, svg = null, at = null;

function shape(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const round = (value) => value.toFixed(1);
const widthOf = (text) => {
  pen.font = "700 13px " + getComputedStyle(root).fontFamily;
  return pen.measureText(text).width;
};

// At a curve's end: its name and last value, in two lines where there is little room.
function endings(lines, narrow) {
  return lines.filter((line) => !line.faint).map((line) => {
    const last = round(line.y[line.y.length - 1]), space = line.name.indexOf(" ");
    const name = narrow && space > 0 ? [line.name.slice(0, space), line.name.slice(space + 1)] : [line.name];
    name[name.length - 1] += " " + last;
    return { line, rows: name };
  });
}

// The same three colours have a mark of their own each: a disc, a square and a diamond.
function mark(colour, x, y) {
  if (colour === 0) return shape("circle", { cx: x, cy: y, r: 4 });
  const turn = colour === 2 ? `rotate(45 ${x} ${y})` : "";
  return shape("rect", { x: x - 3.5, y: y - 3.5, width: 7, height: 7, transform: turn });
}

function drawing(width) {
  const narrow = width < 520, ends = endings(now.lines, narrow), [xs, ys] = now.ticks;
  const room = Math.max(...ends.flatMap((end) => end.rows.map(widthOf))) + 18;
  const first = Math.min(...now.lines.map((line) => line.x[0])), last = Math.max(...now.lines.map((line) => line.x.at(-1)));
  const [low, high] = [ys[0], ys.at(-1)], right = width - room, foot = HEIGHT - BOTTOM;
  const x = (value) => LEFT + ((value - first) / (last - first || 1)) * (right - LEFT);
  const y = (value) => foot - ((value - low) / (high - low)) * (foot - TOP);
  svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": now.alt, tabindex: 0 });

  for (const tick of ys) {
    svg.append(shape("line", { class: "viz-grid-line", x1: LEFT, x2: right, y1: y(tick), y2: y(tick) }));
    svg.append(shape("text", { class: "viz-tick", x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, tick));
  }
  for (const tick of xs.filter((tick) => tick >= first && tick <= last)) {
    svg.append(shape("text", { class: "viz-tick", x: x(tick), y: foot + 18, "text-anchor": "middle" }, tick));
  }
  svg.append(shape("text", { class: "viz-axis", x: 0, y: 12 }, now.axes[1]));
  svg.append(shape("text", { class: "viz-axis", x: right, y: HEIGHT - 3, "text-anchor": "end" }, now.axes[0]));
  for (const { at, name } of now.marks) {
    svg.append(shape("line", { class: "viz-annotation", x1: x(at), x2: x(at), y1: TOP - 6, y2: foot }));
    svg.append(shape("text", { class: "viz-tick", x: x(at) + 6, y: TOP - 2 }, name));
  }
  for (const line of now.lines) {
    const path = line.x.map((value, i) => `${i ? "L" : "M"}${round(x(value))} ${round(y(line.y[i]))}`).join("");
    const kind = `viz-curve viz-colour-${line.colour}` + (line.dashed ? " viz-dashed" : "") + (line.faint ? " viz-faint" : "");
    svg.append(shape("path", { class: kind, d: path }));
  }
  // Names that would lie on each other move apart, the upper one keeping its place.
  let free = 0;
  for (const end of ends.sort((a, b) => y(a.line.y.at(-1)) - y(b.line.y.at(-1)))) {
    end.top = Math.max(y(end.line.y.at(-1)) - ((end.rows.length - 1) * LINE) / 2, free);
    free = end.top + end.rows.length * LINE + 3;
  }
  for (let i = ends.length - 1, floor = foot + 8; i >= 0; i--) {
    ends[i].top = Math.min(ends[i].top, floor - (ends[i].rows.length - 1) * LINE);
    floor = ends[i].top - LINE - 3;
  }
  for (const { line, rows, top } of ends) {
    const name = shape("text", { class: `viz-curve-name viz-colour-${line.colour}`, x: right + 12 });
    name.append(...rows.map((row, i) => shape("tspan", { x: right + 12, y: top + 4 + i * LINE }, row)));
    const disc = mark(line.colour, x(line.x.at(-1)), y(line.y.at(-1)));
    disc.setAttribute("class", `viz-marker viz-colour-${line.colour}`);
    svg.append(disc, name);
  }
  const rule = shape("line", { class: "viz-crosshair", y1: TOP - 6, y2: foot, visibility: "hidden" });
  svg.append(rule);

  const epochs = [...new Set(now.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const read = (epoch) => {
    at = epoch;
    rule.setAttribute("visibility", epoch === null ? "hidden" : "visible");
    if (epoch === null) return (readout.textContent = "");
    rule.setAttribute("x1", x(epoch));
    rule.setAttribute("x2", x(epoch));
    const said = now.lines.filter((line) => !line.faint && line.x.includes(epoch));
    readout.textContent = `${now.axes[0]} ${epoch}: ` + said.map((l) => `${l.name} ${round(l.y[l.x.indexOf(epoch)])}`).join(", ");
  };
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect(), place = ((event.clientX - frame.left) / frame.width) * width;
    read(epochs.reduce((a, b) => (Math.abs(x(b) - place) < Math.abs(x(a) - place) ? b : a)));
  });
  svg.addEventListener("pointerleave", () => read(null));
  svg.addEventListener("blur", () => read(null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = at === null ? (step > 0 ? 0 : epochs.length - 1) : epochs.indexOf(at) + step;
    read(epochs[Math.min(Math.max(next, 0), epochs.length - 1)]);
  });
  return svg;
}

function redraw() {
  const width = Math.round(root.clientWidth);
  if (!now || !width || svg?.dataset.width === String(width)) return; // a closed tab has no width yet
  const drawn = drawing(width);
  drawn.dataset.width = width;
  readout.textContent = "";
  figure.replaceChildren(drawn, readout, words);
}

root.append(figure);
new ResizeObserver(redraw).observe(root);
show((value) => {
  now = value.lines ? value : null;
  svg = at = null;
  figure.hidden = !now;
  if (!now) return figure.replaceChildren();
  words.textContent = now.caption;
  redraw();
});
