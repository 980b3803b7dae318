"use strict";

const every = 5000; // milliseconds
const byId = id => document.getElementById(id);
let token = takeToken();
let answered = null; // when the server answered last
let timer = 0;

// takeToken moves the token from the URL, where others may see it, to this tab.
function takeToken() {
	const given = decoded(location.hash.match(/^#token=(.+)$/)?.[1] ?? "");
	if (given) {
		sessionStorage.setItem("token", given);
		history.replaceState(null, "", location.pathname);
	}
	return given || sessionStorage.getItem("token");
}

// decoded is a part of a URL; a token may have a % that was not written as %25.
function decoded(text) {
	try {
		return decodeURIComponent(text);
	} catch {
		return text;
	}
}

async function ask() {
	clearTimeout(timer);
	if (!token) return askForToken("");
	try {
		const answer = await fetch("overview", {headers: {Authorization: "Bearer " + token}, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(10000)});
		if (answer.status === 401) return askForToken("The server does not know this token. Tokens of msl-hsm admin page are valid until the server ends.");
		if (!answer.ok) throw new Error(`HTTP ${answer.status}: ${(await answer.text()).trim()}`);
		render(await answer.json());
		say("");
		answered = new Date();
	} catch (e) {
		lost(e);
	}
	if (!document.hidden) timer = setTimeout(ask, every);
}

function askForToken(why) {
	token = null;
	sessionStorage.removeItem("token");
	verdict("", "Locked");
	say(why);
	byId("ask").hidden = false;
	byId("sections").hidden = true;
}

function lost(e) {
	document.body.classList.add("stale");
	verdict("failure", "✕ No answer");
	say((answered ? `The server has not answered since ${clock(answered)}: everything below is from that time.` : "The server does not answer.") + ` (${e.message})`);
}

function say(text) {
	if (byId("banner").textContent !== text) byId("banner").textContent = text;
	byId("banner").hidden = text === "";
}

function verdict(kind, text) {
	const v = byId("verdict");
	if (v.textContent !== text) v.textContent = text;
	v.className = "verdict " + kind;
}

const marks = {ok: "✓ ok", warning: "! warning", failure: "✕ failure"};
const faults = {keystore: "failure still", server: "failure still", load: "warning still", application: "warning still"};
const shown = {}; // what each part shows, so that nothing is drawn twice

// part draws a part of the page if what it shows has changed.
function part(name, data, draw) {
	const text = JSON.stringify(data ?? null);
	if (shown[name] === text) return;
	shown[name] = text;
	draw(data);
}

function render(o) {
	document.body.classList.remove("stale");
	byId("ask").hidden = true;
	byId("sections").hidden = false;
	const failing = o.checks.some(c => c.verdict === "failure"), warned = o.checks.some(c => c.verdict === "warning");
	verdict(failing ? "failure" : warned ? "warning" : "ok", failing ? "✕ Not ready" : warned ? "! Ready, with a warning" : "✓ Ready");
	document.title = (failing ? "✕ " : warned ? "! " : "") + o.identity + " – msl-hsm";
	byId("name").textContent = o.identity;
	byId("about").textContent = `msl-hsm ${o.version}, up for ${span((new Date(o.now) - new Date(o.started)) / 1000)}, session keys ${o.custody}`;
	byId("age").textContent = `As of ${clock(new Date(o.now))}, refreshed every ${every / 1000} seconds.`;
	part("health", o.checks, drawHealth);
	part("past", [o.past, o.measured], () => drawPast(o));
	part("sessions", o.sessions, drawSessions);
	part("state", o.state, drawState);
	part("failures", o.failures, drawFailures);
	part("enrollments", o.enrollments, drawEnrollments);
	part("keys", o.keys, drawKeys);
}

function drawHealth(checks) {
	const rank = c => ["failure", "warning", "ok"].indexOf(c.verdict);
	fill("health", [...checks].sort((a, b) => rank(a) - rank(b)).map(c => [head(c.name), cell(marks[c.verdict], c.verdict + " still"), cell(c.detail)]));
}

function drawPast(o) {
	const mean = f => ({name: "mean", of: p => f(p).number ? f(p).mean : null}), longest = f => ({name: "longest", dots: true, of: p => f(p).number ? f(p).longest : null});
	const charts = [
		{title: "Messages per second", unit: "", lines: [{name: "answered", of: p => p.answered / o.interval}, {name: "failed", of: p => p.failed / o.interval}]},
		{title: "Time per message", unit: " ms", log: true, lines: [mean(p => p.message), longest(p => p.message)]},
	];
	if (o.measured) charts.push({title: "Time per device operation", unit: " ms", log: true, lines: [mean(p => p.call), longest(p => p.call)]});
	byId("charts").replaceChildren(...charts.map(c => chart(c, o.past, o.interval)));
	if (!o.measured) byId("charts").append(element("p", {class: "none"}, "The time of operations is measured only if the PKCS #11 module is in the server's process."));
	fill("past", minutes(o.past, 300 / o.interval).map(m => [
		cell(clock(new Date(m.at * 1000)), "still"), cell(m.answered, "number"), cell(m.failed, "number"), ...times(m.message), ...times(m.call)]));
}

function times(t) {
	return t.number ? [cell(show(t.mean, {unit: " ms"}), "number still"), cell(show(t.longest, {unit: " ms"}), "number still")] : [cell("–", "number"), cell("–", "number")];
}

// minutes adds up points, so many at a time, the newest first.
function minutes(points, size) {
	const rows = [];
	for (let end = points.length; end > 0; end -= size) {
		const of = points.slice(Math.max(0, end - size), end);
		const sum = f => of.reduce((s, p) => s + f(p), 0);
		const all = f => ({number: sum(p => f(p).number), mean: sum(p => f(p).mean * f(p).number) / Math.max(1, sum(p => f(p).number)), longest: Math.max(...of.map(p => f(p).longest))});
		rows.push({at: of[of.length - 1].at, answered: sum(p => p.answered), failed: sum(p => p.failed), message: all(p => p.message), call: all(p => p.call)});
	}
	return rows;
}

function drawSessions(numbers) { list("sessions", numbers.map(n => [n.name, n.value])); }

function drawState(s) {
	const rows = [["Stored in", s.engine], ["Location", s.where]];
	if (s.size) rows.push(["Size", bytes(s.size)]);
	if (s.error) rows.push(["Problem", s.error]);
	list("state", rows);
	table("members", (s.members ?? []).map(m => [head(m.endpoint), m.error ? cell("✕ " + m.error, "failure") : cell(m.leader ? "✓ leader" : "✓ follower", "ok still"), cell(m.version ?? ""), cell(m.size ? bytes(m.size) : "", "still")]));
	table("servers", (s.servers ?? []).map(v => [head(v.name), v.problem ? cell("✕ " + v.problem, "failure") : cell("✓ follows key rotations", "ok")]));
}

function drawFailures(failures) {
	byId("no-failures").hidden = failures.length > 0;
	table("failures", failures.map(f => [time(f.at), cell(f.fault, faults[f.fault] ?? "still"),
		cell(f.entity ? (f.proven ? f.entity : `claims ${f.entity}`) + ` at ${f.source}` : f.source), cell((f.code ? f.code + ": " : "") + f.because)]));
}

function drawEnrollments(e) {
	byId("enrollments-s").hidden = !e;
	if (!e) return;
	byId("no-enrollments").hidden = e.waiting > 0 || Boolean(e.error);
	const some = e.oldest ?? [];
	byId("enrollments").caption.textContent = e.error || `${some.length < e.waiting ? `The first ${some.length} of ${e.waiting}` : `${e.waiting}`} waiting; msl-hsm enrollment approve admits a device`;
	table("enrollments", some.map(d => [time(d.since), head(d.name || "–"), element("td", {}, element("code", {title: d.id}, d.id.slice(0, 16))), cell(d.waits)]), Boolean(e.error));
}

function drawKeys(k) {
	byId("keys-error").textContent = k.error ?? "";
	byId("keys-error").hidden = !k.error;
	byId("keys").caption.textContent = k.store + (k.read ? `, read at ${clock(new Date(k.read))}` : "");
	fill("keys", (k.keys ?? []).map(key => [
		head(key.label, key.purpose), element("td", {class: "still"}, String(key.version), ...(key.issues ? [element("span", {class: "ok"}, " issues tokens")] : [])), cell(key.algorithm, "still"),
		yes(key.sensitive), yes(key.never_extractable), yes(key.local), cell((key.usages ?? []).join(", ")), weaknesses(key)]));
}

function yes(v) { return v ? cell("✓ yes", "ok still") : cell("no", "still"); }

function weaknesses(key) {
	const names = list => (list ?? []).map(w => w.split(":")[0]).join(", ");
	if (names(key.weaknesses)) return cell("✕ " + names(key.weaknesses), "failure");
	return names(key.notes) ? cell("note: " + names(key.notes), "warning") : cell("none");
}

function head(text, more) { return element("th", {scope: "row", role: "rowheader"}, text, ...(more ? [element("span", {class: "more"}, more)] : [])); }
function cell(text, kind = "") { return element("td", kind ? {class: kind} : {}, String(text)); }
function time(at) { return element("td", {class: "still"}, element("time", {datetime: at, title: new Date(at).toISOString()}, clock(new Date(at)))); }

// fill sets the rows of a table. Roles keep it one for screen readers where rows are blocks.
function fill(id, rows) {
	const t = byId(id), heads = [...t.tHead.rows[0].cells].map(c => c.textContent);
	t.setAttribute("role", "table");
	t.tBodies[0].replaceChildren(...rows.map(cells => {
		cells.forEach((c, i) => {
			c.dataset.head = heads[i];
			if (!c.hasAttribute("role")) c.setAttribute("role", "cell");
			if (!c.textContent) c.classList.add("blank");
			const inner = element("span", {});
			inner.append(...c.childNodes);
			c.append(inner);
		});
		return element("tr", {role: "row"}, ...cells);
	}));
	reachable(t.parentElement);
}

// table is fill for one that is hidden while it is empty.
function table(id, rows, keep = false) {
	fill(id, rows);
	byId(id).parentElement.hidden = rows.length === 0 && !keep;
}

// reachable lets the keyboard scroll what is wider than its place.
function reachable(box) {
	if (box.scrollWidth <= box.clientWidth) return ["tabindex", "role", "aria-label"].forEach(a => box.removeAttribute(a));
	box.tabIndex = 0;
	box.setAttribute("role", "region");
	box.setAttribute("aria-label", box.querySelector("caption").textContent);
}

function list(id, rows) {
	byId(id).replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function clock(d) {
	const two = n => String(n).padStart(2, "0");
	const time = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
	return new Date().toDateString() === d.toDateString() ? time : `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${time}`;
}

function span(s) {
	for (const [size, name] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
		const n = Math.floor(s / size);
		if (n > 0) return `${n} ${name}${n > 1 ? "s" : ""}`;
	}
	return "less than a minute";
}

function bytes(n) {
	for (const [size, name] of [[1 << 30, "GiB"], [1 << 20, "MiB"], [1 << 10, "KiB"]]) if (n >= size) return `${(n / size).toFixed(1)} ${name}`;
	return `${n} bytes`;
}

byId("ask").addEventListener("submit", e => {
	e.preventDefault();
	token = byId("token").value.trim();
	byId("token").value = "";
	sessionStorage.setItem("token", token);
	ask().then(() => token && byId("content").focus());
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
window.addEventListener("hashchange", () => { token = takeToken(); ask(); });
window.addEventListener("resize", () => document.querySelectorAll(".scroll").forEach(reachable));
ask();
