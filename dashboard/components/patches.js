// Point at a patch and see its map: attention by layer and head, or any other map per patch. No call to the server.
//
// value.maps holds one map per (layer, head, token); value.names are the tokens before the first patch ("class").
// Where all heads of all layers would be too many bytes, value.maps holds their means, and value.heads those of the one
// layer value.of; the heads of another layer are asked for once it was looked at for a moment.
const { main, side, stage, says } = gridOf(say("patch grid"));
const tools = make("div", "viz-tools"), scale = make("div", "viz-legend"), tokens = make("div", "viz-chips");
const panels = [panel(), panel()];
const PINS = 2; // more than two pictures side by side nobody compares
let now = null;

tokens.setAttribute("role", "group");
tokens.setAttribute("aria-label", say("Tokens without a position on the photo, and pinned patches"));
stage.append(...panels.map((one) => one.frame));
tools.append(scale, tokens);
main.append(stage, tools, says);
side.append(...multiples.nodes);

// One picture of the photo, with a frame around the patch it is about and one around the patch under the mouse.
function panel() {
  const frame = make("div", "viz-panel"), canvas = make("canvas"), own = make("div", "viz-cursor");
  const over = make("div", "viz-cursor viz-hovered"), name = make("span", "viz-token-name");
  canvas.setAttribute("role", "img");
  frame.append(canvas, own, over, name);
  return { frame, canvas, own, over, name };
}

const shape = () => now.maps.shape; // [layers, heads or 1, tokens, rows, columns]
const depth = () => shape()[0];
const headCount = () => (now.value.heads ? now.value.heads.shape[0] : shape()[1]);
const prefix = () => now.value.names.length;
const placeOf = (token) => token < prefix() ? null : [Math.floor((token - prefix()) / now.maps.columns), (token - prefix()) % now.maps.columns];
const tokenOf = ([row, column]) => prefix() + row * now.maps.columns + column;
const focus = () => now.pins.at(-1) ?? now.at;

// The map of a token in a layer; the mean over the heads for head -1; nothing while a layer's heads are on their way.
function mapOf(layer, head, token) {
  const [, count, all] = shape(), index = (h) => (layer * count + h) * all + token;
  if (head >= 0 && now.value.heads) return now.heads.get(layer)?.at(head * all + token);
  if (head >= 0 || count === 1) return now.maps.at(index(Math.max(head, 0)));
  const mean = new Float32Array(now.maps.at(index(0)));
  for (let h = 1; h < count; h++) now.maps.at(index(h)).forEach((value, i) => (mean[i] += value));
  return mean.map((value) => value / count);
}

const shownMap = (token) => mapOf(now.layer, now.head, token) || mapOf(now.layer, -1, token);

function draw(node, photo, values, limits, opacity, signed = now.value.signed, palette = now.value.palette) {
  const { rows, columns } = now.maps, box = photo ? now.value.box : null;
  paint(node, photo, { values, rows, columns, box, limits, signed, smooth: false, palette }, opacity);
}

function frame(node, token) {
  const patch = token === null ? null : placeOf(token);
  node.hidden = !patch;
  if (!patch) return;
  const { rows, columns } = now.maps, [top, left, bottom, right] = now.value.box;
  const tall = (bottom - top) / rows, wide = (right - left) / columns, y = top + patch[0] * tall, x = left + patch[1] * wide;
  lay(node, [y, x, y + tall, x + wide]);
}

function nameOf(token) {
  const patch = placeOf(token);
  return patch ? say("row {row}, column {column}", { row: patch[0] + 1, column: patch[1] + 1 })
    : say("{name} token", { name: now.value.names[token] });
}

const SAYS = {
  looks: {
    patch: "The patch in {from} attends most to {to} ({value}).",
    token: "The {from} attends most to {to} ({value}).",
    patchIn: "The patch in {from} attends most to {to} ({value}) in layer {layer}, {head}.",
    tokenIn: "The {from} attends most to {to} ({value}) in layer {layer}, {head}.",
  },
  like: { patch: "The position embedding of the patch in {from} is most similar to that of {to} ({value})." },
};

