// What the page says: sentences of lang/*.json, numbers, dates and durations in the reader's language.
import { html, keep, kept, now, store } from './ui.js';

/** @typedef {string | {[form: string]: string}} Sentence */

export const languages = ['en', 'ru'];

/** The language, whether times are in UTC, and the sentences. "rtl" is English from right to left, to try the layout.
 * @type {ReturnType<typeof store<{language: string, utc: boolean, sentences: {[key: string]: Sentence}}>>} */
export const words = store({ language: 'en', utc: kept('utc') === 'true', sentences: {} });

/** Loads the language that was chosen, or the first of the browser's that there is. */
export function startWords() {
	const wanted = [kept('language'), ...navigator.languages.map((name) => name.slice(0, 2))];
	return speak(wanted.find((name) => languages.includes(name) || name === 'rtl') ?? 'en');
}

/** @param {string} language */
export async function speak(language) {
	const file = language === 'rtl' ? 'en' : language;
	const answer = await fetch(new URL(`./lang/${file}.json`, import.meta.url));
	const sentences = await answer.json();
	document.documentElement.lang = file;
	document.documentElement.dir = language === 'rtl' ? 'rtl' : 'ltr';
	formats.clear(); // now, as what was drawn while they came has made some anew
	words.set({ language: file, sentences });
}

/** @param {boolean} utc */
export function setUTC(utc) {
	keep('utc', String(utc));
	formats.clear();
	words.set({ utc });
}

/** @type {Map<string, any>} formats are slow to make */
const formats = new Map();

/** @template T @param {string} name @param {() => T} make @returns {T} */
function format(name, make) {
	if (!formats.has(name)) formats.set(name, make());
	return formats.get(name);
}

/** @param {string} key @param {{[name: string]: any}} values */
function sentence(key, values) {
	const { language, sentences } = words.get();
	const found = sentences[key] ?? key;
	if (typeof found === 'string') return found;
	return found[format('plural', () => new Intl.PluralRules(language)).select(values.n)] ?? found.other;
}

/** @param {unknown} value */
const shown = (value) => (typeof value === 'number' ? number(value) : value);

/**
 * Returns a sentence with values in the places of {their names}. n decides on the plural.
 * @param {string} key @param {{[name: string]: string | number}} [values]
 */
export const t = (key, values = {}) => sentence(key, values).replace(/\{(\w+)\}/g, (_, name) => String(shown(values[name])));

/**
 * The same with elements as values.
 * @param {string} key @param {{[name: string]: unknown}} [values] @returns {unknown[]}
 */
export const tx = (key, values = {}) => sentence(key, values).split(/\{(\w+)\}/).map((part, i) => (i % 2 ? shown(values[part]) : part));

/** Reports whether there is a sentence. @param {string} key */
export const has = (key) => key in words.get().sentences;

/** @param {number} n @param {number} [digits] after the point, at most */
export const number = (n, digits = 0) =>
	format('n' + digits, () => new Intl.NumberFormat(words.get().language, { maximumFractionDigits: digits })).format(n);

/** @param {number} n @param {string} unit @param {number} [digits] */
const measure = (n, unit, digits = 0) =>
	format(unit + digits, () => new Intl.NumberFormat(words.get().language, { style: 'unit', unit, unitDisplay: 'short', maximumFractionDigits: digits })).format(n).replace(' ', '\u00a0');

/** Returns a duration as one says it. @param {number} ms */
export function duration(ms) {
	const s = Math.max(0, Math.floor(ms / 1000));
	if (s < 60) return measure(s, 'second');
	if (s < 3600) return measure(Math.floor(s / 60), 'minute');
	if (s < 86400) return measure(Math.floor(s / 3600), 'hour') + (s % 3600 < 60 ? '' : '\u00a0' + measure(Math.floor((s % 3600) / 60), 'minute'));
	return measure(Math.floor(s / 86400), 'day') + (s % 86400 < 3600 ? '' : '\u00a0' + measure(Math.floor((s % 86400) / 3600), 'hour'));
}

/** Returns how long a delivery took. @param {number} ms */
export function latency(ms) {
	if (!ms) return '–';
	return ms < 10_000 ? measure(ms, 'millisecond', ms < 10 ? 1 : 0) : measure(ms / 1000, 'second');
}

/** Returns how many a second. @param {number} n */
export const rate = (n) => (n > 0 && n < 0.1 ? '<' + number(0.1, 1) : number(n, n < 10 ? 1 : 0));

/** @param {number} n */
export function size(n) {
	const units = ['unit.b', 'unit.kib', 'unit.mib', 'unit.gib'];
	let i = 0;
	for (; n >= 1024 && i < 3; i++) n /= 1024;
	return number(n, i && n < 10 ? 1 : 0) + '\u00a0' + t(units[i]);
}

/** @param {string} name @param {Intl.DateTimeFormatOptions} options @param {number} at */
const dated = (name, options, at) =>
	format(name, () => new Intl.DateTimeFormat(words.get().language, { ...options, hourCycle: 'h23', timeZone: words.get().utc ? 'UTC' : undefined })).format(at);

/** The zone of all times on the page. */
export const zone = () =>
	format('zone', () => new Intl.DateTimeFormat('en', { timeZoneName: 'shortOffset', timeZone: words.get().utc ? 'UTC' : undefined }))
		.formatToParts(now()).find((/** @type {{type: string}} */ p) => p.type === 'timeZoneName')?.value.replace('GMT', 'UTC');

/** Returns the time of day, and the day if it is another one. @param {number} at @param {boolean} [seconds] */
export function clockTime(at, seconds = false) {
	const time = dated('t' + seconds, { hour: '2-digit', minute: '2-digit', second: seconds ? '2-digit' : undefined }, at);
	const day = { day: 'numeric', month: 'short' };
	return dated('d', /** @type {any} */ (day), at) === dated('d', /** @type {any} */ (day), now()) ? time : dated('d', /** @type {any} */ (day), at) + ', ' + time;
}

/** A time, in full in its title. @param {{at: string | number, seconds?: boolean}} props */
export function Time({ at, seconds }) {
	const date = new Date(at);
	if (!(date.getTime() > 0)) return '–';
	return html`<time datetime=${date.toISOString()} title=${date.toISOString()}>${clockTime(date.getTime(), seconds)}</time>`;
}
