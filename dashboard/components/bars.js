// The likeliest classes as buttons: a click makes one the class that every picture is about, a click with shift or on
// its "vs" the one that class is set against. The digits 1 to 9 do the same.
// The doubt is a place of its own that stays, as screen readers tell only what changes inside one they know.
const doubt = make("p", "viz-doubt"), list = make("div", "viz-list");
doubt.setAttribute("role", "status");
list.setAttribute("role", "group");
list.setAttribute("aria-label", say("Likeliest classes; choose the one to explain"));
root.replaceChildren(doubt, list);

const tell = (item, contrast) => choose({ [contrast ? "against" : "target"]: item.index, of: props.value.model });

// A box to tick, not a button: there is a state to be told, and the bar beside it is a button already.
function rival(item, value) {
  const label = make("label", "viz-vs"), box = make("input"), target = value.rows.find((one) => one.index === value.target);
  box.type = "checkbox";
  box.checked = item.index === value.against;
  box.dataset.rival = item.index;
  const facts = { class: target?.name, other: item.name };
  box.setAttribute("aria-label", say("Why {class} and not {other}?", facts));
  label.title = say("Why {class} and not {other}? (shift-click does the same)", facts);
  box.addEventListener("change", () => tell(item, true));
  label.append(box, make("span", "", "vs"));
  return label;
}

function row(item, value) {
  const line = make("div", "viz-row"), button = make("button", "viz-class"), chosen = item.index === value.target;
  button.type = "button";
  button.title = item.label;
  button.setAttribute("aria-pressed", chosen);
  button.dataset.index = item.index;
  const fill = make("span", "viz-fill");
  fill.style.width = Math.max(item.probability * 100, 0.6) + "%";
  button.append(make("span", "viz-name", item.name), make("span", "viz-share", item.share), fill);
  button.addEventListener("click", (event) => tell(item, event.shiftKey && !chosen));
  line.classList.toggle("viz-rival", item.index === value.against);
  line.append(button, ...(chosen ? [] : [rival(item, value)]));
  return line;
}

document.addEventListener("keydown", (event) => {
  const digit = /^(Digit|Numpad)([1-9])$/.exec(event.code);
  if (!digit || event.ctrlKey || event.altKey || event.metaKey || !root.isConnected) return;
  if (event.target.closest("input:not([type=checkbox], [type=range]), textarea, select, [contenteditable]")) return;
  const item = (props.value?.rows || [])[digit[2] - 1];
  if (item) tell(item, event.shiftKey && item.index !== props.value.target);
});

show((value) => {
  const active = root.contains(document.activeElement) ? document.activeElement : null;
  const held = ["index", "rival"].find((kind) => active?.dataset[kind]), which = held && active.dataset[held];
  if (doubt.textContent !== (value.doubt || "")) doubt.textContent = value.doubt || "";
  list.replaceChildren(...(value.rows || []).map((item) => row(item, value)));
  if (value.note) list.append(make("p", "viz-few", value.note));
  if (held) (root.querySelector(`[data-${held}="${which}"]`) || root.querySelector(`[data-index="${which}"]`))?.focus();
});
