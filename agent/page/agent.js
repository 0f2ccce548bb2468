// The agent's own health: what it can measure, what it cannot and why, its ledger, what was lost.

import { el, bytes, when, facts, table } from "./text.js";
import { get } from "./api.js";

const LOOK = 5000;

export function agent(content, signal) {
  const note = el("p", { class: "bad", role: "alert" });
  const place = el("div");
  content.replaceChildren(el("section", { "aria-label": "The agent" }, el("h2", {}, "The agent"), note, place));
  const look = async () => {
    while (!signal.aborted) {
      try {
        place.replaceChildren(...shown(await get("v1/status", signal)));
        note.textContent = "";
      } catch (error) {
        if (!signal.aborted) note.textContent = `The agent does not answer: ${error.message}`;
      }
      await new Promise((done) => setTimeout(done, LOOK));
    }
  };
  look();
}

function shown(status) {
  const features = [...status.features].sort((a, b) => a.available - b.available || a.name.localeCompare(b.name));
  const { ledger, history } = status;
  const lost = [...Object.entries(status.losses || {}), ...Object.entries(status.sample_errors || {}).map(([key, count]) => [`reading ${key}`, count])].filter(([, count]) => count > 0);
  const hung = Object.entries(status.hung || {}).map(([thread, since]) => [thread, when(since)]);
  const unobserved = (status.network?.unobserved || []).map((one) => [one.vm_id, one.interface, one.why_not]);
  return [
    facts([
      ["Health", el("span", { class: status.health === "ok" ? "good" : "bad" }, status.health)], ["Version", `${status.version} (${status.git_commit})`],
      ["Kernel", status.kernel], ["CPU time from", status.cpu_source], ["Newest snapshot", when(status.snapshot?.taken_at)],
    ]),
    el("h3", {}, "What is measured, and what is not"),
    table("Features", ["What", "Works", "Why not", "What to do"], features.map((one) => [one.name, one.available ? "yes" : "no", one.available ? "" : one.why, one.available ? "" : one.advice]), "Nothing is told."),
    el("h3", {}, "Interfaces that are not counted"), table("Interfaces that are not counted", ["VM", "Interface", "Why"], unobserved, "None."),
    el("h3", {}, "Ledger"), facts([["Lines", ledger.sequence], ["Waiting in memory", ledger.spooled], ["Writes fail", ledger.degraded ? "yes" : "no"], ["Last error", ledger.last_error], ["Hurt by others", ledger.hurt]]),
    el("h3", {}, "History"), facts([["VMs", history.vms], ["Memory", bytes(history.bytes)], ["Samples let go early", history.evicted_samples],
      ["On disk", history.saved ? history.saved.trouble ?? bytes(history.saved.bytes) : "no"]]),
    el("h3", {}, "Lost, and counted"), table("Lost", ["Where", "How many"], lost, "Nothing."),
    el("h3", {}, "Threads that hang"), table("Threads that hang", ["Thread", "Since"], hung, "None."),
  ];
}
