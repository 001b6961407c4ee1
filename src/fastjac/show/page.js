// The live page: a drawing or sliders, and beside them what the network says and how each input moves it.
// `mount` needs a description of the network and a way to send it messages, whose format answers.py describes.

const HEADER = 8;
const KINDS = ["state", "whatIf", "flip", "check"];
const PEN = 3.5 / 32; // the pen's width, of the drawing's height
const MOST_ENLARGED = 4; // times that a drawing is enlarged at most
const BOX = 5 / 8; // of the picture's width: the digits that the network learned from are no wider
const KEPT = 1000; // latencies
const PULLS = 30; // lines

// A copy of a template of the page, put at the end of `parent`.
function stamp(root, template, parent, name = "") {
  const made = root.querySelector(`template.${template}`).content.firstElementChild.cloneNode(true);
  const label = made.querySelector(".name");
  if (label) label.textContent = name;
  return parent.appendChild(made);
}
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const short = (value) => Number(value.toPrecision(3)).toString();
const plus = (text) => (Number(text) > 0 ? `+${text}` : text);
const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// The product of two matrices, row by row: of `inner` columns and of `inner` rows.
function product(a, b, inner) {
  const [rows, columns] = [a.length / inner, b.length / inner];
  const c = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++)
    for (let k = 0; k < inner; k++) {
      const value = a[i * inner + k];
      if (value) for (let j = 0; j < columns; j++) c[i * columns + j] += value * b[k * columns + j];
    }
  return c;
}
const transposed = (a, columns) =>
  a.map((_, k) => a[(k % (a.length / columns)) * columns + Math.floor(k / (a.length / columns))]);

// Asks the network, one question of each kind at a time: meanwhile only the newest of those to come is kept.
class Questions {
  sequence = Math.floor(Math.random() * 2 ** 32); // another for each view of a widget, all of which get the answers
  out = {};
  waiting = {};

  constructor(send) {
    this.send = send;
  }

  ask(kind, view, vectors, done) {
    if (this.out[kind]) this.waiting[kind] = [kind, view, vectors, done];
    else {
      const size = vectors[0].length;
      const message = new ArrayBuffer(HEADER + 4 * size * vectors.length);
      const header = new DataView(message);
      this.sequence = (this.sequence + 1) >>> 0;
      header.setUint32(0, this.sequence, true);
      header.setUint16(4, KINDS.indexOf(kind), true);
      header.setUint16(6, view, true);
      vectors.forEach((vector, k) => new Float32Array(message, HEADER + 4 * size * k, size).set(vector));
      this.out[kind] = { sequence: this.sequence, done };
      this.send(message);
    }
  }

  take(message) {
    const header = new DataView(message);
    const kind = KINDS[header.getUint16(4, true)];
    const { sequence, done } = this.out[kind] ?? {};
    if (sequence !== header.getUint32(0, true)) return;
    const next = this.waiting[kind];
    delete this.out[kind];
    delete this.waiting[kind];
    if (next) this.ask(...next);
    done(new Float32Array(message, HEADER));
  }

  forget() {
    this.out = {};
    this.waiting = {};
  }
}

