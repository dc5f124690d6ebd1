// Search needs a Worker, and browsers make none for pages that are opened as files. There, a hidden frame runs the
// worker's script instead: on the page's own thread, which is enough for a search. Nothing is fetched from another host.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inside = this.frame.contentWindow;
      // What the script posts comes out of this worker.
      inside.postMessage = (data) => this.deliver("message", { data });
      const script = inside.document.createElement("script");
      script.src = new URL(url, location.href).href;
      script.onload = () => {
        const messages = this.waiting;
        this.waiting = null;
        messages.forEach((data) => this.send(data));
      };
      script.onerror = () => this.deliver("error", {});
      inside.document.documentElement.append(script);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.send(data);
    }

    // A worker answers later, never within postMessage.
    send(data) {
      const inside = this.frame.contentWindow;
      setTimeout(() => inside && inside.dispatchEvent(new inside.MessageEvent("message", { data })), 0);
    }

    deliver(type, fields) {
      setTimeout(() => {
        const event = Object.assign(new Event(type, { cancelable: true }), fields);
        this.dispatchEvent(event);
        if (this[`on${type}`]) this[`on${type}`](event);
      }, 0);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
