// The page: its state is the address (?q=…&view=…), so that a link shows the same; texts only ever become text nodes.

const $ = id => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const OWN = "…";
const state = { q: "", picture: "", view: "", against: "", k: "12", exact: "", rerank: "" };
let about = null, panels = [];

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  const said = await answer.json().catch(() => ({ error: `The server said ${answer.status}.` }));
  if (!answer.ok) throw new Error(said.error);
  return said;
}

const thumbnail = (row, n, size) => `/api/thumbnail/${row}/${n}?size=${size}&of=${about.stamp.slice(0, 8)}`;
const milliseconds = ms => `${ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : number.format(Math.round(ms))} ms`;
const bytes = count => `${number.format(Math.round(count * 10) / 10)} bytes a document`;
const asked = () => Boolean(state.q || state.picture);

class Panel {
  constructor(key) {
    this.key = key;
    this.root = $("panel").content.cloneNode(true).firstElementChild;
    for (const name of ["view", "own", "bytes", "times", "error", "none", "results"])
      this[name] = this.root.querySelector("." + name);
    const groups = { kept: "In the store", made: "Made on reading", funnel: "Funnels" };
    for (const [kind, label] of Object.entries(groups)) {
      const offered = about.views.filter(one => one.kind === kind);
      const options = offered.map(one => make("option", { value: one.view }, one.view));
      if (options.length) this.view.append(make("optgroup", { label }, ...options));
    }
    this.view.append(make("option", { value: OWN }, "another view or funnel…"));
    this.view.addEventListener("change", () => {
      this.own.hidden = this.view.value !== OWN;
      if (this.own.hidden) this.choose(this.view.value);
      else { this.own.firstElementChild.value = this.wanted; this.own.firstElementChild.focus(); }
    });
    this.own.addEventListener("submit", event => {
      event.preventDefault();
      this.choose(this.own.firstElementChild.value.trim());
    });
    this.root.addEventListener("keydown", event => this.walk(event));
  }

  get wanted() { return state[this.key] || about.default; }

  choose(view) { if (view) go({ [this.key]: view }); }

  show() {
    const offer = about.views.find(one => one.view === this.wanted);
    this.view.value = offer ? offer.view : OWN;
    this.own.hidden = Boolean(offer);
    this.own.firstElementChild.value = this.wanted;
    this.bytes.textContent = offer ? bytes(offer.bytes_per_document) : "";
  }

