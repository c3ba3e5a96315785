// Small maps side by side, each a button: the methods to choose from, or the channels of a layer. What a click chooses is
// called as props.chooses says.
const heading = make("h2"), grid = make("div", "viz-tiles");
grid.setAttribute("role", "group");
root.append(heading, grid);

function tile(item, of) {
  const button = make("button", "viz-tile");
  button.type = "button";
  button.dataset.key = item.key;
  button.addEventListener("click", () => choose({ [props.chooses]: item.key, of }, props.desk));
  return button;
}

function draw(button, item, value, photo) {
  button.title = item.hint || item.name;
  button.setAttribute("aria-pressed", item.key === value.chosen);
  const picture = item.map ? make("canvas") : make("span", "viz-not-computed", say("runs when chosen"));
  if (item.map) {
    const { rows, columns, at } = unpack(item.map), { limits, signed, smooth } = item;
    const palette = signed ? value.signedPalette : value.palette;
    picture.width = value.width || columns;
    picture.height = value.height || rows;
    picture.setAttribute("aria-hidden", "true");
    paint(picture, photo, { values: at(0), rows, columns, box: photo && value.box, limits, signed, smooth, palette }, 0.85);
  }
  button.replaceChildren(picture, make("span", "viz-name", item.name), ...(item.note ? [make("span", "viz-note", item.note)] : []));
}

show(async (value, current) => {
  const photo = await pixelsOf(value.photo, value.width, value.height);
  if (!current()) return;
  heading.textContent = value.heading || "";
  heading.hidden = !value.heading;
  grid.setAttribute("aria-label", value.label || "");
  grid.dataset.size = value.size || "large";
  const { of } = value, key = (item) => `${of} ${item.key}`; // channel 3 of another layer is another channel
  keep(grid, value.items || [], key, (item) => tile(item, of), (button, item) => draw(button, item, value, photo));
});
