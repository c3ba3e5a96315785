// What a person chooses waits here while the answer to an earlier choice is on its way, and then goes in order, all at
// once. So one answer is under way at a time, and the last is of all that was chosen, however late it comes.
let waiting = [], alone = [], sent = [], told = 0;
let kept = null; // the file in the box of the photo that the page shows
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
  props.value = { turn: ++told, choices: sent.map(({ file, ...choice }) => choice) };
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
root.addEventListener("viz-failure", () => setTimeout(() => {
  if (sent.length > 1) alone = sent;
  done();
}));

// What was in the box as the page was opened; a choice of a photo brings its own.
root.addEventListener("viz-current-file", (event) => {
  if (![...sent, ...waiting].some((choice) => choice.photo)) kept = event.detail;
});

// A file that is no photo gives way to the photo that the page shows; gradio may have told of it more than once. Where it
// is that photo, whose file is gone from the server, nothing is put: gradio would tell of it again, without end.
root.addEventListener("viz-restore-file", ({ detail }) => {
  const others = (choice) => !choice.photo;
  [alone, waiting] = [alone.filter(others), waiting.filter(others)];
  for (const choice of sent) if (choice.photo) choice.file = kept;
  if (detail.file?.path !== kept?.path) detail.put = kept;
});

show((value) => {
  placeAll(value.keys);
  if (!sent.length || value.answered !== told) return;
  for (const choice of sent) if (choice.photo) kept = choice.file;
  done();
});
