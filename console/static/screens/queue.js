// To be filled: see the head of app.js.
import { html } from '../ui.js';
import { Screen } from '../parts.js';
import { t } from '../words.js';

export default function Queue() {
	return html`<${Screen} name="queue" title=${t('nav.queue')} state="empty" />`;
}
