// Finds what needs the operator, the worst first: what stands still, then other trouble, then what is good to know.
import { html } from './ui.js';
import { clockTime, duration, has, size, t, tx } from './words.js';
import { Code, Value, visible } from './text.js';

/** @typedef {{href: string, key: string}} Link */
/**
 * say is the sentence, which does not change by the second; more says what does.
 * @typedef {{id: string, level: 'bad'|'warn'|'note', say: unknown, more?: string[], said?: string, links?: Link[]}} Finding
 */
/** @typedef {import('../types/api').Status} Status */

const faultLasts = 600_000; // how long a handler that is not asked again counts as one that failed

/** @param {string} screen @param {{[name: string]: string}} [filters] */
export const link = (screen, filters = {}) => `#/${screen}` + (Object.keys(filters).length ? '?' + new URLSearchParams(filters) : '');

/**
 * @param {Status} s @param {import('../types/api').Row[]} rows @param {number} at @returns {Finding[]}
 */
export function findings(s, rows, at) {
	const all = [...(s.standing ?? []).map((one) => stands(one, s, at)), ...queue(s), ...handlers(s, at), ...receivers(s, at), ...unheard(s), ...stores(s), ...alerts(s, at), ...kept(rows, at), ...notes(s)];
	const order = ['bad', 'warn', 'note'];
	return all.sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level));
}

/** Says why an instance stands still. @param {import('../types/api').Standing} one */
export function why(one) {
	const values = { handler: html`<${Value} of=${one.handler} />`, said: html`<${Value} of=${one.said} />`, reason: html`<${Code} of=${one.reason} />`, status: one.said.split(' ')[0] };
	if (one.handlers?.length > 1) return tx('stands.several', { ...values, n: one.handlers.length, said: html`<${Value} of=${/^\d/.test(one.said) ? one.said.split(' ')[0] : one.said} />` });
	if (one.handler && /^\d+( |$)/.test(one.said)) return tx('stands.status', values);
	if (one.handler && one.said) return tx('stands.said', values);
	if (one.handler && !one.reason) return tx('stands.silent', values);
	if (one.reason === 'not_now' && !one.attempts) return tx('stands.place');
	return has('reason.' + one.reason) ? [t('reason.' + one.reason), ' (', values.reason, ')'] : [values.reason];
}

/** Says when it is tried again. @param {import('../types/api').Standing} one @param {number} at */
export function nextTry(one, at) {
	if (one.waiting) return t('next.now');
	if (!one.next) return '';
	const left = Date.parse(one.next) - at;
	return left > -5000 ? t('next.in', { in: duration(left) }) : t('next.overdue', { ago: duration(-left) });
}

/** @param {import('../types/api').Standing} one @param {Status} s @param {number} at @returns {Finding} */
function stands(one, s, at) {
	const since = Date.parse(one.since);
	const more = [t('stands.for', { for: duration(at - since) })];
	if (one.attempts > 0) more.push(t('attempts', { n: one.attempts }));
	more.push(nextTry(one, at));
	if ((s.blocks ?? []).length > 1) more.push(visible(one.name));
	const links = [{ href: link('instances', { instance: one.instance }), key: 'link.instance' }];
	if (one.handler) links.push({ href: link('handlers', { handler: one.handler }), key: 'link.handler' });
	if (one.lane) links.unshift({ href: link('queue/' + encodeURIComponent(one.lane)), key: 'link.lane' });
	else links.push({ href: link('live', { instance: one.instance, outcome: 'failed' }), key: 'link.live' }); // the sender still has it
	return {
		id: 'standing ' + one.instance + ' ' + (one.lane ?? one.name), level: 'bad', more: more.filter(Boolean), links,
		said: /^\d+ /.test(one.said) ? one.said : '',
		say: tx('stands', { instance: html`<${Value} of=${one.instance} />`, since: clockTime(since), why: html`<span>${why(one)}</span>` }),
	};
}

/** @param {Status} s @returns {Finding[]} */
function queue(s) {
	const q = s.queue;
	if (!q) return [];
	const links = [{ href: link('queue'), key: 'link.queue' }];
	/** @type {(key: string, level: 'bad'|'warn') => Finding} */
	const found = (key, level) => ({ id: key, level, links, say: t(key, { used: size(q.bytes), most: size(q.max_bytes) }) });
	const all = [];
	if (!q.connected) all.push(found('queue.lost', 'bad'));
	if (q.draining) all.push(found('queue.draining', 'warn'));
	else if (q.paused) all.push(found('queue.paused', 'warn'));
	if (q.max_bytes > 0 && q.bytes >= q.max_bytes * 0.99) all.push(found('queue.full', 'bad'));
	else if (q.max_bytes > 0 && q.bytes > q.max_bytes * 0.8) all.push(found('queue.crowded', 'warn'));
	return all;
}

/** Reports whether a handler did not take its last notification. @param {import('../types/api').Upstream} up @param {number} at */
export const fails = (up, at) =>
	Boolean(up.last_fault && !(Date.parse(up.last_fault.at) < Date.parse(up.last_asked ?? '')) && at - Date.parse(up.last_fault.at) < faultLasts);

/** @param {Status} s @param {number} at */
function handlers(s, at) {
	/** @type {Finding[]} */
	const all = [];
	for (const block of s.blocks ?? []) {
		for (const up of block.upstreams ?? []) {
			const fault = up.last_fault;
			const failing = fault && fails(up, at);
			if (!failing && up.healthy) continue;
			const refused = Object.values(up.not_taken ?? {}).reduce((sum, n) => sum + n, 0);
			const never = failing && !up.taken && refused > 9; // it may have just started
			const what = !failing ? [] : fault.status ? tx('handler.answered', { status: String(fault.status) }) : [html`<${Value} of=${fault.error || fault.reason} />`];
			all.push({
				id: 'handler ' + block.name + ' ' + up.address, level: never ? 'bad' : 'warn', links: [{ href: link('handlers', { handler: up.address }), key: 'link.handler' }],
				say: tx(never ? 'handler.never' : failing ? 'handler.fails' : 'handler.unhealthy', { n: refused, handler: html`<${Value} of=${up.address} />`, what: html`<span>${what}</span>` }),
				more: failing ? [t('ago', { ago: duration(at - Date.parse(fault.at)) }), visible(block.name)] : [visible(block.name)],
			});
		}
	}
	return all;
}

