// The front end of the frame selector: it blinks the frames in the order of the table, draws their measurements over
// time, marks the frame that is shown in both, and has the keys of the whole panel.

const SPACE = "http://www.w3.org/2000/svg";
const HELP = "Space: play or stop. Left and right: step. Up and down: step in the table. x: leave out or take back. "
  + "u: undo. Home and End: first and last. 1, f, + and -: zoom.";
const TEXT = "input:not([type=checkbox]):not([type=button]):not([type=range]), textarea, select, [contenteditable=true]";
const ZOOMS = ["1", "f", "+", "=", "-"];
const PLOT = { left: 46, right: 10, top: 20, bottom: 8, axis: 30 };
/** Height of a plot without its axis: three of them are about as high as the picture beside them. */
const tall = () => Math.round(Math.min(Math.max(0.118 * innerHeight, 84), 118));

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes = {}, text = "") {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

/** Round steps, about `count`, that lie between two numbers. */
export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

class Blinker {
  constructor(model, el) {
    [this.model, this.el] = [model, el];
    this.meta = model.get("meta");
    this.ended = new AbortController();
    this.rows = new Map(); // frame to its row, box and note
    this.build();
    this.attach();
  }

  close() {
    this.ended.abort();
    this.stop();
    this.observer?.disconnect();
  }

  get page() {
    return this.model.get("page");
  }

  on(target, type, action, options = {}) {
    target.addEventListener(type, action, { signal: this.ended.signal, ...options });
  }

  follow(name, action) {
    this.model.on(`change:${name}`, action);
    this.ended.signal.addEventListener("abort", () => this.model.off(`change:${name}`, action));
    action();
  }

  // page ----------------------------------------------------------------------------------------------

  build() {
    const button = (text, title, action) => {
      const made = element("button", { type: "button", title, "aria-label": title }, text);
      // The keys of the panel work after a click.
      this.on(made, "mousedown", (event) => { event.preventDefault(); this.root?.focus({ preventScroll: true }); });
      this.on(made, "click", action);
      return made;
    };
    this.play = button("▶", "Play (space)", () => this.toggle());
    const before = button("‹", "Frame before (left)", () => this.move(-1));
    const next = button("›", "Next frame (right)", () => this.move(1));
    this.rate = element("select", { title: "frames a second", "aria-label": "frames a second" });
    for (const rate of this.meta.rates) this.rate.append(element("option", { value: rate }, `${rate} a second`));
    this.on(this.rate, "change", () => this.set("rate", Number(this.rate.value)));
    const tick = (text, title) => {
      const box = element("input", { type: "checkbox" });
      return [box, element("label", { title }, box, text)];
    };
    const [only, onlyLabel] = tick("only selected", "Blink only the frames that are selected");
    this.on(only, "change", () => this.set("only_chosen", only.checked));
    this.only = only;
    this.stretch = element("select", { title: "stretch of the frames", "aria-label": "stretch of the frames" },
      element("option", { value: "own" }, "each by its own sky"), element("option", { value: "alike" }, "all alike"));
    this.on(this.stretch, "change", () => this.viewer?.set("alike", this.stretch.value === "alike"));
    this.leave = button("Leave out", "Leave out this frame, or take it back (x)", () => this.turnOver(this.page));
    this.said = element("div", { class: "shown", role: "status", "aria-live": "polite" });
    const stretch = element("label", {}, "stretch", this.stretch);
    const buttons = element("div", { class: "buttons" }, before, this.play, next, this.rate, onlyLabel,
      stretch, this.leave);
    this.tools = element("div", { class: "tools" }, buttons, this.said);
    this.plots = element("div", { class: "plots" });
    this.el.append(this.tools, this.plots);
  }

  /** Find the panel around, once it is in the page. */
  async attach() {
    const { signal } = this.ended;
    while (!signal.aborted && !this.el.closest(".stacklib-blinker")) await new Promise((done) => setTimeout(done, 30));
    if (signal.aborted) return;
    this.root = this.el.closest(".stacklib-blinker");
    // What is built here takes part in the layout of the panel.
    for (let node = this.el; node !== this.root; node = node.parentElement) node.style.display = "contents";
    Object.assign(this.root, { tabIndex: 0 });
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", `Frames. ${HELP}`);
    this.root.setAttribute("data-lm-suppress-shortcuts", "true");
    this.on(this.root, "keydown", (event) => this.key(event), { capture: true });
    this.on(this.root, "keydown", (event) => event.stopPropagation());
    this.on(this.root, "click", (event) => this.click(event));
    const resized = new ResizeObserver(() => this.fit());
    resized.observe(this.root);
    signal.addEventListener("abort", () => resized.disconnect());
    this.viewer = await this.model.widget_manager.get_model(this.model.get("viewer").replace("IPY_MODEL_", ""));
    this.stretch.value = this.viewer.get("alike") ? "alike" : "own";
    const ready = () => this.advance();
    this.viewer.on("change:ready", ready);
    signal.addEventListener("abort", () => this.viewer.off("change:ready", ready));
    this.follow("page", () => this.show());
    this.follow("chosen", () => this.mark());
    this.follow("notes", () => this.mark());
    this.follow("rate", () => { this.rate.value = this.model.get("rate"); });
    this.follow("only_chosen", () => { this.only.checked = this.model.get("only_chosen"); this.plan(); });
    await this.findTable();
  }

  async findTable() {
    const { signal } = this.ended;
    const find = () => this.root.querySelector("table.dataTable tbody tr[data-frame]");
    while (!signal.aborted && !find()) await new Promise((done) => setTimeout(done, 30));
    if (signal.aborted) return;
    this.body = find().closest("tbody");
    for (const row of this.body.querySelectorAll("tr[data-frame]")) {
      const found = { row, box: row.querySelector("td.use input"), note: row.querySelector("td.note") };
      this.rows.set(Number(row.dataset.frame), found);
    }
    // Sorting moves the rows.
    this.sorted = null;
    this.observer = new MutationObserver(() => { this.sorted = null; this.plan(); });
    this.observer.observe(this.body, { childList: true });
    this.mark();
    this.show();
  }

  fit() {
    const width = this.root.clientWidth;
    this.root.classList.toggle("narrow", width < 640);
    if (this.plots.clientWidth !== this.drawnWidth || tall() !== this.drawnHeight) this.drawPlots();
  }

  set(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  wish(wish, frames = [], value = true) {
    this.model.send({ wish, frames, value });
  }

  // order ---------------------------------------------------------------------------------------------

  /** The frames in the order of the table. */
  get order() {
    const rows = () => (this.body ? [...this.body.rows].map((row) => Number(row.dataset.frame)) : null);
    this.sorted ??= rows() ?? this.meta.names.map((_, i) => i);
    return this.sorted;
  }

  /** Those that blink. */
  get round() {
    const chosen = this.model.get("chosen");
    const round = this.model.get("only_chosen") ? this.order.filter((frame) => chosen[frame]) : this.order;
    return round.length ? round : this.order;
  }

  /** The frame some steps on; the end leads to the start. */
  after(steps) {
    const { round, order, page } = this;
    let at = round.indexOf(page);
    if (at < 0) {
      // The frame shown does not blink itself: go on from its place.
      const place = order.indexOf(page);
      const next = round.findIndex((frame) => order.indexOf(frame) > place);
      at = (next < 0 ? round.length : next) - (steps > 0 ? 1 : 0);
    }
    return round[(((at + steps) % round.length) + round.length) % round.length];
  }

  move(steps) {
    this.stop();
    this.go(this.after(steps));
  }

  go(frame) {
    if (frame === this.page) return;
    this.model.set("page", frame);
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.model.save_changes(), 200);
  }

  /** Tell the viewer which frames are wanted next: those after this one, and the one before. */
  plan() {
    if (!this.viewer) return;
    const { round } = this;
    const at = Math.max(round.indexOf(this.page), 0);
    const next = [...round.slice(at + 1), ...round.slice(0, at)];
    const ahead = this.playing || next.length < 3 ? next : [next[0], next.at(-1), ...next.slice(1, -1)];
    this.viewer.set("ahead", ahead.filter((frame) => frame !== this.page));
  }

  // playing -------------------------------------------------------------------------------------------

  toggle() {
    if (this.playing) this.stop();
    else this.start();
  }

  start() {
    this.playing = true;
    this.due = performance.now();
    this.play.textContent = "❚❚";
    this.play.setAttribute("aria-label", "Stop (space)");
    this.plan();
    this.advance();
  }

  stop() {
    this.playing = false;
    clearTimeout(this.timer);
    this.play.textContent = "▶";
    this.play.setAttribute("aria-label", "Play (space)");
  }

  /** Show the next frame if it is time and the frame is there; otherwise later. */
  advance() {
    if (!this.playing || !this.root.isConnected) return;
    clearTimeout(this.timer);
    const now = performance.now();
    // A frame that the browser has not drawn yet would never be seen.
    const drawn = Number(this.root.querySelector(".stacklib-viewer").dataset.page) === this.page;
    if (now < this.due - 2 || !drawn) {
      this.timer = setTimeout(() => this.advance(), Math.max(this.due - now, 8));
      return;
    }
    const next = this.after(1);
    if (!this.viewer.get("ready").includes(next)) {
      this.plan();
      return; // called again when more are there
    }
    this.go(next);
    const pause = 1000 / this.model.get("rate");
    // A pause that was too long is not made up for.
    this.due = Math.max(this.due + pause, now + pause / 2);
    this.timer = setTimeout(() => this.advance(), this.due - now);
  }

  // keys and mouse ------------------------------------------------------------------------------------

  key(event) {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest(TEXT)) return;
    const control = target.closest("button, input, a, [role=button]");
    const heading = target.closest("th");
    const actions = { x: () => this.turnOver(this.page), u: () => this.wish("undo") };
    if (!event.shiftKey && !target.matches("input[type=range]")) {
      Object.assign(actions, { ArrowLeft: () => this.move(-1), ArrowRight: () => this.move(1) });
      if (!target.closest(".stage")) Object.assign(actions, { ArrowUp: () => this.row(-1), ArrowDown: () => this.row(1) });
      Object.assign(actions, { Home: () => this.go(this.order[0]), End: () => this.go(this.order.at(-1)) });
      if (!control && !heading) actions[" "] = () => this.toggle();
      if (!target.closest(".stage")) for (const zoom of ZOOMS) actions[zoom] = () => this.toPicture(zoom);
    }
    if (!actions[key]) return;
    if (!event.repeat || key.startsWith("Arrow")) actions[key]();
    event.preventDefault();
    event.stopPropagation();
  }

  /** Keys that zoom are for the picture, wherever the panel has them. */
  toPicture(key) {
    this.root.querySelector(".stage").dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
  }

  /** Step in the table, also to frames that do not blink; it ends at its ends. */
  row(steps) {
    const { order } = this;
    this.stop();
    this.go(order[Math.min(Math.max(order.indexOf(this.page) + steps, 0), order.length - 1)]);
  }

  turnOver(frame) {
    this.wish("choose", [frame], !this.model.get("chosen")[frame]);
  }

  click(event) {
    const row = event.target.closest("tr[data-frame]");
    if (!row) return;
    const frame = Number(row.dataset.frame);
    if (event.target.matches("input[type=checkbox]")) {
      const { order } = this;
      const [from, to] = [order.indexOf(event.shiftKey ? this.last ?? frame : frame), order.indexOf(frame)];
      this.wish("choose", order.slice(Math.min(from, to), Math.max(from, to) + 1), event.target.checked);
      this.last = frame;
      // After a click, not after the space bar, the keys are those of the panel again.
      if (event.detail) this.root.focus({ preventScroll: true });
      // The kernel says what is chosen.
      setTimeout(() => this.mark(), 400);
    } else {
      this.stop();
      this.go(frame);
      if (!event.target.closest("button, input, a")) this.root.focus({ preventScroll: true });
    }
  }

  // what is shown -------------------------------------------------------------------------------------

  show() {
    const { page, meta } = this;
    this.viewer.set("page", page);
    this.plan();
    const { round } = this;
    const at = round.indexOf(page);
    const place = at < 0 ? "" : `, ${at + 1} of ${round.length}`;
    const verdict = this.model.get("chosen")[page] ? "selected" : "left out";
    const note = this.model.get("notes")[page];
    this.said.replaceChildren(element("b", {}, meta.names[page]), `${place}: ${verdict}${note ? ` – ${note}` : ""}`);
    this.said.title = this.said.textContent;
    this.leave.textContent = this.model.get("chosen")[page] ? "Leave out" : "Take back";
    this.shownRow?.removeAttribute("aria-current");
    this.shownRow = this.rows.get(page)?.row;
    if (this.shownRow) {
      this.shownRow.setAttribute("aria-current", "true");
      this.reveal(this.shownRow);
    }
    for (const { dots, ring } of this.series ?? []) {
      const dot = dots[page];
      ring.hidden = !dot;
      if (dot) ring.style.transform = `translate(${dot.at[0]}px, ${dot.at[1]}px)`;
    }
    this.root.dataset.shown = page;
  }

  /** Scroll the table, not the page. */
  reveal(row) {
    const view = row.closest(".dt-layout-cell");
    if (!view) return;
    const head = view.querySelector("thead").offsetHeight;
    const [box, place] = [view.getBoundingClientRect(), row.getBoundingClientRect()];
    if (place.top < box.top + head) view.scrollTop -= box.top + head - place.top;
    else if (place.bottom > box.bottom) view.scrollTop += place.bottom - box.bottom;
  }

  /** Boxes, notes and dots of all frames. */
  mark() {
    const [chosen, notes] = [this.model.get("chosen"), this.model.get("notes")];
    for (const [frame, { row, box, note }] of this.rows) {
      box.checked = chosen[frame];
      note.textContent = note.title = notes[frame];
      row.classList.toggle("out", !chosen[frame]);
    }
    for (const { dots } of this.series ?? []) {
      dots.forEach((dot, frame) => dot?.node.setAttribute("class", chosen[frame] ? "in" : "out"));
      dots.forEach((dot, frame) => dot?.node.setAttribute("d", chosen[frame] ? DOT : CROSS));
    }
    if (this.viewer) this.show();
  }

  // plots ---------------------------------------------------------------------------------------------

  drawPlots() {
    this.drawnWidth = this.plots.clientWidth;
    if (!this.drawnWidth) return;
    const each = this.drawnHeight = tall();
    const across = 2, width = Math.floor((this.drawnWidth - 8) / across);
    const { x, x_label, plots, names } = this.meta;
    this.series = plots.map(({ title, values }, number) => {
      const bottom = number >= plots.length - across;
      const height = each + (bottom ? PLOT.axis : 0);
      const image = drawn("svg", { width, height, role: "img", "aria-label": `${title} over time` });
      const known = values.flatMap((value, i) => (value === null ? [] : [[x[i], value]]));
      const range = (all) => {
        const [low, high] = [Math.min(...all), Math.max(...all)];
        const room = 0.08 * (high - low) || Math.abs(high) * 0.1 || 1;
        return [low - room, high + room];
      };
      const [xs, ys] = [range(x), known.length ? range(known.map(([, y]) => y)) : [0, 1]];
      const end = each - PLOT.bottom;
      // Long numbers have the room that they need.
      const heights = known.length ? ticks(...ys, 3) : [];
      const left = Math.max(PLOT.left, 8 + 6.5 * Math.max(0, ...heights.map((value) => String(value).length)));
      const right = (value) => left + ((value - xs[0]) / (xs[1] - xs[0])) * (width - left - PLOT.right);
      const down = (value) => end - ((value - ys[0]) / (ys[1] - ys[0])) * (end - PLOT.top);
      image.append(drawn("text", { x: left, y: 13, class: "title" }, title));
      for (const value of heights) {
        const y = down(value);
        image.append(drawn("line", { x1: left, x2: width - PLOT.right, y1: y, y2: y, class: "grid" }),
          drawn("text", { x: left - 5, y: y + 4, class: "tick", "text-anchor": "end" }, String(value)));
      }
      image.append(drawn("line", { x1: left, x2: width - PLOT.right, y1: end, y2: end, class: "axis" }));
      for (const value of bottom ? ticks(...xs, 4) : []) {
        image.append(drawn("line", { x1: right(value), x2: right(value), y1: end, y2: end + 4, class: "axis" }),
          drawn("text", { x: right(value), y: end + 15, class: "tick", "text-anchor": "middle" }, String(value)));
      }
      if (bottom) {
        const middle = (left + width - PLOT.right) / 2;
        image.append(drawn("text", { x: middle, y: end + 30, class: "tick", "text-anchor": "middle" }, x_label));
      }
      const dots = values.map((value, i) => {
        if (value === null) return null;
        const at = [right(x[i]), down(value)];
        const node = drawn("path", { transform: `translate(${at[0]}, ${at[1]})`, d: DOT });
        node.append(drawn("title", {}, `${names[i]}: ${Number(value.toPrecision(4))}`));
        image.append(node);
        return { at, node };
      });
      // Not a part of the image, which would be painted anew with hundreds of dots.
      const ring = element("div", { class: "ring", hidden: "" });
      this.on(image, "click", (event) => this.pick(event, image, dots));
      return { image, dots, ring };
    });
    this.plots.replaceChildren(...this.series.map(({ image, ring }) => element("div", { class: "plot" }, image, ring)));
    if (this.viewer) this.mark();
  }

  /** Show the frame of the nearest point; with Shift, leave it out or take it back as well. */
  pick(event, image, dots) {
    const box = image.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const far = (dot) => (dot ? Math.hypot(dot.at[0] - x, dot.at[1] - y) : Infinity);
    const nearest = dots.reduce((best, dot, i) => (far(dot) < far(dots[best]) ? i : best), 0);
    if (!Number.isFinite(far(dots[nearest]))) return;
    this.stop();
    this.go(nearest);
    if (event.shiftKey) this.turnOver(nearest);
    this.root.focus({ preventScroll: true });
  }
}

const DOT = "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0";
const CROSS = "M-4 -4L4 4M-4 4L4 -4";

function render({ model, el }) {
  const blinker = new Blinker(model, el);
  return () => blinker.close();
}

export default { render };
