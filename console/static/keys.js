// The keyboard: j k Enter, / r ? and what a screen adds. Can be turned off, for those who dictate.
import { html, keep, kept, store, useLayoutEffect } from './ui.js';
import { t } from './words.js';
import { Dialog } from './parts.js';
import { refresh } from './status.js';

export const keys = store({ on: kept('keys') !== 'off', help: false });

/** @type {Map<string, () => void>} what the screen of now does */
const added = new Map();

/** Does something at a key while a component is drawn. @param {string} key as in KeyboardEvent.key @param {() => void} act */
export function useKey(key, act) {
	useLayoutEffect(() => {
		added.set(key, act);
		return () => void (added.get(key) === act && added.delete(key));
	}, [key, act]);
}

/** @param {number} step */
function move(step) {
	const rows = /** @type {HTMLElement[]} */ ([...document.querySelectorAll('main tr[data-id]')]);
	const at = rows.findIndex((row) => row.contains(document.activeElement));
	rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + step))]?.focus();
}

/** @type {{[key: string]: () => void}} */
const usual = {
	j: () => move(1),
	k: () => move(-1),
	'/': () => /** @type {HTMLElement | null} */ (document.querySelector('main [type=search], main select'))?.focus(),
	r: () => void refresh(),
	'?': () => keys.set({ help: true }),
};

document.addEventListener('keydown', (event) => {
	const at = /** @type {HTMLElement} */ (event.target);
	if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
	if (event.key === 'Enter' && at.matches('tr[data-id]')) {
		const link = /** @type {HTMLElement | null} */ (at.querySelector('a, button'));
		return (link ?? at).click();
	}
	if (event.key === 'Escape' && at.matches('input, select')) return at.blur();
	if (at.matches('input, select, textarea') || (event.key === ' ' && at.matches('button, summary, a'))) return;
	if (!keys.get().on && event.key !== 'Escape') return;
	const act = added.get(event.key) ?? usual[event.key];
	if (!act) return;
	event.preventDefault();
	act();
});

const list = [['j k', 'keys.move'], ['Enter', 'keys.open'], ['Esc', 'keys.back'], ['/', 'keys.filter'], ['r', 'keys.refresh'], ['Space', 'keys.pause'], ['?', 'keys.help']];

export function Help() {
	const { on, help } = keys.use();
	if (!help) return null;
	const turn = (/** @type {Event} */ e) => {
		const on = /** @type {HTMLInputElement} */ (e.target).checked;
		keep('keys', on ? 'on' : 'off');
		keys.set({ on });
	};
	return html`<${Dialog} name="help" title=${t('keys')} onClose=${() => keys.set({ help: false })}>
		<dl class="keys">${list.map(([key, what]) => html`<dt>${key.split(' ').map((k) => html`<kbd>${k}</kbd> `)}</dt><dd>${t(what)}</dd>`)}</dl>
		<label class="check"><input type="checkbox" checked=${on} onChange=${turn} /> ${t('keys.on')}</label>
	<//>`;
}
