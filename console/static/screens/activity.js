// To be filled: see the head of app.js.
import { html } from '../ui.js';
import { Screen } from '../parts.js';
import { t } from '../words.js';

export default function Activity() {
	return html`<${Screen} name="activity" title=${t('nav.activity')} state="empty" />`;
}
