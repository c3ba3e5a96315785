// @ts-check

// The kernels of the first layer as buttons, cut from one tall image with the kernels below each other.

/** @typedef {{ picture?: string, count: number, chosen: number, label: string, caption: string }} KernelsValue */

const grid = createElement("div", "viz-cells");
const caption = createElement("p", "viz-caveat");
grid.setAttribute("role", "group");
root.append(grid, caption);

/**
 * @param {string} url
 * @returns {Promise<HTMLImageElement>}
 */
function loadImage(url) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.src = url;
  });
}

/**
 * @param {KernelsValue} value
 * @param {() => boolean} isCurrent
 */
async function draw(value, isCurrent) {
  root.hidden = !value.picture;
  if (!value.picture) return;
  const sheet = await loadImage(value.picture);
  if (!isCurrent()) return;
  const { naturalWidth: size, naturalHeight: height } = sheet;
  const step = (height - size) / Math.max(value.count - 1, 1);
  const hadFocus = grid.contains(document.activeElement);
  grid.setAttribute("aria-label", value.label);
  caption.textContent = value.caption;
  const buttons = Array.from({ length: value.count }, (_, index) => {
    const button = createButton("viz-cell");
    const canvas = createElement("canvas");
    const name = translate("Kernel {number}", { number: index });
    button.dataset.key = String(index);
    button.title = name;
    button.setAttribute("aria-label", name);
    button.setAttribute("aria-pressed", String(index === value.chosen));
    canvas.width = canvas.height = size;
    getContext(canvas).drawImage(sheet, 0, Math.round(index * step), size, size, 0, 0, size, size);
    button.append(canvas);
    button.addEventListener("click", () => trigger("select", { index, value: name }));
    return button;
  });
  grid.replaceChildren(...buttons);
  if (hadFocus) buttons[value.chosen]?.focus({ preventScroll: true });
}

onValueChange(draw);
