// The address is the selection: any part may read one of its keys, and keep one in step. The server hears nothing of it.
function placed(key) {
  return new URLSearchParams(location.search).get(key);
}

function place(key, value) {
  const keys = new URLSearchParams(location.search), old = keys.get(key);
  if (value === null || value === undefined || value === "") keys.delete(key);
  else keys.set(key, value);
  if (old !== keys.get(key)) history.replaceState(history.state, "", location.pathname + questionOf(keys) + location.hash);
}

function placeAll(keys = {}) {
  for (const [key, value] of Object.entries(keys)) place(key, value);
}

// From the question mark on, with the few signs left readable that need no escape.
function questionOf(keys) {
  const query = keys.toString().replace(/%3A/g, ":").replace(/%2C/g, ",").replace(/%3B/g, ";").replace(/%2F/g, "/");
  return query && "?" + query;
}
