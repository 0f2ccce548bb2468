// Asking the agent. Paths are relative, so that the page also works behind a proxy's prefix.

export async function get(path, signal) {
  const answer = await fetch(path, { signal, headers: { accept: "application/json" } });
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(body?.detail || `the agent answered ${answer.status}`);
  return body;
}

export const segment = (text) => (text === "." || text === ".." ? text.replaceAll(".", "%2E") : encodeURIComponent(text));

// Reads server-sent events until `signal`, coming back with the last id. A stream that ends by `end` is over.
export async function stream(path, last, signal, each) {
  let wait = 1000;
  while (!signal.aborted) {
    try {
      const headers = last === undefined ? {} : { "last-event-id": String(last) };
      const answer = await fetch(path, { signal, headers });
      if (!answer.ok) throw new Error(`the agent answered ${answer.status}`);
      wait = 1000;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const event = parse(block);
          if (event.event === undefined) continue;
          if (event.id !== undefined) last = event.id;
          each(event);
          if (event.event === "end") return;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
    }
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(wait * 2, 15000);
  }
}

function parse(block) {
  const event = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) event[line.slice(0, at)] = line.slice(at + 2);
  }
  return event;
}
