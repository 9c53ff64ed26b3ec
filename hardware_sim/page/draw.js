// Three drawings of one instant: the section, the plan, the strip of what has passed.
// Each is made anew from the facts and the instant; nothing is remembered between two calls.

const NS = "http://www.w3.org/2000/svg";

/** An SVG element; `null` among the children is left out. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

const points = (list) => list.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

/** A curve through points that never overshoots them: Hermite, slopes the harmonic mean of the neighbours'. */
function curve(list) {
  const rise = list.slice(1).map(([x, y], i) => (y - list[i][1]) / (x - list[i][0]));
  const slope = list.map((_, i) => {
    const [before, after] = [rise[i - 1] ?? rise[i], rise[i] ?? rise[i - 1]];
    return before * after > 0 ? (2 * before * after) / (before + after) : 0;
  });
  return list.map(([x, y], i) => {
    if (i === 0) return `M${x.toFixed(1)},${y.toFixed(1)}`;
    const [x0, y0] = list[i - 1];
    const third = (x - x0) / 3;
    const bends = [[x0 + third, y0 + slope[i - 1] * third], [x - third, y - slope[i] * third], [x, y]];
    return `C${points(bends)}`;
  }).join("");
}

// -- the section: metres along it and metres of elevation; the dam's outline is schematic ------------------

let wide = 900; // of the drawing, in its own units: narrower on a phone, where letters must be larger
const X = (m) => (m + 70) * (wide / 255);
const Y = (m) => (94 - m) * (350 / 32);
// An upstream raised dam: beach, crest, a slope with berms where each raising ends, the starter dam at the toe.
const BED = [[-70, 75.5], [-40, 76.5], [0, 84], [52, 88], [64, 88], [76, 84.6], [82, 84.6], [95, 80.8], [101, 80.8],
  [115, 76.8], [121, 76.8], [125, 75.4], [133, 75.4], [152, 66], [160, 65.5], [185, 65.2]];
const BERMS_M = [[82, 84.6], [101, 80.8], [121, 76.8]]; // from their outer edges each raising sits on the beach before it
const STARTER = [[105, 65.4], [125, 75.4], [133, 75.4], [152, 66]];
const GROUND = [[185, 62], [-70, 62]];
const ROCK = [[-70, 66.5], [40, 65], [160, 65.4], [185, 65.1]];
const TOE_M = [147, 66.4];
const TICKS_M = [70, 75, 80, 85, 90];

function groundAt(x) {
  const i = BED.findIndex(([at]) => at >= x);
  const [[x0, y0], [x1, y1]] = [BED[Math.max(0, i - 1)], BED[i]];
  return x1 === x0 ? y0 : y0 + ((x - x0) / (x1 - x0)) * (y1 - y0);
}

function shoreAt(level) {
  for (let x = -40; x < 52; x += 0.25) if (groundAt(x) >= level) return x;
  return 52;
}

/** The phreatic surface; where the pond has drowned the first well the line begins under water. */
function surface(pond, heads) {
  const from = Math.min(shoreAt(pond), heads[0][0] - 6);
  return curve([[from, pond], ...heads, TOE_M].map(([x, y]) => [X(x), Y(y)]));
}

function rainfall(rain) {
  const many = Math.min(60, Math.round(rain));
  return el("g", { class: "rain" }, ...Array.from({ length: many }, (_, i) => {
    const [x, y] = [(i * 137.5) % (wide * 0.6), (i * 61.8) % 70];
    return el("line", { x1: x, y1: y, x2: x - 5, y2: y + 18 });
  }));
}

/** Elevations at the right edge, in metres. */
function scale() {
  return el("g", { class: "scale" }, ...TICKS_M.flatMap((m) => [
    el("line", { x1: wide - 8, x2: wide, y1: Y(m), y2: Y(m) }), el("text", { x: wide - 11, y: Y(m) + 5 }, `${m} m`)]));
}

const label = (x, y, text) => el("text", { class: "part", x: X(x), y: Y(y) }, text);

/** The sign for a free water surface. */
const water_sign = (x, y) => el("g", { class: "surface" },
  el("path", { d: `M${x - 8},${y - 14}h16l-8,12Z` }), el("path", { d: `M${x - 7},${y + 4}h14M${x - 4},${y + 8}h8` }));

