// What the edge told the operator, and what people did: one list, the newest first.
import { askJSON } from '../api.js';
import { html, now } from '../ui.js';
import { Empty, Reason, Screen, State } from '../parts.js';
import { filter } from '../route.js';
import { status } from '../status.js';
import { Table } from '../table.js';
import { Code, Value } from '../text.js';
import { Time, duration, has, number, t } from '../words.js';
import { Problem, useAsked } from './beside.js';

/** @typedef {import('../../types/api').Alert} Alert */
/** @typedef {import('../../types/api').Action} Action */
/** @typedef {{id: string, at: string, alert?: Alert, action?: Action}} Row */

/** @param {Action} one */
function did(one) {
	const key = 'action.' + one.action.replaceAll(' ', '_');
	const ends = Object.entries(one.replay ?? {}).filter(([, n]) => n).map(([end, n]) => `${t((end === 'kept' || end === 'skipped' ? 'replayed.' : 'outcome.') + end)} ${number(n)}`);
	return html`<b>${has(key) ? t(key) : one.action}</b> ${one.replay && (ends.join(' · ') || '0')} ${one.count && !one.quarantine_id ? number(one.count) : ''} ${one.quarantine_id && html`<a href=${'#/quarantine/' + encodeURIComponent(one.quarantine_id)}><code dir="ltr">${one.quarantine_id}</code></a>`}
		${one.lane && html`<a href=${'#/queue/' + encodeURIComponent(one.lane)}><code dir="ltr">${one.lane}</code></a>`} ${(one.name || one.instance) && html`<${Value} of=${[one.name, one.instance].filter(Boolean).join(' · ')} />`}`;
}

/** @param {Action} one */
const who = (one) => [one.user, one.client_ip].filter(Boolean).join(' · ') || (one.replay || one.action === 'reload' ? '–' : t('activity.admin'));

/** @param {Alert} one */
const told = (one) => html`<${Reason} of=${one.reason} /> <${Value} of=${one.text} />${one.count > 1 && html` <small>×${number(one.count)}</small>`}`;

/** @param {Alert} one */
const sent = (one) => one.sent ? html`<${State} level="well">${t('alert.sent')}<//>`
	: html`<${State} level=${one.error ? 'bad' : 'warn'}>${t('alert.pending')}<//> ${one.failing && html`<small>${t('alert.fails.for', { for: duration(now() - Date.parse(one.failing)) })}</small>`} ${one.error && html`<${Code} of=${one.error} />`}`;

/** @param {{params: URLSearchParams}} props */
export default function Activity({ params }) {
	const { data } = status.use();
	const { data: acts, error } = useAsked((signal) => askJSON('activity', { signal }), '');
	const kind = params.get('kind') ?? '';
	/** @type {Row[]} */
	const all = [
		...(data?.alerts ?? []).map((alert, i) => ({ id: `alert-${alert.at}-${i}`, at: alert.at, alert })),
		...(acts?.actions ?? []).map((/** @type {Action} */ action, /** @type {number} */ i) => ({ id: `act-${action.at}-${i}`, at: action.at, action })),
	].sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
	const rows = all.filter((row) => !kind || (kind === 'alerts') === Boolean(row.alert));
	/** @type {import('../table.js').Column<Row>[]} */
	const columns = [
		{ key: 'at', label: t('col.time'), kind: 'time', cell: (row) => html`<${Time} at=${row.at} seconds />` },
		{ key: 'kind', label: t('col.kind'), kind: 'minor', cell: (row) => (row.alert ? t('activity.alert') : t('activity.act')) },
		{ key: 'what', label: t('col.what'), kind: 'grow', cell: (row) => (row.alert ? told(row.alert) : did(/** @type {Action} */ (row.action))) },
		{ key: 'who', label: t('col.who'), kind: 'wrap', cell: (row) => html`<${Value} of=${row.alert ? row.alert.endpoint : who(/** @type {Action} */ (row.action))} />` },
		{ key: 'state', label: t('col.state'), kind: 'minor', cell: (row) => (row.alert ? sent(row.alert) : '') },
	];
	const name = t('nav.activity');
	const tools = all.length > 0 && html`<span class="buttons" role="group" aria-label=${t('col.kind')}>${['', 'alerts', 'acts'].map((one) => html`<button type="button" key=${one} aria-pressed=${one === kind} onClick=${() => filter({ kind: one })}>${one ? t(`activity.${one}`) : t('all')}</button>`)}</span>`;
	return html`<${Screen} name="activity" title=${name} state=${rows.length ? 'ready' : acts || error ? 'empty' : 'loading'} tools=${tools}>
		<${Problem} of=${error?.status && error.message} />
		${rows.length ? html`<${Table} caption=${name} columns=${columns} rows=${rows} id=${(/** @type {Row} */ row) => row.id} mark=${(/** @type {Row} */ row) => (row.alert && !row.alert.sent ? (row.alert.error ? 'is-bad' : 'is-warn') : '')} />`
			: (acts || error) && html`<${Empty} title=${t('activity.none')}><p class="quiet">${t('activity.none.why')}</p><//>`}
	<//>`;
}
