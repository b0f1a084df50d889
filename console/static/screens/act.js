// Dialogs that replay, delete or export entries: first what is meant, then the act, then what became of it.
import { ask, askJSON } from '../api.js';
import { html, useEffect, useRef, useState } from '../ui.js';
import { Dialog, Outcome, Reason } from '../parts.js';
import { refresh } from '../status.js';
import { Value } from '../text.js';
import { Time, number, t, tx } from '../words.js';
import { Problem, said } from './beside.js';

/** @typedef {import('../../types/api').Result} Result */
/** @typedef {import('../../types/api').DryRun} DryRun */
/** @typedef {'replay'|'recheck'|'delete'|'export'} Act */

const mostTold = 100;

/** @param {HTMLElement | null} at */
const focus = (at) => at?.focus();

/** Reads an answer with one JSON value a line, as the lines come. @param {Response} answer @param {(line: any) => void} hear */
async function follow(answer, hear) {
	const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
	const decoder = new TextDecoder();
	for (let rest = ''; ; ) {
		const { done, value } = await reader.read();
		const lines = (rest + decoder.decode(value, { stream: !done })).split('\n');
		rest = lines.pop() ?? '';
		for (const line of done ? [...lines, rest] : lines) if (line.trim()) hear(JSON.parse(line));
		if (done) return;
	}
}

/**
 * form selects the entries, one says that it is one by its ID, done hears what became of them, and whether it did not hear all.
 * @param {{act: Act, form: URLSearchParams, one: boolean, done: (results: Result[], deleted: boolean, broken?: boolean) => void, onClose: () => void}} props
 */
export function ActDialog({ act, form, one, done, onClose }) {
	const kind = act === 'recheck' ? 'replay' : act;
	const [run, setRun] = useState(/** @type {DryRun | null} */ (null));
	const [error, fail] = useState('');
	const [typed, type] = useState('');
	const [recheck, check] = useState(act === 'recheck');
	const [state, setState] = useState(/** @type {'asking'|'running'|'done'|'stopped'} */ ('asking'));
	const [results, tell] = useState(/** @type {Result[]} */ ([]));
	const stop = useRef(new AbortController());
	const meant = useRef(form);

	useEffect(() => {
		const dry = new URLSearchParams(form);
		dry.set('dry_run', 'true');
		askJSON(...target(kind, dry)).then((/** @type {DryRun} */ found) => {
			meant.current = new URLSearchParams(form);
			if (!one) meant.current.set('until', found.until);
			setRun(kind === 'export' ? { ...found, count: found.count + (found.skipped ?? 0) } : found);
		}, (err) => fail(said(err)));
		return () => stop.current.abort();
	}, []);

	const go = async () => {
		setState('running');
		fail('');
		/** @type {Result[]} */
		const all = [];
		let told = 0;
		let broken = false; // nobody knows what became of the others
		const form = new URLSearchParams(meant.current);
		if (recheck) form.set('recheck', 'true');
		try {
			const [path, options] = target(kind, form);
			const answer = await ask(path, { ...options, signal: stop.current.signal });
			if (kind === 'delete') {
				done([], true);
				return onClose();
			}
			await follow(answer, (line) => {
				if (line.id) all.push(line);
				else if (line.error) fail(line.error), (broken = true);
				if (Date.now() - told > 250) tell([...all]), (told = Date.now());
			});
			setState('done');
		} catch (err) {
			if (!stop.current.signal.aborted) fail(said(err));
			setState('stopped');
			broken = true;
		}
		tell(all);
		done(all, false, broken);
		refresh();
		if (one && all[0]?.outcome === 'delivered') onClose();
	};

	/** @param {Event} [event] */
	const close = (event) => {
		if (state === 'running' && event?.type !== 'close') {
			event?.preventDefault();
			stop.current.abort();
		} else onClose();
	};

	const ready = run && (one || run.count > 0) && (kind !== 'delete' || one || typed.replace(/\D/g, '') === String(run.count));
	const start = (/** @type {Event} */ e) => {
		e.preventDefault();
		if (ready) go();
	};
	const buttons = html`<footer class="buttons"><button type="button" data-act="cancel" onClick=${close}>${t('cancel')}</button>
		<button type="submit" data-act="confirm" ref=${ready && (kind !== 'delete' || one) ? focus : null} class=${kind === 'delete' ? 'danger' : 'primary'} disabled=${!ready}>${run && !one ? t(`act.${kind}.n`, { n: run.count }) : t(`act.${act}`)}</button></footer>`;
	return html`<${Dialog} name=${kind} title=${t(one ? `act.${act}` : `act.${kind}.all`)} onClose=${close}>
		<${Problem} of=${error} />
		${state !== 'asking' ? html`<${Results} results=${results} of=${run?.count ?? 0} state=${state} stop=${close} />`
			: kind === 'export' ? html`<form class="dialog-form" method="post" action="api/quarantine/export" onSubmit=${() => setTimeout(onClose)}>
				<${Meant} run=${run} one=${one} kind=${kind} error=${error} />
				${[...meant.current].map(([name, value]) => html`<input type="hidden" name=${name} value=${value} />`)}${buttons}</form>`
			: html`<form class="dialog-form" onSubmit=${start}><${Meant} run=${run} one=${one} kind=${kind} error=${error} />
				${kind === 'replay' && !one && html`<label class="check"><input type="checkbox" data-act="recheck" checked=${recheck} onChange=${(/** @type {any} */ e) => check(e.target.checked)} /> ${t('act.recheck.check')}</label>`}
				${kind === 'delete' && !one && run && run.count > 0 && html`<label class="typed">${t('act.type', { number: String(run.count) })}
					<input type="text" inputmode="numeric" autocomplete="off" ref=${focus} value=${typed} onInput=${(/** @type {any} */ e) => type(e.target.value)} /></label>`}
				${buttons}</form>`}
	<//>`;
}

