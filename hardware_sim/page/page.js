// The page: what the bench sends, into what a person sees. All state is in `now`; `draw` shows it.

import { plan, section, span, strip } from "/draw.js";
import { QUALITY, WORDS } from "/words.js";

const $ = (id) => document.getElementById(id);
const MOST_INSTANTS = 1440;
const MOST_CHUNKS = 40; // per line
const TILES = ["PZ01", "PZ02", "PZ03", "PZ04", "LV01", "RN01", "GN01", "AT01"];
const OLD_MIN = 5;
const SAID_MS = 8000; // how long a refusal stays
const AGAIN_MS = 3000; // a bench that turned us away is asked again
const ORDER = ["red", "orange", "yellow", "blue", "none"];

const now = {
  lang: localStorage.getItem("lang") ?? (navigator.language.startsWith("zh") ? "zh" : "en"),
  facts: null, live: null, history: [], past: null, chunks: {}, open: null, hint: null, cut: false, said: "", saidUntil: 0,
};

const say = (key) => WORDS[now.lang][key] ?? key;
const ours = (zh, en) => (now.lang === "zh" ? zh : en);

/** An HTML element of a class, with text or children. */
function html(tag, look, ...children) {
  const made = document.createElement(tag);
  if (look) made.className = look;
  made.append(...children);
  return made;
}

const tongue = () => (now.lang === "zh" ? "zh-CN" : "en-GB");
const TIME = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const clock = (t) => new Date(t * 1000).toLocaleTimeString(tongue(), TIME);
const dated = (t) => new Date(t * 1000).toLocaleString(tongue(), { month: "short", day: "numeric", ...TIME });

function quality(text) {
  const reason = text.split(":")[1] ?? text;
  return text === "good" ? say("good") : QUALITY[now.lang][reason] ?? reason;
}

/** What is believed of a place at the instant that is shown. */
function believed(instant, id) {
  const place = now.facts.places.find((each) => each.id === id);
  const [value, how, level, time] = instant.believed[id] ?? [null, "", "none", null];
  const bad = value === null;
  return {
    place, value, how, level, bad,
    text: bad ? "—" : value.toFixed(place.digits),
    look: bad ? "bad" : how !== "good" ? `uncertain ${level}` : level,
    old_min: time === null ? 0 : Math.floor((instant.t - Date.parse(time) / 1000) / 60),
  };
}

// -- drawing ---------------------------------------------------------------------------------------------

function draw() {
  if (!now.facts || !now.live) return;
  const instant = now.past ?? now.live.instant;
  const show = (id) => believed(instant, id);
  drawHead(instant);
  section($("section"), now.facts, instant, show, WORDS[now.lang], innerWidth < 1000);
  plan($("plan"), instant, show, WORDS[now.lang]);
  $("values").replaceChildren(...TILES.map((id) => tile(instant, show(id))));
  drawTime(instant);
  drawAlarms();
  drawTargets();
  if (!$("wires").hidden) drawWires();
}

function drawHead(instant) {
  document.documentElement.lang = now.lang;
  for (const each of document.querySelectorAll("[data-say]")) each.textContent = say(each.dataset.say);
  for (const each of document.querySelectorAll("[data-title]")) each.setAttribute("aria-label", say(each.dataset.title));
  $("lang").textContent = say("other");
  $("by").placeholder = say("technician");
  $("pond").className = `level ${instant.pond}`;
  $("pond").textContent = instant.pond === "none" ? say("none") : say("pond").replace("%", say(instant.pond));
  $("clock").textContent = `${clock(now.live.instant.t)}  ×${now.facts.rate}`;
  $("daemon").className = `lamp ${now.live.daemon ? "on" : "off"}`;
  $("platform").className = `lamp ${now.live.platform ? "on" : "off"}`;
  const said = Date.now() < now.saidUntil ? now.said : "";
  $("notice").hidden = !said && !now.cut && now.live.daemon;
  $("notice").textContent = said || say(now.cut ? "cut" : "away");
}

function tile(instant, seen) {
  const { place, text, how, look, level, bad, old_min } = seen;
  const stands = level !== "none" && !bad ? html("span", `at ${level}`, say(level)) : "";
  const made = html("article", `tile ${look}`,
    html("h3", "", place.id, html("small", "about", ours(place.name_zh, place.name_en)), html("small", "unit", place.unit)),
    html("strong", "", text),
    html("p", "truth", `${say("true")} ${instant.true[place.id].toFixed(place.digits)}`),
    html("p", "quality", how === "" ? say("waiting") : old_min >= OLD_MIN ? `${old_min} ${say("minutes")}` : how === "good" && stands ? stands : quality(how)));
  made.dataset.place = place.id;
  made.title = ours(place.name_zh, place.name_en);
  return made;
}

