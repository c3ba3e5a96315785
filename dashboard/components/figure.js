// @ts-check

// An image with its caption, and more facts in a closed list.

/**
 * @typedef {object} FigureValue
 * @property {string} [picture]
 * @property {string} caption
 * @property {string} alt
 * @property {string} fit
 * @property {string} file name of the saved file; empty without a link
 * @property {number[]} grid rows and columns of the lines over the image, or empty
 * @property {{ name: string, text: string }[]} rows
 */

/** @param {FigureValue["rows"]} rows */
function createDetails(rows) {
  const details = createElement("details", "viz-details");
  const list = createElement("dl");
  for (const { name, text } of rows) list.append(createElement("dt", "", name), createElement("dd", "", text));
  details.append(createElement("summary", "", translate("Preprocessing")), list);
  return details;
}

/** @param {FigureValue} value */
function draw(value) {
  if (!value.picture) return root.replaceChildren();
  const figure = createElement("figure");
  const image = createElement("img");
  const caption = createElement("figcaption");
  image.src = value.picture;
  image.alt = value.alt;
  figure.dataset.fit = value.fit || "natural";
  caption.append(createElement("span", "", value.caption));
  if (value.file) {
    const link = createElement("a", "viz-link", translate("Save PNG"));
    link.href = value.picture;
    link.download = value.file;
    caption.append(link);
  }
  const frame = createElement("div", "viz-image-frame");
  frame.append(image);
  if (value.grid?.length) {
    const lines = createElement("div", "viz-image-grid");
    const [rows, columns] = value.grid;
    lines.style.backgroundSize = `${100 / columns}% ${100 / rows}%`;
    frame.append(lines);
  }
  figure.append(frame, caption);
  root.replaceChildren(figure, ...(value.rows?.length ? [createDetails(value.rows)] : []));
}

onValueChange(draw);
