// @ts-check

/**
 * Add a choice of the user to an event queue of the page.
 * @param {Record<string, unknown>} choice
 * @param {string} [queue] element id of the queue
 */
function emitChoice(choice, queue = "event-queue") {
  const target = document.querySelector(`#${queue} .viz-event_queue`);
  target?.dispatchEvent(new CustomEvent("viz-choose", { detail: choice }));
}
