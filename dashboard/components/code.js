// @ts-check

// Blocks of code with a button that copies them; strings and comments are coloured.

/** @typedef {{ name: string, hint: string, text: string }} CodeBlock */

const STRING_OR_COMMENT = /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(#[^\n]*)/g;

/** @param {string} text */
function createCode(text) {
  const code = createElement("code");
  let end = 0;
  for (const match of text.matchAll(STRING_OR_COMMENT)) {
    const token = createElement("span", match[1] ? "viz-string" : "viz-comment", match[0]);
    code.append(text.slice(end, match.index), token);
    end = match.index + match[0].length;
  }
  code.append(text.slice(end));
  return code;
}

/** @param {CodeBlock} block */
function createBlock({ name, hint, text }) {
  const section = createElement("section");
  const header = createElement("header");
  const button = createButton("viz-outline-button", translate("Copy"));
  const lines = createElement("pre");
  button.setAttribute("aria-label", translate("Copy the lines for {name}", { name }));
  button.addEventListener("click", async () => {
    await copyText(text);
    button.textContent = translate("Copied");
    setTimeout(() => {
      button.textContent = translate("Copy");
    }, 2000);
  });
  lines.tabIndex = 0; // long lines scroll, with the keyboard too
  lines.setAttribute("aria-label", name);
  lines.append(createCode(text));
  header.append(createElement("h3", "", name), createElement("p", "", hint), button);
  section.append(header, lines);
  return section;
}

/** @param {{ blocks?: CodeBlock[], here?: string }} value */
function draw({ blocks = [], here }) {
  const pageUrl = location.origin + location.pathname;
  const located = here ? blocks.map((block) => ({ ...block, text: block.text.replaceAll(here, pageUrl) })) : blocks;
  root.replaceChildren(...located.map(createBlock));
}

onValueChange(draw);
