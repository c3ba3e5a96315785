// @ts-check

// Ablate a unit and compare the predictions; ablated units are listed, and restored one by one or all at once.

/** @typedef {{ name: string, probability: number, share: string, target: boolean }} PredictionRow */
/** @typedef {{ heading: string, rows: PredictionRow[] }} PredictionList */

const QUEUE = "inside-event-queue";
const controls = createElement("div", "viz-ablation-controls");
const toggle = createButton("viz-ablation-toggle");
const chips = createElement("div", "viz-chips");
const effect = createElement("p", "viz-effect");
const comparison = createElement("div", "viz-comparison");
effect.setAttribute("role", "status");
chips.setAttribute("role", "group");
chips.setAttribute("aria-label", translate("Units that are switched off; click one to switch it on again"));
controls.append(toggle, chips);
root.append(controls, effect, comparison);
root.hidden = true;
toggle.addEventListener("click", () => emitChoice({ switch: "toggle" }, QUEUE));

/**
 * @param {string} text
 * @param {string} unit "all", or the unit's place in the list
 * @param {string} label
 */
function createChip(text, unit, label) {
  const chip = createButton("viz-chip", text);
  chip.title = label;
  chip.setAttribute("aria-label", label);
  chip.addEventListener("click", () => emitChoice({ switch: unit }, QUEUE));
  return chip;
}

/** @param {PredictionList} predictions */
function createPredictionList({ heading, rows }) {
  const section = createElement("section");
  const list = createElement("ol");
  for (const row of rows) {
    const item = createElement("li", "viz-bar-row");
    const fill = createElement("span", "viz-fill");
    fill.style.width = `${Math.max(row.probability * 100, 0.6)}%`;
    if (row.target) item.dataset.target = "";
    item.append(createElement("span", "viz-name", row.name), createElement("span", "viz-share", row.share), fill);
    list.append(item);
  }
  section.append(createElement("h3", "", heading), list);
  return section;
}

/** @param {{ label: string, off?: string[], effect?: string, comparison: PredictionList[] }} value */
function draw(value) {
  root.hidden = !value.label;
  if (root.hidden) return;
  const units = value.off || [];
  const hadFocus = root.contains(document.activeElement);
  toggle.textContent = value.label;
  chips.replaceChildren(
    ...units.map((name, i) => createChip(`${name} ×`, String(i), translate("Switch {name} on again", { name }))),
  );
  if (units.length > 1) chips.append(createChip(translate("Switch all on"), "all", translate("Switch all on again")));
  effect.textContent = value.effect || "";
  comparison.replaceChildren(...value.comparison.map(createPredictionList));
  if (hadFocus && !root.contains(document.activeElement)) toggle.focus({ preventScroll: true });
}

onValueChange(draw);
