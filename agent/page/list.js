// All VMs: a line each, with the last hour of what it uses. Fifty at a time, so that a thousand are readable too.

import { el, bytes, rate, percent, sum, name, ABSENT } from "./text.js";
import { get, segment, stream } from "./api.js";
import { spark } from "./spark.js";

const PAGE = 50;
const SPAN = 3600e3;
const STEP = 60e3;
const LOOK = 5000;

const KINDS = [
  ["cpu", "CPU", percent, (s) => s.cpu_percent],
  ["delay", "Delay", percent, (s) => s.cpu_delay_percent],
  ["memory", "Memory", bytes, (s) => s.memory_used_bytes],
  ["network", "Network", rate, (s) => sum(s.network_in_bytes_per_sec, s.network_out_bytes_per_sec)],
  ["disk", "Disk", rate, (s) => sum(s.disk_read_bytes_per_sec, s.disk_write_bytes_per_sec)],
];
const TEXTS = [
  ["name", "Name", (vm) => name(vm.name || vm.vm_id)],
  ["tenant", "Tenant", (vm) => name(vm.tenant)],
  ["state", "State", (vm) => vm.state],
];

// What was chosen outlives a look at one VM.
const chosen = { sort: "cpu", down: true, text: "", tenant: "", page: 0 };

export function list(content, signal) {
  const state = { vms: [], latest: new Map(), lines: new Map(), asked: new Set() };
  const view = frame(state);
  content.replaceChildren(view.root);
  const look = async () => {
    try {
      const [vms, usage] = await Promise.all([get("v1/vms", signal), get("v1/usage", signal)]);
      take(state, vms.vms, usage.vms);
      await fill(state, view, signal);
      view.show();
      view.note.textContent = "";
    } catch (error) {
      if (!signal.aborted) view.note.textContent = `The agent does not answer: ${error.message}`;
    }
  };
  const again = async () => {
    while (!signal.aborted) {
      await look();
      await new Promise((done) => setTimeout(done, LOOK));
    }
  };
  again();
  // A VM that comes or goes is shown at once.
  stream("v1/events?kinds=vm.compute.start,vm.compute.stop,vm.identity", undefined, signal, look);
}

function take(state, vms, usage) {
  state.vms = vms;
  state.latest = new Map(usage.map((sample) => [sample.vm_id, sample]));
  const old = Date.now() - SPAN;
  for (const sample of usage) {
    const line = state.lines.get(sample.vm_id);
    const at = Date.parse(sample.at);
    if (!line || (line.length && line.at(-1).at >= at)) continue;
    line.push({ at, sample });
    while (line.length && line[0].at < old) line.shift();
  }
  const there = new Set(vms.map((vm) => vm.vm_id));
  for (const id of state.lines.keys()) if (!there.has(id)) { state.lines.delete(id); state.asked.delete(id); }
}

// The last hour of the rows that are shown and were not asked for yet.
async function fill(state, view, signal) {
  const missing = view.rows().map((vm) => vm.vm_id).filter((id) => !state.asked.has(id));
  if (!missing.length) return;
  const path = `v1/usage/range?range=1h&resolution=${STEP / 1000}s&vms=${missing.map(encodeURIComponent).join(",")}`;
  const answer = await get(path, signal);
  for (const { vm_id, points } of answer.vms) {
    const mean = (point) => Object.fromEntries(Object.entries(point).map(([key, stat]) => [key, stat?.mean]));
    state.lines.set(vm_id, points.filter((point) => point.count).map((point) => ({ at: Date.parse(point.at), sample: mean(point) })));
    state.asked.add(vm_id);
  }
}

