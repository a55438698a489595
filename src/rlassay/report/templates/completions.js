"use strict";
// The completion browser. Data come from the block #index and from rlassayPage(source, number, page) calls, one per file.
const INDEX = JSON.parse(document.getElementById("index").textContent);
const LONGEST_DIFF = 800; // words on either side, beyond which words are not aligned
const [TEXT, GREEDY, SAMPLE, TOKENS, FINISHED, SCORES, ADVANTAGE] = [0, 1, 2, 3, 4, 5, 6];
const form = document.getElementById("form");
const list = document.getElementById("list");
const pages = new Map(); // "source/number" -> promise of the page
const arrived = new Map(); // "source/number" -> function that takes the page
const other = Math.max(0, INDEX.rows.findIndex((row, place) => row.arm && place !== INDEX.reference)); // compared with the reference
let source = INDEX.sources[0];
let listed = []; // entries of the index that pass the filters
let current = null; // key of the prompt shown
let pinned = null; // completion that differences are marked from
let turn = 0; // number of the last filtering, so that an earlier one that waits for files gives up

function rlassayPage(key, number, page) {
  const name = `${key}/${number}`;
  if (arrived.has(name)) arrived.get(name)(page);
  else pages.set(name, Promise.resolve(page));
}

function load(number) {
  const name = `${source.key}/${number}`;
  if (!pages.has(name)) {
    pages.set(name, new Promise((resolve, reject) => {
      arrived.set(name, resolve);
      const script = document.createElement("script");
      script.src = `${INDEX.folder}/${encodeURIComponent(source.key)}-${number}.js`;
      script.onerror = () => { pages.delete(name); reject(new Error(script.src)); };
      document.head.append(script);
    }));
  }
  return pages.get(name);
}

async function promptOf(entry) {
  const page = await load(entry[2]);
  return [page.prompts.find(one => one.key === entry[0]), page.texts];
}

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key === "role") made.setAttribute(key, value); else made[key] = value;
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

function swatch(row) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [key, value] of Object.entries({class: "swatch", viewBox: "0 0 14 14", "aria-hidden": "true"})) svg.setAttribute(key, value);
  path.setAttribute("fill", row.color);
  path.setAttribute("d", row.path);
  svg.append(path);
  return svg;
}

// Filters.

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => element("option", {value, textContent: text})));
  select.value = chosen;
}

function fillForm() {
  const rows = INDEX.rows.map((row, place) => [String(place), row.label]);
  options(form.elements.source, INDEX.sources.map(one => [one.key, one.title]), source.key);
  options(form.elements.from, rows, String(INDEX.reference));
  options(form.elements.to, rows, String(other));
  options(form.elements.diff, [["", "nothing"], ["pinned", "the chosen completion"], ...rows], String(INDEX.reference));
  document.getElementById("arms").append(...INDEX.rows.map((row, place) =>
    element("label", {}, element("input", {type: "checkbox", name: "arm", value: String(place), checked: true, defaultChecked: true}), element("span", {}, swatch(row), row.label))));
}

function fillSource() {
  options(form.elements.metric, source.metrics.map((name, place) => [String(place), name]), "0");
  for (const name of ["right", "flip", "from", "to"]) form.elements[name].disabled = source.right === null;
}

function fillSeeds(prompt) {
  const seeds = [...new Set(prompt.policies.map(policy => policy[1]).filter(seed => seed !== null))].sort((a, b) => a - b);
  const known = [...form.elements.seed.options].map(one => one.value).filter(Boolean);
  const all = [...new Set([...known, ...seeds.map(String)])].sort((a, b) => a - b);
  if (all.length !== known.length || !form.elements.seed.options.length) {
    options(form.elements.seed, [["", "all"], ...all.map(seed => [seed, seed])], form.elements.seed.value);
  }
}

const number = name => form.elements[name].value === "" ? null : Number(form.elements[name].value);
const text = name => form.elements[name].value;