// A canvas with one pixel for each number: 0 to 1 from paper to ink, or -1 to 1 on the diverging scale.
class Picture {
  constructor(canvas, rows, columns) {
    Object.assign(canvas, { width: columns, height: rows });
    this.context = canvas.getContext("2d");
    this.image = this.context.createImageData(columns, rows);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  draw(values, colours, factor = 1) {
    for (let k = 0; k < values.length; k++) this.pixels[k] = colours[Math.round(127 + 127 * clamp(values[k] * factor, -1, 1))];
    this.context.putImageData(this.image, 0, 0);
  }
}

// The pixels of 255 colours for numbers from -1 to 1, by the style sheet's names of those at -1, 0 and 1.
function colourScale(root, ...names) {
  const style = getComputedStyle(root);
  const colours = names.map((name) => parseInt(style.getPropertyValue(name).trim().slice(1), 16));
  const [low, middle, high] = colours.map((hex) => [hex >> 16, (hex >> 8) & 255, hex & 255]);
  return Uint32Array.from({ length: 255 }, (_, k) => {
    const [t, end] = [Math.abs(k - 127) / 127, k < 127 ? low : high];
    const mixed = middle.map((from, c) => Math.round(from + (end[c] - from) * t));
    return new Uint32Array(Uint8Array.of(...mixed, 255).buffer)[0];
  });
}

// Fill a bar between two shares of it, or from its middle by a signed value.
function fill(bar, from, to) {
  const [left, right] = [clamp(Math.min(from, to), 0, 1), clamp(Math.max(from, to), 0, 1)];
  bar.firstChild.style.transform = `translateX(${left * 100}%) scaleX(${right - left})`;
  bar.firstChild.className = to < from ? "negative" : "";
}
const sign = (bar, value, scale) => fill(bar, 0.5, scale > 0 ? 0.5 + value / scale / 2 : 0.5);

// A drawing of cells, counted in blocks that are the inputs. With the shares of cells in blocks as the matrices
// down (rows, height) and across (columns, width), x = low + span (down cells across'), and the derivatives by the
// cells are down' (span derivatives) across.
class Drawing {
  constructor(root, { shape, outputs, low, high, fit }, events) {
    const find = (selector) => root.querySelector(selector);
    [this.rows, this.columns] = shape;
    this.zoom = Math.max(1, Math.round(32 / Math.max(...shape)));
    [this.height, this.width] = shape.map((count) => count * this.zoom);
    Object.assign(this, { root, low, high, events });
    this.span = Float32Array.from(high, (end, n) => end - low[n]);
    this.cells = new Float32Array(this.height * this.width);
    this.x = new Float32Array(this.rows * this.columns);
    this.pen = [this.height / 2, this.width / 2];
    this.canvas = find(".ink");
    this.picture = new Picture(this.canvas, this.height, this.width);
    this.counts = new Picture(find(".counts"), this.rows, this.columns);
    [this.erase, this.fit, this.cursor, this.frame] = [".erase", ".fit", ".cursor", ".frame"].map(find);
    this.fit.checked = fit;
    this.maps = outputs.map((name) => {
      const canvas = stamp(root, "for-map", find(".maps"), name).querySelector("canvas");
      canvas.ariaLabel = `Derivatives of ${name}`;
      this.hoverable(canvas);
      return new Picture(canvas, this.height, this.width);
    });
    find(".drawing").hidden = find(".scale").hidden = false;
    find(".clear").addEventListener("click", (event) => this.change(event, () => this.cells.fill(0)));
    this.fit.addEventListener("change", (event) => this.change(event, () => {}));
    this.hoverable(this.canvas);
    this.drawable(this.canvas);
    this.recolour();
  }

  recolour() {
    this.ink = colourScale(this.root, "--paper", "--paper", "--ink");
    this.diverging = colourScale(this.root, "--negative", "--zero", "--positive");
    new Picture(this.root.querySelector(".scale canvas"), 1, 255).draw(
      Float32Array.from({ length: 255 }, (_, k) => k / 127 - 1), this.diverging);
    this.count();
  }

  change(event, act) {
    const start = performance.now();
    act();
    this.count();
    this.events.changed(start);
    event.preventDefault();
  }

  // Ink, or clear, the cells within half the pen's width of the line between two points (row, column).
  line([i0, j0], [i1, j1]) {
    const radius = Math.max(0.75, (PEN * this.height) / 2);
    const length = (i1 - i0) ** 2 + (j1 - j0) ** 2;
    for (let i = 0; i < this.height; i++)
      for (let j = 0; j < this.width; j++) {
        const [di, dj] = [i + 0.5 - i0, j + 0.5 - j0];
        const along = length && clamp((di * (i1 - i0) + dj * (j1 - j0)) / length, 0, 1);
        if (Math.hypot(di - along * (i1 - i0), dj - along * (j1 - j0)) <= radius)
          this.cells[i * this.width + j] = this.erase.checked ? 0 : 1;
      }
  }