function drawTime(instant) {
  const picker = $("scenario");
  if (document.activeElement !== picker) {
    const options = Object.entries(now.facts.scenarios).map(([name, [zh, en]]) => {
      const option = html("option", "", ours(zh || en, en));
      option.value = name;
      return option;
    });
    picker.replaceChildren(...options);
    picker.value = now.live.scenario;
  }
  const [first, last] = [now.history[0]?.t ?? 0, now.history.at(-1)?.t ?? 0];
  $("slider").max = last - first; // seconds: where the thumb stands, the cursor stands above it
  $("slider").value = now.past ? instant.t - first : last - first;
  $("moment").textContent = `${now.past ? say("past") : say("now")} ${dated(instant.t)}`;
  $("live").hidden = !now.past;
  $("asof").textContent = now.past ? say("asOfNow") : "";
  document.body.classList.toggle("past", Boolean(now.past));
  strip($("strip"), now.history, instant);
  const { rain, low, high } = span(now.history);
  $("scale").replaceChildren(
    html("span", "key rain", `${say("rain")} ${say("upTo")} ${rain.toFixed(0)} mm/h`),
    html("span", "key true", `${say("level")} ${low.toFixed(2)} – ${high.toFixed(2)} m`),
    html("span", "", `${dated(first)} – ${dated(last)}`));
}

/** Keeps a list's children that are still the same, so that a button does not vanish under a finger. */
function keep(list, items, key, make) {
  const there = new Map([...list.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const name = key(item);
    const child = there.get(name) ?? make(item);
    child.dataset.key = name;
    return child;
  });
  if (wanted.length !== list.children.length || wanted.some((child, i) => child !== list.children[i])) {
    list.replaceChildren(...wanted);
  }
}

function drawAlarms() {
  const rank = (a) => (a.condition === "gone" ? 100 : 0) + (a.kind === "fault" ? 3.5 : ORDER.indexOf(a.level));
  const alarms = [...now.live.alarms].sort((a, b) => rank(a) - rank(b) || (a.time < b.time ? 1 : -1));
  const present = alarms.filter((a) => a.condition !== "gone").length;
  $("count").textContent = present ? `${present}` : "";
  if (alarms.length === 0) {
    $("alarms").replaceChildren(html("li", "quiet", say("quiet")));
    return;
  }
  keep($("alarms"), alarms, (a) => [now.lang, a.id, a.level, a.condition, a.response].join("|"), alarmRow);
}

function alarmRow(alarm) {
  const look = alarm.level === "none" ? (alarm.condition === "gone" ? "gone" : alarm.kind) : alarm.level;
  const words = [say(alarm.condition === "gone" ? "gone" : look)];
  if (alarm.condition === "unknown") words.push(say("unknown"));
  const row = html("li", `alarm ${look} ${alarm.condition}`,
    html("b", "", words.join(" · ")), html("p", "", ours(alarm.reason.zh, alarm.reason.en)),
    html("time", "", clock(Date.parse(alarm.time) / 1000)));
  if (alarm.response === "new") {
    const button = html("button", "ack", say("acknowledge"));
    button.addEventListener("click", () => tell("/ack", { id: alarm.id, by: $("by").value.trim() || say("technician") }));
    row.append(button);
  } else {
    row.append(html("i", "", `${say(alarm.response)} ${alarm.by ?? ""}`));
  }
  row.dataset.alarm = alarm.id;
  return row;
}

function drawTargets() {
  const key = ([target]) => [now.lang, target, now.live.faults[target], now.open === target, now.open === target && now.hint].join("|");
  keep($("break"), Object.entries(now.facts.targets), key, targetRow);
}

function targetRow([target, offers]) {
  const [zh, en] = now.facts.names[target] ?? [target, target];
  const fault = now.live.faults[target];
  const found = now.facts.looks[fault];
  const head = html("button", "head", html("b", "", ours(zh, en)), html("small", "", target),
    html("span", "state", fault ? (found ? ours(found.name_zh, found.name_en) : fault) : say("well")));
  head.setAttribute("aria-expanded", String(now.open === target));
  head.addEventListener("click", () => { now.open = now.open === target ? null : target; now.hint = null; draw(); });
  const row = html("div", `target ${fault ? "broken" : ""} ${target.includes("/") ? "unit" : "line"}`, head);
  row.dataset.target = target;
  if (now.open === target) {
    row.append(html("div", "switches", ...offers.map((offer) => faultSwitch(target, offer, fault))));
    const hint = now.facts.looks[now.hint ?? fault];
    if (hint) row.append(html("p", "looks", ours(hint.looks_zh, hint.looks_en)));
  }
  return row;
}

function faultSwitch(target, offer, fault) {
  const look = now.facts.looks[offer];
  const button = html("button", "switch", ours(look.name_zh, look.name_en));
  button.dataset.fault = offer;
  button.title = ours(look.looks_zh, look.looks_en);
  button.setAttribute("aria-pressed", String(fault === offer));
  button.addEventListener("click", () => { now.hint = offer; tell("/fault", { target, fault: fault === offer ? "none" : offer }); });
  return button;
}

