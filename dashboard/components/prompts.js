// @ts-check

// A box with one prompt a line, which is applied by its button or Ctrl+Enter, and the words of the explained prompt as
// buttons: a click contrasts it with the same prompt without that word.

/** @typedef {{ word: string, share: number, hint: string, without: string }} Word */
/**
 * @typedef {object} PromptsValue
 * @property {string} [model]
 * @property {string[]} [prompts]
 * @property {number} target
 * @property {Word[]} words
 * @property {string} wordsLabel
 * @property {string} limit
 */

const label = createElement("label", "viz-prompts-label");
const box = createElement("textarea");
const apply = createButton("viz-prompts-apply");
const limit = createElement("p", "viz-prompts-limit");
const words = createElement("div", "viz-words");
label.append(createElement("span", "", translate("What could it be? One prompt a line")), box);
box.rows = 5;
box.spellcheck = false;
box.dir = "auto";
apply.textContent = translate("Ask");
apply.title = translate("Ctrl+Enter does the same");
words.setAttribute("role", "group");
root.append(label, apply, limit, words);

/** What the model was asked last: text that was typed since is not overwritten by a new value of another part. */
let shown = "";

const listPrompts = () => box.value.split("\n").filter((line) => line.trim());

function ask() {
  if (listPrompts().length) emitChoice({ prompts: listPrompts() });
}

apply.addEventListener("click", ask);
box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  ask();
});

/**
 * @param {Word} word
 * @param {PromptsValue} value
 */
function createWord(word, value) {
  const button = createButton("viz-word");
  const prompts = value.prompts || [];
  const text = createElement("span", "", word.word);
  const fill = createElement("span", "viz-word-fill");
  fill.style.width = `${100 * word.share}%`;
  button.append(text, fill);
  button.title = word.hint;
  button.disabled = !word.without;
  const known = prompts.findIndex((prompt) => prompt.toLowerCase() === word.without.toLowerCase());
  const asked = known < 0 ? [...prompts, word.without] : prompts;
  button.addEventListener("click", () =>
    emitChoice({ prompts: asked, target: value.target, against: known < 0 ? prompts.length : known }),
  );
  return button;
}

/** @param {PromptsValue} value */
function draw(value) {
  root.hidden = !value?.prompts;
  if (!value?.prompts) return;
  const text = value.prompts.join("\n");
  if (text !== shown) box.value = text;
  shown = text;
  limit.textContent = value.limit;
  words.setAttribute("aria-label", value.wordsLabel);
  words.hidden = value.words.length === 0;
  words.replaceChildren(
    createElement("span", "viz-words-label", value.wordsLabel),
    ...value.words.map((word) => createWord(word, value)),
  );
}

onValueChange(draw);
