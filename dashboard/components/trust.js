// @ts-check

// How far the map above can be trusted: three bars that fill while it is measured, each with its sentence. A stop shows
// here at once; the server stops after the batch that it is computing.

/** @typedef {{ name: string, share: number | null, text: string, sentence: string }} TrustPart */
/**
 * @typedef {{ state?: string, turn?: number, step?: boolean, parts?: TrustPart[], notes?: string[], reasons?: string[],
 *   begin?: boolean, why?: string, heading?: string, caveat?: string, help?: string, help_label?: string }} TrustValue
 */

const heading = createElement("h3", "viz-trust-heading");
const help = /** @type {HTMLAnchorElement} */ (createElement("a", "viz-help"));
const list = createElement("ul", "viz-trust-parts");
const notes = createElement("ul", "viz-notes");
const button = createButton("viz-trust-button");
const caveat = createElement("p", "viz-caveat");
const doubts = createElement("details", "viz-doubts");
const doubtsHeading = createElement("summary");
const doubtList = createElement("ul");
doubts.append(doubtsHeading, doubtList);
help.target = "_blank";
help.rel = "noopener";
help.textContent = "?";
caveat.setAttribute("role", "status"); // it is shown when the measurement ends
root.append(heading, help, button, list, notes, caveat, doubts);
let state = "";
let turn = 0; // counts the maps whose bars were shown
let wasStopped = false; // a step that was under way at the stop still arrives

button.addEventListener("click", () => {
  if (state !== "running") return starter.start();
  trigger("stop");
  wasStopped = true;
  state = "stopped";
  root.dataset.state = state;
  button.textContent = translate("Measure again");
});

const starter = createStarter(() => {
  wasStopped = false;
  state = "running";
  root.dataset.state = state;
  button.textContent = translate("Stop");
  trigger("submit");
});

/**
 * @param {TrustPart} part
 * @returns {HTMLLIElement}
 */
function createPart(part) {
  const item = /** @type {HTMLLIElement} */ (createElement("li"));
  const name = createElement("span", "viz-trust-name");
  const bar = createElement("meter");
  const number = createElement("span", "viz-trust-number");
  const sentence = createElement("p", "viz-trust-sentence");
  name.textContent = part.name;
  bar.setAttribute("aria-label", part.name);
  bar.value = part.share ?? 0;
  item.classList.toggle("viz-unmeasured", part.share === null);
  number.textContent = part.text || "–";
  sentence.textContent = part.sentence;
  sentence.hidden = !part.sentence;
  item.append(name, bar, number, sentence);
  return item;
}

/** @param {TrustValue} value */
function draw(value) {
  starter.cancel();
  state = value.state || "";
  root.hidden = !state;
  root.dataset.state = state;
  if (!state) return;
  heading.textContent = value.heading || "";
  help.hidden = !value.help;
  if (value.help) help.href = value.help;
  help.setAttribute("aria-label", value.help_label || "");
  list.replaceChildren(...(value.parts || []).map(createPart));
  notes.replaceChildren(...(value.notes || []).map((note) => createElement("li", "", note)));
  notes.hidden = !value.notes?.length;
  caveat.textContent = value.caveat || "";
  caveat.hidden = state !== "done";
  doubts.hidden = !value.reasons?.length;
  doubtsHeading.textContent = value.why || "";
  doubtList.replaceChildren(...(value.reasons || []).map((text) => createElement("li", "", text)));
  button.hidden = state === "done";
  button.textContent = state === "running" ? translate("Stop") : translate("Measure");
  if (value.begin) starter.start();
}

onValueChange((value) => {
  if (value.step && (value.turn !== turn || (wasStopped && value.state === "running"))) return;
  turn = value.turn || 0;
  wasStopped = false;
  draw(value);
});