function frame(state) {
  const text = el("input", { type: "search", id: "filter", placeholder: "name, id, tenant or state", value: chosen.text, "aria-label": "Filter VMs" });
  const tenant = el("select", { id: "tenant", "aria-label": "Tenant" });
  const count = el("span", { class: "count", role: "status" });
  const note = el("p", { class: "bad", role: "alert" });
  const body = el("tbody");
  const heads = [...TEXTS.map(([key, title]) => [key, title, ""]), ...KINDS.map(([key, title]) => [key, title, "number"])];
  const head = el("tr", {}, ...heads.map(([key, title, kind]) => el("th", { scope: "col", class: kind, "data-key": key },
    el("button", { type: "button", onclick: () => { sortBy(key); show(); } }, title))));
  const back = el("button", { type: "button", onclick: () => { chosen.page -= 1; show(); } }, "Previous");
  const on = el("button", { type: "button", onclick: () => { chosen.page += 1; show(); } }, "Next");
  const pages = el("div", { class: "tools" }, back, on);
  text.addEventListener("input", () => { chosen.text = text.value; chosen.page = 0; show(); });
  tenant.addEventListener("change", () => { chosen.tenant = tenant.value; chosen.page = 0; show(); });
  const root = el("section", { "aria-label": "VMs" },
    el("div", { class: "tools" }, el("label", {}, "Filter ", text), el("label", {}, "Tenant ", tenant), count), note,
    el("div", { class: "wide" }, el("table", { id: "vms", "aria-label": "VMs" }, el("thead", {}, head), body)), pages);

  const wanted = () => sorted(state, state.vms.filter(matches));
  const rows = () => wanted().slice(chosen.page * PAGE, (chosen.page + 1) * PAGE);
  function show() {
    const all = wanted();
    const last = Math.max(0, Math.ceil(all.length / PAGE) - 1);
    chosen.page = Math.min(Math.max(0, chosen.page), last);
    tenants(tenant, state.vms);
    for (const cell of head.children) {
      const mine = cell.dataset.key === chosen.sort;
      if (mine) cell.setAttribute("aria-sort", chosen.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    const held = body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    body.replaceChildren(...rows().map((vm) => row(state, vm)));
    if (held) [...body.querySelectorAll("a")].find((link) => link.getAttribute("href") === held)?.focus();
    const from = all.length ? chosen.page * PAGE + 1 : 0;
    count.textContent = `${from}–${Math.min(all.length, from + PAGE - 1)} of ${all.length}, ${state.vms.length} VMs in all`;
    pages.hidden = last === 0;
    back.disabled = chosen.page === 0;
    on.disabled = chosen.page === last;
  }
  return { root, rows, show, note };
}

function sortBy(key) {
  chosen.down = chosen.sort === key ? !chosen.down : KINDS.some(([kind]) => kind === key);
  chosen.sort = key;
}

function matches(vm) {
  if (chosen.tenant && vm.tenant !== chosen.tenant) return false;
  const wanted = chosen.text.toLowerCase();
  return [vm.name, vm.vm_id, vm.tenant, vm.state].some((text) => (text || "").toLowerCase().includes(wanted));
}

// What was not measured comes last either way.
function sorted(state, vms) {
  const kind = KINDS.find(([key]) => key === chosen.sort);
  const text = TEXTS.find(([key]) => key === chosen.sort);
  const turn = chosen.down ? -1 : 1;
  const value = (vm) => kind[3](state.latest.get(vm.vm_id) || {});
  const names = (a, b) => name(a.name || a.vm_id).localeCompare(name(b.name || b.vm_id)) || a.vm_id.localeCompare(b.vm_id);
  return [...vms].sort((a, b) => {
    if (text) return turn * text[2](a).localeCompare(text[2](b)) || names(a, b);
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined) || names(a, b);
    return turn * (x - y) || names(a, b);
  });
}

function tenants(select, vms) {
  const there = [...new Set(vms.map((vm) => vm.tenant).filter(Boolean))].sort();
  const options = ["", ...there];
  const shown = [...select.options].map((option) => option.value);
  if (shown.length === options.length && shown.every((value, place) => value === options[place])) return;
  select.replaceChildren(...options.map((value) => el("option", { value }, value ? name(value) : "all")));
  if (!options.includes(chosen.tenant)) chosen.tenant = "";
  select.value = chosen.tenant;
}

function row(state, vm) {
  const sample = vm.state === "stopped" ? {} : state.latest.get(vm.vm_id) || {};
  const line = state.lines.get(vm.vm_id) || [];
  const title = name(vm.name || vm.vm_id);
  const cells = KINDS.map(([kind, label, form, of]) => el("td", { class: "number" },
    el("span", {}, form(of(sample))),
    spark(kind, `${label} of ${title}`, line.map((point) => [point.at, of(point.sample)]), Date.now(), SPAN, STEP)));
  return el("tr", { class: vm.state, "data-vm": vm.vm_id },
    el("td", { class: "name" }, el("a", { href: `#/vms/${segment(vm.vm_id)}`, title: vm.vm_id }, title)),
    el("td", {}, name(vm.tenant) || ABSENT), el("td", {}, vm.state), ...cells);
}
