// One VM: who it is, its hour, day or week, its events, its neighbours and its exits.

import { el, bytes, rate, percent, number, when, name, facts, table } from "./text.js";
import { get, segment, stream } from "./api.js";
import { chart } from "./chart.js";
import { recent, line } from "./events.js";

const RANGES = [["1 hour", 3600], ["6 hours", 6 * 3600], ["1 day", 86400], ["1 week", 7 * 86400]];
const LONGEST = 7 * 86400;
const SHORTEST = 60;

const CHARTS = [
  ["CPU, 100 % is one core", percent, [{ label: "CPU", token: "cpu", key: "cpu_percent", band: true }]],
  ["Delay: runnable and not running", percent, [{ label: "Delay", token: "delay", key: "cpu_delay_percent", band: true }]],
  ["Memory", bytes, [{ label: "Resident", token: "memory", key: "memory_used_bytes", band: true }, { label: "Configured", token: "dim", key: "memory_limit_bytes" }]],
  ["Network, as the guest sees it", rate, [{ label: "In", token: "in", key: "network_in_bytes_per_sec" }, { label: "Out", token: "out", key: "network_out_bytes_per_sec" }]],
  ["Disk", rate, [{ label: "Read", token: "in", key: "disk_read_bytes_per_sec" }, { label: "Written", token: "out", key: "disk_write_bytes_per_sec" }]],
];

// What the VM's workload says of itself, where it is asked.
const WORKLOAD = [
  ["Requests a second, as the workload says", number, [{ label: "Requests", token: "cpu", key: "requests_per_sec", band: true }]],
  ["Latency of 95 in 100 requests, ms, as the workload says", number, [{ label: "Latency", token: "delay", key: "latency_p95_ms", band: true }]],
];

export function vm(content, signal, id) {
  const path = `v1/vms/${segment(id)}`;
  // Seconds; `until` is absent while it follows the time.
  let span = { length: RANGES[0][1], until: undefined };
  let events = [];
  const zoom = (since, until) => {
    const length = Math.min(LONGEST, Math.max(SHORTEST, until - since));
    const end = (since + until + length) / 2;
    span = end >= Date.now() / 1000 ? { length } : { length, until: end };
    draw();
  };
  const charts = [...CHARTS, ...WORKLOAD].map(([title, form, series]) => chart(title, form, series, zoom));
  const workload = charts.slice(CHARTS.length);
  const buttons = RANGES.map(([title, length]) => el("button", { type: "button", onclick: () => { span = { length }; draw(); } }, title));
  const shown = el("span", { class: "count", role: "status", id: "span" });
  const note = el("p", { class: "bad", role: "alert" });
  const head = el("h2", {}, name(id));
  const who = el("div");
  const more = el("div", { class: "columns" });
  const happened = el("div");
  content.replaceChildren(el("section", { "aria-label": "One VM" },
    el("p", {}, el("a", { href: "#/vms" }, "All VMs")), head, note, who,
    el("div", { class: "tools", role: "group", "aria-label": "Time shown" }, ...buttons, shown),
    el("div", { class: "charts" }, ...charts.map((one) => one.figure)), el("h3", {}, "Events"), happened, more));

  let asked = 0;
  async function draw() {
    const mine = ++asked;
    buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(!span.until && span.length === RANGES[at][1])));
    const until = span.until ?? Date.now() / 1000;
    const query = `since=${(until - span.length).toFixed(3)}&until=${until.toFixed(3)}`;
    try {
      const [answer, detail] = await Promise.all([get(`${path}/usage/range?${query}`, signal), get(path, signal)]);
      if (mine !== asked) return;
      workload.forEach((one) => { one.figure.hidden = !detail.workload; });
      charts.filter((one) => !one.figure.hidden).forEach((one) => one.show(answer, events));
      shown.textContent = `${when(answer.since)} – ${when(answer.until)}, a point each ${answer.resolution_seconds} s`;
      tell(detail);
      note.textContent = "";
    } catch (error) {
      if (!signal.aborted) note.textContent = `No answer: ${error.message}`;
    }
  }

  function tell(detail) {
    head.textContent = name(detail.name || detail.vm_id);
    who.replaceChildren(facts([
      ["State", detail.state], ["Id", detail.vm_id], ["UUID", detail.uuid], ["Tenant", name(detail.tenant)],
      ["Hypervisor", detail.hypervisor], ["vCPUs", detail.shape?.cpu], ["Configured memory", detail.shape?.mem_bytes && bytes(detail.shape.mem_bytes)],
      ["Started", when(detail.started_at)], ["Stopped", detail.stopped_at && when(detail.stopped_at)], ["Cause", detail.stop_cause],
      ["Process", detail.pid], ["Control group", name(detail.cgroup)],
      ["Workload asked at", detail.workload && name(detail.workload.address)], ["Its answer", detail.workload && (detail.workload.error ? `no signal: ${name(detail.workload.error)}` : "whole")],
    ]));
    more.replaceChildren(neighbours(detail), exits(detail), notMeasured(detail));
  }

  const following = setInterval(() => span.until === undefined && draw(), 30000);
  const redraw = () => charts.forEach((one) => one.redraw());
  addEventListener("theme", redraw);
  addEventListener("resize", redraw);
  signal.addEventListener("abort", () => {
    clearInterval(following);
    removeEventListener("theme", redraw);
    removeEventListener("resize", redraw);
    charts.forEach((one) => one.end());
  });
  draw();
  stream(`${path}/usage/stream`, undefined, signal, () => span.until === undefined && draw());
  recent(signal, (all) => {
    const own = all.filter((event) => event.vm_id === id);
    events = own.map((event) => ({ at: Date.parse(event.emitted_at) / 1000 }));
    happened.replaceChildren(table("Events of this VM", ["When", "What", "Why", "Detail"], own.slice(-50).reverse().map(line), "None lately."));
    redraw();
  });
}

const seconds = (ns) => `${(Number(ns) / 1e9).toFixed(3)} s`;

function neighbours(detail) {
  const by = Object.entries(detail.preempted_ns || {}).filter(([, ns]) => Number(ns) > 0).sort((a, b) => Number(b[1]) - Number(a[1]));
  return el("div", {}, el("h3", {}, "Whom it has waited for"), table("Whom it has waited for", ["Who", "In all"], by.map(([who, ns]) => [name(who), seconds(ns)]), "Nobody, or it is not told here."));
}

function exits(detail) {
  const all = Object.entries(detail.exits || detail.userspace_exits || {}).filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
  const title = detail.exits ? "Exits of the guest" : "Exits to user space";
  return el("div", {}, el("h3", {}, title), table(title, ["Reason", "Count"], all.slice(0, 16).map(([reason, count]) => [reason, count.toLocaleString()]), "None, or they are not told here."));
}

// Everything that says why it is not there.
function notMeasured(detail) {
  const found = [];
  const walk = (value, path) => {
    for (const [key, inner] of Object.entries(value || {})) {
      const here = path ? `${path}.${key}` : key;
      if (/why_not$/.test(key) && typeof inner === "string") found.push([here.replace(/[._]?why_not$/, ""), inner]);
      else if (inner && typeof inner === "object") walk(inner, here);
    }
  };
  walk(detail, "");
  return el("div", {}, el("h3", {}, "What is not measured"), table("What is not measured", ["What", "Why"], found, "Everything there is to measure of it is measured."));
}