function chosen() {
  return {
    arms: new Set([...form.elements.arm].filter(box => box.checked).map(box => Number(box.value))),
    search: text("search").trim().toLowerCase(), mode: text("mode"), seed: text("seed"), right: text("right"),
    shortest: number("shortest"), longest: number("longest"), metric: Number(text("metric")), least: number("least"), most: number("most"),
  };
}

const readsCompletions = wanted => Boolean(wanted.search || wanted.right) || [wanted.shortest, wanted.longest, wanted.least, wanted.most].some(one => one !== null);
const within = (value, least, most) => (least === null || (value !== null && value >= least)) && (most === null || (value !== null && value <= most));

function isRight(one) {
  const score = source.right === null ? null : one[SCORES][source.right];
  return score === null ? null : score >= 1;
}

function passes(wanted, row, seed, one, texts, search) {
  return wanted.arms.has(row) && (wanted.mode === "" || String(one[GREEDY]) === wanted.mode)
    && (wanted.seed === "" || seed === null || String(seed) === wanted.seed)
    && (wanted.right === "" || isRight(one) === (wanted.right === "1"))
    && within(one[TOKENS], wanted.shortest, wanted.longest) && within(one[SCORES][wanted.metric], wanted.least, wanted.most)
    && (!search || texts[one[TEXT]].toLowerCase().includes(search));
}

// A search that the question answers shows all completions of the prompt.
const searchWithin = (wanted, prompt) => prompt.question.toLowerCase().includes(wanted.search) || prompt.key === wanted.search ? "" : wanted.search;

function flips(entry) {
  const kind = text("flip");
  if (!kind) return true;
  const [before, after] = ["from", "to"].map(name => entry[3][Number(text(name))]);
  if (before === null || after === null) return false;
  return kind === "won" ? before < 0.5 && after >= 0.5 : before >= 0.5 && after < 0.5;
}

async function filter() {
  const mine = ++turn, wanted = chosen(), count = document.getElementById("count");
  let found = source.prompts.filter(flips);
  try {
    if (readsCompletions(wanted)) {
      const kept = [];
      for (const [place, entry] of found.entries()) {
        if (place % 50 === 0) count.textContent = `Searching: ${place} of ${found.length} prompts`;
        const [prompt, texts] = await promptOf(entry);
        if (mine !== turn) return;
        const search = searchWithin(wanted, prompt);
        if (prompt.policies.some(([row, seed, each]) => each.some(one => passes(wanted, row, seed, one, texts, search)))) kept.push(entry);
      }
      found = kept;
    }
  } catch (error) { fail(error); return; }
  listed = found;
  count.textContent = `${found.length} of ${source.prompts.length} prompts`;
  list.replaceChildren(...found.map(entry => {
    const button = element("button", {type: "button", textContent: entry[1] || "(no text)", onclick: () => show(entry[0])});
    button.dataset.key = entry[0];
    return element("li", {}, button);
  }));
  show(found.some(entry => entry[0] === current) ? current : found.length ? found[0][0] : null);
}

// The prompt shown.

async function show(key) {
  if (current !== key) pinned = null;
  current = key;
  const place = listed.findIndex(entry => entry[0] === key);
  document.getElementById("previous").disabled = place <= 0;
  document.getElementById("next").disabled = place < 0 || place === listed.length - 1;
  document.getElementById("place").textContent = place < 0 ? "No prompt passes the filters." : `${place + 1} of ${listed.length}`;
  for (const button of list.querySelectorAll("button")) {
    if (button.dataset.key !== key) button.removeAttribute("aria-current");
    else { button.setAttribute("aria-current", "true"); scrollTo(button); }
  }
  if (place < 0) { document.getElementById("prompt").replaceChildren(); document.getElementById("columns").replaceChildren(); return; }
  history.replaceState(null, "", `#${encodeURIComponent(source.key)}/${encodeURIComponent(key)}`); // before the wait, or it would undo an address given in the meantime
  const shown = source;
  try {
    const [prompt, texts] = await promptOf(listed[place]);
    if (current !== key || source !== shown) return;
    fillSeeds(prompt);
    showPrompt(prompt);
    showCompletions(prompt, texts);
  } catch (error) { fail(error); }
}

