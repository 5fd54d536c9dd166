// Draws the charts of people from the numbers in the page, and says what sliders stand at.
(() => {
  const DAY_WIDTH = 84; // pixels of a written day, and a gap
  const INTERVAL_ROOM = 0.28; // of the width, for the forecast

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // The forecast has as much room as several periods, so that no interval hides another.
  const layout = (drawn) => {
    const n = drawn.days.length - 1;
    const room = Math.max(1, (n * INTERVAL_ROOM) / (1 - INTERVAL_ROOM));
    const place = (rank) => n - 0.5 + (room * (rank + 0.5)) / drawn.colors.length;
    return { n, room, place };
  };

  const highest = (drawn) =>
    Math.max(...drawn.shares.flat(), ...drawn.intervals.flat(), ...drawn.edited, ...drawn.observed);

  const dot = (context, x, y, radius, fill, line) => {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    if (fill) {
      context.fillStyle = fill;
      context.fill();
    }
    if (line) {
      context.strokeStyle = line;
      context.stroke();
    }
  };

  const shade = (drawn, { n, room }) => (u) => {
    const left = u.valToPos(n - 0.5, "x", true);
    const width = u.valToPos(n - 0.5 + room, "x", true) - left;
    u.ctx.fillStyle = color("--shade");
    u.ctx.fillRect(left, u.bbox.top, width, u.bbox.height);
  };

  const drawCategory = (u, drawn, { n, place }, rank) => {
    const context = u.ctx, pixel = uPlot.pxRatio, own = drawn.colors[rank];
    const shown = own === "#000000" ? color("--text") : own;
    const x = (value) => u.valToPos(value, "x", true);
    const y = (value) => u.valToPos(value, "y", true);
    context.globalAlpha = 0.55;
    drawn.shares[rank].forEach((share, period) => {
      if (share !== null) dot(context, x(period), y(share), 2.2 * pixel, shown);
    });
    context.globalAlpha = 1;
    const at = x(place(rank)), newest = drawn.smooth[rank].findLastIndex((share) => share !== null);
    context.strokeStyle = shown;
    context.lineWidth = pixel;
    if (newest >= 0) {
      context.setLineDash([2 * pixel, 3 * pixel]);
      context.beginPath();
      context.moveTo(x(newest), y(drawn.smooth[rank][newest]));
      context.lineTo(at, y(drawn.expected[rank]));
      context.stroke();
      context.setLineDash([]);
    }
    context.lineWidth = 2.2 * pixel;
    context.globalAlpha = 0.5;
    context.beginPath();
    context.moveTo(at, y(drawn.intervals[rank][0]));
    context.lineTo(at, y(drawn.intervals[rank][1]));
    context.stroke();
    context.globalAlpha = 1;
    dot(context, at, y(drawn.expected[rank]), 4 * pixel, shown);
    context.lineWidth = 1.5 * pixel;
    if (drawn.edited[rank] !== drawn.expected[rank]) {
      dot(context, at, y(drawn.edited[rank]), 5 * pixel, null, color("--text"));
    }
    if (drawn.observed.length) {
      const size = 5.5 * pixel, middle = y(drawn.observed[rank]);
      context.beginPath();
      context.moveTo(at, middle - size);
      context.lineTo(at + size, middle);
      context.lineTo(at, middle + size);
      context.lineTo(at - size, middle);
      context.closePath();
      context.fillStyle = shown;
      context.fill();
      context.strokeStyle = color("--text");
      context.stroke();
    }
  };

  // From the forecast back, so far apart that no day is written over another.
  const ticks = ({ n, room }, width) => {
    const step = Math.max(1, Math.ceil((DAY_WIDTH * (n + room)) / width));
    const found = Array.from({ length: Math.floor(n / step) + 1 }, (_, at) => n - at * step);
    return found.reverse().map((period) => period - 0.5);
  };

  // A day that several periods begin on is written once.
  const once = (days, splits, at, place) => {
    const day = days[at + 0.5];
    return place && days[splits[place - 1] + 0.5] === day ? "" : day;
  };

  // What the pointer is on: a period's shares stand behind the names of the legend.
  const readOut = (figure, drawn, { n }) => (u) => {
    const index = u.cursor.idx;
    const isPeriod = index !== null && index !== undefined && index < n;
    const values = drawn.colors.map((_, rank) => isPeriod ? drawn.shares[rank][index] : drawn.expected[rank]);
    figure.querySelectorAll(".legend .at").forEach((place, rank) => {
      place.textContent = values[rank] === null ? "–" : `${Number((100 * values[rank]).toPrecision(2))}%`;
    });
    figure.querySelector(".readout").textContent = isPeriod ? `Period from ${drawn.days[index]}` : "Forecast";
  };

  const options = (figure, drawn, width) => {
    const where = layout(drawn), grid = { stroke: color("--grid"), width: 1 };
    const font = "12px system-ui, sans-serif", stroke = color("--muted");
    return {
      width,
      height: Math.round(Math.min(320, Math.max(220, width * 0.45))),
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, y: false, points: { show: false } },
      scales: {
        x: { time: false, range: [-0.5, where.n - 0.5 + where.room] },
        y: { range: [0, 1.04 * highest(drawn)] },
      },
      axes: [
        {
          stroke, font, grid: { show: false }, ticks: { show: false },
          splits: (u) => ticks(where, u.bbox.width / uPlot.pxRatio),
          values: (u, splits) => splits.map((at, place) => once(drawn.days, splits, at, place)),
          align: 1, size: 26,
        },
        {
          stroke, font, grid, ticks: { show: false }, size: 44,
          values: (u, splits) => splits.map((share) => `${Math.round(100 * share)}%`),
        },
      ],
      series: [
        {},
        ...drawn.colors.map((own) => ({
          stroke: () => (own === "#000000" ? color("--text") : own),
          width: 2, spanGaps: true, points: { show: false },
        })),
      ],
      hooks: {
        drawClear: [shade(drawn, where)],
        draw: [(u) => drawn.colors.forEach((_, rank) => drawCategory(u, drawn, where, rank))],
        setCursor: [readOut(figure, drawn, where)],
      },
    };
  };

  const charts = new Map(); // figure to what is drawn in it

  const drawFigure = (figure) => {
    const place = figure.querySelector(".canvas"), numbers = figure.dataset.chart;
    const width = Math.floor(place.clientWidth), before = charts.get(figure);
    if (!width || (before && before.numbers === numbers && before.width === width)) return;
    before?.chart.destroy();
    const drawn = JSON.parse(numbers);
    const periods = drawn.days.map((_, period) => period);
    const lines = drawn.smooth.map((row) => [...row, null]);
    const chart = new uPlot(options(figure, drawn, width), [periods, ...lines], place);
    charts.set(figure, { chart, numbers, width });
  };

  const drawAll = () => {
    for (const [figure, { chart }] of charts) {
      if (!figure.isConnected) {
        chart.destroy();
        charts.delete(figure);
      }
    }
    document.querySelectorAll("figure.timeline").forEach((figure) => {
      drawFigure(figure);
      sizes.observe(figure);
    });
  };

  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => drawFigure(target)));

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    charts.forEach(({ chart }) => chart.redraw());
  });
  document.addEventListener("input", ({ target }) => {
    const output = target.id && document.querySelector(`output[for="${CSS.escape(target.id)}"]`);
    if (output) output.textContent = (target.id === "strength" ? "" : "×") + Number(target.value);
  });
  document.addEventListener("htmx:after:swap", () => {
    drawAll();
    // What was pressed may be gone: who uses a keyboard goes on at the list.
    if (document.activeElement === document.body) document.getElementById("list-heading")?.focus();
  });
  drawAll();
})();
