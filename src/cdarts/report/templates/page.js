"use strict";
(() => {
  const NS = "http://www.w3.org/2000/svg";
  const TICK = 700, LONGEST = 20000; // milliseconds between two epochs, and of all of them
  const data = JSON.parse(document.getElementById("data").textContent);
  const measure = data.measures;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const round = (value) => String(Math.round(value * 10) / 10);
  const shown = (value) => (value / measure.scale).toFixed(measure.digits);

  const figure = (value, percent) => {
    if (value === null || value === undefined) return "\u2013";
    if (percent && Math.abs(value) < 1e15) return (100 * value).toFixed(2) + " %";
    if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value);
    const size = Math.abs(value);
    return size >= 1e-3 && size < 1e5 ? value.toFixed(4) : value.toExponential(3);
  };

  const make = (parent, name, attributes, text) => {
    const element = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes))
      element.setAttribute(key, typeof value === "number" ? Math.round(value * 100) / 100 : value);
    if (text !== undefined) element.textContent = text;
    parent.appendChild(element);
    return element;
  };

  // -- a cell, drawn as the page's static picture is ------------------------------------------------------------------

  const rowsOf = (evolution, kind, frame) => {
    const cell = evolution.cells[kind];
    const shape = cell.shapes[cell.frames[frame]];
    const before = frame > 0 ? cell.shapes[cell.frames[frame - 1]].e : null;
    const matrix = cell.strengths.length ? cell.strengths[frame] : null;
    return shape.e.map((edge) => {
      const [source, target, mine] = edge;
      const row = {
        edge: source + " \u2192 " + target,
        operation: evolution.labels[mine],
        family: evolution.families[mine],
        width: measure.even,
        changed: before !== null && !before.some((b) => b[0] === source && b[1] === target && b[2] === mine),
      };
      if (matrix === null) return row;
      const strengths = matrix[evolution.edges.findIndex((e) => e[0] === source && e[1] === target)];
      let second = -1;
      for (const index of evolution.allowed)
        if (index !== mine && (second < 0 || strengths[index] > strengths[second])) second = index;
      const [low, high] = cell.limits;
      if (high > low) row.width = measure.thinnest + ((measure.thickest - measure.thinnest) * (strengths[mine] - low)) / (high - low);
      row.strength = shown(strengths[mine]);
      row.second = evolution.labels[second];
      row.secondStrength = shown(strengths[second]);
      row.lead = shown(strengths[mine] - strengths[second]);
      return row;
    });
  };

  const drawCell = (svg, cell, shape, rows, title) => {
    svg.replaceChildren();
    svg.setAttribute("aria-label", title + ": " + rows.map((row) => row.edge + " " + row.operation).join("; "));
    const place = [(cell.size[0] - shape.w) / 2, (cell.size[1] - shape.h) / 2];
    const group = make(svg, "g", { transform: `translate(${place[0]} ${place[1]})` });
    for (const [line, head] of shape.t) {
      make(group, "path", { class: "thread", d: line });
      make(group, "path", { class: "thread head", d: head });
    }
    shape.e.forEach((edge, index) => {
      make(group, "path", { class: "edge " + rows[index].family, d: edge[3] }).style.strokeWidth = rows[index].width;
      make(group, "path", { class: "head " + rows[index].family, d: edge[4] });
    });
    for (const [x, y, width, height, text, small] of shape.s) {
      const state = make(group, "g", { class: "state" });
      if (width === 2 * measure.radius && height === 2 * measure.radius) make(state, "circle", { cx: x, cy: y, r: measure.radius });
      else make(state, "rect", { x: x - width / 2, y: y - height / 2, width: width, height: height, rx: 13 });
      if (text === "c") {
        const word = make(state, "text", { x: x, y: y + 4 }, "c");
        make(word, "tspan", { class: "small", dy: 4 }, small);
      } else if (small) {
        make(state, "text", { x: x, y: y - 2 }, text);
        make(state, "text", { class: "small", x: x, y: y + 12 }, small);
      } else make(state, "text", { x: x, y: y + 4.5 }, text);
    }
    shape.e.forEach((edge, index) => {
      const [x, y, width] = [edge[5], edge[6], edge[7]], row = rows[index];
      const label = make(group, "g", { class: "label " + row.family + (row.changed ? " changed" : "") });
      make(label, "rect", { x: x - width / 2, y: y - measure.label / 2, width: width, height: measure.label, rx: 7 });
      make(label, "text", { x: x, y: y + (row.second ? -2 : 4) }, row.operation);
      if (row.second) make(label, "text", { class: "small", x: x, y: y + 11.5 }, "then " + row.second);
    });
  };

  const fillTable = (body, rows, known) => {
    body.replaceChildren();
    for (const row of rows) {
      const line = body.insertRow();
      if (row.changed) line.className = "changed";
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = row.edge;
      line.appendChild(head);
      const cells = [[row.operation, row.family + " op"]];
      if (known) cells.push([row.strength, "n"], [row.second, ""], [row.secondStrength, "n"], [row.lead, "n"]);
      cells.push([row.changed ? "new" : "", ""]);
      for (const [text, name] of cells) {
        const cell = line.insertCell();
        cell.className = name;
        cell.textContent = text;
      }
    }
  };

  // -- a stage and its epoch ------------------------------------------------------------------------------------------

  const frameAt = (epochs, epoch) => {
    let found = 0;
    epochs.forEach((other, index) => { if (other <= epoch) found = index; });
    return found;
  };

  const stageOf = (root) => {
    const stage = data.stages[Number(root.dataset.stage)];
    const last = stage.epochs - 1;
    if (last < 0) return;
    const slider = root.querySelector(".epoch"), where = root.querySelector(".where");
    const play = root.querySelector(".play"), charts = all(".chart", root), numbers = all(".number[data-key]", root);
    let timer = 0, drawnFrame = -1;

    const showFrame = (epoch) => {
      const evolution = stage.evolution;
      if (!evolution) return;
      const frame = frameAt(evolution.epochs, epoch);
      if (frame === drawnFrame) return;
      drawnFrame = frame;
      for (const figureElement of all(".cell-figure", root)) {
        const kind = figureElement.dataset.kind, cell = evolution.cells[kind];
        const rows = rowsOf(evolution, kind, frame);
        const title = figureElement.querySelector("figcaption").firstChild.textContent.trim();
        drawCell(figureElement.querySelector("svg.cell"), cell, cell.shapes[cell.frames[frame]], rows, title);
        fillTable(figureElement.querySelector("tbody"), rows, cell.strengths.length > 0);
      }
      for (const table of all("table.matrix", root)) {
        const matrix = evolution.cells[table.dataset.kind].strengths[frame];
        matrix.forEach((row, index) => row.forEach((value, column) => {
          table.tBodies[0].rows[index].cells[column + 1].textContent = shown(value);
        }));
      }
      for (const cursor of all(".heat .cursor", root)) {
        const width = Number(cursor.dataset.width);
        cursor.setAttribute("transform", `translate(${round(((frame + 0.5) / evolution.epochs.length) * width)} 0)`);
        cursor.classList.add("on");
      }
      for (const words of all(".at", root)) words.textContent = "after epoch " + (evolution.epochs[frame] + 1);
    };

    const show = (epoch) => {
      epoch = Math.max(0, Math.min(last, epoch));
      slider.value = epoch + 1;
      const words = stage.words[epoch] || "";
      where.replaceChildren();
      const bold = document.createElement("b"), span = document.createElement("span");
      bold.textContent = "Epoch " + (epoch + 1);
      span.textContent = words;
      where.append(bold, " of " + stage.epochs, span);
      slider.setAttribute("aria-valuetext", `epoch ${epoch + 1} of ${stage.epochs}${words ? ", " + words : ""}`);
      for (const element of numbers) {
        const column = stage.columns[element.dataset.key];
        element.textContent = figure(column[epoch], "percent" in element.dataset);
      }
      for (const element of all(".at-number", root)) element.textContent = epoch + 1;
      const x = measure.left + ((epoch + 0.5) / stage.epochs) * measure.inner;
      for (const chart of charts) {
        const cursor = chart.querySelector(".cursor");
        cursor.setAttribute("transform", `translate(${round(x)} 0)`);
        cursor.classList.add("on");
      }
      showFrame(epoch);
    };

    const stop = () => {
      clearInterval(timer);
      timer = 0;
      offer("Play");
    };
    const offer = (word) => {
      play.classList.toggle("playing", word === "Pause");
      play.setAttribute("aria-label", play.getAttribute("aria-label").replace(/^\w+/, word));
      play.querySelector(".play-word").textContent = word;
    };
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(slider.value) > last) show(0);
      offer("Pause");
      timer = setInterval(() => {
        if (Number(slider.value) > last) return stop();
        show(Number(slider.value));
      }, Math.max(80, Math.min(TICK, LONGEST / stage.epochs)));
    });
    slider.addEventListener("input", () => { if (timer) stop(); show(Number(slider.value) - 1); });
    for (const chart of charts) {
      const follow = (event) => {
        if (timer) return;
        const box = chart.getBoundingClientRect(), inside = ((event.clientX - box.left) / box.width) * measure.width;
        show(Math.floor(((inside - measure.left) / measure.inner) * stage.epochs));
      };
      chart.addEventListener("pointermove", follow);
      chart.addEventListener("pointerdown", follow);
    }
    show(last);
  };

  // -- theme and copying ----------------------------------------------------------------------------------------------

  const say = (words) => { document.getElementById("said").textContent = words; };
  const theme = document.getElementById("theme"), themes = ["system", "light", "dark"];
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme || "system") + 1) % themes.length];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    theme.textContent = "Theme: " + next;
  });

  const copied = (button, well) => {
    const words = well ? "Copied" : "Select and copy";
    button.textContent = words;
    say(words);
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  };
  for (const button of all(".copy"))
    button.addEventListener("click", () => {
      const source = document.getElementById(button.dataset.copy);
      const selection = getSelection(), range = document.createRange();
      range.selectNodeContents(source);
      selection.removeAllRanges();
      selection.addRange(range);
      // a page from a disk has no clipboard of its own in some browsers; what is selected can be copied everywhere
      if (navigator.clipboard && isSecureContext)
        navigator.clipboard.writeText(source.textContent).then(() => copied(button, true),
          () => copied(button, document.execCommand("copy")));
      else copied(button, document.execCommand("copy"));
    });

  for (const element of all(".scripted")) element.hidden = false;
  for (const root of all("[data-stage]")) stageOf(root);
})();
