
// pages ---------------------------------------------------------------------------------------------
//
// Many images of the same size, one of which is shown. Each has tiles and a stretch of its own; zoom and place are
// common. The pages that are wanted next are asked for ahead, so that they can follow each other quickly.

const ALL_KEPT = 640 << 20; // bytes of tiles of all pages
const OWN = ["tiles", "asked", "exact", "question", "version", "tables", "made", "stamp", "problem"]; // what each page has for itself
const LOST = 60000; // milliseconds after which a tile is asked for again

class Pages extends Viewer {
  get page() {
    return this.model.get("page");
  }

  /** Take up what belongs to a page. */
  turn(page) {
    this.sheets ??= new Map();
    if (this.turned === page) return;
    const before = this.sheets.get(this.turned);
    if (before) for (const name of OWN) before[name] = this[name];
    if (!this.sheets.has(page)) {
      this.sheets.set(page, { tiles: new Map(), asked: new Map(), exact: new Map(), question: null, version: 0, stamp: -1,
        tables: [], made: "", problem: undefined });
    }
    Object.assign(this, this.sheets.get(page));
    this.turned = page;
  }

  /** Do something for a page, then go back to the one that is shown. */
  during(page, action) {
    this.turn(page);
    try {
      return action();
    } finally {
      this.turn(this.page);
    }
  }

  listen() {
    this.turn(this.page);
    super.listen();
    this.stamp = 0;
    this.stretch = 0; // counts the changes of the stretch
    for (const name of ["plane", "curve", "balance", "target", "clip", "alike"]) {
      this.follow(name, () => { this.stretch++; this.draw(); });
    }
    this.follow("page", () => this.showPage());
    this.follow("ahead", () => this.plan());
  }

  showPage() {
    this.turn(this.page);
    const title = this.meta.titles[this.page];
    this.model.set("title", title);
    this.meta = { ...this.meta, file: title.replace(/[^\w.-]/g, "_") };
    this.draw();
  }

  send(message) {
    super.send({ ...message, page: this.turned });
  }

  /** Pages are asked for ahead anyway. */
  tellSeen() {}

  take(message, buffers) {
    const page = message.page ?? this.page;
    if (message.statistics) {
      this.turn(page);
      const sheet = this.sheets.get(page);
      if (!sheet.statistics && page === this.meta.reference && this.model.get("alike")) this.stretch++;
      sheet.statistics = message.statistics;
      this.turn(this.page);
    }
    this.during(page, () => super.take(message, buffers));
    if (page !== this.page) this.wait();
    this.plan();
  }

  /** The tables of the stretch of this page. */
  restretch() {
    this.turn(this.page);
    const own = this.sheets.get(this.turned).statistics;
    const common = this.model.get("alike") && this.sheets.get(this.meta.reference)?.statistics;
    const statistics = common || own;
    if (!statistics) return;
    this.meta = { ...this.meta, statistics };
    this.stamp = this.stretch;
    super.restretch();
  }

  drawPicture() {
    if (this.stamp !== this.stretch) this.restretch();
    super.drawPicture();
    this.root.dataset.page = this.tiles.size || this.problem ? this.page : -1;
    this.plan();
  }

  mark() {
    const reading = !this.tiles.size && !this.problem;
    if (reading || this.reading) this.marked = "";
    this.reading = reading;
    super.mark();
    if (!reading) return;
    const context = this.marks.getContext("2d");
    context.font = "14px system-ui, sans-serif";
    context.fillStyle = "#ffffff";
    context.fillText(`Reading ${this.meta.titles[this.page]} …`, 16, 28);
  }

  // ahead ---------------------------------------------------------------------------------------------

  /** What has to be there for the present view: keys of the overview and of the tiles that are seen. */
  wanted() {
    const last = this.meta.levels - 1;
    const shown = this.view.scale * devicePixelRatio;
    const level = Math.min(Math.max(Math.round(-Math.log2(shown)), 0), last);
    return [...new Set([`${last}/0/0`, ...this.seen(level).map(([column, row]) => `${level}/${column}/${row}`)])];
  }

  plan() {
    clearTimeout(this.planning);
    this.planning = setTimeout(() => this.lookAhead(), 15);
  }

  lookAhead() {
    if (this.ended.signal.aborted || !this.wide) return;
    const wanted = this.wanted();
    const missing = (page) => wanted.filter((key) => !this.sheets.get(page)?.tiles.has(key));
    // A file that cannot be read is passed over: its page says so.
    const there = (page) => !missing(page).length || this.sheets.get(page)?.problem;
    const ready = [...this.sheets.keys()].filter(there).sort((one, other) => one - other);
    if (String(ready) !== String(this.model.get("ready"))) this.model.set("ready", ready);
    if (!there(this.page)) return;
    const { reference } = this.meta;
    if (this.model.get("alike") && !this.sheets.get(reference)?.statistics) this.fetch(reference, wanted.slice(0, 1));
    const each = this.bytes(this.sheets.get(this.page), new Set(wanted));
    let all = [...this.sheets.values()].reduce((sum, sheet) => sum + this.bytes(sheet), 0);
    for (const page of this.model.get("ahead")) {
      if (there(page)) continue;
      const keys = missing(page);
      if (all + each > ALL_KEPT) all -= this.makeRoom(page, wanted);
      if (all + each <= ALL_KEPT) this.fetch(page, keys);
      return;
    }
  }

  /** Ask for tiles of a page that is not shown. */
  fetch(page, keys) {
    this.during(page, () => {
      for (const [key, since] of this.asked) if (Date.now() - since > LOST) this.asked.delete(key);
      this.ask(keys);
    });
  }

  bytes(sheet, keys) {
    let sum = 0;
    for (const [key, tile] of sheet.tiles) {
      if (!keys || keys.has(key)) sum += tile.values.byteLength + 4 * tile.width * tile.height;
    }
    return sum;
  }

  /** Forget what is not seen, then the pages that will be wanted last, but none before this one. Returns the bytes. */
  makeRoom(page, wanted) {
    const [ahead, keep] = [this.model.get("ahead"), new Set(wanted)];
    let freed = 0;
    const drop = (sheet, keys) => {
      for (const key of keys) {
        const tile = sheet.tiles.get(key);
        freed += tile.values.byteLength + 4 * tile.width * tile.height;
        sheet.tiles.delete(key);
      }
    };
    for (const [each, sheet] of this.sheets) {
      if (each !== this.page) drop(sheet, [...sheet.tiles.keys()].filter((key) => !keep.has(key)));
    }
    if (freed) return freed;
    const place = (each) => (ahead.includes(each) ? ahead.indexOf(each) : ahead.length);
    const others = [...this.sheets.keys()].filter((each) => each !== this.page && place(each) > place(page));
    const last = others.sort((one, other) => place(other) - place(one))
      .find((each) => this.sheets.get(each).tiles.size);
    if (last !== undefined) drop(this.sheets.get(last), [...this.sheets.get(last).tiles.keys()]);
    return freed;
  }
}

function render({ model, el }) {
  const viewer = new Pages(model, el);
  return () => viewer.close();
}

export default { render };
