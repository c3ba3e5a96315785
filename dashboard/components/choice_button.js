// @ts-check

// A button that emits a choice to the queue of props.queue.

/** @typedef {{ label?: string, choice?: Record<string, unknown>, pressed?: boolean }} ChoiceButtonValue */

const button = createButton("viz-ablation-toggle");
root.append(button);
/** @type {Record<string, unknown>} */
let choice = {};
button.addEventListener("click", () => emitChoice(choice, props.queue));

/** @param {ChoiceButtonValue} value */
function draw(value) {
  root.hidden = !value.label;
  button.textContent = value.label || "";
  button.setAttribute("aria-pressed", String(Boolean(value.pressed)));
  choice = value.choice || {};
}

onValueChange(draw);