/** @param {string} kind @param {URLSearchParams} form @returns {[string, {method: string, form: URLSearchParams}]} */
const target = (kind, form) => (kind === 'delete' ? ['quarantine', { method: 'DELETE', form }] : ['quarantine/replay', { method: 'POST', form }]);

/** Says what an act is about. @param {{run: DryRun | null, one: boolean, kind: string, error: string}} props */
function Meant({ run, one, kind, error }) {
	if (!run) return html`<p class="quiet" role="status">${error ? '' : t('act.counting')}</p>`;
	if (one) return html`<p>${t(`act.${kind}.one`)}</p>`;
	return html`<div aria-live="polite"><p><strong>${t(`act.${kind}.meant`, { n: run.count })}</strong></p>
		${run.count > 0 && html`<p>${tx('act.span', { oldest: html`<${Time} at=${run.oldest} seconds />`, newest: html`<${Time} at=${run.newest} seconds />` })}</p>`}
		${kind === 'replay' && run.skipped ? html`<p>${t('act.skipped', { n: run.skipped })}</p>` : ''}
		${run.unreadable ? html`<p>${t('act.unreadable', { n: run.unreadable })}</p>` : ''}
		<p class="quiet">${t(`act.${kind}.note`)}</p></div>`;
}

/** Says what became of entries. @param {{results: Result[], of: number, state: string, stop: (event?: Event) => void}} props */
function Results({ results, of, state, stop }) {
	const outcomes = /** @type {const} */ (['delivered', 'failed', 'kept', 'skipped']);
	const told = results.filter(inVain);
	return html`<div class="results"><p aria-live="polite">${state === 'running' ? t('act.progress', { n: results.length, of: number(of) }) : t(state === 'done' ? 'act.done' : 'act.stopped')}</p>
		<progress max=${of || 1} value=${results.filter((one) => one.outcome !== 'skipped').length} aria-label=${t('act.progress', { n: results.length, of: number(of) })}></progress>
		<ul class="legend">${outcomes.map((end) => [end, results.filter((one) => one.outcome === end).length]).filter(([, n]) => n).map(([end, n]) => html`<li key=${end} data-outcome=${end}>${
			end === 'kept' || end === 'skipped' ? t(`replayed.${end}`) : html`<${Outcome} of=${end} />`} <b>${number(/** @type {number} */ (n))}</b></li>`)}</ul>
		${told.length > 0 && html`<ul class="told">${told.slice(0, mostTold).map((one) => html`<li key=${one.id}><a href=${'#/quarantine/' + encodeURIComponent(one.id)} onClick=${() => stop()}><code>${one.id}</code></a> <${Why} result=${one} /></li>`)}
			${told.length > mostTold && html`<li>${t('more', { n: told.length - mostTold })}</li>`}</ul>`}
		<footer class="buttons"><button type="button" data-act="close" onClick=${() => stop()}>${t(state === 'running' ? 'act.stop' : 'close')}</button></footer></div>`;
}

/** Reports whether a replay has tried an entry in vain. One that was skipped was not tried. @param {Result} [result] */
export const inVain = (result) => result?.outcome === 'failed' || result?.outcome === 'kept';

/** Says why an entry stays. @param {{result: Result}} props */
export const Why = ({ result }) => html`${result.outcome === 'failed' ? html`<${Outcome} of="failed" />` : t(`replayed.${result.outcome}`)} <${Reason} of=${result.reason} /> ${result.error && html`<${Value} of=${result.error} />`}`;
