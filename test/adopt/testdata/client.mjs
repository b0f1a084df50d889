// The vendor's client on express as its own page shows it, with functions that say what they were given.
import client from '@green-api/whatsapp-api-client'
import express from 'express'

const say = (...what) => console.log(JSON.stringify(what))
const app = express()
app.use(express.json())
const webhooks = client.webhookAPI(app, '/webhooks')
webhooks.onIncomingMessageText((data, instance, id, sender, type, text) => {
  if (text === 'throw') throw new Error('thrown')
  if (text === 'reject') return Promise.reject(new Error('rejected'))
  return new Promise((done) => setTimeout(() => { say('text', text); done() }, 1500))
})
webhooks.onIncomingMessageFile((data, instance, id, sender, type, url) => say('file', type, url === undefined))
webhooks.onIncomingMessageExtendedText((data, instance, id, sender, type, text) => say('extended', text === undefined))
app.listen(Number(process.env.ADDRESS.split(':')[1]), '127.0.0.1')
