// Put a text on the clipboard; the focus stays where it is.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // over plain http a page may not write there
    const field = make("textarea"), held = document.activeElement;
    field.value = text;
    root.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    held?.focus();
  }
}
