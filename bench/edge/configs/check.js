// A check of the body as one writes it by hand: it is JSON, and the fields that handlers look at
// are there. A notification that fails is logged and answered 200.
function broken(n) {
	if (typeof n !== 'object' || n === null || Array.isArray(n)) return 'no object';
	if (typeof n.typeWebhook !== 'string' || n.typeWebhook === '') return 'typeWebhook';
	const instance = n.instanceData;
	if (typeof instance !== 'object' || instance === null) return 'instanceData';
	if (!Number.isInteger(instance.idInstance)) return 'instanceData.idInstance';
	if (typeof instance.wid !== 'string') return 'instanceData.wid';
	if (!Number.isInteger(n.timestamp)) return 'timestamp';
	if (n.typeWebhook === 'incomingMessageReceived') {
		if (typeof n.idMessage !== 'string') return 'idMessage';
		const sender = n.senderData;
		if (typeof sender !== 'object' || sender === null) return 'senderData';
		if (typeof sender.chatId !== 'string') return 'senderData.chatId';
		if (typeof sender.sender !== 'string') return 'senderData.sender';
		const message = n.messageData;
		if (typeof message !== 'object' || message === null) return 'messageData';
		if (typeof message.typeMessage !== 'string') return 'messageData.typeMessage';
		if (message.typeMessage === 'textMessage') {
			const text = message.textMessageData;
			if (typeof text !== 'object' || text === null || typeof text.textMessage !== 'string') return 'messageData.textMessageData';
		}
	}
	return '';
}

function notification(r) {
	let found;
	try {
		found = broken(JSON.parse(r.requestText));
	} catch (e) {
		found = 'no JSON';
	}
	if (found !== '') {
		r.error('broken notification: ' + found);
		r.return(200);
		return;
	}
	r.internalRedirect('@handlers');
}

export default { notification };
