// Small parts that all screens use.
import { html, useEffect, useLayoutEffect, useRef, useState } from './ui.js';
import { refresh, status } from './status.js';
import { Time, duration, has, t, tx } from './words.js';
import { now, useNow } from './ui.js';
import { Value } from './text.js';

const shapes = {
	delivered: 'M2.5 6.5 5 9l4.5-6',
	queued: 'M2.5 2.5h7v7h-7z',
	dropped: 'M6 2.2a3.8 3.8 0 1 1 0 7.6 3.8 3.8 0 0 1 0-7.6z',
	quarantined: 'M6 1 11 6 6 11 1 6z',
	refused: 'M6 1.5 11.2 10.5H.8z',
	failed: 'M2.8 2.8l6.4 6.4m0-6.4-6.4 6.4',
};

/** The sign of an outcome: a shape of its own, in its colour. @param {{of: string}} props */
export const Sign = ({ of }) =>
	html`<svg class=${'sign ' + of} viewBox="0 0 12 12" aria-hidden="true"><path d=${shapes[/** @type {keyof typeof shapes} */ (of)]} /></svg>`;

/** @param {{of: string}} props */
export const Outcome = ({ of }) => html`<span class=${'outcome ' + of}><${Sign} of=${of} />${has('outcome.' + of) ? t(`outcome.${of}`) : of}</span>`;

/** A state in a word, with its sign. @param {{level: 'well'|'warn'|'bad'|'off', children?: unknown}} props */
export const State = ({ level, children }) =>
	html`<span class=${'state ' + level}><${Sign} of=${{ well: 'delivered', warn: 'refused', bad: 'failed', off: 'dropped' }[level]} /><span>${children}</span></span>`;

/** A reason, and what it means. @param {{of?: string}} props */
export const Reason = ({ of }) => of ? html`<code dir="ltr" title=${has('reason.' + of) ? t('reason.' + of) : ''}>${of}</code>` : '–';

/** What there is to say where there is nothing to show. @param {{title: unknown, children?: unknown}} props */
export const Empty = ({ title, children }) => html`<div class="empty"><p class="empty-title">${title}</p>${children}</div>`;

/** A share of what there may be. @param {{value: number, most: number, label: string}} props */
export const Meter = ({ value, most, label }) =>
	html`<span class=${'meter' + (value > most * 0.8 ? ' crowded' : '')} role="img" aria-label=${label}><span style=${{ inlineSize: Math.min(100, (100 * value) / (most || 1)) + '%' }}></span></span>`;

/** A command that can be copied. @param {{of: string}} props */
export function Command({ of }) {
	const [copied, set] = useState(false);
	const copy = () => navigator.clipboard?.writeText(of).then(() => {
		set(true);
		setTimeout(set, 1500, false);
	});
	return html`<span class="command"><code dir="ltr" tabindex="0">${of}</code><button type="button" data-act="copy" onClick=${copy}>${t(copied ? 'copied' : 'copy')}</button></span>`;
}

/** A dialog that is open as long as it is drawn. @param {{name: string, title: string, onClose: () => void, children?: unknown}} props */
export function Dialog({ name, title, onClose, children }) {
	const at = useRef(/** @type {HTMLDialogElement | null} */ (null));
	useLayoutEffect(() => {
		const dialog = at.current;
		dialog?.showModal();
		return () => dialog?.close();
	}, []);
	const closed = () => at.current && onClose(); // of one that is gone, the event comes late: another may be open by then
	const outside = (/** @type {MouseEvent} */ e) => e.target === at.current && onClose();
	return html`<dialog ref=${at} data-dialog=${name} aria-label=${title} onCancel=${onClose} onClose=${closed} onMouseDown=${outside}>
		<div class="dialog"><header><h2>${title}</h2><button type="button" class="icon" aria-label=${t('close')} onClick=${onClose}>✕</button></header>${children}</div></dialog>`;
}

/**
 * A screen: its frame, and what stands there until the edge has answered or if it does not.
 * @param {{name: string, title: string, state?: 'ready'|'empty'|'loading', quiet?: boolean, tools?: unknown, children?: unknown}} props
 *   quiet leaves the title to those who do not see; tools stand beside it
 */
export function Screen({ name, title, state = 'ready', quiet, tools, children }) {
	const { data, error } = status.use();
	const heading = useRef(/** @type {HTMLElement | null} */ (null));
	useEffect(() => {
		document.title = title + ' · green-api edge';
	}, [title]);
	useEffect(() => {
		if (Screen.drawn) heading.current?.focus({ preventScroll: true });
		Screen.drawn = true;
	}, [name]);
	const shown = error ? 'unreachable' : data ? state : 'loading';
	return html`<main id="main" data-screen=${name} data-state=${shown}>
		<div class=${quiet ? 'unseen' : 'title'}><h1 tabindex="-1" ref=${heading}>${title}</h1>${tools}</div>
		${error && html`<${Unreachable} />`}
		${data ? children : !error && html`<${Skeleton} />`}
	</main>`;
}
Screen.drawn = false;

/** Where something will be. It shows after 300 ms only. */
const Skeleton = () => html`<div class="skeleton" role="status" aria-label=${t('loading')}><i></i><i></i><i></i><i></i></div>`;

function Unreachable() {
	const { at, error } = status.use();
	const seen = useNow();
	return html`<section class="banner bad" role="alert">
		<${Sign} of="failed" />
		<div><strong>${t('unreachable')}</strong>
		<p>${at ? tx('unreachable.seen', { at: html`<${Time} at=${at} seconds />`, ago: html`<span aria-live="off">${duration(seen - at)}</span>` }) : t('unreachable.never')} <${Value} of=${error?.message} /></p></div>
		<button type="button" onClick=${refresh}>${t('retry')}</button>
	</section>`;
}

/** Reports how long something has taken. @param {string | undefined} since */
export const ago = (since) => (since ? t('ago', { ago: duration(now() - Date.parse(since)) }) : '–');
