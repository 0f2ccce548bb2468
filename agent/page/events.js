// What happened lately: the ledger's lines, as they become durable.

import { el, when, name, table } from "./text.js";
import { get, stream } from "./api.js";

// Lines that are asked for again when the page is opened, and the most that are kept.
const BACK = 2000;
const KEPT = 1000;

// Calls `each` with all lines known, at most a few times a second.
export async function recent(signal, each) {
  const all = [];
  let due = null;
  const tell = () => { due = null; if (!signal.aborted) each(all); };
  each(all);
  let last;
  try {
    last = Math.max(0, (await get("v1/status", signal)).ledger.sequence - BACK);
  } catch { /* the stream comes back by itself */ }
  stream("v1/events", last, signal, (event) => {
    if (event.event === "dropped" || event.event === "end") return;
    all.push(JSON.parse(event.data));
    if (all.length > KEPT) all.shift();
    due ??= setTimeout(tell, 250);
  });
}

export function line(event) {
  const { shape } = event;
  const detail = [
    shape?.cpu && `${shape.cpu} vCPUs`, event.name && `name ${name(event.name)}`, event.tenant && `tenant ${name(event.tenant)}`,
    event.evidence?.exit_code !== undefined && `exit code ${event.evidence.exit_code}`, event.evidence?.signal && `signal ${event.evidence.signal}`,
    event.time_quality === "bounded" && "time bounded",
  ].filter(Boolean);
  return [when(event.emitted_at), event.kind, [event.reason, event.cause].filter(Boolean).join(", "), detail.join(", ")];
}

export function events(content, signal) {
  const list = el("div");
  content.replaceChildren(el("section", { "aria-label": "Events" }, el("h2", {}, "Events"), list));
  recent(signal, (all) => {
    const rows = all.slice(-200).reverse().map((event) => [...line(event).slice(0, 2), name(event.vm_id || event.snapshot_id || ""), ...line(event).slice(2)]);
    list.replaceChildren(table("Events", ["When", "What", "VM", "Why", "Detail"], rows, "Nothing yet."));
  });
}
