// Runs in a page before its own scripts and counts what the page still waits for: requests, events of gradio that were
// sent and have not completed, images, and short timers. `pageIsIdle()` is called once per animation frame.

(() => {
  const MAX_TIMER_MS = 500; // longer ones restore a label, such as that of a button that says "Copied"
  const QUIET_FRAMES = 6; // gradio and Svelte need a few frames between two events that follow each other
  let requests = 0;
  let quietFrames = 0;
  const timers = new Set();
  const images = new Set();
  const events = new Set();
  let receivedSteps = 0; // results of generators before their last one
  const completed = new Set(); // events whose completion arrived before the answer to their request

  const originalFetch = window.fetch;
  window.fetch = async (...args) => {
    const url = String(args[0]?.url ?? args[0]);
    if (/\/(heartbeat|cancel)\b/.test(url)) return originalFetch(...args); // endless, and of an event that is counted
    if (url.includes("/queue/data")) {
      const response = await originalFetch(...args);
      const [own, forwarded] = response.body.tee();
      readEvents(own).catch(() => {}); // the page ended the stream
      return new Response(forwarded, response);
    }
    requests++;
    try {
      const response = await originalFetch(...args);
      if (url.includes("/queue/join") && response.ok) {
        const { event_id: event } = await response.clone().json();
        if (!completed.delete(event)) events.add(event);
      }
      return response;
    } finally {
      requests--;
    }
  };

  async function readEvents(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      const lines = (text + chunk.value).split("\n");
      text = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const { msg, event_id: event } = JSON.parse(line.slice(5));
        if (msg === "process_generating") receivedSteps++;
        if (msg === "process_completed" && !events.delete(event)) completed.add(event);
        if (msg === "unexpected_error" || msg === "close_stream") events.clear();
      }
    }
  }

  const originalTimeout = window.setTimeout;
  window.setTimeout = (callback, delay = 0, ...args) => {
    if (typeof callback !== "function" || delay > MAX_TIMER_MS) return originalTimeout(callback, delay, ...args);
    const timer = originalTimeout(() => {
      timers.delete(timer);
      callback(...args);
    }, delay);
    timers.add(timer);
    return timer;
  };
  const originalClear = window.clearTimeout;
  window.clearTimeout = (timer) => {
    timers.delete(timer);
    originalClear(timer);
  };

  const source = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
  Object.defineProperty(HTMLImageElement.prototype, "src", {
    ...source,
    set(value) {
      source.set.call(this, value);
      images.add(this); // it may never be part of the document
    },
  });

  function isQuiet() {
    for (const image of images) if (image.complete) images.delete(image);
    const busy = requests + events.size + images.size + timers.size;
    return !busy && !document.querySelector(".viz-event_queue[data-busy]");
  }

  window.pageIsIdle = ({ restart = false } = {}) => {
    quietFrames = !restart && isQuiet() ? quietFrames + 1 : 0;
    return quietFrames > QUIET_FRAMES;
  };
  window.numReceivedSteps = () => receivedSteps;
  window.describePending = () => ({ requests, events: [...events], images: images.size, timers: timers.size });
})();