  async run() {
    this.stop?.abort();
    this.show();
    this.error.hidden = this.none.hidden = true;
    if (!asked()) return this.empty();
    this.stop = new AbortController();
    this.root.classList.add("waiting");
    if (!this.found) this.skeletons = setTimeout(() => this.results.replaceChildren(
      ...Array.from({ length: 6 }, () => make("li", { className: "skeleton" }))), 150);
    const { signal } = this.stop;
    try {
      const question = { query: state.q, picture: state.picture || null, view: this.wanted, k: Number(state.k),
                         exact: state.exact === "1", rerank: state.rerank !== "0" };
      const found = await ask("/api/search", { method: "POST", signal, body: JSON.stringify(question),
                                               headers: { "content-type": "application/json" } });
      this.done();
      this.found = found;
      this.bytes.textContent = bytes(found.bytes_per_document);
      this.none.hidden = found.results.length > 0;
      this.time(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.done();
      this.empty();
      this.error.textContent = error.message;
      this.error.hidden = false;
    }
  }

  done() {
    clearTimeout(this.skeletons);
    this.root.classList.remove("waiting");
  }

  empty() {
    this.done();
    this.found = null;
    this.results.replaceChildren();
    this.times.replaceChildren();
  }

  time({ ms, encoded_now, index }) {
    const names = ["search", "encode", "rerank"].filter(name => ms[name] !== undefined);
    const said = name => name === "encode" && !encoded_now ? "encoded before"
      : `${name} ${milliseconds(ms[name])}` + (name === "search" && index ? ` by ${index}` : "");
    this.times.replaceChildren(...names.map(name => make("span", { className: name }, said(name))));
    this.results.dataset.ms = ms.search;
  }

  draw(other) {
    if (!this.found) return;
    const before = other?.found && new Map(other.found.results.map(one => [one.row, one.rank]));
    this.results.replaceChildren(...this.found.results.map((one, place) => {
      const sight = make("span", { className: "sight" }, one.pictures
        ? make("img", { src: thumbnail(one.row, 0, "small"), loading: "lazy", decoding: "async", alt: "",
                        onload: event => this.shape(event.target) })
        : make("span", { className: "words" }, one.text), make("span", { className: "rank" }, String(one.rank)));
      if (before) sight.append(moved(before.get(one.row), one.rank));
      const name = make("b", {}, make("span", {}, one.id), make("span", { className: "score" }, one.score.toFixed(3)));
      const below = make("span", { className: "below" }, name);
      if (one.pictures && one.text) below.append(make("small", {}, one.text));
      const card = make("button", { type: "button", className: "card", onclick: () => open(this, place),
                                    ariaLabel: `${one.rank}: ${one.id}, score ${one.score.toFixed(3)}` }, sight, below);
      card.dataset.id = one.id;
      return make("li", {}, card);
    }));
  }

  shape({ naturalWidth, naturalHeight }) {  // all cards as the first picture that came: pages mostly have one shape
    if (!this.shaped) this.results.style.setProperty("--shape", Math.min(1.6, Math.max(0.7, naturalWidth / naturalHeight)));
    this.shaped = true;
  }

  walk(event) {
    const cards = [...this.results.querySelectorAll(".card")], place = cards.indexOf(document.activeElement);
    if (place < 0) return;
    const line = cards.filter(card => card.offsetTop === cards[0].offsetTop).length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: line, ArrowUp: -line }[event.key];
    if (!step) return;
    event.preventDefault();
    cards[place + step]?.focus();
  }
}

function moved(before, now) {
  const [name, text] = before === undefined ? ["new", "new"] : before === now ? ["same", "="]
    : before > now ? ["up", `▲ ${before - now}`] : ["down", `▼ ${now - before}`];
  return make("span", { className: `moved ${name}` }, text);
}

// -- the address ----------------------------------------------------------------------------------------------------

const STANDARD = { k: "12" };

function go(change, replace = false) {
  Object.assign(state, change);
  const kept = Object.entries(state).filter(([name, value]) => value && value !== STANDARD[name]);
  const address = kept.length ? "?" + new URLSearchParams(kept) : location.pathname;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  return show();
}

function read() {
  const given = new URLSearchParams(location.search);
  for (const name of Object.keys(state)) state[name] = given.get(name) ?? STANDARD[name] ?? "";
}

async function show() {
  $("page").close();
  $("query").value = state.q;
  $("k").value = state.k;
  $("exact").checked = state.exact === "1";
  $("rerank").checked = state.rerank !== "0";
  $("picture").hidden = !state.picture;
  if (state.picture) $("picture").querySelector("img").src = `/api/pictures/${state.picture}`;
  $("begin").hidden = asked();
  document.title = state.q ? `${state.q} – colmrl` : "colmrl";
  const keys = state.against ? ["view", "against"] : ["view"];
  while (panels.length > keys.length) panels.pop().root.remove();
  for (const key of keys.slice(panels.length)) {
    panels.push(new Panel(key));
    $("panels").append(panels.at(-1).root);
  }
  $("panels").className = state.against ? "two" : "";
  $("compare").ariaPressed = String(Boolean(state.against));
  for (const panel of panels) {  // one after another: their times are not to disturb each other
    await panel.run();
    panel.draw(panel === panels[0] ? null : panels[0]);
  }
  const found = panels[0].found;
  $("said").textContent = found ? `${found.results.length} results, ${milliseconds(found.ms.search)}` : "";
  document.body.dataset.shown = location.search;
}

// -- a picture to look for ------------------------------------------------------------------------------------------

