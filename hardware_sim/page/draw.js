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
const X = (m) => (m + 70) * (wide / 230);
const Y = (m) => (94 - m) * (350 / 32);
const BED = [[-70, 75.5], [-40, 76.5], [0, 84], [52, 88], [66, 88], [150, 66], [160, 65.5]];
const GROUND = [[160, 62], [-70, 62]];
const ROCK = [[-70, 66.5], [40, 65], [160, 65.5]];
const TOE_M = [146, 66.4];

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

/** A dot with its name and what is believed there; the dot's class is level or quality. */
function mark(x, y, label, value, look, below = 0) {
  return el("g", { class: `mark ${look}`, "data-place": label },
    el("circle", { cx: x, cy: y, r: 8 }),
    el("text", { class: "name", x, y: y - 30 + below }, label),
    el("text", { class: "value", x, y: y - 13 + below }, value));
}

export function section(svg, facts, instant, show, siren, narrow) {
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
      mark(x, top, p.name, now.text, now.look));
  });
  const [lv, rn, gn] = [show("LV01"), show("RN01"), show("GN01")];
  svg.replaceChildren(
    el("rect", { class: "sky", width: wide, height: 350 }), rainfall(instant.rain),
    el("polygon", { class: "soil", points: points([...BED, ...GROUND].map(([x, y]) => [X(x), Y(y)])) }),
    el("clipPath", { id: "body" }, el("polygon", { points: points([...BED, ...GROUND].map(([x, y]) => [X(x), Y(y)])) })),
    el("path", { class: "wet", "clip-path": "url(#body)", d: `${line}L${X(160)},350L0,350L0,${Y(pond)}Z` }),
    el("polygon", { class: "rock", points: points([...ROCK, ...GROUND].map(([x, y]) => [X(x), Y(y)])) }),
    el("path", { class: "true", d: line }),
    seen.length > 1 ? el("path", { class: "believed", d: curve(seen.map(([x, y]) => [X(x), Y(y)])) }) : null,
    el("polygon", { class: "water", points: points(water.map(([x, y]) => [X(x), Y(y)])) }),
    lv.value === null ? null : el("line", { class: "believed", x1: 0, x2: X(shoreAt(lv.value)), y1: Y(lv.value), y2: Y(lv.value) }),
    ...poles,
    el("line", { class: "beam", x1: X(-54), y1: Y(89.3), x2: X(-54), y2: Y(pond) }),
    mark(X(-54), Y(89.3), "LV01", lv.text, lv.look),
    mark(X(-24), Y(89.3), "RN01", rn.text, rn.look),
    el("line", { class: "mast", x1: X(79), y1: Y(84.6), x2: X(79), y2: Y(86)}),
    mark(X(79), Y(86), "GN01", gn.text, gn.look),
    el("g", { class: siren ? "siren on" : "siren", transform: `translate(${X(46)},${Y(88.4)})` },
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
    el("text", { class: "hint crest", x: 18, y: 66 }, words.crest),
    el("circle", { class: "ring", cx: 110, cy: 106, r: 39 }), el("circle", { class: "ring", cx: 110, cy: 106, r: 78 }),
    el("text", { class: "hint", x: 110, y: 198 }, `${scale} mm`),
    el("path", { class: "north", d: "M196,34 L202,12 L208,34 L202,29 Z" }), el("text", { class: "hint", x: 202, y: 50 }, words.north),
    arrow(instant.true.GN01E, instant.true.GN01N, scale, "arrow true"),
    e === null || n === null ? null : arrow(e, n, scale, "arrow believed"),
    el("text", { class: "name", x: 34, y: 24 }, "GN01"));
}

// -- the strip: rain hangs from above, the pond's level below, its warning level as a ribbon --------------

const MOST_BARS = 86;

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
  const most = Math.max(20, ...bars);
  const levels = history.map((each) => each.true.LV01);
  const seen = history.filter((each) => each.believed.LV01 && each.believed.LV01[0] !== null);
  const [low, high] = [Math.min(...levels) - 0.2, Math.max(...levels) + 0.4];
  const y = (m) => 82 - ((m - low) / (high - low)) * 70;
  const ribbon = [];
  for (const each of history) {
    if (ribbon.at(-1)?.level !== each.pond) ribbon.push({ level: each.pond, from: place(each.t) });
  }
  svg.replaceChildren(
    ...bars.map((rain, i) => el("rect", { class: "bar", x: (i + 0.1) * step, y: 0, width: 0.8 * step, height: (rain / most) * 60 })),
    el("polyline", { class: "true", points: points(history.map((each) => [place(each.t), y(each.true.LV01)])) }),
    el("polyline", { class: "believed", points: points(seen.map((each) => [place(each.t), y(each.believed.LV01[0])])) }),
    ...ribbon.map(({ level, from }, i) =>
      el("rect", { class: `ribbon ${level}`, x: from, y: 88, width: Math.max(0, (ribbon[i + 1]?.from ?? 860) - from), height: 8 })),
    el("line", { class: "cursor", x1: place(at.t), x2: place(at.t), y1: 0, y2: 96 }));
}
