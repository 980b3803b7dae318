"use strict";

// chart draws one or two lines over the last hour, and says in words what they show.
// spec: {title, unit, lines: [{name, of: point => number or null, dots}], log: whether each
// step up is ten times as much}
function chart(spec, points, interval) {
	const slots = 360, height = 100;
	const values = spec.lines.map(line => points.map(line.of));
	const scale = scaleOf(values.flat().filter(v => v !== null), spec.log);
	const place = (v, i) => `${(slots - points.length + i + 0.5).toFixed(1)} ${(height - 2 - scale.at(v) * (height - 6)).toFixed(1)}`;
	const svg = svgElement("svg", {viewBox: `0 0 ${slots} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": inWords(spec, values, points.length * interval)});
	for (const y of scale.lines) svg.append(svgElement("line", {x1: 0, x2: slots, y1: height - 2 - y * (height - 6), y2: height - 2 - y * (height - 6)}));
	values.forEach((list, i) => {
		const kind = kindOf(spec.lines[i], i);
		if (kind === "dots") return svg.append(svgElement("path", {class: kind, d: runs(list).flat().map(([i, v]) => `M${place(v, i)}h0`).join("")}));
		if (i === 0 && !spec.log) svg.append(svgElement("path", {class: "area", d: runs(list).map(r => area(r, place, height)).join("")}));
		svg.append(svgElement("path", {class: kind, d: runs(list).map(r => stroke(r, place)).join("")}));
	});
	return element("figure", {},
		element("h3", {}, spec.title),
		element("figcaption", {}, ...spec.lines.map((line, i) => legend(line, values[i], kindOf(line, i), spec))),
		element("div", {class: "plot"},
			element("div", {class: "scale", "aria-hidden": "true"}, element("span", {}, show(scale.top, spec)), element("span", {}, show(scale.bottom, spec))),
			svg,
			element("div", {class: "ticks", "aria-hidden": "true"}, element("span", {}, "60 min ago"), element("span", {}, "30"), element("span", {}, "now"))));
}

function kindOf(line, i) { return line.dots ? "dots" : i === 0 ? "a" : "b"; }

// scaleOf returns the ends of a scale, where a value is in it, and where its lines are.
function scaleOf(values, log) {
	if (!log) {
		const top = ceiling(Math.max(0, ...values));
		return {top, bottom: 0, at: v => v / top, lines: [0, 0.5, 1]};
	}
	const positive = values.filter(v => v > 0);
	const least = positive.length ? Math.floor(Math.log10(Math.min(...positive))) : 0;
	const most = positive.length ? Math.max(least + 1, Math.ceil(Math.log10(Math.max(...positive)))) : 1;
	const steps = most - least;
	return {top: 10 ** most, bottom: 10 ** least, at: v => v > 0 ? (Math.log10(v) - least) / steps : 0,
		lines: Array.from({length: steps + 1}, (_, i) => i / steps)};
}

// runs are the parts of a list without null, as [index, value] pairs.
function runs(list) {
	const all = [];
	list.forEach((v, i) => {
		if (v === null) return;
		if (i === 0 || list[i - 1] === null) all.push([]);
		all[all.length - 1].push([i, v]);
	});
	return all;
}

// stroke is a line through a run; one point alone is a short one.
function stroke(run, place) {
	const line = "M" + run.map(([i, v]) => place(v, i)).join("L");
	return run.length > 1 ? line : line + "h1";
}

function area(run, place, height) {
	const x = i => place(0, i).split(" ")[0];
	return `M${x(run[0][0])} ${height}L` + run.map(([i, v]) => place(v, i)).join("L") + `L${x(run[run.length - 1][0])} ${height}Z`;
}

// ceiling is a round number that is not less than v.
function ceiling(v) {
	if (v <= 0) return 1;
	const power = Math.pow(10, Math.floor(Math.log10(v)));
	return [1, 2, 2.5, 5, 10].map(f => f * power).find(c => c >= v * 0.999);
}

function legend(line, values, kind, spec) {
	const known = values.filter(v => v !== null);
	const now = known.length ? show(known[known.length - 1], spec) : "–";
	return element("span", {class: "key " + kind}, `${line.name} `, element("b", {}, now));
}

function inWords(spec, values, seconds) {
	const parts = spec.lines.map((line, i) => {
		const known = values[i].filter(v => v !== null);
		if (!known.length) return `${line.name}: nothing measured`;
		const mean = known.reduce((a, b) => a + b, 0) / known.length;
		return `${line.name}: last ${show(known[known.length - 1], spec)}, mean ${show(mean, spec)}, highest ${show(Math.max(...known), spec)}`;
	});
	return `${spec.title}, the last ${Math.max(1, Math.round(seconds / 60))} minutes. ${parts.join("; ")}.`;
}

function show(v, spec) {
	return Number(v.toPrecision(v >= 100 ? 15 : 3)).toLocaleString("en", {maximumFractionDigits: v >= 100 ? 0 : 6}) + spec.unit;
}

function svgElement(name, attributes) {
	const e = document.createElementNS("http://www.w3.org/2000/svg", name);
	for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
	return e;
}

function element(name, attributes, ...children) {
	const e = document.createElement(name);
	for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
	e.append(...children);
	return e;
}
