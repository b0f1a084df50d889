// A handler with the vendor's client and express. The client calls you back for eight kinds, does not wait
// for what you do, and answers 200 to all others: so each notification goes into a file before the client sees it.
import client from '@green-api/whatsapp-api-client'
import express from 'express'
import { closeSync, fstatSync, fsyncSync, openSync, writeSync } from 'node:fs'

const [host, port] = (process.env.ADDRESS ?? '127.0.0.1:9001').split(':')
const path = process.env.WEBHOOK_PATH ?? '/green-api/webhook'
const maxBytes = Number(process.env.MAX_BYTES ?? 64 << 20)

function keep(body) {
  const file = openSync(process.env.FILE ?? 'notifications.jsonl', 'a')
  try {
    if (fstatSync(file).size + body.length > maxBytes) throw new Error('full: move the file away and work on it')
    // A line end on both sides: a line that a full disk cut short spoils no other one.
    const line = Buffer.from(`\n${body.toString().replace(/[\r\n]+/g, ' ')}\n`)
    if (writeSync(file, line) < line.length) throw new Error('disk full')
    fsyncSync(file)
  } finally { closeSync(file) }
}

const app = express()
app.use(express.json({ limit: '1mb', verify: (request, response, body) => { request.raw = body } }))
app.post(path, (request, response, next) => {
  keep(request.raw)
  response.locals.kept = true
  next()
})
const webhooks = client.webhookAPI(app, path)
webhooks.onIncomingMessageText((data, instance, id, sender, type, text) => { /* your work, quick and without a throw */ })
app.use((problem, request, response, next) => { // what is in the file is taken, whatever a callback threw
  console.error(problem.message)
  if (response.locals.kept) response.sendStatus(200)
  else response.set('Retry-After', '5').sendStatus(503)
})

const server = app.listen(Number(port), host)
process.on('SIGTERM', () => { // finish what is in hand
  server.close(() => process.exit(0))
  setInterval(() => server.closeIdleConnections(), 20)
})
