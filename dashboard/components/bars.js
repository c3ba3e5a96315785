// The likeliest classes as buttons: a click makes one the class that every picture is about, a click with shift or on
// its "vs" the one that class is set against. The digits 1 to 9 do the same.
// The doubt is a place of its own that stays, as screen readers tell only what changes inside one they know.
const doubt = make("p", "viz-ood-note"), list = make("div", "viz-list"), few = make("p", "viz-class-note");
doubt.setAttribute("role", "status");
list.setAttribute("role", "group");
list.setAttribute("aria-label", say("Likeliest classes; choose the one to explain"));
root.replaceChildren(doubt, list, few);

const tell = (item, contrast) => choose({ [contrast ? "against" : "target"]: item.index, of: props.value.model });

function row(item) {
  const line = make("div", "viz-row"), button = make("button", "viz-class"), rival = make("label", "viz-vs");
  const box = make("input"); // to tick, not a button: there is a state to be told, and the bar beside it is a button already
  button.type = "button";
  button.dataset.index = box.dataset.rival = item.index;
  button.append(make("span", "viz-name"), make("span", "viz-share"), make("span", "viz-fill"));
  button.addEventListener("click", (event) => tell(item, event.shiftKey && item.index !== props.value.target));
  box.type = "checkbox";
  box.addEventListener("change", () => tell(item, true));
  rival.append(box, make("span", "", "vs"));
  line.append(button);
  return Object.assign(line, { rival, box });
}

function draw(line, item, value) {
  const button = line.firstChild, [name, share, fill] = button.children, { rival, box } = line;
  const chosen = item.index === value.target, target = value.rows.find((one) => one.index === value.target);
  const facts = { class: target?.name, other: item.name };
  line.classList.toggle("viz-contrast", item.index === value.against);
  button.title = item.label;
  button.setAttribute("aria-pressed", chosen);
  name.textContent = item.name;
  share.textContent = item.share;
  fill.style.width = Math.max(item.probability * 100, 0.6) + "%";
  if (chosen) rival.remove(); // a class has no box beside it to be set against itself
  else if (!rival.parentNode) line.append(rival);
  rival.title = say("Why {class} and not {other}? (shift-click does the same)", facts);
  box.checked = item.index === value.against;
  box.setAttribute("aria-label", say("Why {class} and not {other}?", facts));
}

document.addEventListener("keydown", (event) => {
  const digit = /^(Digit|Numpad)([1-9])$/.exec(event.code);
  if (!digit || event.ctrlKey || event.altKey || event.metaKey || !root.isConnected) return;
  if (event.target.closest("input:not([type=checkbox], [type=range]), textarea, select, [contenteditable]")) return;
  const item = (props.value?.rows || [])[digit[2] - 1];
  if (item) tell(item, event.shiftKey && item.index !== props.value.target);
});

show((value) => {
  const { rival } = document.activeElement?.dataset ?? {}, held = root.contains(document.activeElement) && rival;
  if (doubt.textContent !== (value.doubt || "")) doubt.textContent = value.doubt || "";
  keep(list, value.rows || [], (item) => `${value.model} ${item.index}`, row, (line, item) => draw(line, item, value));
  few.textContent = value.note || "";
  few.hidden = !value.note;
  if (held === String(value.target)) list.querySelector(`[data-index="${held}"]`).focus(); // its box is gone now
});
