// @ts-check

// Starts a long computation of the server when no choice is under way: one might change what is computed.

/**
 * @param {() => void} begin called when the page is idle
 * @returns {{ start: () => void, cancel: () => void }} `cancel` forgets a start that still waits
 */
function createStarter(begin) {
  let isWaiting = false;
  const start = () => {
    const queue = /** @type {HTMLElement} */ (document.querySelector("#event-queue .viz-event_queue"));
    if (queue.dataset.busy !== undefined) {
      isWaiting = true;
      queue.addEventListener("viz-idle", () => isWaiting && start(), { once: true });
      return;
    }
    isWaiting = false;
    begin();
  };
  return {
    start,
    cancel: () => {
      isWaiting = false;
    },
  };
}
