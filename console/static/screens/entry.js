// One entry of the quarantine: what is known of it, its faults, what handlers said, and its body once somebody opens it.
import { askJSON } from '../api.js';
import { html, useEffect, useState } from '../ui.js';
import { Dialog, Reason } from '../parts.js';
import { Code, Value, visible } from '../text.js';
import { Time, has, number, size, t, tx } from '../words.js';
import { Body, bytesOf } from './body.js';
import { Why, inVain } from './act.js';
import { Head, Problem, said } from './beside.js';

/** @typedef {import('../../types/api').Entry} Entry */
/** @typedef {{bytes: Uint8Array, text: boolean}} Opened */

/** Quotes a word for a shell. @param {string} word */
const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

const unprintable = /[^\P{C}\n\t]/u; // what a terminal would obey, or nobody sees

/** Returns the command that posts the same. @param {Entry} entry @param {Opened} body */
function curl(entry, { bytes, text }) {
	const said = text ? new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes) : '';
	const plain = text && !unprintable.test(said);
	let coded = '';
	if (!plain) for (let at = 0; at < bytes.length; at += 57) coded += btoa(String.fromCharCode(...bytes.subarray(at, at + 57))) + '\n';
	const header = Object.entries(entry.header ?? {}).flatMap(([name, values]) => values.map((value) => `${name}: ${value}`)).filter((line) => !/^authorization:/i.test(line));
	if (!header.some((line) => /^content-type:/i.test(line))) header.push('Content-Type:');
	return (plain ? `printf %s ${quoted(said)}` : `base64 -d <<'END'`) + ' | curl -g ' + quoted(visible(`https://${entry.host || 'localhost'}${entry.uri ?? ''}`)) +
		' -H "Authorization: Bearer $GREEN_API_TOKEN"' + header.map((line) => ' -H ' + quoted(visible(line))).join('') + ' --data-binary @-\n' + (plain ? '' : coded + 'END\n');
}

/** Says what a rule of a schema wants. @param {string} keyword */
const wants = (keyword) => (has('fault.' + keyword) ? t('fault.' + keyword) : t('fault.other'));

/**
 * @param {{id: string, me: import('../../types/api').Me | null, phones: boolean, result?: import('../../types/api').Result, act: (act: any, id: string) => void, close: () => void}} props
 */
