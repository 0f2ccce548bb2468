// Where to: the address says what is shown. Each part ends with its signal when another begins.

import { get } from "./api.js";
import { list } from "./list.js";
import { vm } from "./vm.js";
import { events } from "./events.js";
import { agent } from "./agent.js";

const content = document.getElementById("content");
let part = new AbortController();

function go() {
  part.abort();
  part = new AbortController();
  const [, where = "vms", id] = location.hash.split("/");
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${where}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = id ? `${decodeURIComponent(id)} – kvmeter` : "kvmeter";
  if (where === "vms" && id) vm(content, part.signal, decodeURIComponent(id));
  else if (where === "events") events(content, part.signal);
  else if (where === "agent") agent(content, part.signal);
  else list(content, part.signal);
}

async function health() {
  const place = document.getElementById("health");
  try {
    const status = await get("v1/status");
    const missing = status.features.filter((feature) => !feature.available).length;
    place.textContent = `${status.health === "ok" ? "healthy" : status.health}${missing ? `, ${missing} not measured` : ""}`;
    place.className = status.health === "ok" ? "good" : "bad";
  } catch (error) {
    place.textContent = "the agent does not answer";
    place.className = "bad";
  }
}

addEventListener("hashchange", () => { go(); content.focus(); });
go();
health();
setInterval(health, 5000);
