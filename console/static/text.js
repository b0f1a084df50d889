// Shows text from outside: what it says, and nothing that it does.
import { html } from './ui.js';

// Controls, zero-width and bidirectional characters, separators of lines, halves of pairs, and what has no glyph.
const unseen = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\u115f\u1160\u3164\uffa0]/gu;

/** Returns a text in which each such character is named, as in ‹U+202E›.
 * @param {unknown} text */
export const visible = (text) =>
	String(text ?? '').replace(unseen, (c) => '‹U+' + (c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0') + '›');

/** A value from outside. It cannot turn around what stands beside it.
 * @param {{of: unknown, class?: string}} props */
export function Value({ of, class: name }) {
	const text = visible(of);
	return html`<bdi class=${'value ' + (name ?? '')} title=${text}>${text}</bdi>`;
}

/** A constant that one can search the log for, such as a reason.
 * @param {{of: unknown}} props */
export const Code = ({ of }) => html`<code dir="ltr">${visible(of)}</code>`;