  // Set x from the cells, and show both.
  count() {
    const { height, width, cells } = this;
    let [top, bottom, left, right] = [height, 0, width, 0];
    for (let i = 0; i < height; i++)
      for (let j = 0; j < width; j++)
        if (cells[i * width + j]) {
          [top, bottom] = [Math.min(top, i), Math.max(bottom, i + 1)];
          [left, right] = [Math.min(left, j), Math.max(right, j + 1)];
        }
    // Where the drawing's middle is, and how many times it is enlarged.
    this.vertical = { middle: height / 2, scale: 1 };
    this.horizontal = { middle: width / 2, scale: 1 };
    if (this.fit.checked && bottom) {
      const scale = Math.min(height / (bottom - top), MOST_ENLARGED);
      this.vertical = { middle: (top + bottom) / 2, scale };
      this.horizontal = { middle: (left + right) / 2, scale: Math.min(scale, (BOX * width) / (right - left)) };
    }
    const down = this.shares(this.rows, height, this.vertical);
    this.across = this.shares(this.columns, width, this.horizontal);
    this.up = transposed(down, height);
    const shares = product(product(down, cells, height), transposed(this.across, width), width);
    this.x = shares.map((share, n) => this.low[n] + this.span[n] * share);
    this.picture.draw(cells, this.ink);
    this.counts.draw(shares, this.ink);
  }

  // Where a block begins, in cells, and which block a place in cells is in; both along one side of the drawing.
  edge = (block, size, { middle, scale }) => middle + (block * this.zoom - size / 2) / scale;
  blockAt = (place, size, { middle, scale }) => Math.floor(((place - middle) * scale + size / 2) / this.zoom);

  // The share of each cell (columns) in each block (rows), along one side.
  shares(blocks, size, fitted) {
    return Float32Array.from({ length: blocks * size }, (_, k) => {
      const [block, cell] = [Math.floor(k / size), k % size];
      const [from, to] = [this.edge(block, size, fitted), this.edge(block + 1, size, fitted)];
      return Math.max(0, Math.min(to, cell + 1) - Math.max(from, cell)) / (to - from);
    });
  }

  // The derivatives by the cells, from those by the inputs.
  expand(derivatives) {
    const scaled = derivatives.map((value, n) => value * this.span[n]);
    return product(product(this.up, scaled, this.rows), this.across, this.columns);
  }

  show(rows) {
    const images = rows.map((row) => this.expand(row));
    const scale = Math.max(...images.map(largest));
    this.maps.forEach((map, m) => map.draw(images[m], this.diverging, scale > 0 ? 1 / scale : 0));
    this.root.querySelector(".low").textContent = short(-scale);
    this.root.querySelector(".high").textContent = plus(short(scale));
  }

  // Where on a canvas an event is, as (row, column) in cells.
  point(canvas, event) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const [i, j] = [(event.clientY - top) / height, (event.clientX - left) / width];
    return [i * this.height, j * this.width];
  }

  // The input whose block has this point, or -1.
  inputAt([i, j]) {
    const r = this.blockAt(i, this.height, this.vertical);
    const c = this.blockAt(j, this.width, this.horizontal);
    return r >= 0 && r < this.rows && c >= 0 && c < this.columns ? r * this.columns + c : -1;
  }

