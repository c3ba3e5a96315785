// @ts-check

// While an event is being handled, gradio holds back the next one of the same kind, but then sends the data of the first
// again. So all data of a component's event are one object, which by then has the values of the last event.
{
  const send = trigger;
  /** @type {Record<string, object>} */
  const latest = {};
  trigger = (event, data) => {
    latest[event] ??= {};
    send(event, data && Object.assign(latest[event], data));
  };
}
