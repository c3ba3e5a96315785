// The likeliest classes as buttons: a click makes one the class that every picture is about.
// The doubt is a place of its own that stays, as screen readers tell only what changes inside one they know.
const doubt = make("p", "viz-doubt"), list = make("div", "viz-list");
doubt.setAttribute("role", "status");
list.setAttribute("role", "group");
list.setAttribute("aria-label", "Likeliest classes; choose the one to explain");
root.replaceChildren(doubt, list);

function row(item, target) {
  const button = make("button", "viz-class");
  const chosen = item.index === target;
  button.type = "button";
  button.title = item.label;
  button.setAttribute("aria-pressed", chosen);
  button.dataset.index = item.index;
  const fill = make("span", "viz-fill");
  fill.style.width = Math.max(item.probability * 100, 0.6) + "%";
  button.append(make("span", "viz-name", item.name), make("span", "viz-share", item.share), fill);
  button.addEventListener("click", () => trigger("select", { index: item.index, value: item.label }));
  return button;
}

show((value) => {
  const held = root.contains(document.activeElement) && document.activeElement.dataset.index;
  if (doubt.textContent !== (value.doubt || "")) doubt.textContent = value.doubt || "";
  list.replaceChildren(...(value.rows || []).map((item) => row(item, value.target)));
  if (value.note) list.append(make("p", "viz-few", value.note));
  if (held) root.querySelector(`[data-index="${held}"]`)?.focus();
});
