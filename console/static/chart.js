// The last quarter of an hour, stacked by outcome: a drawing, and a table for those who read.
import { html, useState } from './ui.js';
import { Outcome } from './parts.js';
import { clockTime, number, rate, t } from './words.js';

/** @typedef {import('../types/api').Outcome} End */

/** All outcomes, from the bottom of a stack to its top. @type {End[]} */
export const outcomes = ['delivered', 'queued', 'dropped', 'quarantined', 'refused', 'failed'];
const height = 100;

/** Without what is queued: it ends once more later, and would count twice. */
export const ends = outcomes.filter((end) => end !== 'queued');

/** @param {import('../types/api').Counts} slot */
const sum = (slot) => ends.reduce((n, end) => n + (slot[end] ?? 0), 0);

/** @param {import('../types/api').Counts[]} slots */
const total = (slots) => Object.fromEntries(outcomes.map((end) => [end, slots.reduce((n, slot) => n + (slot[end] ?? 0), 0)]));

/** The next of 1, 2, 5, 10, … @param {number} n */
function nice(n) {
	const power = 10 ** Math.floor(Math.log10(n || 1));
	return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= n) ?? n;
}

/** @param {{trend: import('../types/api').Trend | null}} props */
export function Chart({ trend }) {
	const [over, setOver] = useState(-1);
	const slots = trend?.slots ?? [];
	const seconds = trend?.seconds ?? 15;
	const top = nice(Math.max(1, ...slots.map(sum)) / seconds) * seconds; // nice by the second, as the label says it
	const begin = (/** @type {number} */ i) => ((trend?.until ?? 0) - (slots.length - i) * seconds) * 1000;
	const shown = over >= 0 && slots[over] ? slots[over] : total(slots);
	const point = (/** @type {any} */ e) => {
		const box = e.currentTarget.getBoundingClientRect();
		setOver(Math.floor(((e.clientX - box.left) / box.width) * slots.length));
	};
	return html`<figure class="chart" aria-label=${t('chart')}>
		<figcaption><span class="chart-when">${over >= 0 && slots[over] ? clockTime(begin(over), true) : t('chart')}</span>
			<ul class="legend">${outcomes.filter((end) => end !== 'queued' || shown.queued).map((end) => html`<li key=${end} ><${Outcome} of=${end} /> <b>${number(shown[end] ?? 0)}</b></li>`)}</ul></figcaption>
		<span class="axis-top">${t('a.second', { rate: rate(top / seconds) })}</span>
		<div class="plot">
			<svg viewBox=${`0 0 ${slots.length * 10 || 600} ${height}`} preserveAspectRatio="none" aria-hidden="true" onPointerMove=${point} onPointerLeave=${() => setOver(-1)}>
				${slots.map((slot, i) => html`<g key=${begin(i)} class=${i === over ? 'over' : ''}><rect class="hit" x=${i * 10} y="0" width="10" height=${height} />${bars(slot, i, top)}</g>`)}
			</svg></div>
		<div class="axis" aria-hidden="true">${[15, 10, 5].map((n) => html`<span>−${n}</span>`)}<span>${t('chart.now')}</span></div>
		<details><summary>${t('chart.table')}</summary><div class="scroll" role="region" tabindex="0" aria-label=${t('chart.table')}><table><thead><tr><th scope="col">${t('col.time')}</th>${outcomes.map((end) => html`<th scope="col" class="num">${t(`outcome.${end}`)}</th>`)}</tr></thead>
			<tbody>${minutes(slots, seconds).map(({ from, counts }) => html`<tr key=${from}><th scope="row">${clockTime(begin(from))}</th>${outcomes.map((end) => html`<td class="num">${number(counts[end] ?? 0)}</td>`)}</tr>`)}</tbody></table></div></details>
	</figure>`;
}

/** A handler's last quarter of an hour in a cell: what it took stands on a line, what it did not take hangs from it, to one scale.
 * @param {{trend?: import('../types/api').HandlerTrend}} props */
export function Spark({ trend }) {
	if (!trend) return '–';
	const most = [trend.taken, trend.not_taken].map((all) => Math.max(...all));
	const line = 17; // in all rows
	const scale = Math.min((line - 1) / Math.max(1, most[0]), (23 - line) / Math.max(1, most[1]));
	const path = (/** @type {number[]} */ all, sign = 1) => all.map((n, i) => (n ? `M${i * 2} ${line}v${sign * Math.max(1.5, n * scale)}h1.6V${line}z` : '')).join('');
	const [taken, not] = [trend.taken, trend.not_taken].map((all) => all.reduce((sum, n) => sum + n, 0));
	const said = t('spark', { taken, not, most: Math.max(...most), s: trend.seconds });
	return html`<svg class="spark" viewBox="0 0 120 24" role="img" aria-label=${said}><title>${said}</title>
		<path class="rule" d=${`M0 ${line}h120`} /><path class="bar delivered" d=${path(trend.taken, -1)} /><path class="bar failed" d=${path(trend.not_taken)} /></svg>`;
}

/** @param {import('../types/api').Counts} slot @param {number} i @param {number} top */
function bars(slot, i, top) {
	let y = height;
	return ends.filter((end) => slot[end]).map((end) => {
		const h = Math.max(1.2, ((slot[end] ?? 0) / top) * height); // a single failure must show
		y -= h;
		return html`<rect key=${end} class=${'bar ' + end} x=${i * 10 + 1} y=${y} width="8" height=${h} />`;
	});
}

/** @param {import('../types/api').Counts[]} slots @param {number} seconds */
function minutes(slots, seconds) {
	const each = Math.max(1, Math.round(60 / seconds));
	const rows = [];
	for (let from = 0; from < slots.length; from += each) {
		/** @type {import('../types/api').Counts} */
		const counts = {};
		for (const slot of slots.slice(from, from + each)) for (const end of outcomes) counts[end] = (counts[end] ?? 0) + (slot[end] ?? 0);
		rows.unshift({ from, counts });
	}
	return rows;
}
