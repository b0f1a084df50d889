// What screens with a list and one of its rows beside it share.
import { html, useEffect, useLayoutEffect, useRef, useState } from '../ui.js';
import { status } from '../status.js';
import { Value } from '../text.js';
import { t } from '../words.js';

/** @param {unknown} err */
export const said = (err) => (err instanceof Error ? err.message : String(err));

/** @param {{of: unknown, role?: string, children?: unknown}} props */
export const Problem = ({ of, role = 'alert', children }) => (of ? html`<p class="problem" role=${role}>${typeof of === 'string' ? html`<${Value} of=${of} />` : of} ${children}</p>` : null);

/** The address of a row, or of the list, with the same filters. @param {string} screen @param {string} id @param {URLSearchParams} params */
export const place = (screen, id, params) => `#/${screen}` + (id && '/' + encodeURIComponent(id)) + (params.size ? '?' + params : '');

/** A link in a row that opens at a click anyway. @param {{href: string, here: boolean, children?: unknown}} props */
export const RowLink = ({ href, here, children }) => html`<a href=${href} aria-current=${here ? 'true' : null}
	onClick=${(/** @type {MouseEvent} */ e) => (e.ctrlKey || e.metaKey || e.shiftKey ? e.stopPropagation() : e.preventDefault())}>${children}</a>`;

/** Goes back to the row of what was shown beside the list, once the list has it. @param {string} rest @param {unknown} rows */
export function useReturn(rest, rows) {
	const left = useRef('');
	useEffect(() => {
		if (rest) left.current = rest;
	}, [rest]);
	useLayoutEffect(() => {
		if (rest || !left.current) return;
		/** @type {HTMLElement | null} */ (document.querySelector(`main tr[data-id="${CSS.escape(left.current)}"]`))?.focus();
		left.current = '';
	}, [rest, rows]);
	return left;
}

/** The title of what is beside the list. @param {{close: () => void, title: unknown}} props */
export function Head({ close, title }) {
	const at = useRef(/** @type {HTMLElement | null} */ (null));
	useEffect(() => at.current?.focus({ preventScroll: true }), []);
	return html`<header><h2 tabindex="-1" ref=${at}>${title}</h2><button type="button" class="icon" data-act="close" aria-label=${t('close')} title=${t('close') + ' (Esc)'} onClick=${close}>✕</button></header>`;
}

/**
 * Asks whenever the edge is asked for its state, and when something else is to be asked.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load @param {string} key what is asked
 * @returns {{data: T | null, error: import('../api.js').APIError | null}}
 */
export function useAsked(load, key) {
	const { at } = status.use();
	const [answer, set] = useState(/** @type {{key: string, data: T | null, error: any}} */ ({ key, data: null, error: null }));
	useEffect(() => {
		const gone = new AbortController();
		load(gone.signal).then((data) => set({ key, data, error: null }), (error) => gone.signal.aborted || set((old) => ({ ...old, key, data: old.key === key ? old.data : null, error })));
		return () => gone.abort();
	}, [key, at]);
	return { data: answer.key === key ? answer.data : null, error: answer.error };
}
