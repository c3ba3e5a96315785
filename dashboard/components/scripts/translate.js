// What a script says, in the browser's language where the page speaks it; SAID is the other languages' tables, and facts
// take the places of the {names} in a text.
const say = (text, facts = {}) => {
  const own = SAID[navigator.language.split("-")[0]]?.[text] ?? text;
  return own.replace(/\{(\w+)\}/g, (name, key) => facts[key] ?? name);
};
