// The last turn's wait, step by step, as a picture.

const NAMES = {
  end_of_turn: "Turn over",
  transcript: "Transcript",
  first_clause: "First words",
  first_audio: "First sound",
  sent: "Sent",
  played: "Heard",
};

const ROW = 22;
const LABEL = 84;
const VALUE = 58;
const WIDTH = 320;

/** Steps as bars, each from where the one before it ended: `[{name, label, from, to}]`, in ms. */
export function bars(steps) {
  const reached = [...steps].sort((a, b) => a.ms - b.ms);
  let from = 0;
  return reached.map(({ name, ms }) => {
    const bar = { name, label: NAMES[name] ?? name.replaceAll("_", " "), from, to: Math.max(from, ms) };
    from = bar.to;
    return bar;
  });
}

/** The same in a sentence, for those who do not see the picture. */
export function describe({ steps, total }) {
  const parts = bars(steps).map(({ label, from, to }) => `${label.toLowerCase()} ${milliseconds(to - from)}`);
  return `Answered in ${milliseconds(total)}: ${parts.join(", ")}.`;
}

/** What the total spans, in words. */
export function span({ steps }) {
  const spoken = steps.some((step) => step.name === "transcript");
  return `from your last ${spoken ? "word" : "line"} to the reply’s first sound`;
}

export function milliseconds(ms) {
  return ms >= 9995 ? `${(ms / 1000).toFixed(0)} s` : ms >= 995 ? `${(ms / 1000).toFixed(2)} s` : `${Math.round(ms)} ms`;
}

/** A turn's bars as the inside of an SVG. */
export function picture({ steps }) {
  const rows = bars(steps);
  const most = Math.max(1, rows.at(-1)?.to ?? 1);
  const scale = (WIDTH - LABEL - VALUE) / most;
  const marks = rows.map(({ name, label, from, to }, index) => {
    const y = index * ROW;
    const x = LABEL + from * scale;
    const width = Math.max(2, (to - from) * scale);
    return (
      `<text class="label" x="0" y="${y + 15}">${escape(label)}</text>` +
      `<line class="track" x1="${LABEL}" x2="${WIDTH - VALUE}" y1="${y + 11}" y2="${y + 11}"/>` +
      `<rect class="bar ${escape(name)}" x="${x.toFixed(1)}" y="${y + 6}" width="${width.toFixed(1)}" height="10" rx="2"/>` +
      `<text class="value" x="${WIDTH}" y="${y + 15}" text-anchor="end">${milliseconds(to - from)}</text>`
    );
  });
  return { width: WIDTH, height: Math.max(1, rows.length) * ROW, body: marks.join("") };
}

/** The turns' totals as a line: points for a polyline in a box of `width` by `height`. */
export function sparkline(totals, width, height) {
  if (totals.length < 2) return "";
  const most = Math.max(...totals);
  const least = Math.min(...totals);
  const span = Math.max(1, most - least);
  return totals
    .map((total, index) => {
      const x = (index / (totals.length - 1)) * (width - 6) + 3;
      const y = height - 3 - ((total - least) / span) * (height - 6);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}

function escape(text) {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}
