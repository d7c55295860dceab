// The one event stream of the page. Browsers allow six connections to a server, so it is open only while the page
// is seen; every other tab of the console would else hold one.

const RETRY_FIRST_MS = 1000;
const RETRY_LAST_MS = 30_000;

/**
 * Calls `handlers[event](object)` for every event and `onState("connecting" | "live" | "lost")` when it changes.
 * A browser reconnects by itself after a broken connection, but not after an HTTP error: then we do.
 */
export function follow(url, handlers, onState) {
  let source = null;
  let timer = 0;
  let wait = RETRY_FIRST_MS;

  function open() {
    close();
    onState("connecting");
    source = new EventSource(url);
    source.onopen = () => {
      wait = RETRY_FIRST_MS;
      onState("live");
    };
    source.onerror = () => {
      onState("lost");
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(open, wait);
      wait = Math.min(2 * wait, RETRY_LAST_MS);
    };
    for (const [event, handle] of Object.entries(handlers)) {
      source.addEventListener(event, (message) => handle(JSON.parse(message.data)));
    }
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  // A page kept for "back" must not hold the connection either.
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  if (!document.hidden) open();
}
