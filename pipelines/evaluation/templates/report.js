// Explores word pyramids. A place on a picture is (u, v) in [0, 1): u to the right, v down. Every layer has one cell
// there, so a place and an active layer are all the state a plate has. Words enter the page as textContent only.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("pyramids").textContent);
  const live = document.getElementById("live");
  const { layers, words, samples } = data;

  const make = (tag, attributes = {}, text = "") => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  const cellAt = (layer, { u, v }) => {
    const [rows, columns] = layers[layer].grid;
    return { row: Math.min(rows - 1, Math.floor(v * rows)), column: Math.min(columns - 1, Math.floor(u * columns)) };
  };
  const centreOf = (layer, row, column) => {
    const [rows, columns] = layers[layer].grid;
    return { u: (column + 0.5) / columns, v: (row + 0.5) / rows };
  };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  class Plate {
    constructor(element, sample) {
      this.element = element;
      this.sample = sample;
      this.frames = [...element.querySelectorAll(".frame")];
      this.fine = element.querySelector(".fine");
      this.pinned = { layer: data.first_layer, place: { u: 0.5, v: 0.5 } };
      this.fineLayer = data.first_layer;
      this.marks = this.frames.map((frame) =>
        layers.map(() => frame.appendChild(make("div", { class: "ring", "aria-hidden": "true" }))));
      this.cells = this.frames[0].appendChild(make("div", { class: "cells", role: "grid" }));
      this.buildCells(this.pinned.layer);
      this.listen();
      this.show(this.pinned);
    }

    word(layer, { row, column }) {
      return words[this.sample.layers[layer][row * layers[layer].grid[1] + column]];
    }

    // The cells of the active layer lie invisibly on the first picture: they take the focus and speak to screen readers.
    buildCells(layer) {
      const [rows, columns] = layers[layer].grid;
      this.cells.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
      this.cells.setAttribute("aria-label",
        `${this.sample.name}: words of layer ${layer + 1} of ${layers.length}, ${rows} by ${columns}`);
      this.cells.setAttribute("aria-describedby", "keys");
      const built = document.createDocumentFragment();
      this.buttons = [];
      for (let row = 0; row < rows; row++) {
        const line = built.appendChild(make("div", { role: "row" }));
        for (let column = 0; column < columns; column++) {
          const label = `${this.word(layer, { row, column })[0]}, layer ${layer + 1}, row ${row + 1}, column ${column + 1}`;
          this.buttons.push(line.appendChild(make("div", { role: "gridcell", tabindex: "-1", "aria-label": label })));
        }
      }
      this.cells.replaceChildren(built);
      this.cellsLayer = layer;
      this.setTabStop();
    }

    setTabStop() {
      const { row, column } = cellAt(this.cellsLayer, this.pinned.place);
      if (this.tabStop) this.tabStop.tabIndex = -1;
      this.tabStop = this.buttons[row * layers[this.cellsLayer].grid[1] + column];
      this.tabStop.tabIndex = 0;
    }

    buildFine(layer) {
      if (!this.fine || this.fineBuilt === layer) return;
      const [rows, columns] = layers[layer].grid;
      const grid = this.fine.querySelector(".grid");
      grid.style.setProperty("--rows", rows);
      grid.style.setProperty("--columns", columns);
      grid.classList.toggle("roomy", columns < 12);
      const built = document.createDocumentFragment();
      this.sample.layers[layer].forEach((index, cell) => {
        const text = words[index][0];
        const span = built.appendChild(make("span", {
          class: "w", "data-layer": layer, "data-row": Math.floor(cell / columns), "data-column": cell % columns,
        }, text));
        span.style.setProperty("--len", [...text].length);
        const colour = this.colourOf(layer, cell);
        if (colour) span.style.setProperty("--tint", colour);
      });
      grid.replaceChildren(built);
      this.fine.querySelector(".which").textContent =
        `Layer ${layer + 1}: ${rows * columns} words, ${rows} × ${columns}`;
      for (const button of this.fine.querySelectorAll("button"))
        button.setAttribute("aria-pressed", String(Number(button.dataset.choose) === layer));
      this.fineBuilt = this.fineLayer = layer;
    }

    // Colours come for the finest grid; a coarser cell takes the one in its middle.
    colourOf(layer, cell) {
      if (!this.sample.colours) return null;
      const [, columns] = layers[layer].grid;
      const { row, column } = cellAt(layers.length - 1, centreOf(layer, Math.floor(cell / columns), cell % columns));
      return this.sample.colours[row * layers[layers.length - 1].grid[1] + column];
    }

    show(state) {
      const { layer, place } = state;
      if (this.fine && this.fineBuilt !== undefined && layer !== this.fineLayer && layers[layer].is_fine) this.buildFine(layer);
      layers.forEach(({ grid: [rows, columns] }, each) => {
        const { row, column } = cellAt(each, place);
        for (const marks of this.marks) {
          const mark = marks[each];
          mark.className = each === layer ? "spot" : "ring";
          mark.classList.toggle("small", rows * columns > 16);
          mark.classList.toggle("ranked", layers[each].first_rank > 0);
          Object.assign(mark.style, {
            left: `${(100 * column) / columns}%`, top: `${(100 * row) / rows}%`,
            width: `${100 / columns}%`, height: `${100 / rows}%`,
          });
        }
        const [text, code, token] = this.word(each, { row, column });
        const line = this.element.querySelector(`.ladder tr[data-layer="${each}"]`);
        line.classList.toggle("now", each === layer);
        line.querySelector(".word").textContent = text;
        line.querySelector(".code").textContent = code;
        line.querySelector(".code").title = `token ${token} of the language model`;
        const rank = line.querySelector(".rank");
        if (rank) rank.textContent = `rank ${layers[each].first_rank + row * columns + column}`;
      });
      for (const old of this.element.querySelectorAll(".w.at")) old.classList.remove("at", "now");
      layers.forEach((_, each) => {
        const { row, column } = cellAt(each, place);
        const found = this.element.querySelector(
          `.w[data-layer="${each}"][data-row="${row}"][data-column="${column}"]`);
        if (found) found.classList.add("at", ...(each === layer ? ["now"] : []));
      });
      const finest = layers.length - 1;
      const { row, column } = cellAt(finest, place);
      const [rows, columns] = layers[finest].grid;
      this.element.querySelector(".where").textContent =
        `Row ${row + 1} of ${rows}, column ${column + 1} of ${columns}`;
    }

    pin(state, { focus = false, say = false } = {}) {
      this.pinned = state;
      this.show(state);
      if (state.layer !== this.cellsLayer) this.buildCells(state.layer);
      this.setTabStop();
      if (focus) this.tabStop.focus({ preventScroll: true });
      if (say) this.announce();
    }

    announce() {
      const { layer, place } = this.pinned;
      const { row, column } = cellAt(layer, place);
      const path = layers.map((_, each) => `${each + 1} ${this.word(each, cellAt(each, place))[0]}`).join(", ");
      live.textContent = `Layer ${layer + 1}, row ${row + 1}, column ${column + 1}: ` +
        `${this.word(layer, { row, column })[0]}. Layer by layer: ${path}.`;
    }

    setLive(isLive) { this.element.classList.toggle("live", isLive || this.element.contains(document.activeElement)); }

    listen() {
      for (const frame of this.frames) {
        const stateOf = (event) => {
          const box = frame.getBoundingClientRect();
          const place = {
            u: clamp((event.clientX - box.left) / box.width, 0, 0.9999),
            v: clamp((event.clientY - box.top) / box.height, 0, 0.9999),
          };
          return { layer: this.pinned.layer, place };
        };
        const move = (event) => {
          this.setLive(true);
          // A finger has no hover: what it touched stays when it is lifted.
          if (event.pointerType === "mouse") this.show(stateOf(event));
          else this.pin(stateOf(event));
        };
        frame.addEventListener("pointermove", move);
        frame.addEventListener("pointerdown", move);
        frame.addEventListener("click", (event) => this.pin(stateOf(event), { focus: true, say: true }));
        frame.addEventListener("pointerleave", () => { this.show(this.pinned); this.setLive(false); });
      }
      const stateOfWord = (target) => {
        const word = target.closest?.(".w[data-layer]");
        if (!word) return null;
        const [layer, row, column] = [word.dataset.layer, word.dataset.row, word.dataset.column].map(Number);
        return { layer, place: centreOf(layer, row, column) };
      };
      this.element.addEventListener("pointerover", (event) => {
        const state = stateOfWord(event.target);
        if (state) { this.setLive(true); this.show(state); }
      });
      this.element.addEventListener("pointerout", (event) => {
        if (stateOfWord(event.target) && event.pointerType === "mouse") { this.show(this.pinned); this.setLive(false); }
      });
      this.element.addEventListener("click", (event) => {
        const state = stateOfWord(event.target);
        const chosen = event.target.closest("[data-choose]");
        if (state) this.pin(state, { focus: true, say: true });
        else if (chosen) this.pin({ ...this.pinned, layer: Number(chosen.dataset.choose) }, { focus: true, say: true });
      });
      this.cells.addEventListener("keydown", (event) => this.key(event));
      this.cells.addEventListener("focusin", () => { this.setLive(true); this.show(this.pinned); });
      this.cells.addEventListener("focusout", () => requestAnimationFrame(() => this.setLive(false)));
    }

    key(event) {
      if (event.altKey || event.metaKey) return;
      const { layer, place } = this.pinned;
      const [rows, columns] = layers[layer].grid;
      const { row, column } = cellAt(layer, place);
      const all = event.ctrlKey;
      const targets = {
        ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
        ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
        Home: [all ? 0 : row, 0], End: [all ? rows - 1 : row, columns - 1],
      };
      const steps = { PageUp: -1, "[": -1, PageDown: 1, "]": 1 };
      let state = null;
      if (event.key in targets) {
        const [toRow, toColumn] = targets[event.key];
        const target = [clamp(toRow, 0, rows - 1), clamp(toColumn, 0, columns - 1)];
        const moved = target[0] !== row || target[1] !== column;
        state = moved ? { layer, place: centreOf(layer, ...target) } : this.pinned;
      } else if (event.key in steps) {
        state = { layer: clamp(layer + steps[event.key], 0, layers.length - 1), place };
      } else if (!all && /^[1-9]$/.test(event.key) && Number(event.key) <= layers.length) {
        state = { layer: Number(event.key) - 1, place };
      }
      if (!state) return;
      event.preventDefault();
      this.pin(state, { focus: true, say: true });
      const box = this.frames[0].getBoundingClientRect();
      if (box.top < 0 || box.bottom > innerHeight) this.frames[0].scrollIntoView({ block: "nearest" });
      this.keepFineWordInView();
    }

    // On a narrow screen the fine grid scrolls sideways in its own box.
    keepFineWordInView() {
      const word = this.fine?.querySelector(".w.at");
      const box = this.fine?.querySelector(".scroll");
      if (word && box.scrollWidth > box.clientWidth)
        box.scrollLeft = word.offsetLeft - (box.clientWidth - word.offsetWidth) / 2;
    }
  }

  const plates = new Map(samples.map((sample, index) => {
    const element = document.getElementById(`sample-${index + 1}`);
    return [element, new Plate(element, sample)];
  }));

  // Thousands of fine words are laid out only where somebody looks.
  const buildFine = (plate) => { plate.buildFine(plate.fineLayer); plate.show(plate.pinned); };
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      buildFine(plates.get(target));
    }
  }, { rootMargin: "800px" });
  for (const element of plates.keys()) watcher.observe(element);
  addEventListener("beforeprint", () => { for (const plate of plates.values()) buildFine(plate); });

  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  // A page opened from a file may have no storage: the choice then lasts as long as the page.
  const storage = (act) => { try { return act(localStorage); } catch { return null; } };
  const setTheme = (theme) => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    storage((store) => store.setItem("spae-theme", theme));
  };
  const stored = storage((store) => store.getItem("spae-theme"));
  let theme = themes.includes(stored) ? stored : "auto";
  setTheme(theme);
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    setTheme(theme);
  });
})();
