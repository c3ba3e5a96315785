// What a script says, in the browser's language where the page speaks it; SAID is the other languages' tables.
const say = (text) => SAID[navigator.language.split("-")[0]]?.[text] ?? text;