  hoverable(canvas) {
    const hover = (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) this.events.hover(this.inputAt(this.point(canvas, event)));
    };
    for (const name of ["pointerdown", "pointermove"]) canvas.addEventListener(name, hover);
    canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.events.hover(-1);
    });
  }

  drawable(canvas) {
    let last;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      canvas.focus();
      last = this.point(canvas, event);
      this.events.hover(-1);
      this.change(event, () => this.line(last, last));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      this.change(event, () => {
        const parts = event.getCoalescedEvents();
        for (const part of parts.length ? parts : [event]) {
          const next = this.point(canvas, part);
          this.line(last, next);
          last = next;
        }
      });
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => (this.cursor.hidden = true));
  }

  key(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const [by, from] = [moves[event.key], this.pen];
    if (by) {
      this.pen = [clamp(from[0] + by[0], 0.5, this.height - 0.5), clamp(from[1] + by[1], 0.5, this.width - 0.5)];
      this.place(this.cursor, this.pen, this.pen);
      event.preventDefault();
      event.stopPropagation(); // not to the notebook
    }
    if (by && !event.shiftKey) this.events.hover(this.inputAt(this.pen));
    else if (by || event.key === " ") this.change(event, () => this.line(from, this.pen));
    else if (["Delete", "Backspace"].includes(event.key)) this.change(event, () => this.cells.fill(0));
  }

  mark(input) {
    const [r, c] = [Math.floor(input / this.columns), input % this.columns];
    const corner = (r, c) => [this.edge(r, this.height, this.vertical), this.edge(c, this.width, this.horizontal)];
    this.place(this.frame, corner(r, c), corner(r + 1, c + 1));
    this.frame.hidden = input < 0;
  }

  // Put a box between two points (row, column).
  place(box, [top, left], [bottom, right]) {
    const percent = (cells, size) => `${(100 * cells) / size}%`;
    Object.assign(box.style, {
      left: percent(left, this.width),
      top: percent(top, this.height),
      width: percent(right - left, this.width),
      height: percent(bottom - top, this.height),
    });
    box.hidden = false;
  }
}

// A slider and a number field for each input, and the inputs sorted by their pull on an output: the derivative
// times the slider's range, so that inputs in different units compare.
class Sliders {
  constructor(root, { inputs, outputs, low, high }, events) {
    const find = (selector) => root.querySelector(selector);
    Object.assign(this, { inputs, events, low: [...low], high: [...high] });
    this.x = Float32Array.from(low, (start, n) => (start + high[n]) / 2);
    this.rows = inputs.map((name, n) => this.slider(stamp(root, "for-slider", find(".sliders"), name), name, n));
    this.output = find(".pulled select");
    this.output.append(...["the largest", ...outputs].map((name, m) => new Option(name, m - 1)));
    this.output.addEventListener("change", () => this.show(this.derivatives, this.best));
    this.pulls = inputs.slice(0, PULLS).map(() => stamp(root, "for-pull", find(".pulls")).children);
    find(".sliders").hidden = find(".pulls").hidden = find(".pulled").hidden = false;
  }

  slider(row, name, n) {
    const [range, number] = row.querySelectorAll("input");
    range.ariaLabel = number.ariaLabel = name;
    Object.assign(range, { min: this.low[n], max: this.high[n], value: this.x[n] });
    number.value = short(this.x[n]);
    const change = (field) => {
      const [start, value] = [performance.now(), Math.fround(field.valueAsNumber)];
      if (!Number.isFinite(value)) return;
      range.min = this.low[n] = Math.min(this.low[n], value);
      range.max = this.high[n] = Math.max(this.high[n], value);
      if (field === range) number.value = short(value);
      else range.value = value;
      this.x = this.x.with(n, value);
      this.events.changed(start);
    };
    for (const field of [range, number]) field.addEventListener("input", () => change(field));
    for (const name of ["pointerenter", "focusin"]) row.addEventListener(name, () => this.events.hover(n));
    row.addEventListener("pointerleave", () => this.events.hover(-1));
    return row;
  }

  mark(input) {
    this.rows.forEach((row, n) => row.classList.toggle("marked", n === input));
  }