/** @param {Status} s @param {number} at @returns {Finding[]} */
function receivers(s, at) {
	return (s.receivers ?? []).filter((r) => r.state === 'failing').map((r) => ({
		id: 'receiver ' + r.instance, level: 'bad', more: [t('stands.for', { for: duration(at - Date.parse(r.since)) })],
		links: [{ href: link('instances', { instance: r.instance }), key: 'link.instance' }],
		say: tx('receiver.fails', { instance: html`<${Value} of=${r.instance} />`, reason: html`<${Code} of=${r.reason} />` }),
	}));
}

/** Instances that are refused, and those that are silent: one sentence each, as all may be so at night. @param {Status} s */
function unheard(s) {
	const refused = s.refused ?? [];
	const silent = (s.silent ?? []).filter((one) => !refused.some(({ instance }) => instance === one.instance));
	/** @type {(key: string, level: 'bad'|'warn', list: {instance: string}[], more: {[name: string]: unknown}) => Finding[]} */
	const found = (key, level, list, more) => list.length ? [{
		id: key, level, links: [{ href: link('instances', list.length > 1 ? {} : { instance: list[0].instance }), key: 'link.instance' }],
		say: tx(key, { n: list.length, instance: html`<${Value} of=${list[0].instance} />`, ...more }),
	}] : [];
	return [
		...found('instances.refused', refused.some((one) => one.known) ? 'bad' : 'warn', refused, { reason: html`<${Code} of=${refused[0]?.reason} />` }),
		...found('instances.silent', 'warn', silent, { since: silent.length && clockTime(Date.parse(silent[0].since)) }),
	];
}

/** @param {Status} s @returns {Finding[]} */
function stores(s) {
	const q = s.quarantine;
	if (!(q.max_bytes > 0 && q.bytes > q.max_bytes * 0.8)) return [];
	const say = t('quarantine.crowded', { used: size(q.bytes), most: size(q.max_bytes) });
	return [{ id: 'quarantine', level: 'warn', say, links: [{ href: link('quarantine'), key: 'link.quarantine' }] }];
}

/** @param {Status} s @param {number} at @returns {Finding[]} */
function alerts(s, at) {
	const unsent = (s.alerts ?? []).filter((a) => !a.sent && a.failing).sort((a, b) => Date.parse(a.failing ?? '') - Date.parse(b.failing ?? ''));
	const one = s.alerts_pending > 0 && (unsent[0] ?? (s.alerts ?? []).find((a) => !a.sent));
	if (!one) return [];
	return [{
		id: 'alert', level: 'warn', more: one.failing ? [t('stands.for', { for: duration(at - Date.parse(one.failing)) })] : [], said: one.error,
		say: tx('alert.fails', { n: s.alerts_pending, endpoint: html`<${Value} of=${one.endpoint} />` }), links: [{ href: link('activity'), key: 'link.activity' }],
	}];
}

/** What was kept in the last quarter of an hour, by the schema's rule. @param {import('../types/api').Row[]} rows @param {number} at */
function kept(rows, at) {
	/** @type {Map<string, {n: number, row: import('../types/api').Row}>} */
	const groups = new Map();
	for (const row of rows) {
		if (row.outcome !== 'quarantined' || at - row.at > 900_000) continue;
		const group = [row.reason, row.type, row.pointer, row.keyword].join(' ');
		groups.set(group, { n: (groups.get(group)?.n ?? 0) + 1, row });
	}
	return [...groups].map(([group, { n, row }]) => {
		const rule = row.pointer === undefined ? '' : ` ${visible(row.pointer || '/')} ${visible(row.keyword)}`;
		const typed = row.type !== 'none' && row.type !== 'other'; // which are no types of an entry
		/** @type {Finding} */
		const found = {
			id: 'kept ' + group, level: 'warn', links: [{ href: link('quarantine', { reason: row.reason ?? '', ...(typed && { type: row.type }) }), key: 'link.kept' }],
			say: tx('kept', { n, reason: html`<code dir="ltr">${visible(row.reason)}${rule}</code>`, since: clockTime(row.at), type: typed && html`<code dir="ltr">${visible(row.type)}</code>` }),
		};
		return found;
	});
}

/** @param {Status} s @returns {Finding[]} */
function notes(s) {
	/** @type {Finding[]} */
	const all = (s.drift ?? []).map((rule) => ({
		id: 'drift ' + rule.name + rule.kind + rule.pointer + rule.keyword, level: 'note', links: [{ href: link('setup'), key: 'link.setup' }],
		say: tx('drift', { rule: html`<code dir="ltr">${visible(`${rule.kind} ${rule.pointer} ${rule.keyword}`)}</code>`, since: clockTime(Date.parse(rule.since)) }),
	}));
	const { entries } = s.quarantine;
	if (entries) all.push({ id: 'entries', level: 'note', say: t('kept.all', { n: entries }), links: [{ href: link('quarantine'), key: 'link.quarantine' }] });
	const n = (s.warnings ?? []).length;
	if (n) all.push({ id: 'warnings', level: 'note', say: t('warnings', { n }), links: [{ href: link('setup'), key: 'link.setup' }] });
	return all;
}
