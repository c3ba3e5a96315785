// The kernels as buttons, cut from one tall picture that holds them under each other.
const grid = make("div", "viz-cells"), words = make("p", "viz-caveat");
grid.setAttribute("role", "group");
root.append(grid, words);

function load(address) {
  return new Promise((done) => {
    const image = new Image();
    image.onload = () => done(image);
    image.src = address;
  });
}

show(async (value, current) => {
  root.hidden = !value.picture;
  if (root.hidden) return;
  const image = await load(value.picture);
  if (!current()) return;
  const { naturalWidth: width, naturalHeight: height } = image, step = (height - width) / Math.max(value.count - 1, 1);
  const held = grid.contains(document.activeElement);
  grid.setAttribute("aria-label", value.label);
  words.textContent = value.caption;
  grid.replaceChildren(...Array.from({ length: value.count }, (_, i) => {
    const button = make("button", "viz-cell"), canvas = make("canvas"), name = say("Kernel {number}", { number: i });
    button.type = "button";
    button.dataset.key = i;
    button.title = name;
    button.setAttribute("aria-label", name);
    button.setAttribute("aria-pressed", i === value.chosen);
    canvas.width = canvas.height = width;
    canvas.getContext("2d").drawImage(image, 0, Math.round(i * step), width, width, 0, 0, width, width);
    button.append(canvas);
    button.addEventListener("click", () => trigger("select", { index: i, value: name }));
    return button;
  }));
  if (held) grid.children[value.chosen]?.focus({ preventScroll: true });
});