const printable = (bytes) => bytes.every((byte) => byte === 13 || byte === 10 || (byte > 31 && byte < 127));

function drawWires() {
  $("wires").replaceChildren(...Object.entries(now.facts.lines).map(([line, address]) => {
    const chunks = now.chunks[line] ?? [];
    const rows = chunks.slice(-12).reverse().map((chunk) => {
      const bytes = chunk.hex.split(" ").map((pair) => parseInt(pair, 16));
      const shown = printable(bytes) ? String.fromCharCode(...bytes).trim() : chunk.hex;
      return html("li", chunk.dir, html("time", "", clock(chunk.t)), html("code", "", shown + (chunk.size > bytes.length ? " …" : "")));
    });
    const lit = chunks.length > 0 && now.live.instant.t - chunks.at(-1).t < now.facts.rate;
    return html("section", "", html("h3", lit ? "lit" : "", line, html("small", "", address)),
      html("ol", "", ...(rows.length ? rows : [html("li", "quiet", say("quietLine"))])));
  }));
}

// -- listening and telling -------------------------------------------------------------------------------

async function tell(path, body) {
  const answer = await fetch(path, { method: "POST", body: JSON.stringify(body) }).catch(() => null);
  if (answer === null || answer.ok) return;
  now.said = await answer.text();
  now.saidUntil = Date.now() + SAID_MS;
  draw();
}

function remember(instant) {
  if (now.history.at(-1)?.t >= instant.t) return;
  now.history.push(instant);
  if (now.history.length > MOST_INSTANTS) now.history = now.history.filter((each, i) => i % 2 === 0 || each === now.past);
}

/** What the bench knew before this page looked; another bench on the same port has another past. */
async function learn() {
  const [facts, history] = await Promise.all(["/facts", "/history"].map(async (path) => (await fetch(path)).json()));
  if (history[0]?.t !== now.history[0]?.t) Object.assign(now, { past: null, chunks: {} });
  Object.assign(now, { facts, history });
}

function begin() {
  const live = new EventSource("/live");
  let learnt = null;
  const lost = () => {
    now.cut = true;
    if (live.readyState === EventSource.CLOSED) setTimeout(begin, AGAIN_MS); // turned away: it does not try by itself
    $("notice").hidden = false;
    $("notice").textContent = say("cut");
  };
  live.addEventListener("open", () => { learnt = learn().catch(() => { live.close(); lost(); }); });
  live.addEventListener("error", lost);
  live.addEventListener("instant", async (event) => {
    await learnt;
    if (!now.facts || live.readyState === EventSource.CLOSED) return;
    now.live = JSON.parse(event.data);
    now.cut = false;
    remember(now.live.instant);
    draw();
  });
  live.addEventListener("bytes", async (event) => {
    await learnt;
    for (const chunk of JSON.parse(event.data)) {
      now.chunks[chunk.line] = [...(now.chunks[chunk.line] ?? []), chunk].slice(-MOST_CHUNKS);
    }
  });
}

function paint(theme) {
  document.documentElement.dataset.theme = theme;
}

const dark = matchMedia("(prefers-color-scheme: dark)");
paint(localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light"));
dark.addEventListener("change", () => { if (!localStorage.getItem("theme")) paint(dark.matches ? "dark" : "light"); });
$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", theme);
  paint(theme);
});
$("lang").addEventListener("click", () => {
  now.lang = now.lang === "zh" ? "en" : "zh";
  localStorage.setItem("lang", now.lang);
  $("scenario").blur();
  draw();
});
$("by").value = localStorage.getItem("by") ?? "";
$("by").addEventListener("change", () => localStorage.setItem("by", $("by").value));
$("scenario").addEventListener("change", () => { tell("/scenario", { scenario: $("scenario").value }); $("scenario").blur(); });
$("slider").addEventListener("input", () => {
  const first = now.history[0]?.t ?? 0;
  const [t, end] = [first + Number($("slider").value), now.history.at(-1)?.t ?? 0];
  const near = (a, b) => (Math.abs(b.t - t) < Math.abs(a.t - t) ? b : a);
  now.past = now.history.length && end - t > (end - first) / 500 ? now.history.reduce(near) : null;
  draw();
});
$("live").addEventListener("click", () => { now.past = null; draw(); });
$("repair").addEventListener("click", () => {
  for (const target of Object.keys(now.live?.faults ?? {})) tell("/fault", { target, fault: "none" });
});
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => {
    for (const each of document.querySelectorAll("[role=tab]")) {
      each.setAttribute("aria-selected", String(each === tab));
      $(each.dataset.tab).hidden = each !== tab;
    }
    draw();
  });
}
begin();