// What a token's picture shows, and what it says about the patch under the mouse.
function sentence(token, values) {
  const { value, layer, head } = now, own = token - prefix();
  const best = values.reduce((top, v, i) => (i !== own && (top < 0 || v > values[top]) ? i : top), -1);
  const facts = { from: nameOf(token), to: nameOf(best + prefix()), value: number(values[best]), layer: layer + 1 };
  facts.head = head < 0 ? say("mean of all heads") : say("head {number}", { number: head + 1 });
  const subject = placeOf(token) ? "patch" : "token", told = say(SAYS[value.says][subject + (depth() > 1 ? "In" : "")], facts);
  if (now.at === null || now.at === token || !placeOf(now.at) || !now.pins.length) return told;
  return `${told} ${say("Here, in {place}: {value}.", { place: nameOf(now.at), value: number(values[now.at - prefix()]) })}`;
}

function redraw() {
  const { value, layer, head, pins } = now, shown = pins.length ? pins : [now.at];
  const maps = shown.map(shownMap), limits = limitsOf(joined(maps), value.signed);
  const told = shown.map((token, i) => sentence(token, maps[i]));
  stage.dataset.panels = shown.length;
  panels.forEach((one, i) => {
    one.frame.hidden = i >= shown.length;
    if (one.frame.hidden) return;
    draw(one.canvas, now.photo, maps[i], limits, 0.8);
    one.canvas.setAttribute("aria-label", told[i]);
    one.name.textContent = shown.length > 1 ? nameOf(shown[i]) : "";
    one.own.classList.toggle("viz-pinned", pins.includes(shown[i]));
    frame(one.own, shown[i]);
    frame(one.over, pins.length && !pins.includes(now.at) ? now.at : null);
  });
  legend(scale, value.palette, limits, value.signed);
  says.replaceChildren(...told.map((text) => make("span", "", text)));
  stage.dataset.state = [layer, head, now.at, ...pins].join();
  chips();
  side.hidden = depth() * headCount() === 1;
  if (!side.hidden) multiples.draw();
}

// A chip for each token without a place, and one for each pinned patch, which lets go of it.
function chips() {
  const wanted = [...now.value.names.keys(), ...now.pins.filter(placeOf)];
  while (tokens.children.length > wanted.length) tokens.lastChild.remove();
  wanted.forEach((token, i) => {
    const chip = tokens.children[i] || tokens.appendChild(make("button", "viz-chip"));
    chip.type = "button";
    chip.dataset.token = token;
    chip.textContent = placeOf(token) ? nameOf(token) + " ×" : nameOf(token);
    chip.setAttribute("aria-pressed", now.pins.includes(token));
    chip.setAttribute("aria-label", say(now.pins.includes(token) ? "Unpin {name}" : "Pin {name}", { name: nameOf(token) }));
    chip.classList.toggle("viz-current", !now.pins.length && now.at === token);
  });
}

let drawing = 0, waiting = 0;
function go(change) {
  Object.assign(now, change);
  keep(change);
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(redraw);
}

// A person's layer, head and pins stand in the address, counted from 1 as on the page; what is usual is left out.
function keep({ layer, head, pins }) {
  if (!now.value.key) return;
  if (layer !== undefined) place("l", layer === depth() - 1 ? null : layer + 1);
  if (head !== undefined) place("h", head < 0 ? null : head + 1);
  if (pins) place("p", pins.map(placeOf).filter(Boolean).map((patch) => patch.map((i) => i + 1).join()).join(";"));
}

// What the address asks for, as far as there is such a layer, head or patch.
function linked() {
  const among = (text, count) => (/^\d+$/.test(text ?? "") && text >= 1 && text <= count ? text - 1 : null);
  const patches = (placed("p") ?? "").split(";").map((pair) => pair.split(","));
  const found = patches.map(([row, column]) => [among(row, now.maps.rows), among(column, now.maps.columns)]);
  const pins = [...new Set(found.filter((patch) => !patch.includes(null)).map(tokenOf))].slice(0, PINS);
  const layer = among(placed("l"), depth()) ?? depth() - 1, head = among(placed("h"), headCount()) ?? -1;
  return { layer, head, pins, at: pins.length ? null : now.at };
}

// Another layer. What else on the page follows the layer hears of it; heads that did not come along are asked for.
function turnTo(layer) {
  layer = within(layer, depth());
  go({ layer });
  tell(layer);
}

