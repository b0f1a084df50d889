// Dense tables. j and k move from row to row, Enter follows a row's link.
import { Component, html, useLayoutEffect, useRef } from './ui.js';

/**
 * @template R
 * @typedef {{key: string, label: unknown, cell: (row: R) => unknown, kind?: string}} Column kind is classes: num, grow, minor (not on narrow screens), code
 */

/**
 * @template R
 * @typedef {{caption: string, columns: Column<R>[], rows: R[], id: (row: R) => string | number, mark?: (row: R) => string, open?: (row: R) => void, moving?: boolean}} Props
 *   id names a row for data-id; mark returns its class; open is called by a click on it and by Enter; moving lets other rows take the places of these, which is quick if all change
 */

/** A row is drawn again only if it, or the columns, are others: keep both for a table that changes often.
 * @extends {Component<{row: any, columns: Column<any>[], of: Props<any>}>} */
class TableRow extends Component {
	/** @param {{row: unknown, columns: unknown}} next */
	shouldComponentUpdate(next) {
		return next.row !== this.props.row || next.columns !== this.props.columns;
	}

	render() {
		const { row, columns, of } = this.props;
		return html`<tr data-id=${of.id(row)} class=${(of.mark?.(row) ?? '') + (of.open ? ' opens' : '')} tabindex="-1" onClick=${() => this.props.of.open?.(row)}>
			${columns.map((c) => html`<td class=${c.kind ?? ''} key=${c.key}>${c.cell(row)}</td>`)}</tr>`;
	}
}

/** @template R @param {Props<R>} props */
export function Table(props) {
	const { caption, columns, rows, id, moving } = props;
	const body = useRef(/** @type {HTMLElement | null} */ (null));
	const focused = /** @type {HTMLElement | null} */ (document.activeElement);
	useLayoutEffect(() => { // a row that is moved loses the focus
		if (document.activeElement === document.body && body.current?.contains(focused)) focused?.focus({ preventScroll: true });
	});
	return html`<div class="scroll" role="region" aria-label=${caption} tabindex="0"><table>
		<caption class="unseen">${caption}</caption>
		<thead><tr>${columns.map((c) => html`<th scope="col" class=${c.kind ?? ''} key=${c.key}>${c.label}</th>`)}</tr></thead>
		<tbody ref=${body}>${rows.map((row, i) => html`<${TableRow} key=${moving ? i : id(row)} row=${row} columns=${columns} of=${props} />`)}</tbody>
	</table></div>`;
}