// Scrolls the list alone; scrollIntoView would scroll the page too.
function scrollTo(button) {
  const [top, bottom] = [button.offsetTop - list.offsetTop, button.offsetTop - list.offsetTop + button.offsetHeight];
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
}

function showPrompt(prompt) {
  const letters = "ABCDEFGHIJ";
  const options = prompt.choices.map((choice, place) => {
    const gold = letters[place] === prompt.answer;
    return element("li", {className: gold ? "gold" : ""}, `${letters[place]} `, element("bdi", {textContent: choice}), gold ? " ← gold" : "");
  });
  const below = options.length ? element("ul", {className: "choices", "aria-label": "Options"}, ...options)
    : element("p", {}, "Gold answer: ", element("bdi", {textContent: prompt.answer}));
  const pictures = prompt.images.map((image, place) => image.uri
    ? element("img", {src: image.uri, width: image.width, height: image.height, className: `${image.width < 128 ? "small" : ""}${image.width > 2 * image.height ? " wide" : ""}`, alt: `Image ${place + 1} of the prompt`})
    : element("p", {className: "note", textContent: "The image is missing."}));
  document.getElementById("prompt").replaceChildren(...pictures, element("div", {}, element("p", {dir: "auto", textContent: prompt.question}), below,
    element("p", {className: "note"}, element("code", {textContent: prompt.key}))));
}

function showCompletions(prompt, texts) {
  const wanted = chosen(), search = searchWithin(wanted, prompt);
  document.getElementById("columns").replaceChildren(...INDEX.rows.map((row, place) => {
    const policies = prompt.policies.filter(policy => policy[0] === place);
    const cards = policies.flatMap(([, seed, each]) => each.filter(one => passes(wanted, place, seed, one, texts, search)).map(one => card(prompt, texts, place, seed, one)));
    const all = policies.reduce((sum, policy) => sum + policy[2].length, 0);
    if (!wanted.arms.has(place) || !all) return null;
    const right = policies.flatMap(policy => policy[2]).filter(one => !one[GREEDY] && isRight(one) !== null);
    const score = right.length ? ` · ${right.filter(isRight).length} of ${right.length} sampled right` : "";
    return element("div", {className: "policy"}, element("h2", {}, swatch(row), row.label, element("span", {className: "ends", textContent: `${cards.length} of ${all} completions${score}`})), ...cards);
  }).filter(Boolean));
}

function card(prompt, texts, row, seed, one) {
  const right = isRight(one);
  const facts = [[seed === null ? "" : `seed ${seed}`, one[GREEDY] ? "greedy" : `sample ${one[SAMPLE]}`].filter(Boolean).join(", "), `${one[TOKENS]} tokens${one[FINISHED] ? "" : ", truncated"}`];
  const scores = source.metrics.map((name, place) => `${name} ${shown(one[SCORES][place])}`);
  if (one[ADVANTAGE] !== null) scores.push(`advantage ${one[ADVANTAGE] > 0 ? "+" : ""}${shown(one[ADVANTAGE])}`);
  const isPinned = pinned === one;
  const pin = element("button", {type: "button", textContent: "compare", "aria-pressed": String(isPinned), "aria-label": `compare with ${INDEX.rows[row].label}, ${facts[0]}`});
  pin.onclick = () => { pinned = isPinned ? null : one; form.elements.diff.value = pinned ? "pinned" : String(INDEX.reference); showCompletions(prompt, texts); };
  const body = element("pre", {dir: "auto", tabIndex: 0});
  const other = reference(prompt, row, seed, one);
  if (texts[one[TEXT]].trim() === "") body.append(element("i", {textContent: "no text"}));
  else if (other === null || other === one) body.textContent = texts[one[TEXT]];
  else body.append(...differences(words(texts[other[TEXT]]), words(texts[one[TEXT]])));
  return element("article", {className: isPinned ? "one pinned" : "one"},
    element("p", {className: "facts"}, right === null ? null : element("span", {className: right ? "right" : "wrong", textContent: right ? "✓ right" : "✗ wrong"}), ...facts.map(fact => element("span", {textContent: fact})), pin),
    body, element("p", {className: "facts"}, ...scores.map(score => element("span", {textContent: score}))));
}

