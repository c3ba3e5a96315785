// Code to copy. Texts and comments are tinted; nothing in it is ever run or becomes HTML.
const TOKENS = /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(#[^\n]*)/g;

function tinted(text) {
  const code = make("code");
  let done = 0;
  for (const found of text.matchAll(TOKENS)) {
    code.append(text.slice(done, found.index), make("span", found[1] ? "viz-string" : "viz-comment", found[0]));
    done = found.index + found[0].length;
  }
  code.append(text.slice(done));
  return code;
}

function blockOf({ name, hint, text }) {
  const section = make("section"), head = make("header"), button = make("button", "viz-outline-button", say("Copy")), lines = make("pre");
  button.type = "button";
  button.setAttribute("aria-label", say("Copy the lines for {name}", { name }));
  button.addEventListener("click", async () => {
    await copy(text);
    button.textContent = say("Copied");
    setTimeout(() => (button.textContent = say("Copy")), 2000);
  });
  lines.tabIndex = 0; // long lines scroll, with the keyboard too
  lines.setAttribute("aria-label", name);
  lines.append(tinted(text));
  head.append(make("h3", "", name), make("p", "", hint), button);
  section.append(head, lines);
  return section;
}

show((value) => {
  const here = location.origin + location.pathname;
  const blocks = (value.blocks || []).map((one) => ({ ...one, text: value.here ? one.text.replaceAll(value.here, here) : one.text }));
  root.replaceChildren(...blocks.map(blockOf));
});
