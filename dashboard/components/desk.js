// What a person chooses waits here while the answer to an earlier choice is on its way, and then goes in order, all at
// once. So one answer is under way at a time, and the last is of all that was chosen, however late it comes.
let waiting = [], alone = [], sent = [], told = 0;
if (props.opens) { // the first answer is what the page is opened with
  sent = [{}];
  root.dataset.busy = "";
}

const recalled = (props.recalls || []).map((key) => [key, placed(key)]).filter(([, value]) => value);
if (recalled.length) waiting.push(Object.fromEntries(recalled)); // the address chooses first

root.addEventListener("viz-choose", (event) => {
  waiting.push(event.detail);
  next();
});

function next() {
  if (sent.length) return;
  if (alone.length) sent = [alone.shift()];
  else if (waiting.length) [sent, waiting] = [waiting, []];
  else return;
  root.dataset.busy = "";
  props.value = { turn: ++told, choices: sent };
  trigger(sent.some((choice) => choice.model && !choice.photo) ? "submit" : "input");
}

function done() {
  sent = [];
  if (props.opens) root.dataset.opened = ""; // from the first answer on the address is what the page shows
  delete root.dataset.busy;
  next();
  if (!sent.length) root.dispatchEvent(new CustomEvent("viz-idle"));
}

// Of several choices one was refused: each by itself, so that the others are heard.
root.addEventListener("viz-refused", () => setTimeout(() => {
  if (sent.length > 1) alone = sent;
  done();
}));

show((value) => {
  placeAll(value.keys);
  if (sent.length && value.answered === told) done();
});
