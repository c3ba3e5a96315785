// gradio holds an event back while an earlier one of its kind is answered, but then sends the earlier one's data again. So
// all data of a part's event are one and the same object, which by then says what was asked for last.
{
  const ask = trigger, asked = {};
  trigger = (event, data) => ask(event, data && Object.assign((asked[event] ??= {}), data));
}
