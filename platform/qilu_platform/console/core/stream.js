// The one event stream of the page. Browsers allow six connections to a server, so it is open only while the page
// is seen; every other tab of the console would else hold one.

const RETRY_FIRST_MS = 1000;
const RETRY_LAST_MS = 30_000;

/**
 * Follows one address at a time: `follow(url, handlers)` replaces the one before, `handlers[event](object)` is
 * called for every event, `onState("connecting" | "live" | "lost" | "refused")` when it changes. A browser
 * reconnects by itself after a broken connection, but not after an HTTP error: then we do.
 */
export class Stream {
  constructor(onState) {
    this.onState = onState;
    this.source = null;
    this.timer = 0;
    this.wait = RETRY_FIRST_MS;
    this.url = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
    // A page kept for "back" must not hold the connection either.
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (event) => event.persisted && this.open());
  }

  follow(url, handlers) {
    [this.url, this.handlers, this.wait] = [url, handlers, RETRY_FIRST_MS];
    this.open();
  }

  open() {
    this.close();
    if (this.url === null || document.hidden) return;
    this.onState("connecting");
    const source = (this.source = new EventSource(this.url));
    source.onopen = () => {
      this.wait = RETRY_FIRST_MS;
      this.onState("live");
    };
    source.onerror = () => {
      this.onState("lost");
      if (source.readyState !== EventSource.CLOSED) return;
      this.timer = setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(2 * this.wait, RETRY_LAST_MS);
    };
    for (const [event, handle] of Object.entries(this.handlers)) {
      source.addEventListener(event, (message) => handle(JSON.parse(message.data)));
    }
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }
}