  show(derivatives, best) {
    Object.assign(this, { derivatives, best });
    const chosen = Number(this.output.value);
    const row = derivatives[chosen < 0 ? best : chosen].map((value, n) => value * (this.high[n] - this.low[n]));
    const order = Array.from(row.keys()).sort((a, b) => Math.abs(row[b]) - Math.abs(row[a]));
    this.pulls.forEach(([name, bar, number], k) => {
      name.textContent = this.inputs[order[k]];
      sign(bar, row[order[k]], Math.abs(row[order[0]]));
      number.textContent = plus(short(row[order[k]]));
    });
  }
}

// A line for each output: its value, and the change that one input would make, as forecast and exactly.
class Outputs {
  constructor(root, { outputs, views }) {
    this.probabilities = views[0] === "probabilities";
    this.lines = outputs.map((name) => stamp(root, "for-output", root.querySelector(".rows"), name));
  }

  show(y) {
    const scale = largest(y);
    this.best = Math.max(0, y.indexOf(Math.max(...y))); // the first one where there is NaN
    this.lines.forEach((line, m) => {
      const [, bar, number] = line.children;
      line.classList.toggle("best", m === this.best);
      bar.classList.toggle("signed", !this.probabilities);
      if (this.probabilities) fill(bar, 0, y[m]);
      else sign(bar, y[m], scale);
      number.textContent = y[m].toFixed(3);
    });
  }

  change(forecasts, exacts) {
    const scale = Math.max(largest(forecasts), largest(exacts));
    this.lines.forEach((line, m) => {
      const [, , , bars, number] = line.children;
      const pair = forecasts.length ? [forecasts[m], exacts[m]] : [];
      [...bars.children].forEach((bar, k) => sign(bar, pair[k] ?? 0, scale));
      number.textContent = pair.map((value) => plus(value.toFixed(3))).join(" / ");
    });
  }
}