export function Detail({ id, me, phones, result, act, close }) {
	const [entry, set] = useState(/** @type {Entry | null} */ (null));
	const [error, fail] = useState('');
	const [body, setBody] = useState(/** @type {Opened | null} */ (null));
	const [command, setCommand] = useState('');
	const [copied, setCopied] = useState(false);
	useEffect(() => {
		const gone = new AbortController();
		askJSON('quarantine/' + encodeURIComponent(id), { signal: gone.signal }).then(set, (err) => !gone.signal.aborted && fail(err.status === 404 ? t('entry.gone') : err.message));
		return () => gone.abort();
	}, [id, phones]);

	const open = async () => {
		try {
			const answer = await askJSON('quarantine/' + encodeURIComponent(id) + '/body', { method: 'POST' });
			const opened = { bytes: bytesOf(answer), text: !answer.body_base64 };
			setBody(opened);
			fail('');
			return opened;
		} catch (err) {
			fail(said(err));
		}
	};
	const copy = async () => {
		const opened = body ?? (await open());
		if (!opened || !entry) return;
		const text = curl(entry, opened);
		try {
			await navigator.clipboard.writeText(text);
			setCopied(true);
			setTimeout(setCopied, 1500, false);
		} catch {
			setCommand(text); // the browser does not let us: somebody else has to
		}
	};
	const operates = me?.role === 'operator';
	return html`<section class="card detail" data-entry=${id} aria-label=${t('entry')}>
		<${Head} close=${close} title=${entry ? html`<${Reason} of=${entry.reason} /> ${has('reason.' + entry.reason) && html`<span>${t('reason.' + entry.reason)}</span>`}` : html`<code>${visible(id)}</code>`} />
		<${Problem} of=${error} />
		<${Problem} role="status" of=${result && inVain(result) && html`<${Why} result=${result} />`} />
		${entry && html`
			<div class="buttons">${operates && html`<button type="button" class="primary" data-act="replay" onClick=${() => act('replay', id)}>${t('act.replay')}</button>
				<button type="button" data-act="recheck" title=${t('act.recheck.check')} onClick=${() => act('recheck', id)}>${t('act.recheck')}</button>`}
				${me?.bodies && html`<button type="button" data-act="curl" title=${t('body.logged')} onClick=${copy}>${t(copied ? 'copied' : 'act.curl')}</button>`}
				${operates && html`<button type="button" class="danger" data-act="delete" onClick=${() => act('delete', id)}>${t('act.delete')}</button>`}</div>
			<${Faults} entry=${entry} />
			${(entry.answers ?? []).length > 0 && html`<h3>${t('entry.answers')}</h3><ul class="answers">${entry.answers?.map((one) => html`<li><${Value} of=${one.handler || '–'} /> ${one.status ? html`<b>${one.status}</b>` : ''} ${one.error && html`<${Value} of=${one.error} />`}
				${one.text && html`<p class="said"><${Value} of=${one.text} /></p>`}</li>`)}</ul>`}
			<h3>${t('body')}</h3>
			${body ? html`<${Body} bytes=${body.bytes} text=${body.text} marks=${entry.marks ?? []} malformed=${entry.reason === 'malformed'} />`
				: me?.bodies ? html`<p class="shut"><button type="button" data-act="body" onClick=${open}>${t('body.open')}</button> <span class="quiet">${size(entry.size)} · ${t('body.logged')}</span></p>`
				: html`<p class="quiet">${size(entry.size)} · ${t('body.off')}</p>`}
			<${Facts} entry=${entry} />`}
		${command && html`<${Dialog} name="curl" title=${t('act.curl')} onClose=${() => setCommand('')}><p>${t('curl.by_hand')}</p><textarea class="copying" readonly autofocus rows="10" dir="ltr" onFocus=${(/** @type {any} */ e) => e.target.select()}>${command}</textarea><//>`}
	</section>`;
}

/** @param {{entry: Entry}} props */
function Faults({ entry }) {
	const { faults = [], cause, offset, marks } = entry;
	if (cause) return html`<p class="fault">${tx('entry.cause', { cause: html`<${Code} of=${cause} />`, offset: number(offset ?? 0) })}</p>`;
	if (faults.length === 0) return null;
	return html`<h3>${t('entry.faults')}</h3><ul class="faults">${faults.map((one) => html`<li><${Code} of=${one.pointer || '/'} /> <b>${visible(one.keyword)}</b> <span>${wants(one.keyword)}</span></li>`)}</ul>
		${marks && marks.length < faults.length && html`<p class="quiet">${t('entry.unmarked', { n: faults.length - marks.length })}</p>`}`;
}

/** @param {{entry: Entry}} props */
function Facts({ entry }) {
	/** @type {[string, unknown][]} */
	const facts = [
		['entry.received', html`<${Time} at=${entry.received} seconds />`], ['col.type', [entry.type, entry.message].filter(Boolean).join('.')], ['col.instance', entry.instance], ['col.chat', entry.chat],
		['entry.notification', entry.notification_id], ['col.block', entry.name], ['entry.client', entry.client], ['entry.unadmitted', entry.unadmitted && t('entry.unadmitted.why')], ['entry.url', (entry.host ?? '') + (entry.uri ?? '')],
		...Object.entries(entry.header ?? {}).map(([name, values]) => /** @type {[string, unknown]} */ ([name, values.join(', ')])), ['col.size', size(entry.size)], ['entry.id', entry.id],
	];
	return html`<h3>${t('entry')}</h3><dl class="facts">${facts.filter(([, value]) => value).map(([name, value]) => html`<dt>${has(name) ? t(name) : visible(name)}</dt><dd>${typeof value === 'string' ? html`<${Value} of=${value} />` : value}</dd>`)}</dl>`;
}
