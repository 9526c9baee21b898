// The page: forms are sent as they are to the server, whose lines of JSON hold HTML to show.
"use strict";

const { texts, bytes, pictures: mostPictures } = JSON.parse(document.getElementById("config").textContent);
const element = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

function megabytes(count) {
  return (count / 1e6).toLocaleString(texts.code, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

// Files: chosen, dropped, listed with their sizes, and removed again.

class FileField {
  constructor(name) {
    this.root = document.querySelector(`.drop[data-name="${name}"]`);
    this.input = this.root.querySelector("input");
    this.list = this.root.querySelector(".files");
    this.files = [];
    this.input.addEventListener("change", () => {
      this.add(this.input.files);
      this.input.value = ""; // so that the same file can be chosen again
    });
    let inside = 0; // elements that a dragged file is over
    this.root.addEventListener("dragenter", (event) => {
      event.preventDefault();
      inside += 1;
      this.root.classList.add("over");
    });
    this.root.addEventListener("dragover", (event) => event.preventDefault());
    this.root.addEventListener("dragleave", () => {
      inside -= 1;
      if (!inside) this.root.classList.remove("over");
    });
    this.root.addEventListener("drop", (event) => {
      event.preventDefault();
      inside = 0;
      this.root.classList.remove("over");
      this.add(event.dataTransfer.files);
    });
  }

  get size() {
    return this.files.reduce((sum, file) => sum + file.size, 0);
  }

  add(files) {
    this.set(this.input.multiple ? [...this.files, ...files] : [...files].slice(-1));
  }

  set(files) {
    this.files = files;
    for (const image of this.list.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    this.list.replaceChildren(...files.map((file) => this.item(file)));
    this.root.classList.toggle("filled", files.length > 0);
    this.changed?.();
  }

  item(file) {
    const label = fill(texts.remove, { name: file.name });
    const remove = make("button", { type: "button", className: "remove", ariaLabel: label, title: label }, "×");
    remove.addEventListener("click", () => {
      this.set(this.files.filter((other) => other !== file));
      this.input.focus();
    });
    const size = file.size < 1e5 ? `${Math.ceil(file.size / 1e3)} KB` : `${megabytes(file.size)} MB`;
    const item = make("li", {}, make("span", { className: "name" }, file.name));
    if (file.type.startsWith("image/")) item.prepend(make("img", { src: URL.createObjectURL(file), alt: "" }));
    item.append(make("span", { className: "size" }, size), remove);
    return item;
  }
}

// What comes back is shown, and read aloud.

function show(result, html, download) {
  result.innerHTML = html; // made by the server, with everything in it escaped
  for (const styled of result.querySelectorAll("[data-css]")) {
    for (const rule of styled.dataset.css.split(";")) {
      const [name, value] = rule.split(":");
      styled.style.setProperty(name.trim(), value.trim()); // style attributes are not allowed
    }
  }
  if (download) result.append(make("a", { className: "main", id: "download", href: download, download: "" }, texts.download));
  announce(result.querySelector("[data-announce]")?.dataset.announce);
}

function announce(words) {
  if (words) element("announcer").textContent = words.replace(/\s+/g, " ").trim();
}

function showProblem(result, sentence) {
  const section = make("section", { className: "card problem" }, make("h2", {}, texts.failed), make("p", {}, sentence));
  result.replaceChildren(section);
  result.scrollIntoView({ block: "nearest" });
  announce(`${texts.failed}: ${sentence}`);
}

function showProgress(result, words, done, total) {
  let bar = result.querySelector("progress");
  if (!bar) {
    const paragraph = make("p", { className: "words" });
    bar = make("progress", { max: 1, ariaLabel: words });
    result.replaceChildren(make("section", { className: "card progress" }, make("div", {}, paragraph, bar)));
    announce(words);
  }
  if (total) bar.value = done / total;
  else bar.removeAttribute("value");
  bar.ariaLabel = words;
  const counted = total ? ` ${done.toLocaleString(texts.code)} / ${total.toLocaleString(texts.code)}` : " …";
  result.querySelector(".words").textContent = words + counted;
}

// A form: one at a time for each place of results.

class Sender {
  constructor(form, address, result) {
    Object.assign(this, { form, address, result, request: null });
  }

  get busy() {
    return this.request !== null;
  }

  set(request) {
    this.request = request;
    this.form.classList.toggle("busy", this.busy);
    for (const button of this.form.querySelectorAll("#stop")) button.disabled = !this.busy;
    this.result.ariaBusy = this.busy;
  }

  send(data) {
    const request = new XMLHttpRequest(); // fetch cannot tell how much has been sent
    let read = 0;
    let shown = false;
    this.set(request);
    showProgress(this.result, texts.sending);
    this.reveal();
    request.upload.addEventListener("progress", (event) => {
      if (event.loaded < event.total) showProgress(this.result, texts.sending, ...[event.loaded, event.total].map((x) => Math.ceil(x / 1e3)));
      else showProgress(this.result, texts.waiting);
    });
    request.addEventListener("progress", () => {
      if (request.status !== 200) return;
      const end = request.responseText.lastIndexOf("\n") + 1;
      for (const line of request.responseText.slice(read, end).split("\n").filter(Boolean)) {
        const event = JSON.parse(line);
        if (event.html === undefined) {
          showProgress(this.result, event.progress, event.done, event.total);
        } else {
          show(this.result, event.html, event.download);
          if (!shown) this.reveal("smooth");
          shown = true;
        }
      }
      read = end;
    });
    request.addEventListener("loadend", () => {
      if (this.request !== request) return; // stopped
      this.set(null);
      if (request.status !== 200) showProblem(this.result, sentence(request));
      else if (!shown) showProblem(this.result, texts.unreachable); // broken off
      else this.result.querySelector(".waits")?.remove();
    });
    request.open("POST", this.address);
    request.send(data);
  }

  // Beside the form it is in view, or comes near; below it, on a phone, it goes to the top.
  reveal(behavior) {
    const below = this.result.offsetTop > this.form.offsetTop;
    this.result.scrollIntoView({ block: below ? "start" : "nearest", behavior });
  }

  stop() {
    const request = this.request;
    this.set(null);
    request.abort();
    showProblem(this.result, texts.stopped);
  }
}

function sentence(request) {
  if (!request.status) return texts.unreachable;
  try {
    const problem = JSON.parse(request.responseText);
    const kind = problem.type.split("/").pop();
    return fill(texts.problems[kind] ?? texts.problems[""], problem);
  } catch {
    return texts.unreachable;
  }
}

function formData(form, fields) {
  const data = new FormData();
  const coverage = form.querySelector("[name=coverage]:checked")?.value;
  if (coverage) data.append("coverage", coverage);
  for (const select of form.querySelectorAll("select")) data.append(select.name, select.value);
  for (const [name, values] of Object.entries(fields)) for (const value of values) data.append(name, value);
  return data;
}

function tooLarge(size, most) {
  return fill(texts.too_large, { size: megabytes(size), most: Math.round(most / 1e6) });
}

// One post.

const images = new FileField("images");
const postForm = element("post-form");
const post = new Sender(postForm, "post", element("post-result"));

postForm.addEventListener("submit", (event) => {
  event.preventDefault();
  if (post.busy) return;
  const text = element("text").value;
  const counted = { count: images.files.length, most: mostPictures };
  if (!text.trim() && !images.files.length) showProblem(post.result, texts.nothing_given);
  else if (images.files.length > mostPictures) showProblem(post.result, fill(texts.problems["too-many-pictures"], counted));
  else if (images.size > bytes.post) showProblem(post.result, tooLarge(images.size, bytes.post));
  else post.send(formData(postForm, { text: [text], images: images.files }));
});

element("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    postForm.requestSubmit();
  }
});

for (const button of element("examples").querySelectorAll("button")) {
  button.addEventListener("click", async () => {
    if (post.busy) return;
    element("text").value = button.dataset.text;
    const names = button.dataset.files.split(" ").filter(Boolean);
    images.set(await Promise.all(names.map(exampleFile)));
    postForm.requestSubmit();
  });
}

async function exampleFile(name) {
  const response = await fetch(`../static/examples/${name}`);
  return new File([await response.blob()], name, { type: "image/jpeg" });
}

// A table.

const table = new FileField("table");
const pictures = new FileField("pictures");
const tableForm = element("table-form");
const HEAD = 2 ** 18; // bytes of a table of lines in which its columns are looked for

async function head(file) {
  if (!/\.(csv|tsv|jsonl|ndjson)$/i.test(file.name) || file.size <= HEAD) return file;
  const read = new Uint8Array(await file.slice(0, HEAD).arrayBuffer());
  return file.slice(0, read.lastIndexOf(10) + 1 || HEAD); // whole lines
}

async function recognize(file) {
  const place = element("columns");
  place.replaceChildren();
  if (!file || file.size > bytes.table) return;
  const data = new FormData();
  data.append("table", await head(file), file.name);
  const response = await fetch("columns", { method: "POST", body: data }).catch(() => null);
  if (response?.ok && table.files[0] === file) show(place, (await response.json()).html);
}

table.changed = () => recognize(table.files[0]);

const labelling = new Sender(tableForm, "table", element("table-result"));

tableForm.addEventListener("submit", (event) => {
  event.preventDefault();
  if (labelling.busy) return;
  const largest = Math.max(table.size, pictures.size);
  if (!table.files.length) showProblem(labelling.result, texts.no_table);
  else if (largest > bytes.table) showProblem(labelling.result, tooLarge(largest, bytes.table));
  else labelling.send(formData(tableForm, { table: table.files, pictures: pictures.files }));
});

element("stop").addEventListener("click", () => labelling.stop());

// Tabs.

const tabs = [...element("tabs").children];

function select(chosen) {
  for (const tab of tabs) {
    tab.ariaSelected = tab === chosen;
    tab.tabIndex = tab === chosen ? 0 : -1;
    element(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
}

for (const tab of tabs) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    select(next);
    next.focus();
  });
}

// A file that is dropped beside its field must not take the place of the page.
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