// Fill `root` with what `description` describes. Returns what to call when messages can be sent, and with each
// that comes.
export function mount(root, description, send) {
  const find = (selector) => root.querySelector(selector);
  const { inputs, outputs, views, shape } = description;
  const questions = new Questions(send);
  const latencies = { drawn: [], frame: [] }; // milliseconds since the handler began
  let view = views.length - 1; // a certain softmax hides what moves it
  let starts = []; // of handlers whose change is not shown yet
  let hovered = -1;
  let derivatives = []; // a row for each output
  let changes = null; // of each output if single inputs were others, where that is known

  const rows = new Outputs(root, description);
  const input = new (shape ? Drawing : Sliders)(root, description, { changed, hover });
  find(".network").textContent = description.network;
  root.latencies = latencies;

  function connected() {
    find(".status").textContent = "live";
    questions.forget();
    starts = [];
    changed(performance.now());
  }

  function changed(start) {
    starts.push(start);
    questions.ask("state", view, [input.x], (numbers) => show(numbers, start));
  }

  // Ask about what is shown, and forget the answer if something else is shown when it comes.
  function ask(kind, view, vectors, done) {
    const about = derivatives;
    questions.ask(kind, view, vectors, (numbers) => about === derivatives && done(numbers));
  }

  function show(numbers, start) {
    const [M, N] = [outputs.length, inputs.length];
    rows.show(numbers.subarray(1, 1 + M));
    derivatives = outputs.map((_, m) => numbers.subarray(1 + M + m * N, 1 + M + (m + 1) * N));
    input.show(derivatives, rows.best);
    const shown = starts.filter((time) => time <= start);
    starts = starts.filter((time) => time > start);
    keep("drawn", shown);
    requestAnimationFrame(() => keep("frame", shown));
    find(".times").textContent = `Output and Jacobian in ${numbers[0].toFixed(1)} µs`;
    find(".answer").textContent = "";
    input.mark(hovered);
    changes = null;
    if (hovered >= 0) askChanges();
  }

  function keep(list, shown) {
    const now = performance.now();
    latencies[list] = [...latencies[list], ...shown.map((start) => now - start)].slice(-KEPT);
  }

  // The end of its range that an input is farther from.
  function target(n) {
    const [low, high] = [input.low[n], input.high[n]];
    return input.x[n] < (low + high) / 2 ? high : low;
  }

  function hover(n) {
    if (n === hovered) return;
    hovered = n;
    input.mark(n);
    if (n < 0 || changes) showChange();
    else askChanges();
  }

  function askChanges() {
    ask("whatIf", view, [input.x, input.x.map((_, n) => target(n))], (numbers) => {
      changes = numbers;
      showChange();
    });
  }

  function showChange() {
    const [n, M] = [hovered, outputs.length];
    if (n < 0) {
      find(".change").textContent = `Point at ${shape ? "a pixel" : "an input"}: what if it were another?`;
      return rows.change([], []);
    }
    const [from, to] = [input.x[n], target(n)];
    find(".change").textContent =
      `${inputs[n]} from ${short(from)} to ${short(to)} changes the ${views[view]} by (forecast / exact)`;
    rows.change(derivatives.map((row) => row[n] * (to - from)), changes.subarray(n * M, (n + 1) * M));
  }

  find(".flip").hidden = outputs.length < 2;
  find(".flip").addEventListener("click", () => {
    ask("flip", views.length - 1, [input.x, input.low, input.high], ([n, from, to, best]) => {
      input.mark(n ?? -1);
      find(".answer").textContent = n === undefined
        ? "No change of a single input flips the class."
        : `${inputs[n]} from ${short(from)} to ${short(to)}: ${outputs[rows.best]} becomes ${outputs[best]}.`;
    });
  });

  find(".check").addEventListener("click", () => {
    ask("check", view, [input.x], ([ok, error, tolerance, , , checked, skipped]) => {
      const verdict = !checked ? "say nothing here" : ok ? "agree" : "DISAGREE";
      const errors = checked ? ` (error ${error.toExponential(1)} of ${tolerance.toExponential(1)})` : "";
      find(".answer").textContent =
        `Finite differences ${verdict}${errors}: ${checked} inputs checked, ${skipped} skipped at corners.`;
    });
  });

  views.forEach((name, k) => {
    const radio = stamp(root, "for-view", find(".views"), name).querySelector("input");
    radio.checked = k === view;
    radio.addEventListener("change", () => {
      view = k;
      changed(performance.now());
    });
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    input.recolour?.();
    changed(performance.now());
  });
  showChange();
  return { connected, take: (message) => questions.take(message) };
}

// In a notebook the widget carries the messages.
export default {
  render({ model, el }) {
    el.innerHTML = model.get("page");
    const send = (message) => model.send({}, undefined, [message]);
    const page = mount(el.firstElementChild, model.get("description"), send);
    model.on("msg:custom", (_, [{ buffer, byteOffset, byteLength }]) =>
      page.take(buffer.slice(byteOffset, byteOffset + byteLength)));
    page.connected();
  },
};

// The page itself: a socket to the server that it came from, opened again when it closes.
function live(root) {
  const read = (page) => JSON.parse(page.getElementById("description").textContent);
  const { token: _, ...shown } = read(document);
  const status = root.querySelector(".status");
  let socket;
  const page = mount(root, shown, (message) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(message);
  });

  function connect(token) {
    socket = new WebSocket(`ws://${location.host}/live?token=${token}`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => page.connected();
    socket.onmessage = (event) => page.take(event.data);
    socket.onclose = (event) => {
      status.textContent = `not connected${event.reason && `: ${event.reason}`}`;
      setTimeout(again, 500);
    };
  }

  async function again() {
    try {
      const text = await (await fetch("/")).text();
      const { token, ...found } = read(new DOMParser().parseFromString(text, "text/html"));
      if (JSON.stringify(found) === JSON.stringify(shown)) connect(token);
      else location.reload();
    } catch {
      setTimeout(again, 500);
    }
  }

  connect(read(document).token);
}

const root = document.querySelector("body > .fastjac");
if (root) live(root);