async function send(file) {
  const complain = text => { panels[0].empty(); panels[0].error.textContent = text; panels[0].error.hidden = false; };
  if (!file.type.startsWith("image/")) return complain(`${file.name}: no picture: choose another file`);
  if (file.size > about.limits.upload_bytes)
    return complain(`${file.name}: ${number.format(file.size)} bytes, more than ${number.format(about.limits.upload_bytes)}: scale it down`);
  panels[0].root.classList.add("waiting");
  try {
    const { picture } = await ask("/api/pictures", { method: "POST", body: file, headers: { "content-type": file.type } });
    await go({ picture, q: $("query").value.trim() });
  } catch (error) {
    panels[0].done();
    complain(error.message);
  }
}

// -- one page, and what it matched by -------------------------------------------------------------------------------

let opened = null;

async function open(panel, place) {
  const one = panel.found.results[place], query = new URLSearchParams({ query: panel.found.query });
  if (panel.found.picture) query.set("picture", panel.found.picture);
  opened = { panel, place };
  const name = make("span", {}, `rank ${one.rank} · score ${one.score.toFixed(4)} at ${panel.found.how}`);
  $("page-name").replaceChildren(one.id, name);
  $("page-text").textContent = one.text;
  $("before").disabled = place === 0;
  $("after").disabled = place === panel.found.results.length - 1;
  $("tokens").replaceChildren();
  $("scale").hidden = $("why-error").hidden = true;
  $("why-said").textContent = "";
  $("sheet").hidden = !one.pictures;
  draw(null);
  if (one.pictures) picture(one, 0);
  if (!$("page").open) $("page").showModal();
  try {
    const why = await ask(`/api/explain/${one.row}?${query}`);
    if (opened?.panel === panel && opened.place === place) explain(one, why);
  } catch (error) {
    $("why-error").textContent = `No similarity to show: ${error.message}`;
    $("why-error").hidden = false;
  }
}

function picture(one, n) {
  const plain = $("sheet").querySelector(".plain");
  plain.alt = `${one.id}, page ${n + 1}`;
  plain.onload = () => {
    const ratio = plain.naturalWidth / plain.naturalHeight;
    $("sheet").style.setProperty("--ratio", ratio);
    $("sheet").style.setProperty("--width", `min(100%, ${Math.round(78 * ratio)}vh, ${Math.max(480, plain.naturalWidth)}px)`);
  };
  plain.src = thumbnail(one.row, n, "large");
}

function explain(one, why) {
  if (why.picture) picture(one, why.picture);
  const choices = [["page alone", null, false], [why.tokens.length ? "whole query" : "the query", why.mean, false],
                   ...why.tokens.map(token => [token.name, token, token.telling])];
  $("tokens").replaceChildren(...choices.map(([name, laid, telling], place) => {
    const chip = make("button", { type: "button", role: "radio", ariaChecked: "false", className: telling ? "telling" : "" }, name);
    if (laid) chip.append(" ", make("small", {}, laid.max.toFixed(2)));
    chip.onmouseenter = () => draw(laid);
    chip.onmouseleave = () => draw(choices[chosen()][1]);
    chip.onclick = () => choose(place);
    return chip;
  }));
  const chosen = () => [...$("tokens").children].findIndex(chip => chip.ariaChecked === "true");
  const choose = place => {
    const chips = [...$("tokens").children];
    chips.forEach((chip, i) => { chip.ariaChecked = String(i === place); chip.tabIndex = i === place ? 0 : -1; });
    if (chips.includes(document.activeElement)) chips[place].focus();
    draw(choices[place][1]);
  };
  opened.step = by => choose((chosen() + by + choices.length) % choices.length);
  $("scale").querySelector("img").src = why.bar;
  $("why-said").textContent = "How similar each patch of the page is to a token of the query, by the multi-vectors in full, "
    + "whatever the view. Numbers: the most similar patch. ↑ ↓ go through the tokens.";
  choose(1);
}

