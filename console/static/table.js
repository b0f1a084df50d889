// Dense tables. j and k move from row to row, Enter follows a row's link.
import { html } from './ui.js';

/**
 * @template R
 * @typedef {{key: string, label: unknown, cell: (row: R) => unknown, kind?: string}} Column kind is classes: num, grow, minor (not on narrow screens), code
 */

/**
 * @template R
 * @param {{caption: string, columns: Column<R>[], rows: R[], id: (row: R) => string | number, mark?: (row: R) => string, open?: (row: R) => void}} props
 *   id names a row for data-id; mark returns its class; open is called by a click on it and by Enter
 */
export function Table({ caption, columns, rows, id, mark, open }) {
	return html`<div class="scroll" role="region" aria-label=${caption} tabindex="0"><table>
		<caption class="unseen">${caption}</caption>
		<thead><tr>${columns.map((c) => html`<th scope="col" class=${c.kind ?? ''} key=${c.key}>${c.label}</th>`)}</tr></thead>
		<tbody>${rows.map((row) => html`<tr key=${id(row)} data-id=${id(row)} class=${(mark?.(row) ?? '') + (open ? ' opens' : '')} tabindex="-1" onClick=${open && (() => open(row))}>
			${columns.map((c) => html`<td class=${c.kind ?? ''} key=${c.key}>${c.cell(row)}</td>`)}</tr>`)}</tbody>
	</table></div>`;
}
