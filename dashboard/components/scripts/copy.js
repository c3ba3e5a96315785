// @ts-check

/**
 * Copy a text to the clipboard; the focus stays where it is.
 * @param {string} text
 */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // over plain http a page has no access to the clipboard
    const field = createElement("textarea");
    const focused = document.activeElement;
    field.value = text;
    root.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    if (focused instanceof HTMLElement) focused.focus();
  }
}