function draw(laid) {
  const heat = $("sheet").querySelector(".heat"), [low, high] = $("scale").querySelectorAll("span");
  heat.hidden = $("scale").hidden = !laid;
  $("sheet").querySelector(".plain").classList.toggle("grey", Boolean(laid));
  if (!laid) return;
  heat.src = laid.overlay;
  low.textContent = laid.low.toFixed(2);
  high.textContent = laid.high.toFixed(2);
}

function turn(by) {
  const place = opened.place + by;
  if (opened.panel.found.results[place]) open(opened.panel, place);
}

// -- what people do -------------------------------------------------------------------------------------------------

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if ($("page").open) {
    const act = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), ArrowUp: () => opened.step?.(-1), ArrowDown: () => opened.step?.(1) };
    if (act[event.key]) { event.preventDefault(); act[event.key](); }
    return;
  }
  if (event.target.matches("input:not([type=checkbox]), select")) {
    if (event.target === $("query") && event.key === "ArrowDown") { event.preventDefault(); panels[0].results.querySelector(".card")?.focus(); }
    if (event.target === $("query") && event.key === "Escape") $("query").blur();
    return;
  }
  const act = { "/": () => $("query").select(), v: () => panels[0].view.focus(), c: () => $("compare").click() }[event.key];
  if (act) { event.preventDefault(); act(); }
}

function listen() {
  $("search").addEventListener("submit", event => { event.preventDefault(); go({ q: $("query").value.trim() }); });
  $("k").addEventListener("change", () => go({ k: $("k").value }));
  $("exact").addEventListener("change", () => go({ exact: $("exact").checked ? "1" : "" }));
  $("rerank").addEventListener("change", () => go({ rerank: $("rerank").checked ? "" : "0" }));
  $("compare").addEventListener("click", () => {
    const other = about.views.map(one => one.view).find(view => view.startsWith(panels[0].wanted.startsWith("multi") ? "single" : "multi"));
    go({ against: state.against ? "" : other ?? about.views.at(-1).view });
  });
  $("file").addEventListener("change", () => { if ($("file").files[0]) send($("file").files[0]); $("file").value = ""; });
  $("picture").querySelector("button").addEventListener("click", () => go({ picture: "" }));
  $("before").addEventListener("click", () => turn(-1));
  $("after").addEventListener("click", () => turn(1));
  $("close").addEventListener("click", () => $("page").close());
  $("page").addEventListener("click", event => { if (event.target === $("page")) $("page").close(); });
  $("page").addEventListener("close", () => {
    opened?.panel.results.querySelectorAll(".card")[opened.place]?.focus();
    opened = null;
  });
  document.addEventListener("keydown", keys);
  document.addEventListener("paste", event => { if (event.clipboardData.files[0]) send(event.clipboardData.files[0]); });
  let depth = 0;  // dragenter and dragleave come for every element that is crossed
  const over = by => { depth = by ? depth + by : 0; $("drop").hidden = depth <= 0; };
  document.addEventListener("dragenter", event => { if (event.dataTransfer.types.includes("Files")) over(1); });
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", event => {
    event.preventDefault();
    over(0);
    if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });
  window.addEventListener("popstate", () => { read(); show(); });
}

async function begin() {
  try {
    about = await ask("/api/views");
  } catch (error) {
    $("panels").append(make("p", { className: "error", role: "alert" }, error.message));
    return;
  }
  $("store").textContent = `${number.format(about.documents)} documents`;
  $("store").title = `store ${about.store}, checkpoint ${about.checkpoint}`;
  $("file").parentElement.hidden = !about.sees_pictures;
  $("rerank-with").hidden = !about.reranker;
  $("rerank-with").querySelector("span").textContent = `rerank with ${about.reranker}`;
  $("exact-too").hidden = !about.indexes.length;
  const ways = about.sees_pictures ? "by a text, a picture, or both" : "by a text";
  $("begin").querySelector("h1").textContent = `Search ${number.format(about.documents)} documents ${ways}`;
  $("begin").querySelector("p").hidden = !about.examples.length;
  $("examples").replaceChildren(...about.examples.map(text => make("button", { type: "button", onclick: () => go({ q: text }) }, text)));
  listen();
  read();
  await show();
}

begin();
