// The front end of a picture viewer: it holds float samples in tiles, stretches them, and lets one zoom and pan.
//
// The kernel has the image as a pyramid: level 0 is the image, each further level has half as many rows and
// columns, and the last one is a single tile, the overview. Tiles are asked for when they are seen, as messages,
// so that no pixels are saved in the notebook. A tile is painted onto a canvas of its own when the stretch
// changes; zooming and panning only draw these canvases. The formulas of the stretch are those of stretches.py.

const STEPS = 16384; // entries of each half of the table from positions to colors
const LAST = 2 * STEPS - 1;
const KNEE = 64; // the finer half ends at this many times the position of the sky
const ASKED = 4; // tiles that are on their way at the same time
const KEPT = 192 << 20; // bytes of tiles that are kept
const LARGEST = 64; // screen pixels per pixel
const PATIENCE = 8000; // milliseconds until a silent kernel is mentioned
const EDGE = 7; // screen pixels from the edge of a box at which it can be taken
const LINKED = "stacklib-viewer"; // event by which linked viewers tell each other what they show

const BALANCES = { neutral: "neutral sky", linked: "linked", separate: "per channel" };
const CURVES = { midtones: "midtones (STF)", asinh: "asinh", linear: "linear" };
const SHORT_CURVES = { ...CURVES, midtones: "STF" };
const LONG_VALUE = 0.12345679; // as many digits as a float32 has
const HELP = "Wheel: zoom. Drag: move. Double click or f: fit. 1: one to one. + and -: zoom. Arrows: move. "
  + "Shift and arrows: move the crosshair. c: crosshair to the center. Enter: choose the pixel of the crosshair.";
const BOX_HELP = " Shift and drag: draw a box. Drag its edges or its inside: change it. Escape: no box.";

// stretch -------------------------------------------------------------------------------------------

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

export const midtones = (m, x) => ((m - 1) * x) / ((2 * m - 1) * x - m);

/** Black point, span, and position of the sky (0 to 1) of each channel; levels are [center, sigma, low, top]. */
export function placements(levels, balance, clip) {
  const white = Math.max(1, ...levels.map((level) => level[3]));
  const floor = Math.min(0, ...levels.map((level) => level[2]));
  const place = (black, centre, lowest = black) => {
    const span = white - lowest || 1;
    return { black, span, sky: (centre - black) / span };
  };
  const above = (centre, sigma) => (sigma > 0 ? Math.max(centre - clip * sigma, floor) : floor);
  const centre = mean(levels.map((level) => level[0]));
  const sigma = mean(levels.map((level) => level[1]));
  if (balance === "separate") return levels.map(([c, s]) => place(above(c, s), c));
  if (balance === "linked" || !(sigma > 0)) return levels.map(() => place(above(centre, sigma), centre));
  const blacks = levels.map(([c]) => c - clip * sigma);
  return blacks.map((black, i) => place(black, levels[i][0], Math.min(...blacks)));
}

/** Brightness (0 to 1) as a function of the position x: the sky is shown at `target`. */
export function curve(kind, sky, target) {
  if (!(sky > 0 && sky < 1)) return (x) => x;
  if (kind === "linear") return (x) => (x * target) / sky;
  if (kind === "midtones") {
    const m = midtones(target, sky);
    return (x) => midtones(m, x);
  }
  if (sky >= target) return (x) => x;
  let [low, high] = [-20, 60]; // of the logarithm of the softening, to be halved until exact
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    const shown = Math.asinh(Math.exp(middle) * sky) / Math.asinh(Math.exp(middle));
    if (shown < target) low = middle;
    else high = middle;
  }
  const beta = Math.exp(low);
  return (x) => Math.asinh(beta * x) / Math.asinh(beta);
}

/**
 * A table of a curve in two halves: a fine one up to the knee, for the steep part around the sky, and one for all
 * positions. It is faster than the formula, and as exact as 256 shades need.
 */
function tabulate(shape, sky, entry, kind) {
  const knee = sky > 0 ? Math.min(KNEE * sky, 1) : 1;
  const entries = new kind(2 * STEPS);
  for (let i = 0; i < STEPS; i++) {
    const x = (i + 0.5) / STEPS;
    entries[i] = entry(Math.min(Math.max(shape(x * knee), 0), 1));
    entries[STEPS + i] = entry(Math.min(Math.max(shape(x), 0), 1));
  }
  return { knee, fine: STEPS / knee, entries };
}

const gray = (y) => 0xff000000 | (Math.round(255 * y) * 0x010101);

/** The 256 colors of a palette, from its hexadecimal digits. */
function shadesOf(palette) {
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const colour = parseInt(palette.slice(6 * i, 6 * i + 6), 16);
    return 0xff000000 | ((colour & 0xff) << 16) | (colour & 0xff00) | (colour >> 16);
  });
}

// what is written -----------------------------------------------------------------------------------

