// @ts-check

// A model card: a few large figures, and groups of rows.

/** @typedef {{ name: string, lines: string[], code: boolean, verbatim: boolean }} CardRow */
/** @typedef {{ heading: string, rows: CardRow[] }} CardGroup */
/**
 * @typedef {object} CardValue
 * @property {string} [empty]
 * @property {string} name
 * @property {string} lead
 * @property {{ value: string, label: string }[]} figures
 * @property {CardGroup[]} [groups]
 */

/**
 * Create an element whose text never breaks before a % sign.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} text
 */
const createText = (tag, text) => createElement(tag, "", text.replaceAll(" %", "\u00a0%"));

/**
 * Create a command whose lines break between words, and not at the hyphens of its options.
 * @param {string} line
 */
function createCommand(line) {
  const code = createElement("code");
  for (const [i, word] of line.split(" ").entries()) code.append(i ? " " : "", createElement("span", "", word));
  return code;
}

/** @param {CardGroup} group */
function createRows(group) {
  const list = createElement("dl");
  for (const { name, lines, code, verbatim } of group.rows) {
    const description = createElement("dd");
    if (verbatim) description.lang = "en"; // texts of a sidecar file are not translated
    description.append(...lines.map((line) => (code ? createCommand(line) : createText("p", line))));
    list.append(createElement("dt", "", name), description);
  }
  return list;
}

/** @param {CardValue} card */
function draw(card) {
  root.replaceChildren();
  if (card.empty) return root.append(createElement("p", "viz-empty", card.empty));
  if (!card.groups) return;
  const header = createElement("header");
  const figures = createElement("ul", "viz-figures");
  const groups = createElement("div", "viz-groups");
  header.append(createElement("h2", "", card.name), createText("p", card.lead));
  for (const { value, label } of card.figures) {
    const item = createElement("li");
    item.append(createText("strong", value), createText("span", label));
    figures.append(item);
  }
  for (const group of card.groups) {
    const section = createElement("section");
    if (group.heading) section.append(createElement("h3", "", group.heading));
    section.append(createRows(group));
    groups.append(section);
  }
  if (card.name) root.append(header);
  if (card.figures.length) root.append(figures);
  root.append(groups);
}

onValueChange(draw);
