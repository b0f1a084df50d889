// Follows what ends at the edge. One stream a tab, closed while nobody looks; where streams do not reach, it asks every 2 seconds.
import { askJSON } from './api.js';
import { now, setClock, store } from './ui.js';
import { refresh, status } from './status.js';

/** @typedef {import('../types/api').Row} Row */
/** @typedef {import('../types/api').Trend} Trend */

const most = 2000; // rows to look for something in; a screen shows fewer
const pollEvery = 2000;
const streamAgain = 60_000; // after it has failed
const silence = 35_000; // the edge says something every 15 seconds
const rateOver = 10_000;

/**
 * rows are the newest first. shown and of say how many of the last ones the edge has sent.
 * @type {ReturnType<typeof store<{connection: 'live'|'polling'|'lost', why: string, seen: number, rows: Row[], shown: number, of: number,
 *   gap: boolean, trend: Trend|null, waiting: number, p50: number, p99: number, rates: import('../types/api').Counts, total: number}>>}
 */
export const live = store({
	connection: 'polling', why: 'connecting', seen: 0, rows: [], shown: 0, of: 0,
	gap: false, trend: null, waiting: 0, p50: 0, p99: 0, rates: {}, total: 0,
});

/** @type {EventSource | null} */
let source = null;
let timer = 0;
let failures = 0;
let seq = 1; // the oldest that is kept
let first = true;
let failed = 0; // when a stream did last
/** @type {{at: number, totals: import('../types/api').Counts}[]} */
let samples = [];
/** What came since the last tick, which ends each of the edge's messages: the page is drawn once for all of it.
 * @type {Partial<ReturnType<typeof live.get>>} */
let news = {};

/** Begins to follow, with the rows that there are. */
export async function start() {
	document.addEventListener('visibilitychange', () => (document.hidden ? stop() : connect()));
	await poll(false);
	if (!document.hidden) connect();
}

function stop() {
	clearTimeout(timer);
	source?.close();
	source = null;
}

function connect() {
	stop();
	const mine = new EventSource('api/live?since=' + seq);
	source = mine;
	/** @param {string} name @param {(data: any) => void} hear */
	const on = (name, hear) => mine.addEventListener(name, (event) => {
		if (source !== mine) return;
		seq = Number(/** @type {MessageEvent} */ (event).lastEventId) || seq;
		watch();
		hear(JSON.parse(/** @type {MessageEvent} */ (event).data));
	});
	on('hello', ({ now: at, trend }) => {
		setClock(at);
		failures = 0;
		samples = [];
		if (status.get().error) refresh();
		live.set({ connection: 'live', why: '', seen: now(), trend, p50: trend.p50_ms, p99: trend.p99_ms });
	});
	on('gap', () => (news = { ...news, gap: !first }));
	on('rows', ({ rows, shown, of }) => add(rows, shown, of));
	on('tick', tick);
	on('end', ({ reason }) => {
		stop();
		live.set({ connection: 'polling', why: reason === 'reload' ? 'reloading' : 'ended' });
		refresh();
		timer = window.setTimeout(connect, reason === 'reload' ? 0 : 1000);
	});
	mine.onerror = () => source === mine && fail();
	watch();
}

/** Takes a stream that says nothing for broken: a laptop that slept is not told. */
function watch() {
	clearTimeout(timer);
	timer = window.setTimeout(fail, silence);
}

function fail() {
	stop();
	failed = now();
	failures++;
	live.set({ connection: live.get().connection === 'lost' ? 'lost' : 'polling', why: 'connecting' });
	timer = window.setTimeout(failures < 2 ? connect : poll, 1000);
}

/** Asks once, and again if there is no stream. @param {boolean} [again] */
async function poll(again = true) {
	const lost = live.get().connection === 'lost';
	try {
		/** @type {import('../types/api').Live} */
		const seen = await askJSON('live?since=' + seq, { signal: AbortSignal.timeout(10_000) });
		seq = seen.seq || seq;
		if (seen.gap) news = { ...news, gap: !first };
		add(seen.rows, seen.rows.length, seen.of);
		tick(seen);
		first = false;
		live.set({ connection: 'polling', why: again ? '' : 'connecting' });
		if (again && lost) failures = 0;
		if (again && (lost || now() - failed > Math.min(streamAgain, 2000 * 2 ** failures))) return connect();
	} catch {
		live.set({ connection: 'lost', why: '' });
	}
	if (again && !document.hidden) timer = window.setTimeout(poll, pollEvery);
}

/** @param {Row[]} rows @param {number} shown @param {number} of */
function add(rows, shown, of) {
	news = { gap: false, ...news, rows: [...rows].reverse().concat(news.rows ?? live.get().rows).slice(0, most), shown, of };
}

/** @param {{now: string, waiting: number, counts: {outcome: import('../types/api').Outcome, n: number}[], p50_ms?: number, p99_ms?: number}} seen */
function tick(seen) {
	const at = Date.parse(seen.now);
	/** @type {import('../types/api').Counts} */
	const totals = {};
	let total = 0;
	for (const { outcome, n } of seen.counts) {
		totals[outcome] = (totals[outcome] ?? 0) + n;
		total += n;
	}
	const last = samples.at(-1);
	if (last && total < live.get().total) samples = []; // it has begun again
	else if (last) news.trend = extend(at, last.totals, totals);
	samples.push({ at, totals });
	while (samples.length > 2 && samples[1].at <= at - rateOver) samples.shift();
	const { p50, p99 } = live.get();
	live.set({ ...news, seen: now(), waiting: seen.waiting, rates: rates(at), total, p50: seen.p50_ms ?? p50, p99: seen.p99_ms ?? p99 });
	news = {};
}

/** Returns how many ended in each way a second, by a time. @param {number} at */
export function rates(at) {
	/** @type {import('../types/api').Counts} */
	const found = {};
	const last = samples.at(-1);
	const base = samples.find((s) => s.at >= at - rateOver - 1000);
	if (!last || !base) return found;
	const seconds = Math.max(1, (at - base.at) / 1000);
	for (const [outcome, n] of /** @type {[import('../types/api').Outcome, number][]} */ (Object.entries(last.totals))) {
		found[outcome] = (n - (base.totals[outcome] ?? 0)) / seconds;
	}
	return found;
}

/** Returns the trend, which the edge sends once, as it goes on. @param {number} at @param {import('../types/api').Counts} before @param {import('../types/api').Counts} after */
function extend(at, before, after) {
	const { trend } = live.get();
	if (!trend) return null;
	const slots = [...trend.slots];
	let until = trend.until;
	for (; until * 1000 <= at; until += trend.seconds) {
		slots.push({});
		slots.shift();
	}
	const slot = { ...slots[slots.length - 1] };
	for (const [outcome, n] of /** @type {[import('../types/api').Outcome, number][]} */ (Object.entries(after))) {
		const more = n - (before[outcome] ?? 0);
		if (more > 0) slot[outcome] = (slot[outcome] ?? 0) + more;
	}
	slots[slots.length - 1] = slot;
	return { ...trend, slots, until };
}
