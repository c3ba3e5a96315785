// Small maps side by side, each a button: the methods to choose from, or the channels of a layer. What a click chooses is
// called as props.chooses says.
function tile(item, value, photo, palette) {
  const button = make("button", "viz-tile");
  button.type = "button";
  button.dataset.key = item.key;
  button.title = item.hint || item.name;
  button.setAttribute("aria-pressed", item.key === value.chosen);
  if (item.map) {
    const canvas = make("canvas"), { rows, columns, at } = unpack(item.map);
    canvas.width = value.width || columns;
    canvas.height = value.height || rows;
    canvas.setAttribute("aria-hidden", "true");
    const { limits, signed, smooth } = item;
    paint(canvas, photo, { values: at(0), rows, columns, box: photo && value.box, limits, signed, smooth, palette }, 0.85);
    button.append(canvas);
  } else {
    button.append(make("span", "viz-later", say("runs when chosen")));
  }
  button.append(make("span", "viz-name", item.name));
  if (item.note) button.append(make("span", "viz-note", item.note));
  button.addEventListener("click", () => choose({ [props.chooses]: item.key, of: value.of }, props.desk));
  return button;
}

show(async (value, current) => {
  const photo = await pixelsOf(value.photo, value.width, value.height);
  if (!current()) return;
  const held = root.contains(document.activeElement) && document.activeElement.dataset.key;
  const grid = make("div", "viz-tiles"), heading = make("h2", "", value.heading);
  grid.setAttribute("role", "group");
  grid.setAttribute("aria-label", value.label || "");
  grid.dataset.size = value.size || "large";
  grid.append(
    ...(value.items || []).map((item) => tile(item, value, photo, item.signed ? value.signedPalette : value.palette)),
  );
  root.replaceChildren(...(value.heading ? [heading] : []), grid);
  if (held) root.querySelector(`[data-key="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
});