/** The decant tower, as high as the pond may stand. */
const tower = (x) => el("path", { class: "tower", d: `M${X(x) - 6},${Y(74)}V${Y(86)}h12V${Y(74)}Z` });

/** A dot with its name and, where there is room, what is believed there; its class is level or quality. */
function mark(x, y, seen, narrow) {
  const { place, text, look, bad } = seen;
  return el("g", { class: `mark ${look}`, "data-place": place.id },
    el("circle", { cx: x, cy: y, r: 8 }),
    el("text", { class: "name", x, y: y - (narrow ? 15 : 30) }, place.id),
    narrow ? null : el("text", { class: "value", x, y: y - 13 }, bad ? text : `${text} ${place.unit}`));
}

export function section(svg, facts, instant, show, words, narrow) {
  wide = narrow ? 560 : 900;
  svg.setAttribute("viewBox", `0 0 ${wide} 350`);
  const wells = facts.piezometers;
  const pond = instant.true.LV01;
  const truth = wells.map((p) => [p.distance_m, instant.true[p.name]]);
  const seen = wells.filter((p) => show(p.name).value !== null).map((p) => [p.distance_m, show(p.name).value]);
  const line = surface(pond, truth);
  const shore = shoreAt(pond);
  const water = [[-70, pond], [shore, pond], ...BED.filter(([x]) => x < shore).reverse()];
  const poles = wells.map((p) => {
    const [x, top, now] = [X(p.distance_m), Y(groundAt(p.distance_m)) - 14, show(p.name)];
    return el("g", { class: `well ${now.look}` },
      el("line", { x1: x, y1: top, x2: x, y2: Y(p.tip_elevation_m) }),
      el("circle", { class: "tip", cx: x, cy: Y(p.tip_elevation_m), r: 6 }),
      now.value === null ? null : el("circle", { class: "head", cx: x, cy: Y(now.value), r: 7 }),
      mark(x, top, now, narrow));
  });
  const [lv, rn, gn] = [show("LV01"), show("RN01"), show("GN01")];
  svg.replaceChildren(
    el("rect", { class: "sky", width: wide, height: 350 }), rainfall(instant.rain),
    el("polygon", { class: "soil", points: points([...BED, ...GROUND].map(([x, y]) => [X(x), Y(y)])) }),
    el("clipPath", { id: "body" }, el("polygon", { points: points([...BED, ...GROUND].map(([x, y]) => [X(x), Y(y)])) })),
    el("path", { class: "wet", "clip-path": "url(#body)", d: `${line}L${X(TOE_M[0])},350L0,350L0,${Y(pond)}Z` }),
    el("polygon", { class: "starter", points: points(STARTER.map(([x, y]) => [X(x), Y(y)])) }),
    ...BERMS_M.map(([x, y]) => el("line", { class: "raising", x1: X(x), y1: Y(y), x2: X(x - 16), y2: Y(y - 1) })),
    el("polygon", { class: "rock", points: points([...ROCK, ...GROUND].map(([x, y]) => [X(x), Y(y)])) }),
    el("path", { class: "true", d: line }),
    seen.length > 1 ? el("path", { class: "believed", d: curve(seen.map(([x, y]) => [X(x), Y(y)])) }) : null,
    tower(-62),
    el("polygon", { class: "water", points: points(water.map(([x, y]) => [X(x), Y(y)])) }),
    lv.value === null ? null : el("line", { class: "believed", x1: 0, x2: X(shoreAt(lv.value)), y1: Y(lv.value), y2: Y(lv.value) }),
    water_sign(X(-34), Y(pond)),
    label(-52, 79.5, words.basin), label(47.5, 84.8, words.beach), label(90, 70, words.raised), label(133, 69, words.starter),
    label(168, 63.2, words.bedrock),
    scale(),
    ...poles,
    el("line", { class: "beam", x1: X(-54), y1: Y(89.3), x2: X(-54), y2: Y(pond) }),
    mark(X(-54), Y(89.3), lv, narrow),
    mark(X(-24), Y(89.3), rn, narrow),
    el("line", { class: "mast", x1: X(79), y1: Y(84.6), x2: X(79), y2: Y(86)}),
    mark(X(79), Y(86), gn, narrow),
    el("g", { class: instant.siren ? "siren on" : "siren", transform: `translate(${X(53)},${Y(88.7)})` },
      el("path", { d: "M-7,8 L-7,-2 A7,7 0 0 1 7,-2 L7,8 Z" }),
      el("path", { class: "sound", d: "M12,-8 a12,12 0 0 1 0,14 M18,-13 a20,20 0 0 1 0,24" })));
}

