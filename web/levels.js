// The last seconds of both voices on one line: the user above it, the reply below.
//
// Where both have bars at once, they spoke over each other.

const STEP = 4; // px a bar takes
const BAR_MS = 50;

export class Levels {
  constructor(canvas) {
    this.canvas = canvas;
    this.pencil = canvas.getContext("2d");
    this.bars = []; // {user, reply, held}, newest last
    this.now = { user: 0, reply: 0, held: false };
    this.since = 0;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    const recolour = () => {
      const style = getComputedStyle(document.documentElement);
      const of = (name) => style.getPropertyValue(name).trim();
      this.colours = { user: of("--user"), reply: of("--reply"), line: of("--line"), hold: of("--hold") };
      this.draw(0);
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    new ResizeObserver(() => this.#resize()).observe(canvas);
    recolour();
  }

  /** @param {"user"|"reply"} side @param {number} level 0..1; the loudest until the next bar counts */
  add(side, level) {
    this.now[side] = Math.max(this.now[side], level);
  }

  /** Moves on to `time` (ms) and draws. */
  tick(time, held) {
    this.now.held ||= held;
    if (this.since === 0 || time - this.since > 2000) this.since = time;
    while (time - this.since >= BAR_MS) {
      this.bars.push({ ...this.now });
      this.now = { user: this.now.user * 0.3, reply: this.now.reply * 0.3, held: false };
      this.since += BAR_MS;
    }
    const most = Math.ceil(this.width / STEP) + 2;
    if (this.bars.length > most) this.bars.splice(0, this.bars.length - most);
    this.draw((time - this.since) / BAR_MS);
  }

  draw(part) {
    const { pencil, width, height } = this;
    if (!width || !this.colours) return;
    const middle = height / 2;
    pencil.clearRect(0, 0, width, height);
    pencil.lineCap = "round";
    this.#line(this.colours.line, 1, 0, middle, width, middle);
    if (this.still.matches) {
      const last = this.bars.at(-1) ?? this.now;
      if (last.user > 0) this.#line(this.colours.user, 4, 2, middle - 8, 2 + last.user * (width - 4), middle - 8);
      if (last.reply > 0) this.#line(this.colours.reply, 4, 2, middle + 8, 2 + last.reply * (width - 4), middle + 8);
      return;
    }
    const room = middle - 4;
    this.bars.forEach(({ user, reply, held }, index) => {
      const x = width - 2 - (this.bars.length - 1 - index + part) * STEP;
      pencil.globalAlpha = Math.max(0, Math.min(1, x / (width * 0.35)));
      if (held) this.#line(this.colours.hold, 2, x, middle, x, middle);
      if (user > 0.02) this.#line(this.colours.user, 2, x, middle - 3, x, middle - 3 - user * room);
      if (reply > 0.02) this.#line(this.colours.reply, 2, x, middle + 3, x, middle + 3 + reply * room);
    });
    pencil.globalAlpha = 1;
  }

  #line(colour, thick, x1, y1, x2, y2) {
    const { pencil } = this;
    pencil.strokeStyle = colour;
    pencil.lineWidth = thick;
    pencil.beginPath();
    pencil.moveTo(x1, y1);
    pencil.lineTo(x2, y2);
    pencil.stroke();
  }

  #resize() {
    const ratio = devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.pencil.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.draw(0);
  }
}
