// Adding files: a row for each file or folder, tus-js-client for the bytes, then the status of what came of it.
"use strict";

(() => {
  const home = document.getElementById("upload");
  if (!home) return;
  const at = (id) => document.getElementById(id);
  const AT_ONCE = 3;
  const CHUNK = 32 * 1024 * 1024;
  const RETRIES = [0, 1000, 3000, 5000, 10000, 20000, 30000, 60000];
  const ASK_MS = 2000;
  const ESCAPED = /[.+^${}()|\\]/g;
  const patterns = JSON.parse(home.dataset.skipped).map((one) =>
    new RegExp(`^${one.toLowerCase().replace(ESCAPED, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".")}$`));
  const skipped = (path) => path.split("/").some((part) => patterns.some((one) => one.test(part.toLowerCase())));

  const items = []; // {name, files: [{file, path, sent, upload, url, done}], state, row}
  const queue = []; // files that wait for their turn
  let running = 0;
  let paused = false;
  let pace = []; // [time, bytes sent] of the last seconds

  const bytes = (number) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let step = 0;
    while (number >= 1000 && step < units.length - 1) { number /= 1000; step += 1; }
    return `${number < 10 && step ? number.toFixed(1) : Math.round(number)} ${units[step]}`;
  };
  const lasting = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : seconds < 5400
    ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);
  const say = (text) => { at("said").textContent = text; };
  const size = (item) => item.files.reduce((sum, one) => sum + one.file.size, 0);
  const sent = (item) => item.files.reduce((sum, one) => sum + one.sent, 0);

  const make = (tag, name, parent) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    parent.append(made);
    return made;
  };

  const show = (item) => {
    if (!item.row) {
      const row = make("li", "", at("list"));
      item.row = { row, name: make("a", "name", row), badge: make("span", "badge", row),
        bar: make("progress", "", row), said: make("span", "said", row), stop: make("button", "link", row) };
      item.row.name.textContent = item.name;
      item.row.bar.setAttribute("aria-label", `uploading ${item.name}`);
      item.row.stop.type = "button";
      item.row.stop.textContent = "Cancel";
      item.row.stop.addEventListener("click", () => cancel(item));
    }
    const { badge, bar, said, stop } = item.row;
    const whole = size(item);
    badge.textContent = item.label || item.state;
    badge.className = `badge ${{ failed: "bad", cancelled: "wait", deployed: "good" }[item.state] || ""}`;
    bar.value = whole ? sent(item) / whole : 1;
    bar.hidden = !["waiting", "uploading", "paused"].includes(item.state);
    said.textContent = item.said || (bar.hidden ? "" : `${Math.floor(bar.value * 100)} % of ${bytes(whole)}`);
    stop.hidden = bar.hidden;
  };

  const total = () => {
    const live = items.filter((item) => item.state !== "cancelled" && item.state !== "failed");
    const whole = live.reduce((sum, item) => sum + size(item), 0);
    const here = live.reduce((sum, item) => sum + sent(item), 0);
    at("p-all").value = whole ? here / whole : 0;
    const now = performance.now();
    pace = pace.filter(([when]) => now - when < 8000);
    pace.push([now, here]);
    const seconds = (now - pace[0][0]) / 1000;
    const speed = seconds > 0.5 ? (here - pace[0][1]) / seconds : 0;
    let text = `${bytes(here)} of ${bytes(whole)}`;
    if (here < whole && speed > 0 && !paused) text += ` · ${bytes(speed)}/s · ${lasting((whole - here) / speed)} left`;
    at("s-all").textContent = text;
    const moving = live.some((item) => ["waiting", "uploading", "paused"].includes(item.state));
    at("b-pause").hidden = !moving;
    at("b-cancel").hidden = !moving;
  };

  const fail = (item, why) => {
    item.state = "failed";
    item.label = "Failed";
    item.said = why;
    item.files.forEach((one) => { if (one.upload) one.upload.abort(); });
    show(item);
    next();
  };

  const words = (error) => {
    // A file that was moved or changed is no fault of the network: there was no request.
    if (!error.originalRequest) return "It can no longer be read: was it moved or changed? Add it again.";
    const response = error.originalResponse;
    if (response && response.getStatus() === 401) return "You are no longer logged in. Log in, then add it again: it goes on where it was.";
    const body = response && response.getBody();
    try { return JSON.parse(body).error; } catch { return "The connection was lost. Add it again: it goes on where it was."; }
  };

  const next = () => {
    while (!paused && running < AT_ONCE && queue.length) {
      const one = queue.shift();
      if (["failed", "cancelled"].includes(one.item.state)) continue;
      begin(one);
    }
    total();
  };

  const begin = (one) => {
    const item = one.item;
    running += 1;
    one.running = true;
    const end = () => { if (one.running) { one.running = false; running -= 1; } };
    item.state = "uploading";
    item.label = "Uploading";
    one.end = end;
    const metadata = { filename: one.file.name, relativePath: one.path };
    if (item.project) metadata.project = item.project;
    if (item.user) metadata.user = item.user;
    if (item.group) { metadata.group = item.group; metadata.groupFiles = String(item.files.length); }
    one.upload = new tus.Upload(one.file, {
      endpoint: home.dataset.uploads, metadata, chunkSize: CHUNK, retryDelays: RETRIES,
      removeFingerprintOnSuccess: true,
      fingerprint: async () => ["cytowatch", home.dataset.uploads, item.user, item.project, item.group, one.path,
        one.file.size, one.file.lastModified].join("|"),
      onShouldRetry: (error) => {
        const code = error.originalResponse ? error.originalResponse.getStatus() : 0;
        return code === 0 || code === 408 || code === 409 || code === 423 || code === 460 || (code >= 500 && code !== 507);
      },
      onProgress: (here) => { one.sent = here; show(item); total(); },
      onError: (error) => { end(); fail(item, words(error)); },
      onSuccess: () => {
        end();
        one.sent = one.file.size;
        one.done = true;
        one.url = one.upload.url;
        if (item.files.every((other) => other.done)) arrived(item, one.url); else show(item);
        next();
      },
    });
    one.upload.findPreviousUploads().then((found) => {
      if (found.length) one.upload.resumeFromPreviousUpload(found[0]);
      if (item.state === "cancelled") { end(); return; }
      if (paused) { end(); queue.unshift(one); return; }
      one.upload.start();
    });
    show(item);
  };

  // The same row then shows what the daemon does with it.
  const arrived = (item, url) => {
    item.state = "arrived";
    item.label = "Waiting";
    item.said = "";
    show(item);
    const ask = async () => {
      let told = null;
      try {
        const answer = await fetch(url, { headers: { Accept: "application/json" } });
        if (answer.status === 404) return;
        told = await answer.json();
      } catch { /* The network is gone for a moment. */ }
      if (told) {
        const files = told.files || [];
        const bad = files.find((one) => one.failed);
        const last = bad || files.find((one) => !one.final) || files[0];
        if (last) {
          item.row.name.href = `${home.dataset.files}/${last.id}`;
          item.label = last.label;
          item.said = bad ? [bad.reason, bad.do].filter(Boolean).join(" ") : "";
          if (files.length > 1) item.said = `${files.length} images. ${item.said}`;
        } else if (told.waits) item.said = told.waits;
        const none = told.taken && !files.length && told.left;
        if (none) {
          item.label = "No image";
          item.said = "There is no image in it. What you sent stays in the inbox.";
        }
        const over = none || told.taken && files.length && files.every((one) => one.final);
        item.state = bad || none ? "failed" : over ? "deployed" : "arrived";
        show(item);
        total();
        if (over) return;
      }
      setTimeout(ask, ASK_MS);
    };
    ask();
  };

  const cancel = (item) => {
    item.state = "cancelled";
    item.label = "Cancelled";
    item.said = "";
    item.files.forEach((one) => {
      if (one.upload) one.upload.abort(true).catch(() => {});
      if (one.end) one.end();
    });
    show(item);
    next();
  };

  const pause = () => {
    paused = !paused;
    at("b-pause").textContent = paused ? "Resume" : "Pause";
    items.forEach((item) => {
      if (!["waiting", "uploading", "paused"].includes(item.state)) return;
      item.files.filter((one) => one.running).reverse().forEach((one) => {
        if (!paused) return;
        one.upload.abort();
        one.end();
        queue.unshift(one);
      });
      item.state = paused ? "paused" : "waiting";
      item.label = paused ? "Paused" : "Waiting";
      show(item);
    });
    pace = [];
    next();
  };

  const hash = (text) => { // FNV-1a, twice: only to give the same folder the same group after a reload
    let one = 0x811c9dc5;
    let two = 0x1000193;
    for (const letter of text) {
      one = Math.imul(one ^ letter.codePointAt(0), 0x01000193) >>> 0;
      two = Math.imul(two + letter.codePointAt(0), 0x85ebca6b) >>> 0;
    }
    return one.toString(16).padStart(8, "0") + two.toString(16).padStart(8, "0");
  };

  // found: [{file, path}], where files of one folder have the same first part
  const add = (found, lost = []) => {
    const good = found.filter((one) => !skipped(one.path));
    const left = found.length - good.length;
    const project = at("project").value.trim();
    const user = at("user") ? at("user").value.trim() : "";
    const tops = new Map();
    good.forEach((one) => {
      const top = one.path.split("/")[0];
      const key = one.path.includes("/") ? `${top}/` : `${top}|${tops.size}`;
      if (!tops.has(key)) tops.set(key, { name: top, files: [], project, user, group: "", state: "waiting", label: "Waiting" });
      tops.get(key).files.push({ file: one.file, path: one.path, sent: 0 });
    });
    tops.forEach((item) => {
      item.files.sort((a, b) => (a.path < b.path ? -1 : 1));
      if (item.files.some((one) => one.path.includes("/"))) {
        item.group = hash([user, project, ...item.files.map((one) => `${one.path} ${one.file.size} ${one.file.lastModified}`)].join("\n"));
      }
      items.push(item);
      item.files.forEach((one) => { one.item = item; queue.push(one); });
      show(item);
    });
    const told = lost.map((name) => `${name} cannot be read as a whole, so nothing of it is added.`);
    if (left) told.push(`${left} temporary file${left === 1 ? " was" : "s were"} left out.`);
    else if (!found.length && !lost.length) told.push("There is no file in it.");
    say(told.join(" "));
    at("all").hidden = !items.length;
    next();
  };

  const entries = (folder) => new Promise((resolve, reject) => {
    const reader = folder.createReader();
    const found = [];
    const more = () => reader.readEntries((some) => {
      if (!some.length) { resolve(found); return; }
      found.push(...some);
      more();
    }, reject);
    more();
  });
  const walk = async (entry, found) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
      found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    } else for (const one of await entries(entry)) await walk(one, found);
  };

  const place = at("drop");
  ["dragenter", "dragover"].forEach((name) => document.addEventListener(name, (event) => {
    event.preventDefault();
    place.classList.add("over");
  }));
  ["dragleave", "drop"].forEach((name) => document.addEventListener(name, (event) => {
    event.preventDefault();
    place.classList.remove("over");
  }));
  document.addEventListener("drop", async (event) => {
    const dropped = [...event.dataTransfer.items].filter((one) => one.kind === "file");
    const roots = dropped.map((one) => [one.webkitGetAsEntry && one.webkitGetAsEntry(), one.getAsFile()]);
    const found = [];
    const lost = [];
    for (const [entry, file] of roots) {
      // Part of a folder would arrive as if it were all of it.
      const whole = [];
      try {
        if (entry) await walk(entry, whole); else if (file) whole.push({ file, path: file.name });
        found.push(...whole);
      } catch { lost.push(entry ? entry.name : file.name); }
    }
    add(found, lost);
  });
  const picked = (event) => {
    add([...event.target.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
    event.target.value = "";
  };
  ["files", "folder"].forEach((id) => {
    at(id).addEventListener("change", picked);
    at(`b-${id}`).addEventListener("click", () => at(id).click());
  });
  at("b-pause").addEventListener("click", pause);
  at("b-cancel").addEventListener("click", () => items.forEach((item) => {
    if (["waiting", "uploading", "paused"].includes(item.state)) cancel(item);
  }));
  window.addEventListener("beforeunload", (event) => {
    if (items.some((item) => ["waiting", "uploading", "paused"].includes(item.state))) event.preventDefault();
  });
  setInterval(() => { if (running) total(); }, 1000);
})();
