// The viewer: OpenSeadragon over the slide's own levels; scale bar, magnification, scenes, brightness, and
// the fragment of the address, which holds the field that is seen.
"use strict";

(() => {
  const at = (id) => document.getElementById(id);
  const does = (name) => document.querySelector(`[data-do="${name}"]`);
  const stage = at("viewer");
  const STEPS = [1, 5, 20, 40];
  // More than this enlarges single pixels, and shows nothing new.
  const MOST_PX_PER_PX = 4;
  const TURN = 90;

  let viewer = null;
  let info = null;
  let scene = 0;
  let shown = null; // {low, high} that the viewer asks for; null: as measured
  let measured = null;
  let moved = 0; // how often the view changed; a late answer for another scene is left alone

  const say = (text) => { at("said").textContent = text; at("said").hidden = !text; };
  const image = () => info.images[scene];

  // OpenSeadragon counts levels from the smallest; their sizes need not be halves of each other.
  const source = (one) => {
    const levels = [...one.levels].reverse();
    const tall = one.height / one.width;
    return new OpenSeadragon.TileSource({
      width: one.width,
      height: one.height,
      tileWidth: levels.at(-1).tile_width,
      tileHeight: levels.at(-1).tile_height,
      minLevel: 0,
      maxLevel: levels.length - 1,
      getLevelScale: (level) => levels[level].width / one.width,
      getTileWidth: (level) => levels[level].tile_width,
      getTileHeight: (level) => levels[level].tile_height,
      getNumTiles: (level) => {
        const { width, height, tile_width, tile_height } = levels[level];
        return new OpenSeadragon.Point(Math.ceil(width / tile_width), Math.ceil(height / tile_height));
      },
      // Tiles at the edge may be padded: only what lies in the level is drawn.
      getTileBounds: (level, x, y, isSource) => {
        const { width, height, tile_width, tile_height } = levels[level];
        const left = x * tile_width, top = y * tile_height;
        const wide = Math.min(tile_width, width - left), high = Math.min(tile_height, height - top);
        return isSource
          ? new OpenSeadragon.Rect(0, 0, wide, high)
          : new OpenSeadragon.Rect(left / width, top / height * tall, wide / width, high / height * tall);
      },
      getTileAtPoint: (level, point) => {
        const { width, height, tile_width, tile_height } = levels[level];
        const last = (count, size) => Math.ceil(count / size) - 1;
        const x = Math.floor(point.x * width / tile_width);
        const y = Math.floor(point.y / tall * height / tile_height);
        return new OpenSeadragon.Point(
          Math.max(0, Math.min(x, last(width, tile_width))), Math.max(0, Math.min(y, last(height, tile_height))));
      },
      getTileUrl: (level, x, y) => {
        const window = shown ? `&low=${shown.low}&high=${shown.high}` : "";
        return `${one.tiles}/${levels.length - 1 - level}/${x}_${y}.jpg?v=${one.tag}${window}`;
      },
    });
  };

  // OpenSeadragon draws each tile a pixel larger than it is, against seams, and so resamples it. Here the
  // edges lie on whole pixels of the screen instead: no seam, and at full resolution the pixels as they are.
  const snap = ({ tile, context }) => {
    if (viewer.viewport.getRotation(true) % TURN) return;
    const density = OpenSeadragon.pixelDensityRatio;
    const from = tile.position.times(density), size = tile.size.times(density);
    const to = from.plus(tile.size.minus(new OpenSeadragon.Point(1, 1)).times(density));
    const left = Math.round(from.x), top = Math.round(from.y);
    const across = (Math.round(to.x) - left) / size.x, down = (Math.round(to.y) - top) / size.y;
    context.translate(left - from.x * across, top - from.y * down);
    context.scale(across, down);
  };

  // --- Magnification: the objective that the whole resolution stands for; 10 um a pixel are 1x.
  const fullPower = (one) => one.objective_power || (one.mpp_x ? 10 / one.mpp_x : null);
  const perPx = (current = true) => {
    const item = viewer.world.getItemAt(0);
    return item ? item.viewportToImageZoom(viewer.viewport.getZoom(current)) : 1;
  };
  const zoomFor = (pxPerPx) => viewer.world.getItemAt(0).imageToViewportZoom(pxPerPx);
  const number = (value) => String(Number(value >= 10 ? value.toFixed(0) : value.toPrecision(2)));

  const drawSteps = () => {
    const group = at("steps");
    group.querySelectorAll("[data-step]").forEach((one) => one.remove());
    const power = fullPower(image());
    const steps = power ? STEPS.map((one) => [one / power, `${one}×`]) : [[0.25, "25 %"], [0.5, "50 %"], [1, "100 %"]];
    steps.forEach(([ratio, text], index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.dataset.step = ratio;
      button.title = `${text} (${index + 1})`;
      button.addEventListener("click", () => step(ratio));
      group.append(button);
    });
  };
  const step = (ratio) => {
    viewer.viewport.zoomTo(zoomFor(ratio));
    viewer.viewport.applyConstraints();
  };

  // --- Scale bar
  const NICE = [1, 2, 5];
  const length = (um) => um >= 1000 ? `${um / 1000} mm` : um >= 1 ? `${um} µm` : `${um * 1000} nm`;
  const drawScale = () => {
    const one = image(), ratio = perPx(), power = fullPower(one);
    const box = at("scale"), bar = at("bar");
    if (!one.mpp_x || !one.mpp_y) {
      box.className = "none";
      bar.hidden = true;
      at("length").textContent = "No scale: this slide states no pixel size";
    } else {
      const turn = viewer.viewport.getRotation(true) * Math.PI / 180;
      const um = Math.hypot(one.mpp_x * Math.cos(turn), one.mpp_y * Math.sin(turn)) / ratio;
      const room = Math.min(180, stage.clientWidth * 0.3);
      let best = null;
      for (let power10 = -3; power10 < 7; power10 += 1) {
        for (const digit of NICE) {
          const wanted = digit * 10 ** power10;
          if (wanted / um <= room) best = wanted;
        }
      }
      box.className = "";
      bar.hidden = best === null;
      if (best !== null) {
        bar.style.width = `${(best / um).toFixed(2)}px`;
        bar.dataset.um = best;
        // 0.1 + 0.2: a length has no more digits than the list above.
        at("length").textContent = length(Number(best.toPrecision(1)));
      }
    }
    const said = document.createElement("b");
    said.textContent = power ? `${number(power * ratio)}×` : `${number(ratio * 100)} %`;
    const detail = one.mpp_x ? ` · ${(one.mpp_x / ratio).toPrecision(3)} µm/px` : "";
    at("power").replaceChildren(said, detail);
    const least = viewer.world.getItemAt(0).viewportToImageZoom(viewer.viewport.getMinZoom());
    document.querySelectorAll("[data-step]").forEach((button) => {
      // A step that the view would not keep is none.
      button.disabled = button.dataset.step > MOST_PX_PER_PX || button.dataset.step < least * 0.999;
      button.setAttribute("aria-current", Math.abs(Number(button.dataset.step) / ratio - 1) < 0.01);
    });
  };

  // --- The fragment: centre in pixels of the whole resolution, pixels of the screen for each, turn, scene
  const field = () => {
    const centre = viewer.world.getItemAt(0).viewportToImageCoordinates(viewer.viewport.getCenter(false));
    const said = new URLSearchParams();
    if (info.images.length > 1) said.set("scene", image().scene);
    said.set("x", centre.x.toFixed(1));
    said.set("y", centre.y.toFixed(1));
    said.set("zoom", Number(perPx(false).toPrecision(5)));
    const turn = viewer.viewport.getRotation(false);
    if (turn) said.set("turn", turn);
    if (shown) { said.set("low", shown.low); said.set("high", shown.high); }
    return said.toString();
  };
  let noting = 0;
  const note = () => {
    clearTimeout(noting);
    noting = setTimeout(() => { if (viewer.world.getItemCount()) history.replaceState(null, "", `#${field()}`); }, 200);
  };
  const asked = () => {
    const said = new URLSearchParams(location.hash.slice(1));
    const value = (name) => said.has(name) && Number.isFinite(Number(said.get(name))) ? Number(said.get(name)) : null;
    const found = { scene: Math.max(0, info.images.findIndex((one) => one.scene === value("scene"))), x: value("x"), y: value("y"), zoom: value("zoom"), turn: value("turn") ?? 0,
      low: value("low"), high: value("high") };
    return found;
  };
  const go = (wanted, atOnce) => {
    const item = viewer.world.getItemAt(0), view = viewer.viewport;
    view.setRotation(((wanted.turn % 360) + 360) % 360, atOnce);
    if (wanted.zoom > 0 && wanted.x !== null && wanted.y !== null) {
      view.zoomTo(item.imageToViewportZoom(wanted.zoom), null, atOnce);
      view.panTo(item.imageToViewportCoordinates(wanted.x, wanted.y), atOnce);
      view.applyConstraints(atOnce);
    } else {
      view.goHome(atOnce);
    }
  };

  // --- Scenes
  const follow = (item) => {
    const loaded = () => stage.setAttribute("aria-busy", !item.getFullyLoaded());
    item.addHandler("fully-loaded-change", loaded);
    loaded();
  };
  const open = (index, wanted) => {
    moved += 1;
    scene = index;
    measured = null;
    shown = wanted && image().bits > 8 && wanted.low !== null && wanted.high > wanted.low
      ? { low: wanted.low, high: wanted.high } : null;
    stage.setAttribute("aria-busy", "true");
    document.querySelectorAll("#scenes button").forEach((one, number) => one.setAttribute("aria-current", number === index));
    does("window").hidden = image().bits <= 8;
    if (image().bits <= 8) toggle("window", false);
    drawSteps();
    viewer.addOnceHandler("open", () => {
      go(wanted || { turn: 0, zoom: null, x: null, y: null }, true);
      drawScale();
      note();
      follow(viewer.world.getItemAt(0));
    });
    viewer.open(source(image()));
    if (image().bits > 8) measure(moved);
  };
  const drawScenes = () => {
    if (info.images.length < 2) return;
    const strip = at("scenes");
    strip.hidden = false;
    info.images.forEach((one, index) => {
      const button = document.createElement("button");
      const small = document.createElement("img");
      button.type = "button";
      small.src = `${one.tiles}/thumbnail.jpg`;
      small.alt = "";
      small.loading = "lazy";
      small.style.aspectRatio = `${one.width} / ${one.height}`;
      button.append(small, `Scene ${index + 1}`);
      button.addEventListener("click", () => { if (index !== scene) open(index, null); });
      strip.append(button);
    });
  };

  // --- Brightness of images of more than eight bits
  const form = at("window");
  const drawWindow = () => {
    const now = shown || measured;
    for (const name of ["low", "high"]) {
      const input = form.elements[name];
      input.min = 0;
      input.max = measured.most;
      input.step = 1;
      input.value = now[name];
      input.previousElementSibling.textContent = Math.round(now[name]).toLocaleString("en");
    }
  };
  const measure = async (when) => {
    try {
      const answer = await fetch(`${image().tiles}/window.json`);
      if (!answer.ok || when !== moved) return;
      measured = await answer.json();
      drawWindow();
    } catch { /* The image is shown as measured; only the sliders lack their ends. */ }
  };
  let waiting = 0;
  form.addEventListener("input", (event) => {
    if (!measured) return;
    const low = form.elements.low, high = form.elements.high;
    // Black stays below white, whichever is moved.
    if (Number(low.value) >= Number(high.value)) {
      if (event.target === low) low.value = Number(high.value) - 1; else high.value = Number(low.value) + 1;
    }
    shown = { low: Number(low.value), high: Number(high.value) };
    if (shown.low >= shown.high) shown.low = shown.high - 1;
    drawWindow();
    clearTimeout(waiting);
    stage.setAttribute("aria-busy", "true");
    waiting = setTimeout(redraw, 150);
  });
  form.addEventListener("reset", (event) => { event.preventDefault(); shown = null; if (measured) drawWindow(); redraw(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  // The same image under other addresses, in the place of the one that is shown.
  const redraw = () => {
    stage.setAttribute("aria-busy", "true");
    viewer.addTiledImage({
      tileSource: source(image()), index: 0, replace: true, success: (event) => { follow(event.item); note(); },
    });
  };

  // --- Label and macro, where the configuration shows them
  const drawLabels = () => {
    does("label").hidden = !info.associated.length;
    for (const one of info.associated) {
      const figure = document.createElement("figure");
      const picture = document.createElement("img");
      const caption = document.createElement("figcaption");
      picture.src = one.address;
      picture.alt = one.role;
      caption.textContent = one.role === "macro" ? "Overview" : "Label";
      figure.append(picture, caption);
      at("label").append(figure);
    }
  };

  // --- Buttons and keys
  const toggle = (name, wanted) => {
    const panel = at(name), button = does(name);
    panel.hidden = wanted === undefined ? !panel.hidden : !wanted;
    button.setAttribute("aria-pressed", !panel.hidden);
  };
  const pan = (x, y) => {
    const view = viewer.viewport;
    view.panBy(view.deltaPointsFromPixels(new OpenSeadragon.Point(x * stage.clientWidth, y * stage.clientHeight)));
    view.applyConstraints();
  };
  const zoom = (by) => { viewer.viewport.zoomBy(by); viewer.viewport.applyConstraints(); };
  const turn = (by) => viewer.viewport.rotateBy(by);
  const DEEDS = {
    fit: () => viewer.viewport.goHome(),
    in: () => zoom(1.5),
    out: () => zoom(1 / 1.5),
    left: () => turn(-TURN),
    right: () => turn(TURN),
    window: () => toggle("window"),
    label: () => toggle("label"),
    map: () => toggle("map"),
    full: () => {
      if (document.fullscreenElement) document.exitFullscreen(); else document.documentElement.requestFullscreen?.();
    },
    help: () => at("help").showModal(),
  };
  const beside = (by) => { const next = scene + by; if (info.images[next]) open(next, null); };
  const KEYS = {
    ArrowLeft: (far) => pan(far ? -0.4 : -0.1, 0),
    ArrowRight: (far) => pan(far ? 0.4 : 0.1, 0),
    ArrowUp: (far) => pan(0, far ? -0.4 : -0.1),
    ArrowDown: (far) => pan(0, far ? 0.4 : 0.1),
    "+": DEEDS.in, "=": DEEDS.in, "-": DEEDS.out, _: DEEDS.out,
    0: DEEDS.fit, Home: DEEDS.fit,
    r: DEEDS.right, R: DEEDS.left,
    m: DEEDS.map, f: DEEDS.full, "?": DEEDS.help,
    w: () => { if (!does("window").hidden) DEEDS.window(); },
    l: () => { if (!does("label").hidden) DEEDS.label(); },
    b: () => { location.href = document.querySelector(".back").href; },
    "[": () => beside(-1), "]": () => beside(1),
  };
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
    if (event.target.matches("input")) return;
    const steps = document.querySelectorAll("[data-step]");
    const deed = KEYS[event.key] || (/^[1-4]$/.test(event.key) && steps[event.key - 1] && (() => steps[event.key - 1].click()));
    if (!deed) return;
    event.preventDefault();
    deed(event.shiftKey);
  };

  const begin = async () => {
    at("without").remove();
    let answer;
    try {
      answer = await fetch(document.body.dataset.info);
    } catch {
      say("The panel does not answer. Check the network, then load this page again.");
      return;
    }
    if (!answer.ok) {
      say(answer.status === 404 ? "This slide is no longer here, or no longer shared with you." : "This slide cannot be shown now. Load this page again in a moment.");
      return;
    }
    info = await answer.json();
    // OpenSeadragon would put a <style> into the page, which no page here allows; it looks for this first.
    const mark = document.createElementNS("urn:cytowatch", "style");
    mark.setAttribute("data-openseadragon-mobile-css", "true");
    document.head.append(mark);
    // What takes room beside the slide is there before the viewer measures its own.
    drawScenes();
    drawLabels();
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    viewer = OpenSeadragon({
      element: stage,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorId: "map",
      navigatorBackground: "#0e0e10",
      navigatorBorderColor: "transparent",
      navigatorOpacity: 1,
      navigatorAutoFade: false,
      keyboardNavEnabled: false,
      preserveViewport: true,
      animationTime: still ? 0 : 0.35,
      springStiffness: 9,
      blendTime: 0,
      visibilityRatio: 0.25,
      minZoomImageRatio: 0.5,
      maxZoomPixelRatio: MOST_PX_PER_PX,
      zoomPerScroll: 1.25,
      placeholderFillStyle: "#222226",
      imageLoaderLimit: 8,
      maxTilesPerFrame: 4,
      tileRetryMax: 3,
      tileRetryDelay: 1000,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    viewer.addHandler("tile-drawing", snap);
    viewer.addHandler("animation", drawScale);
    viewer.addHandler("animation-finish", () => { drawScale(); note(); });
    viewer.addHandler("rotate", () => { drawScale(); note(); });
    viewer.addHandler("resize", () => { if (viewer.world.getItemCount()) drawScale(); });
    viewer.addHandler("tile-load-failed", () => say("A part of this slide could not be loaded. Move the view to try again."));
    viewer.addHandler("tile-loaded", () => say(""));
    const canvas = stage.querySelector(".openseadragon-canvas");
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "Slide. Arrow keys move, plus and minus zoom, question mark lists all keys.");
    document.querySelectorAll("[data-do]").forEach((one) => one.addEventListener("click", () => DEEDS[one.dataset.do]()));
    document.addEventListener("keydown", press);
    window.addEventListener("hashchange", () => {
      const wanted = asked();
      if (wanted.scene !== scene) open(wanted.scene, wanted); else go(wanted, false);
    });
    const wanted = asked();
    open(wanted.scene, wanted);
  };
  begin();
})();