/** The shortest decimal number that is this float32. */
export function shortest(value) {
  if (!Number.isFinite(value)) return "no data";
  for (let digits = 1; digits < 9; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}

const rounded = (value, digits = 5) => String(Number(value.toPrecision(digits)));

/** A round length for a bar of at most `most` pixels, as text and in pixels; scale in arcseconds per pixel. */
function bar(most, scale) {
  const whole = most * (scale || 1);
  const power = 10 ** Math.floor(Math.log10(whole));
  const decimal = power * [5, 2, 1].find((step) => step * power <= whole);
  if (!scale) return { text: `${rounded(decimal)} px`, length: decimal };
  const round = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600].filter((step) => step <= whole);
  const length = whole < 1 || whole >= 7200 ? decimal : round.at(-1);
  const [unit, size] = [["°", 3600], ["′", 60], ["″", 0]].find(([, size]) => length >= size);
  return { text: `${rounded(length / (size || 1))}${unit}`, length: length / scale };
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Write a text unless it stands there: the browser would arrange the page anew. */
function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

// the viewer ----------------------------------------------------------------------------------------

/** What the tools and the size of the stage depend on. */
const kindOf = ({ width, height, channels, names, palettes, scale, tops, compact, boxes }) =>
  JSON.stringify([width, height, channels, names, Object.keys(palettes ?? {}), scale, tops, compact, boxes]);

/** What the length of the readout depends on. */
const tellsOf = ({ width, height, names, unit, factor, zero, sky, compact }) =>
  JSON.stringify([width, height, names, unit, factor, zero, Boolean(sky), compact]);

/** Name of what a drag would do, for the shape of the pointer. */
function gripName(sides) {
  if (!sides || sides === "new") return sides ?? "";
  if (sides.every(Boolean)) return "move";
  const [left, top, right, bottom] = sides;
  if ((left || right) && (top || bottom)) return (left && top) || (right && bottom) ? "nwse" : "nesw";
  return left || right ? "ew" : "ns";
}

class Viewer {
  constructor(model, root) {
    this.model = model;
    this.meta = model.get("meta");
    this.id = Math.random();
    this.tiles = new Map(); // "level/column/row" to a tile, the one used last at the end
    this.asked = new Map(); // what is on its way, and since when
    this.version = 0; // of the stretch
    this.cursor = null; // column and row
    this.exact = new Map(); // "x,y" to what the kernel said about a pixel
    this.question = null;
    this.wide = this.tall = 0; // size of the stage
    this.ended = new AbortController();
    this.furnished = new AbortController(); // ended when the tools are made anew
    this.build(root);
    this.listen();
    this.restretch();
    new ResizeObserver(() => this.resize()).observe(this.stage);
    this.resize();
    this.timer = setInterval(() => this.wait(), 1000);
    if (model.get("sharpness") !== devicePixelRatio) this.set("sharpness", devicePixelRatio);
  }

  close() {
    this.ended.abort();
    this.furnished.abort();
    clearInterval(this.timer);
    clearTimeout(this.telling);
    this.send({ ask: "seen", view: String(this.id), keys: [] });
  }

  // page ----------------------------------------------------------------------------------------------

  build(root) {
    this.root = element("div", { class: "stacklib-viewer", "data-lm-suppress-shortcuts": "true" });
    this.canvas = element("canvas", { role: "img" });
    this.marks = element("canvas", { "aria-hidden": "true" });
    this.stage = element("div", { class: "stage", tabindex: 0, role: "group" }, this.canvas, this.marks);
    this.readout = element("div", { class: "readout" });
    this.spoken = element("div", { class: "spoken", role: "status", "aria-live": "polite" });
    this.note = element("div", { class: "note", hidden: "" });
    this.title = element("span", { class: "title" });
    this.legend = element("span", { class: "legend", "aria-hidden": "true" });
    this.head = element("div", { class: "head" }, this.title, this.legend);
    this.root.append(this.head, this.stage, this.readout, this.note, this.spoken);
    this.furnish();
    root.append(this.root);
  }

  /** Make what depends on the kind of image: size, tools. */
  furnish() {
    const { meta } = this;
    this.furnished.abort();
    this.furnished = new AbortController();
    this.root.classList.toggle("compact", meta.compact);
    if (this.model.get("height")) this.stage.style.height = `${this.model.get("height")}px`;
    else this.stage.style.aspectRatio = `${meta.width} / ${meta.height}`;
    this.tools?.remove();
    this.tools = this.buildTools();
    this.head.after(this.tools);
    this.kind = kindOf(meta);
  }

  /** Take another image, of the same size or not; what is shown stays until its tiles arrive. */
  renew(meta) {
    if (meta.version === this.meta.version) return;
    const before = this.meta;
    this.meta = meta;
    this.asked.clear();
    this.exact.clear();
    this.question = null;
    this.problem = undefined;
    if (["width", "height", "channels"].some((name) => before[name] !== meta[name])) {
      this.tiles.clear();
      this.cursor = null;
      this.told = undefined;
    }
    if (this.kind !== kindOf(meta)) this.furnish();
    if (this.wide && tellsOf(before) !== tellsOf(meta)) this.reserve();
    this.restretch();
  }

  buildTools() {
    const { meta } = this;
    const button = (text, title, action) => {
      const made = element("button", { type: "button", title, "aria-label": title }, text);
      made.addEventListener("click", action);
      return made;
    };
    const zooms = [
      button("Fit", "Fit the whole image (f)", () => this.fit()),
      button("1:1", "One screen pixel for each pixel (1)", () => this.zoomTo(1 / devicePixelRatio))];
    if (!meta.compact) zooms.push(
      button("+", "Zoom in (+)", () => this.zoomBy(1.5)),
      button("−", "Zoom out (-)", () => this.zoomBy(1 / 1.5)));
    const tools = element("div", { class: "tools" }, ...zooms);
    if (meta.channels > 1) {
      const all = meta.palettes ? "mean" : meta.channels === 3 ? meta.names.join("") : null;
      const planes = { ...(all && { "-1": all }), ...Object.fromEntries(meta.names.entries()) };
      tools.append(this.choice("channel", "plane", planes, Number));
    }
    if (meta.palettes) {
      const names = Object.keys(meta.palettes);
      if (names.length > 1) tools.append(this.choice("colors", "colours", Object.fromEntries(names.map((name) => [name, name]))));
      if (meta.scale !== "classes") tools.append(this.slider("scale", "top", meta.tops[0], meta.tops[1], true));
    } else {
      tools.append(this.choice("stretch", "curve", meta.compact ? SHORT_CURVES : CURVES));
      if (meta.channels > 1 && !meta.compact) tools.append(this.choice("black point", "balance", BALANCES));
      tools.append(this.slider("brightness", "target", 0.02, 0.6));
      if (!meta.compact) tools.append(this.slider("sigma to black", "clip", 0.5, 10));
    }
    if (!meta.compact) tools.append(button("Auto", "Back to the automatic stretch", () => this.reset()));
    if (meta.boxes) {
      this.boxButton = button("Box", "Draw a box with the mouse (also with Shift)", () => this.arm(!this.armed));
      tools.append(this.boxButton);
      this.arm(false);
    }
    const words = meta.compact ? "PNG" : "Save as PNG";
    tools.append(button(words, "Save what is shown as PNG, with this stretch", () => this.save()));
    return tools;
  }

  choice(label, name, options, kind = String) {
    const made = element("select", { title: label, "aria-label": label });
    for (const [value, text] of Object.entries(options)) made.append(element("option", { value }, text));
    made.addEventListener("change", () => this.set(name, kind(made.value)));
    this.follow(name, () => { made.value = this.model.get(name); }, this.furnished);
    return made;
  }

  slider(label, name, low, high, byFactors = false) {
    const [from, to] = byFactors ? [Math.exp, Math.log] : [Number, Number];
    const made = element("input", { type: "range", min: to(low), max: to(high), step: (to(high) - to(low)) / 200,
      title: label, "aria-label": label });
    made.addEventListener("input", () => this.set(name, from(Number(made.value))));
    this.follow(name, () => {
      made.value = to(this.model.get(name));
      made.setAttribute("aria-valuetext", rounded(this.model.get(name)));
    }, this.furnished);
    return element("label", {}, this.meta.compact ? "" : label, made);
  }

  /** Do something now and whenever a trait changes. */
  follow(name, action, until = this.ended) {
    this.model.on(`change:${name}`, action);
    until.signal.addEventListener("abort", () => this.model.off(`change:${name}`, action));
    action();
  }

  set(name, value) {
    this.model.set(name, value);
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.tell(() => this.model.save_changes()), 200);
  }

  /** Tell the kernel at once: somebody waits for an answer. */
  choose(name, value) {
    this.model.set(name, value);
    clearTimeout(this.saving);
    this.tell(() => this.model.save_changes());
  }

  reset() {
    for (const [name, value] of Object.entries(this.meta.usual)) this.set(name, value);
  }

  listen() {
    const { signal } = this.ended;
    const on = (target, type, action, options = {}) =>
      target.addEventListener(type, action, { signal, ...options });
    on(this.stage, "wheel", (event) => this.wheel(event), { passive: false });
    on(this.stage, "pointerdown", (event) => this.press(event));
    on(this.stage, "pointermove", (event) => this.move(event));
    on(this.stage, "pointerup", (event) => this.release(event));
    on(this.stage, "pointercancel", () => { this.grip = this.drawn = null; this.mark(); });
    on(this.stage, "pointerleave", () => { this.awake = false; this.point(null); });
    on(this.stage, "dblclick", () => this.fit());
    on(this.stage, "keydown", (event) => this.key(event));
    // Keys in a slider or a menu are not for the notebook either.
    on(this.root, "keydown", (event) => event.stopPropagation());
    on(document, LINKED, ({ detail }) => this.hear(detail));
    const answer = (message, buffers) => this.take(message, buffers);
    this.model.on("msg:custom", answer);
    signal.addEventListener("abort", () => this.model.off("msg:custom", answer));
    for (const name of ["plane", "curve", "balance", "target", "clip", "colours", "top"]) {
      this.follow(name, () => this.restretch());
    }
    this.follow("meta", () => this.renew(this.model.get("meta")));
    this.follow("title", () => {
      const title = this.model.get("title");
      this.title.textContent = title;
      this.stage.setAttribute("aria-label", `${title}. ${HELP}${this.meta.boxes ? BOX_HELP : ""}`);
    });
    this.follow("alt", () => this.canvas.setAttribute("aria-label", this.model.get("alt")));
    for (const name of ["view", "mark", "box"]) this.follow(name, () => this.draw());
  }

  // kernel --------------------------------------------------------------------------------------------

  tell(action) {
    try {
      action();
    } catch {
      this.silent = true; // the connection is gone: the kernel was restarted
    }
  }

  send(message) {
    this.tell(() => this.model.send(message));
  }

  take(message, buffers) {
    if (message.kind === "image") {
      // In one message with its tiles, so that it is seen at once and as a whole.
      this.renew(message.meta);
      message.tiles.forEach((tile, i) => this.keep(tile, buffers[i]));
      this.draw();
    } else if (message.kind === "tile") {
      this.keep(message, buffers[0]);
      this.draw();
    } else if (message.kind === "pixel") {
      this.silent = false;
      if (this.exact.size > 500) this.exact.clear();
      const values = message.values.map((value) => value ?? NaN); // JSON has no NaN
      this.exact.set(`${message.x},${message.y}`, { values, sky: message.sky });
      this.question = null;
      this.read();
    } else if (message.kind === "problem") {
      this.problem = message.text;
      this.wait();
      this.draw();
    }
  }

  keep(tile, bytes) {
    this.silent = false;
    if (tile.version !== this.meta.version) return;
    this.asked.delete(tile.key);
    const values = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    let { canvas, context } = this.tiles.get(tile.key) ?? {};
    if (canvas?.width !== tile.width || canvas?.height !== tile.height) {
      canvas = element("canvas", { width: tile.width, height: tile.height });
      context = canvas.getContext("2d");
    }
    this.tiles.set(tile.key, { ...tile, values, canvas, context, painted: -1, part: [0, 0, 0, 0] });
  }

  /** Whether a tile of the present image is here, not only one of an image before. */
  has(key) {
    return this.tiles.get(key)?.version === this.meta.version;
  }

  /** Ask for tiles that are seen, the first ones first, a few at a time. */
  ask(keys) {
    for (const key of keys) {
      if (this.asked.size >= ASKED) return;
      if (this.has(key) || this.asked.has(key)) continue;
      this.asked.set(key, Date.now());
      this.send({ ask: "tile", key });
    }
  }

  /** Tell which tiles are seen: those of the next image come without being asked for. */
  tellSeen(keys) {
    if (String(keys) === this.told) return;
    this.told = String(keys);
    clearTimeout(this.telling);
    this.telling = setTimeout(() => this.send({ ask: "seen", view: String(this.id), keys }), 100);
  }

  /** Mention a kernel that does not answer; ask again, as it may have been busy. */
  wait() {
    const since = Math.min(...this.asked.values(), this.question?.since ?? Infinity);
    const late = Date.now() - since > PATIENCE;
    if (late) {
      this.asked.clear();
      this.question = null;
      this.silent = true;
      this.draw();
    }
    const words = "The kernel does not answer. If it is busy, details follow; if it was restarted, run the cell again.";
    this.note.textContent = this.problem ?? (this.silent ? words : "");
    this.note.hidden = !this.note.textContent;
  }

  /** Forget the tiles that were not used for longest. The overview stays. */
  forget() {
    let bytes = 0;
    for (const tile of this.tiles.values()) bytes += tile.values.byteLength + 4 * tile.width * tile.height;
    for (const [key, tile] of this.tiles) {
      if (bytes <= KEPT) return;
      if (tile.level === this.meta.levels - 1 || tile.seen === this.frame) continue;
      bytes -= tile.values.byteLength + 4 * tile.width * tile.height;
      this.tiles.delete(key);
    }
  }

  // stretch -------------------------------------------------------------------------------------------

  /** Make the tables anew, unless nothing has changed that they follow from. */
  restretch() {
    const { model, meta } = this;
    const get = (name) => model.get(name);
    const colours = meta.palettes && (meta.palettes[get("colours")] ?? Object.values(meta.palettes)[0]);
    const own = colours ? [colours, meta.scale, meta.classes, meta.unit, meta.factor, get("top")]
      : [meta.statistics, ...["curve", "balance", "target", "clip"].map(get)];
    const made = JSON.stringify([this.plane, meta.names, ...own]);
    if (made !== this.made) {
      this.made = made;
      if (colours) this.colour(colours);
      else this.shade();
      this.version++;
    }
    this.draw();
  }

  /** Tables of a color map. */
  colour(colours) {
    const { meta } = this, top = this.model.get("top");
    const shades = shadesOf(colours);
    // A root shows small values; values of both signs and classes are evenly spread.
    const [shape, low, high] = {
      root: () => [Math.sqrt, 0, top],
      both: () => [(x) => x, -top, top],
      classes: () => [(x) => x, meta.classes[0][0] - 0.5, meta.classes.at(-1)[0] + 0.5],
    }[meta.scale]();
    const entry = (y) => shades[Math.round(255 * y)];
    const table = { black: low, gain: 1 / (high - low), ...tabulate(shape, 1, entry, Uint32Array) };
    this.tables = meta.names.map(() => table);
    this.describe(colours);
  }

  /** Tables of a stretch. */
  shade() {
    const get = (name) => this.model.get(name);
    const [entry, kind] = this.plane < 0 ? [(y) => Math.round(255 * y), Uint8Array] : [gray, Uint32Array];
    const shapes = new Map(); // most channels share one
    this.tables = placements(this.meta.statistics, get("balance"), get("clip")).map(({ black, span, sky }) => {
      const key = sky.toPrecision(9);
      if (!shapes.has(key)) shapes.set(key, tabulate(curve(get("curve"), sky, get("target")), sky, entry, kind));
      return { black, gain: 1 / span, ...shapes.get(key) };
    });
    this.legend.replaceChildren();
  }

  /** The channel that is shown; -1: all of them, as a color or as their mean. */
  get plane() {
    const { channels, palettes } = this.meta, plane = this.model.get("plane");
    if (channels === 1 && !palettes) return 0;
    return Math.min(palettes || channels === 3 ? plane : Math.max(plane, 0), channels - 1);
  }

  /** The scale of the colors. */
  describe(colours) {
    const top = this.model.get("top");
    const steps = [0, 32, 64, 96, 128, 160, 192, 224, 255].map((i) => `#${colours.slice(6 * i, 6 * i + 6)}`);
    const { unit, factor } = this.meta;
    const swatch = (from) => element("span", { class: "colors", style: `background: linear-gradient(90deg, ${from})` });
    const [left, right] = [swatch(steps.slice(0, 5)), swatch(steps.slice(4))];
    const end = rounded(top * factor, 2);
    if (this.meta.scale === "classes") {
      this.legend.replaceChildren(...this.meta.classes.flatMap(([, colour, word]) => [swatch([colour, colour]), word]));
    } else if (this.meta.scale === "both") {
      this.legend.replaceChildren(`−${end}`, left, "0", right, `${end} ${unit}`);
    } else {
      // The root of 0.25 is in the middle.
      this.legend.replaceChildren("0", left, rounded(0.25 * top * factor, 2), right, `${end} ${unit}`);
    }
  }

  /** Paint a tile, or only the part [left, top, right, bottom] of it that is seen while the stretch changes. */
  paint(tile, part) {
    const fresh = tile.painted === this.version;
    const inside = tile.part.every((edge, i) => (i < 2 ? edge <= part[i] : edge >= part[i]));
    if (fresh && inside) return;
    const [left, top, right, bottom] = fresh ? [0, 0, tile.width, tile.height] : part;
    const image = new ImageData(right - left, bottom - top);
    const pixels = new Uint32Array(image.data.buffer);
    const { plane } = this;
    for (let row = top; row < bottom; row++) {
      const [from, to] = [row * tile.width + left, (row - top) * (right - left)];
      if (plane >= 0) this.paintPlane(tile, plane, from, pixels, to, right - left);
      else if (this.meta.palettes) this.paintMean(tile, from, pixels, to, right - left);
      else this.paintColours(tile, from, pixels, to, right - left);
    }
    tile.context.putImageData(image, left, top);
    tile.painted = this.version;
    tile.part = [left, top, right, bottom];
  }

  // One row. The loops are written out: a function call for each sample takes several times as long. A pixel
  // without data is left transparent, so that the ground of the stage is seen.

  paintPlane({ values, width, height }, plane, from, pixels, to, count) {
    const { black, gain, knee, fine, entries } = this.tables[plane];
    from += plane * width * height;
    for (let i = 0; i < count; i++) {
      const value = values[from + i];
      const x = (value - black) * gain;
      if (value === value) {
        pixels[to + i] = entries[x < knee ? (x > 0 ? (x * fine) | 0 : 0) : x < 1 ? STEPS + ((x * STEPS) | 0) : LAST];
      }
    }
  }

  paintMean({ values, width, height }, from, pixels, to, count) {
    const { black, gain, knee, fine, entries } = this.tables[0];
    const [size, { channels }] = [width * height, this.meta];
    for (let i = 0; i < count; i++) {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += values[c * size + from + i];
      const x = (sum / channels - black) * gain;
      if (sum === sum) {
        pixels[to + i] = entries[x < knee ? (x > 0 ? (x * fine) | 0 : 0) : x < 1 ? STEPS + ((x * STEPS) | 0) : LAST];
      }
    }
  }

  paintColours({ values, width, height }, from, pixels, to, count) {
    const [r, g, b] = this.tables;
    const [black0, black1, black2, gain0, gain1, gain2] = [r.black, g.black, b.black, r.gain, g.gain, b.gain];
    const [knee0, knee1, knee2, fine0, fine1, fine2] = [r.knee, g.knee, b.knee, r.fine, g.fine, b.fine];
    const [entries0, entries1, entries2] = [r.entries, g.entries, b.entries];
    const [second, third] = [from + width * height, from + 2 * width * height];
    for (let i = 0; i < count; i++) {
      const x0 = (values[from + i] - black0) * gain0;
      const x1 = (values[second + i] - black1) * gain1;
      const x2 = (values[third + i] - black2) * gain2;
      if (x0 !== x0 && x1 !== x1 && x2 !== x2) continue;
      pixels[to + i] = 0xff000000
        | entries0[x0 < knee0 ? (x0 > 0 ? (x0 * fine0) | 0 : 0) : x0 < 1 ? STEPS + ((x0 * STEPS) | 0) : x0 >= 1 ? LAST : 0]
        | entries1[x1 < knee1 ? (x1 > 0 ? (x1 * fine1) | 0 : 0) : x1 < 1 ? STEPS + ((x1 * STEPS) | 0) : x1 >= 1 ? LAST : 0] << 8
        | entries2[x2 < knee2 ? (x2 > 0 ? (x2 * fine2) | 0 : 0) : x2 < 1 ? STEPS + ((x2 * STEPS) | 0) : x2 >= 1 ? LAST : 0] << 16;
    }
  }

  // view ----------------------------------------------------------------------------------------------

  /** Screen pixels (of the page) per pixel at which the whole image fits. */
  get fitted() {
    return Math.min(this.wide / this.meta.width, this.tall / this.meta.height) || 1;
  }

  /** Center of the view, in pixels from the corner of the image, and screen pixels per pixel. */
  get view() {
    const view = this.model.get("view");
    const { width, height } = this.meta;
    if (view.length !== 3) return { x: width / 2, y: height / 2, scale: this.fitted };
    // The traits have the pixel at the center, and how many pixels a picture that fits would be wide.
    return { x: view[0] + 0.5, y: view[1] + 0.5, scale: (this.fitted * width) / view[2] };
  }

  show({ x, y, scale }) {
    const { width, height } = this.meta;
    scale = Math.min(Math.max(scale, this.fitted / 4), LARGEST);
    [x, y] = [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
    this.put([x - 0.5, y - 0.5, (this.fitted * width) / scale]);
  }

  put(view) {
    this.set("view", view);
    this.share({ view });
  }

  fit() {
    this.put([]);
  }

  /** Zoom so that the image stays where it is at a place of the stage, by default at its center. */
  zoomTo(scale, at = [this.wide / 2, this.tall / 2]) {
    const [x, y] = this.image(at);
    scale = Math.min(Math.max(scale, this.fitted / 4), LARGEST);
    const across = (at[0] - this.wide / 2) / scale;
    const down = (at[1] - this.tall / 2) / scale;
    this.show({ x: x - across, y: y - down, scale });
  }

  zoomBy(factor, at) {
    this.zoomTo(this.view.scale * factor, at);
  }

  pan(across, down) {
    const { x, y, scale } = this.view;
    this.show({ x: x - across / scale, y: y - down / scale, scale });
  }

  /** From a place on the stage to the image. */
  image([left, top]) {
    const { x, y, scale } = this.view;
    return [x + (left - this.wide / 2) / scale, y + (top - this.tall / 2) / scale];
  }

  place([x, y]) {
    const view = this.view;
    return [
      (x - view.x) * view.scale + this.wide / 2,
      (y - view.y) * view.scale + this.tall / 2,
    ];
  }

  share(what) {
    const group = this.model.get("group");
    if (!group) return;
    document.dispatchEvent(new CustomEvent(LINKED, { detail: { group, from: this.id, ...what } }));
  }

  hear({ group, from, view, cursor }) {
    if (group !== this.model.get("group") || from === this.id) return;
    if (view !== undefined) this.set("view", view);
    if (cursor !== undefined) this.point(cursor, false);
  }

  // mouse and keyboard --------------------------------------------------------------------------------

  at(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  wheel(event) {
    // Somebody who scrolls through the page is not stopped by a picture that comes under the pointer.
    if (!this.awake) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 33 : 1;
    this.zoomBy(Math.exp(-Math.min(Math.max(event.deltaY * lines, -200), 200) / 400), this.at(event));
    this.point(this.inside(this.image(this.at(event))));
  }

  press(event) {
    if (event.button !== 0) return;
    this.awake = true;
    const from = this.at(event);
    this.grip = { from, last: from, moved: false, sides: this.sidesAt(from, event.shiftKey) };
    this.stage.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (event.movementX || event.movementY) this.awake = true;
    const here = this.at(event);
    if (this.grip) {
      const { from, last, sides } = this.grip;
      this.grip.moved ||= Math.hypot(here[0] - from[0], here[1] - from[1]) > 3;
      if (this.grip.moved && sides) {
        this.drawn = this.changed(this.image(from), this.image(here));
      } else if (this.grip.moved) {
        this.pan(here[0] - last[0], here[1] - last[1]);
        this.grip.last = here;
      }
    }
    this.stage.dataset.grip = this.grip ? this.stage.dataset.grip ?? "" : gripName(this.sidesAt(here, event.shiftKey));
    this.point(this.inside(this.image(here)));
    if (this.drawn) this.mark();
  }

  release() {
    const grip = this.grip;
    this.grip = null;
    if (grip && !grip.moved) {
      this.pick(this.inside(this.image(grip.from)));
    } else if (grip && this.drawn) {
      const [left, top, right, bottom] = this.drawn;
      const [x, y] = this.meta.origin;
      this.drawn = null;
      this.arm(false);
      this.choose("box", [left + x, top + y, right - left, bottom - top]);
      this.mark();
    }
  }

  /** Tell the kernel which pixel was chosen. */
  pick(pixel) {
    if (pixel) this.choose("pixel", pixel.map((value, i) => value + this.meta.origin[i]));
  }

  // boxes ---------------------------------------------------------------------------------------------

  /** Whether the next drag draws a box. */
  arm(armed) {
    this.armed = armed;
    this.boxButton?.setAttribute("aria-pressed", armed);
  }

  /** The box in pixels of the image: left, top, right, bottom. */
  get box() {
    const box = this.model.get("box");
    if (box.length !== 4) return null;
    const [left, top] = [box[0] - this.meta.origin[0], box[1] - this.meta.origin[1]];
    return [left, top, left + box[2], top + box[3]];
  }

  /** What a drag that starts here does: change these sides of the box, all, or draw a new one; null: move the image. */
  sidesAt(place, shift) {
    if (!this.meta.boxes) return null;
    if (shift || this.armed) return "new";
    if (!this.box) return null;
    const [[left, top], [right, bottom]] = [this.place(this.box.slice(0, 2)), this.place(this.box.slice(2))];
    const [x, y] = place;
    if (x < left - EDGE || x > right + EDGE || y < top - EDGE || y > bottom + EDGE) return null;
    const near = [x - left, y - top, x - right, y - bottom].map((distance) => Math.abs(distance) <= EDGE);
    if (near.some(Boolean)) return near;
    // The image can be moved by a box that fills the stage.
    const fills = right - left > 0.9 * this.wide && bottom - top > 0.9 * this.tall;
    return fills ? null : [true, true, true, true];
  }

  /** The box after a drag from a place of the image to another one, whole pixels inside the image. */
  changed(from, to) {
    const { sides } = this.grip, { width, height } = this.meta;
    const most = [width, height, width, height];
    const clip = (value, i) => Math.min(Math.max(Math.round(value), 0), most[i]);
    let box;
    if (sides === "new") {
      box = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])].map(clip);
    } else {
      let step = [to[0] - from[0], to[1] - from[1]].map(Math.round);
      if (sides.every(Boolean)) {
        step = step.map((value, i) => Math.min(Math.max(value, -this.box[i]), most[i] - this.box[i + 2]));
      }
      box = this.box.map((value, i) => (sides[i] ? clip(value + step[i % 2], i) : value));
      // A side that is drawn over the opposite one is that side.
      for (const i of [0, 1]) if (box[i] > box[i + 2]) [box[i], box[i + 2]] = [box[i + 2], box[i]];
    }
    for (const i of [0, 1]) {
      if (box[i + 2] === box[i]) [box[i], box[i + 2]] = [Math.min(box[i], most[i] - 1), Math.min(box[i], most[i] - 1) + 1];
    }
    return box;
  }

  inside([x, y]) {
    const { width, height } = this.meta;
    return x >= 0 && y >= 0 && x < width && y < height ? [Math.floor(x), Math.floor(y)] : null;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const actions = {
      1: () => this.zoomTo(1 / devicePixelRatio, this.cursor ? this.place(this.cursor) : undefined),
      f: () => this.fit(),
      "+": () => this.zoomBy(1.5),
      "=": () => this.zoomBy(1.5),
      "-": () => this.zoomBy(1 / 1.5),
      c: () => this.point(this.inside([this.view.x, this.view.y])),
      Enter: () => this.pick(this.cursor),
    };
    if (this.meta.boxes && this.box) actions.Escape = () => this.choose("box", []);
    const arrow = arrows[event.key];
    if (arrow && event.shiftKey) this.step(arrow);
    else if (arrow) this.pan(-arrow[0] * this.wide / 10, -arrow[1] * this.tall / 10);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => { this.spoken.textContent = this.readout.textContent; }, 500);
  }

  /** Move the crosshair by a pixel; where it leaves the stage, the image follows. */
  step([across, down]) {
    const [x, y] = this.cursor ?? [this.view.x, this.view.y];
    const next = this.inside([Math.floor(x) + across, Math.floor(y) + down]);
    if (!next) return;
    const [left, top] = this.place(next);
    if (left < 0 || top < 0 || left > this.wide || top > this.tall) {
      this.show({ x: next[0], y: next[1], scale: this.view.scale });
    }
    this.point(next);
  }

  point(pixel, tell = true) {
    if (String(pixel) === String(this.cursor)) return;
    this.cursor = pixel;
    if (tell) this.share({ cursor: pixel });
    this.mark();
    this.read();
  }

  // readout -------------------------------------------------------------------------------------------

  /** The values of a pixel: from a tile of the image itself, or from the kernel. */
  values([x, y]) {
    const said = this.exact.get(`${x},${y}`);
    const size = this.meta.tile;
    const tile = this.tiles.get(`0/${Math.floor(x / size)}/${Math.floor(y / size)}`);
    if (said) return said;
    if (tile?.version !== this.meta.version) return {};
    const at = (y % size) * tile.width + (x % size);
    return { values: this.meta.names.map((_, c) => tile.values[c * tile.width * tile.height + at]) };
  }

  read() {
    const { meta, cursor } = this;
    const scale = meta.sky ? `, ${rounded(meta.sky.scale, 4)}″ per pixel` : "";
    if (!cursor) {
      this.writeParts([`${meta.width} x ${meta.height} pixels${scale}; ${this.zoom}`]);
      return;
    }
    const { values, sky } = this.values(cursor);
    if (!values || (meta.sky && sky === undefined)) this.inquire();
    this.writeParts(this.partsOf(cursor, values, sky));
  }

  get zoom() {
    return `zoom ${rounded(100 * this.view.scale * devicePixelRatio, 3)} %`;
  }

  /** What is told of a pixel, in parts that stay on one line. Without room the zoom is told in the picture. */
  partsOf([x, y], values, sky) {
    const { origin, compact } = this.meta;
    const place = `x ${x + origin[0]}, y ${y + origin[1]}`;
    return [place, ...(values ? this.inUnits(values) : ["…"]), sky, compact ? "" : this.zoom].filter(Boolean);
  }

  /** The values as they are, and in the other unit. */
  inUnits(values) {
    const { names, unit, factor, zero } = this.meta;
    const parts = names.map((name, i) => `${name} ${shortest(values[i])}`.trim());
    if (!unit) return parts;
    if (factor === 1 && zero === 0) return [...parts.slice(0, -1), `${parts.at(-1)} ${unit}`];
    const others = values.map((value) => (Number.isFinite(value) ? rounded(value * factor + zero) : "–"));
    return [...parts, `(${others.join(", ")} ${unit})`];
  }

  writeParts(parts) {
    if (this.readout.textContent === parts.join("   ")) return;
    const spans = parts.map((part) => element("span", {}, part));
    this.readout.replaceChildren(...spans.flatMap((span, i) => (i ? ["   ", span] : [span])));
  }

  /** Give the readout the height that it may need, so that nothing moves when the pointer comes and goes. */
  reserve() {
    const { meta } = this;
    const sky = meta.sky && "RA 00h00m00.00s  Dec +00d00m00.0s";
    this.readout.style.minHeight = "";
    this.writeParts(this.partsOf([meta.width - 1, meta.height - 1], meta.names.map(() => LONG_VALUE), sky));
    this.readout.style.minHeight = `${this.readout.offsetHeight}px`;
  }

  /** Ask for the exact values; one question at a time, the last place wins. */
  inquire() {
    if (this.question) return;
    const [x, y] = this.cursor;
    this.question = { since: Date.now() };
    this.send({ ask: "pixel", x, y });
  }

  /** Arrows in a list or a menu of the panel around are not for the notebook, which would go to another cell. */
  keepKeys() {
    const panel = this.root.closest(".stacklib-keys");
    if (!panel || panel.dataset.keys) return;
    panel.dataset.keys = "own";
    panel.addEventListener("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
  }

  // drawing -------------------------------------------------------------------------------------------

  resize() {
    this.keepKeys();
    // Kept, as the browser would have to arrange the page before it can tell again.
    [this.wide, this.tall] = [this.stage.clientWidth, this.stage.clientHeight];
    this.marked = "";
    if (!this.wide || !this.tall) return;
    for (const canvas of [this.canvas, this.marks]) {
      canvas.width = Math.round(this.wide * devicePixelRatio);
      canvas.height = Math.round(this.tall * devicePixelRatio);
    }
    this.reserve();
    // At once: a canvas of another size is empty.
    this.drawAll();
  }

  draw() {
    this.due ??= requestAnimationFrame(() => {
      this.due = null;
      this.drawAll();
    });
  }

  drawAll() {
    if (this.ended.signal.aborted || !this.wide) return;
    const start = performance.now();
    this.drawPicture();
    this.mark();
    this.read();
    this.forget();
    this.root.dataset.milliseconds = (performance.now() - start).toFixed(1);
    this.root.dataset.drawn = Number(this.root.dataset.drawn ?? 0) + 1;
  }

  drawPicture() {
    const context = this.canvas.getContext("2d", { alpha: false });
    context.fillStyle = getComputedStyle(this.stage).backgroundColor;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const last = this.meta.levels - 1;
    const shown = this.view.scale * devicePixelRatio;
    const level = Math.min(Math.max(Math.round(-Math.log2(shown)), 0), last);
    this.frame = (this.frame ?? 0) + 1;
    const keys = this.seen(level);
    for (const [column, row] of keys) this.drawTile(context, level, column, row, shown);
    const waiting = keys.map(([column, row]) => `${level}/${column}/${row}`).filter((key) => !this.has(key));
    this.ask([`${last}/0/0`, ...waiting]);
    this.root.dataset.waiting = this.has(`${last}/0/0`) ? waiting.length : -1;
    this.tellSeen([...new Set([`${last}/0/0`, ...keys.map(([column, row]) => `${level}/${column}/${row}`)])]);
    // Counted when a new image is seen as a whole, for those who measure.
    if (!waiting.length) this.root.dataset.version = this.meta.version;
  }

  /** Tiles of a level that are seen, from the center outwards. */
  seen(level) {
    const size = this.meta.tile * 2 ** level;
    const [left, top] = this.image([0, 0]);
    const [right, bottom] = this.image([this.wide, this.tall]);
    const range = (from, to, most) => {
      const [first, end] = [Math.max(Math.floor(from / size), 0), Math.min(Math.ceil(to / size), Math.ceil(most / size))];
      return Array.from({ length: Math.max(end - first, 0) }, (_, i) => first + i);
    };
    const rows = range(top, bottom, this.meta.height);
    const found = range(left, right, this.meta.width).flatMap((column) => rows.map((row) => [column, row]));
    const { x, y } = this.view;
    const distance = ([column, row]) => Math.hypot((column + 0.5) * size - x, (row + 0.5) * size - y);
    return found.sort((one, other) => distance(one) - distance(other));
  }

  /** Draw a tile, or what a coarser level has in its place. */
  drawTile(context, level, column, row, shown) {
    for (let up = 0; level + up < this.meta.levels; up++) {
      const key = `${level + up}/${column >> up}/${row >> up}`;
      const tile = this.tiles.get(key);
      if (!tile) continue;
      if (tile.seen !== this.frame) {
        tile.seen = this.frame;
        this.tiles.delete(key);
        this.tiles.set(key, tile);
      }
      // The part of the tile in pixels of its level, then its edges on the screen, whole pixels without gaps.
      const part = this.meta.tile >> up;
      const [left, top] = [(column * part) % this.meta.tile, (row * part) % this.meta.tile];
      const width = Math.min(part, tile.width - left), height = Math.min(part, tile.height - top);
      if (width <= 0 || height <= 0) return;
      const bin = 2 ** (level + up);
      this.paint(tile, this.partSeen(tile, bin, [left, top, left + width, top + height]));
      const edge = (x, y) => this.place([
        Math.min(((column >> up) * this.meta.tile + x) * bin, this.meta.width),
        Math.min(((row >> up) * this.meta.tile + y) * bin, this.meta.height),
      ]).map((value) => Math.round(value * devicePixelRatio));
      const [x0, y0] = edge(left, top);
      const [x1, y1] = edge(left + width, top + height);
      context.imageSmoothingEnabled = up > 0 || shown * bin < 1;
      context.drawImage(tile.canvas, left, top, width, height, x0, y0, x1 - x0, y1 - y0);
      return;
    }
  }

  /** The part of a tile that is drawn and on the screen, in its own pixels; one more at each edge is mixed in. */
  partSeen(tile, bin, [left, top, right, bottom]) {
    const [column, row] = tile.key.split("/").slice(1).map(Number);
    const inTile = ([x, y]) => [x / bin - column * this.meta.tile, y / bin - row * this.meta.tile];
    const from = inTile(this.image([0, 0])), to = inTile(this.image([this.wide, this.tall]));
    const [x0, y0] = [Math.max(left, Math.floor(from[0]) - 1, 0), Math.max(top, Math.floor(from[1]) - 1, 0)];
    const x1 = Math.min(right, Math.ceil(to[0]) + 1), y1 = Math.min(bottom, Math.ceil(to[1]) + 1);
    return [x0, y0, Math.max(x1, x0 + 1), Math.max(y1, y0 + 1)];
  }

  /** Crosshair, scale bar and directions, above the picture. */
  mark() {
    const { wide: width, tall: height } = this;
    const box = this.drawn ?? this.box, chosen = this.model.get("mark");
    const marked = JSON.stringify([this.view, this.cursor, box, chosen, this.meta.origin, this.meta.sky]);
    if (marked === this.marked) return;
    this.marked = marked;
    const context = this.marks.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, width, height);
    const twice = (draw, light = "#ffffff") => {
      for (const [colour, wide] of [["rgba(0, 0, 0, .75)", 3.4], [light, 1.6]]) {
        context.beginPath();
        context.strokeStyle = colour;
        context.lineWidth = wide;
        draw();
        context.stroke();
      }
    };
    const label = (text, x, y) => {
      context.font = "12px system-ui, sans-serif";
      context.strokeStyle = "rgba(0, 0, 0, .75)";
      context.lineWidth = 3;
      context.strokeText(text, x, y);
      context.fillStyle = "#ffffff";
      context.fillText(text, x, y);
    };
    if (this.cursor) {
      const [x, y] = this.place(this.cursor.map((value) => value + 0.5));
      const gap = Math.max(6, this.view.scale / 2 + 2);
      twice(() => {
        for (const [across, down] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
          context.moveTo(x + across * gap, y + down * gap);
          context.lineTo(x + across * (gap + 14), y + down * (gap + 14));
        }
      });
    }
    if (box) {
      const [[left, top], [right, bottom]] = [this.place(box.slice(0, 2)), this.place(box.slice(2))];
      twice(() => context.rect(left, top, Math.max(right - left, 2), Math.max(bottom - top, 2)), "#f0a63a");
    }
    if (chosen.length === 2) {
      const [x, y] = this.place(chosen.map((value, i) => value - this.meta.origin[i] + 0.5));
      const half = Math.max(7, this.view.scale / 2 + 1);
      twice(() => context.rect(x - half, y - half, 2 * half, 2 * half));
    }
    const { text, length } = bar(Math.min(140, width / 4) / this.view.scale, this.meta.sky?.scale);
    const long = length * this.view.scale;
    twice(() => {
      context.moveTo(12, height - 18);
      context.lineTo(12, height - 12);
      context.lineTo(12 + long, height - 12);
      context.lineTo(12 + long, height - 18);
    });
    label(this.meta.compact && this.cursor ? `${text}, ${this.zoom}` : text, 14, height - 22);
    if (this.meta.sky) this.markDirections(width, height, twice, label, context);
  }

  markDirections(width, height, twice, label, context) {
    const { north, east } = this.meta.sky;
    const [x, y] = [width - 44, height - 44];
    for (const [name, [across, down]] of [["N", north], ["E", east]]) {
      twice(() => {
        context.moveTo(x, y);
        context.lineTo(x + 24 * across, y + 24 * down);
      });
      label(name, x + 33 * across - 4, y + 33 * down + 4);
    }
  }

  save() {
    const link = element("a", { download: `${this.meta.file}.png` });
    this.canvas.toBlob((blob) => {
      link.href = URL.createObjectURL(blob);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
}

function render({ model, el }) {
  const viewer = new Viewer(model, el);
  return () => viewer.close();
}

export default { render };