// -- the plan: east and north in millimetres, the scale as large as it must be ---------------------------

const SCALES_MM = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000];

function arrow(east, north, scale, look) {
  const [x, y] = [110 + (east / scale) * 78, 106 - (north / scale) * 78];
  return el("g", { class: look },
    el("line", { x1: 110, y1: 106, x2: x, y2: y }), el("circle", { cx: x, cy: y, r: 6 }));
}

export function plan(svg, instant, show, words) {
  const [e, n] = [show("GN01E").value, show("GN01N").value];
  const far = Math.max(Math.hypot(instant.true.GN01E, instant.true.GN01N), e === null ? 0 : Math.hypot(e, n));
  const scale = SCALES_MM.find((mm) => mm >= far) ?? SCALES_MM.at(-1);
  svg.replaceChildren(
    el("polygon", { class: "soil", points: "14,74 206,44 206,66 14,96" }),
    el("circle", { class: "ring", cx: 110, cy: 106, r: 39 }), el("circle", { class: "ring", cx: 110, cy: 106, r: 78 }),
    el("text", { class: "hint crest", x: 18, y: 69 }, words.crest),
    el("text", { class: "hint", x: 110, y: 198 }, `${scale} mm`),
    el("path", { class: "north", d: "M196,34 L202,12 L208,34 L202,29 Z" }), el("text", { class: "hint", x: 202, y: 50 }, words.north),
    arrow(instant.true.GN01E, instant.true.GN01N, scale, "arrow true"),
    e === null || n === null ? null : arrow(e, n, scale, "arrow believed"),
    el("text", { class: "name", x: 34, y: 24 }, "GN01"));
}

// -- the strip: rain hangs from above, the pond's level below, its warning level as a ribbon --------------

const MOST_BARS = 86;

/** What the strip shows: the most rain in mm/h, and the pond's levels in m at its bottom and top. */
export function span(history) {
  const levels = history.flatMap((each) => [each.true.LV01, each.believed.LV01?.[0] ?? each.true.LV01]);
  return { rain: Math.max(...history.map((each) => each.rain)), low: Math.min(...levels) - 0.2, high: Math.max(...levels) + 0.4 };
}

export function strip(svg, history, at) {
  if (history.length === 0) return;
  const [first, last] = [history[0].t, history.at(-1).t];
  const place = (t) => ((t - first) / Math.max(1, last - first)) * 860;
  const bars = Array.from({ length: Math.min(MOST_BARS, history.length) }, () => 0);
  const step = 860 / bars.length;
  for (const each of history) {
    const bin = Math.min(bars.length - 1, Math.floor(place(each.t) / step));
    bars[bin] = Math.max(bars[bin], each.rain);
  }
  const { rain, low, high } = span(history);
  const most = Math.max(20, rain);
  const seen = history.filter((each) => each.believed.LV01 && each.believed.LV01[0] !== null);
  const y = (m) => 84 - ((m - low) / (high - low)) * 84;
  const ribbon = [];
  for (const each of history) {
    if (ribbon.at(-1)?.level !== each.pond) ribbon.push({ level: each.pond, from: place(each.t) });
  }
  svg.replaceChildren(
    ...bars.map((each, i) => el("rect", { class: "bar", x: (i + 0.1) * step, y: 0, width: 0.8 * step, height: (each / most) * 50 })),
    el("polyline", { class: "true", points: points(history.map((each) => [place(each.t), y(each.true.LV01)])) }),
    el("polyline", { class: "believed", points: points(seen.map((each) => [place(each.t), y(each.believed.LV01[0])])) }),
    ...ribbon.map(({ level, from }, i) =>
      el("rect", { class: `ribbon ${level}`, x: from, y: 88, width: Math.max(0, (ribbon[i + 1]?.from ?? 860) - from), height: 8 })),
    el("line", { class: "cursor", x1: place(at.t), x2: place(at.t), y1: 0, y2: 96 }));
}
