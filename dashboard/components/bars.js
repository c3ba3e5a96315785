// @ts-check

// The most probable classes as buttons. A click selects the target class; a click with shift, or the box "vs", selects
// the class to contrast it with. The digits 1 to 9 do the same.

/** @typedef {{ index: number, label: string, name: string, probability: number, share: string }} ClassRow */
/**
 * @typedef {object} BarsValue
 * @property {string} model
 * @property {number} target
 * @property {number | null} against
 * @property {string} note
 * @property {string} groups
 * @property {string} oodNote
 * @property {ClassRow[]} rows
 */
/** @typedef {HTMLDivElement & { contrast: HTMLLabelElement, box: HTMLInputElement }} ClassLine */

// A screen reader announces changes only inside a status element that was there before, so this one always stays.
const oodNote = createElement("p", "viz-ood-note");
const list = createElement("div", "viz-list");
const groupNote = createElement("p", "viz-class-note");
const classNote = createElement("p", "viz-class-note");
oodNote.setAttribute("role", "status");
list.setAttribute("role", "group");
list.setAttribute("aria-label", translate("Likeliest classes; choose the one to explain"));
root.replaceChildren(oodNote, list, groupNote, classNote);

/**
 * @param {ClassRow} row
 * @param {boolean} asContrast
 */
const chooseClass = (row, asContrast) =>
  emitChoice({ [asContrast ? "against" : "target"]: row.index, of: props.value.model });

/**
 * @param {ClassRow} row
 * @returns {ClassLine}
 */
function createLine(row) {
  const line = createElement("div", "viz-row");
  const button = createButton("viz-class");
  const contrast = createElement("label", "viz-vs");
  const box = createElement("input"); // a checkbox and not a button, as it has a state
  button.dataset.index = box.dataset.against = String(row.index);
  button.append(
    createElement("span", "viz-name"),
    createElement("span", "viz-share"),
    createElement("span", "viz-fill"),
  );
  button.addEventListener("click", (event) => chooseClass(row, event.shiftKey && row.index !== props.value.target));
  box.type = "checkbox";
  box.addEventListener("change", () => chooseClass(row, true));
  contrast.append(box, createElement("span", "", "vs"));
  line.append(button);
  return Object.assign(line, { contrast, box });
}

/**
 * @param {ClassLine} line
 * @param {ClassRow} row
 * @param {BarsValue} value
 */
function updateLine(line, row, value) {
  const button = /** @type {HTMLButtonElement} */ (line.firstElementChild);
  const [name, share, fill] = /** @type {HTMLCollectionOf<HTMLElement>} */ (button.children);
  const { contrast, box } = line;
  const isTarget = row.index === value.target;
  const isComplement = row.index < 0; // of a single label: no output is its own
  const target = value.rows.find(({ index }) => index === value.target);
  const facts = { class: target?.name, other: row.name };
  line.classList.toggle("viz-contrast", row.index === value.against);
  button.title = row.label;
  button.setAttribute("aria-pressed", String(isTarget));
  name.textContent = row.name;
  share.textContent = row.share;
  fill.style.width = `${Math.max(row.probability * 100, 0.6)}%`;
  button.disabled = isComplement;
  if (isTarget || isComplement)
    contrast.remove(); // a class is not contrasted with itself
  else if (!contrast.parentNode) line.append(contrast);
  contrast.title = translate("Why {class} and not {other}? (shift-click does the same)", facts);
  box.checked = row.index === value.against;
  box.setAttribute("aria-label", translate("Why {class} and not {other}?", facts));
}

document.addEventListener("keydown", (event) => {
  const digit = /^(Digit|Numpad)([1-9])$/.exec(event.code);
  if (!digit || event.ctrlKey || event.altKey || event.metaKey || !root.isConnected) return;
  const typing = "input:not([type=checkbox], [type=range]), textarea, select, [contenteditable]";
  if (event.target instanceof Element && event.target.closest(typing)) return;
  const row = (props.value?.rows || [])[Number(digit[2]) - 1];
  if (row && row.index >= 0) chooseClass(row, event.shiftKey && row.index !== props.value.target);
});

/** @param {BarsValue} value */
function draw(value) {
  const { activeElement } = document;
  const focusedBox =
    activeElement instanceof HTMLElement && root.contains(activeElement) ? activeElement.dataset.against : undefined;
  if (oodNote.textContent !== (value.oodNote || "")) oodNote.textContent = value.oodNote || "";
  updateKeyedList(
    list,
    value.rows || [],
    (row) => `${value.model} ${row.index}`,
    createLine,
    (line, row) => updateLine(line, row, value),
  );
  for (const [element, text] of /** @type {const} */ ([
    [groupNote, value.groups],
    [classNote, value.note],
  ])) {
    element.textContent = text || "";
    element.hidden = !text;
  }
  if (focusedBox === String(value.target)) {
    /** @type {HTMLElement} */ (list.querySelector(`[data-index="${focusedBox}"]`)).focus(); // its box is gone now
  }
}

onValueChange(draw);