function tell(layer) {
  document.dispatchEvent(new CustomEvent("viz-layer", { detail: layer }));
  clearTimeout(waiting);
  if (now.value.heads && !now.heads.has(layer)) {
    waiting = setTimeout(() => trigger("select", { index: layer, value: "heads" }), 250);
  }
}

// Pin a token, or let go of it; a third pin takes the place of the second.
function pin(token) {
  const pins = now.pins.includes(token) ? now.pins.filter((one) => one !== token) : [...now.pins.slice(0, PINS - 1), token];
  go({ pins, at: token });
}

function patchAt(event) {
  const one = panels.find(({ canvas }) => canvas.contains(event.target));
  return one ? cellUnder(event, one.canvas, now.value.box, now.maps) : null;
}

stage.addEventListener("pointermove", (event) => {
  const patch = now && event.pointerType === "mouse" && patchAt(event);
  if (patch && tokenOf(patch) !== now.at) go({ at: tokenOf(patch) });
});
stage.addEventListener("click", (event) => {
  const patch = now && patchAt(event);
  if (patch) pin(tokenOf(patch));
});
tokens.addEventListener("pointerover", (event) => {
  const chip = event.pointerType === "mouse" && event.target.closest(".viz-chip");
  if (now && chip) go({ at: Number(chip.dataset.token) });
});
tokens.addEventListener("focusin", (event) => {
  if (now && event.target.matches(":focus-visible")) go({ at: Number(event.target.dataset.token) });
});
tokens.addEventListener("click", (event) => {
  const chip = event.target.closest(".viz-chip");
  if (!now || !chip) return;
  const token = Number(chip.dataset.token);
  pin(token);
  if (placeOf(token)) stage.focus({ preventScroll: true }); // the chip goes with the pin
});
// With something pinned the picture stays, and only what it says of the patch under the mouse goes.
const left = () => now && now.pins.length && now.at !== null && go({ at: null });
stage.addEventListener("pointerleave", left);
tokens.addEventListener("pointerleave", left);

root.addEventListener("keydown", (event) => {
  if (now && event.key === "Escape" && now.pins.length) {
    event.preventDefault();
    return go({ at: now.pins.at(-1), pins: now.pins.slice(0, -1) });
  }
  const turned = LAYERS[event.key];
  if (now && turned) {
    event.preventDefault();
    return turnTo(now.layer + turned);
  }
  const step = STEPS[event.key];
  if (!now || event.target !== stage) return; // Enter on a button is the button's
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return pin(now.at ?? focus());
  }
  if (!step) return;
  event.preventDefault();
  const limit = [now.maps.rows, now.maps.columns], from = placeOf(now.at ?? focus()) || now.value.patch;
  go({ at: tokenOf(from.map((old, i) => within(old + step[i], limit[i]))) });
});

show(async (value, current) => {
  if (!value.maps) {
    root.hidden = true;
    now = null;
    return;
  }
  const photo = await pixelsOf(value.photo, value.width, value.height);
  if (!current()) return;
  const before = now, maps = unpack(value.maps), same = before && value.key && before.value.key === value.key;
  const alike = before && before.maps.shape.join() === maps.shape.join(); // the layer stays when the photo changes
  now = {
    value, photo, maps, heads: same ? before.heads : new Map(), places: value.places && unpack(value.places),
    layer: alike ? before.layer : maps.shape[0] - 1,
    head: alike && before.head < (value.heads || value.maps).shape.at(-4) ? before.head : -1,
    at: value.names.length ? 0 : value.patch[0] * maps.columns + value.patch[1], pins: [],
  };
  if (same) Object.assign(now, { at: before.at, pins: before.pins });
  else if (!before && value.key) Object.assign(now, linked());
  else keep({ pins: now.pins, ...(!alike && { layer: now.layer, head: now.head }) }); // another photo unpins
  if (value.heads) now.heads.set(value.of, unpack(value.heads));
  for (const { canvas } of panels) [canvas.width, canvas.height] = [value.width, value.height];
  multiples.resize();
  stage.style.setProperty("--ratio", value.width / value.height);
  stage.setAttribute("aria-label", value.label);
  root.hidden = false;
  redraw();
  if (!same && depth() > 1) tell(now.layer);
});
