// @ts-check

// Choices of the user wait here while an earlier batch of them is handled, and then go to the server in order, all at
// once. So one batch is handled at a time, and the last state of the page is that of all choices, however late it comes.

/** @typedef {Record<string, any>} Choice */
/** @typedef {{ path: string } | null} UploadedFile */

/** @type {Choice[]} */
let waiting = [];
/** @type {Choice[]} */
let retries = []; // sent one by one
/** @type {Choice[]} */
let sent = []; // the batch that is being handled
let batchNumber = 0;
/** @type {UploadedFile} */
let currentFile = null; // the upload whose photo the page shows
if (props.initial_event) {
  // the page load is handled as the first batch
  sent = [{}];
  root.dataset.busy = "";
}

/** @type {[string, string | null][]} */
const urlChoices = (props.url_keys || []).map((/** @type {string} */ key) => [key, readUrlState(key)]);
const initialChoice = urlChoices.filter(([, value]) => value);
if (initialChoice.length) waiting.push(Object.fromEntries(initialChoice));

root.addEventListener("viz-choose", (event) => {
  waiting.push(/** @type {CustomEvent} */ (event).detail);
  sendNext();
});

function sendNext() {
  if (sent.length) return;
  const retry = retries.shift();
  if (retry) sent = [retry];
  else if (waiting.length) [sent, waiting] = [waiting, []];
  else return;
  root.dataset.busy = "";
  props.value = { turn: ++batchNumber, choices: sent.map(({ file, ...choice }) => choice) };
  trigger(sent.some((choice) => choice.model && !choice.photo) ? "submit" : "input");
}

function finishBatch() {
  sent = [];
  if (props.initial_event) root.dataset.ready = ""; // from now on the address says what the page shows
  delete root.dataset.busy;
  sendNext();
  if (!sent.length) root.dispatchEvent(new CustomEvent("viz-idle"));
}

// A batch failed because of one of its choices: send each by itself, so that the others take effect.
root.addEventListener("viz-failure", () =>
  setTimeout(() => {
    if (sent.length > 1) retries = sent;
    finishBatch();
  }),
);

// The file in the upload box when the page was loaded; a choice of a photo brings its own.
root.addEventListener("viz-current-file", (event) => {
  if (![...sent, ...waiting].some((choice) => choice.photo)) currentFile = /** @type {CustomEvent} */ (event).detail;
});

// A file that is no photo is replaced in the box by the file of the photo that the page shows; gradio may have reported
// it more than once. Where the box already has that file (it is gone from the server), it is not put there again: gradio
// would report it again, endlessly.
root.addEventListener("viz-restore-file", (event) => {
  const { detail } = /** @type {CustomEvent} */ (event);
  const withoutPhotos = (/** @type {Choice[]} */ choices) => choices.filter((choice) => !choice.photo);
  [retries, waiting] = [withoutPhotos(retries), withoutPhotos(waiting)];
  for (const choice of sent) if (choice.photo) choice.file = currentFile;
  if (detail.file?.path !== currentFile?.path) detail.update = currentFile;
});

onValueChange((value) => {
  setUrlStates(value.keys);
  if (!sent.length || value.answered !== batchNumber) return;
  for (const choice of sent) if (choice.photo) currentFile = choice.file;
  finishBatch();
});
