// @ts-check

// The query string of the page holds the user's selection. Any component may read and write its keys in the browser.

/** @param {string} key */
function readUrlState(key) {
  return new URLSearchParams(location.search).get(key);
}

/**
 * Set one key of the query string, or remove it where the value is empty.
 * @param {string} key
 * @param {string | number | null | undefined} value
 */
function setUrlState(key, value) {
  const query = new URLSearchParams(location.search);
  const previous = query.get(key);
  if (value === null || value === undefined || value === "") query.delete(key);
  else query.set(key, String(value));
  if (previous === query.get(key)) return;
  history.replaceState(history.state, "", location.pathname + formatQuery(query) + location.hash);
}

/** @param {Record<string, string | null>} values */
function setUrlStates(values = {}) {
  for (const [key, value] of Object.entries(values)) setUrlState(key, value);
}

/**
 * Return the query string from its question mark on; characters that need no escape stay readable.
 * @param {URLSearchParams} query
 */
function formatQuery(query) {
  const text = query.toString().replace(/%3A/g, ":").replace(/%2C/g, ",").replace(/%3B/g, ";").replace(/%2F/g, "/");
  return text && `?${text}`;
}
