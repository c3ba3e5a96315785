// @ts-check

/**
 * Return a text in the browser's language where TRANSLATIONS has it, else in English, with its {names} replaced.
 * @param {string} text
 * @param {Record<string, unknown>} facts
 */
function translate(text, facts = {}) {
  const translated = TRANSLATIONS[navigator.language.split("-")[0]]?.[text] ?? text;
  return translated.replace(/\{(\w+)\}/g, (placeholder, name) => String(facts[name] ?? placeholder));
}