const shown = value => value === null ? "–" : String(Number(value.toFixed(3))).replace("-", "−");

// Word differences.

function reference(prompt, row, seed, one) {
  const from = text("diff");
  if (from === "") return null;
  if (from === "pinned") return pinned;
  if (Number(from) === row) return null;
  const policies = prompt.policies.filter(policy => policy[0] === Number(from));
  const policy = policies.find(policy => policy[1] === seed) || policies[0];
  if (!policy) return null;
  return policy[2].find(other => other[GREEDY] === one[GREEDY] && other[SAMPLE] === one[SAMPLE]) || null;
}

const words = string => string.match(/\s+|<[^<>\s]*>|[^\s<]+|</g) || [];

function differences(before, after) {
  let start = 0, end = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start++;
  while (end < before.length - start && end < after.length - start && before[before.length - 1 - end] === after[after.length - 1 - end]) end++;
  const parts = [["", after.slice(0, start).join("")], ...aligned(before.slice(start, before.length - end), after.slice(start, after.length - end)), ["", after.slice(after.length - end).join("")]];
  return parts.filter(part => part[1]).map(([kind, words]) => kind ? element(kind, {textContent: words}) : document.createTextNode(words));
}

// The longest common subsequence of words; of long texts, all words as one change.
function aligned(before, after) {
  if (before.length > LONGEST_DIFF || after.length > LONGEST_DIFF) return [["del", before.join("")], ["ins", after.join("")]];
  const width = after.length + 1, table = new Uint16Array((before.length + 1) * width);
  for (let i = before.length - 1; i >= 0; i--) for (let j = after.length - 1; j >= 0; j--) {
    table[i * width + j] = before[i] === after[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
  }
  const parts = [];
  const add = (kind, word) => { const last = parts[parts.length - 1]; if (last && last[0] === kind) last[1] += word; else parts.push([kind, word]); };
  let i = 0, j = 0;
  while (i < before.length || j < after.length) {
    if (i < before.length && j < after.length && before[i] === after[j]) { add("", after[j]); i++; j++; }
    else if (j === after.length || (i < before.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) add("del", before[i++]);
    else add("ins", after[j++]);
  }
  return parts;
}

// Events.

function fail(error) {
  document.getElementById("count").textContent = "";
  document.getElementById("columns").replaceChildren(element("p", {className: "banner", role: "alert", textContent:
    `Cannot read ${error.message}. Keep this page beside its folder “${INDEX.folder}”: download the whole report folder and open the page there.`}));
}

function step(by) {
  const place = listed.findIndex(entry => entry[0] === current) + by;
  if (place >= 0 && place < listed.length) show(listed[place][0]);
}

function go() {
  const [key, prompt] = decodeURIComponent(location.hash.slice(1)).split("/");
  source = INDEX.sources.find(one => one.key === key) || source;
  current = prompt && source.prompts.some(entry => entry[0] === prompt) ? prompt : null;
  form.elements.source.value = source.key;
  fillSource();
  return filter();
}

if (INDEX.sources.length) {
  fillForm();
  if (matchMedia("(max-width: 56rem)").matches) document.getElementById("filters").open = false;
  form.addEventListener("input", event => {
    if (event.target.name === "source") { source = INDEX.sources.find(one => one.key === text("source")); current = null; form.elements.seed.replaceChildren(); fillSource(); }
    if (event.target.name === "diff") show(current); else filter();
  });
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => {
    for (const [name, value] of Object.entries({source: source.key, from: INDEX.reference, to: other, diff: INDEX.reference})) form.elements[name].value = String(value);
    filter();
  }));
  document.getElementById("previous").onclick = () => step(-1);
  document.getElementById("next").onclick = () => step(1);
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") { event.preventDefault(); document.getElementById("filters").open = true; form.elements.search.focus(); }
  });
  addEventListener("hashchange", go);
  addEventListener("DOMContentLoaded", go); // after the first page of data, which comes with this file
}
