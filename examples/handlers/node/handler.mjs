// A handler for what the edge delivers: each notification goes into a file, and then gets its 200.
import { closeSync, fstatSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { createServer } from 'node:http'

const [host, port] = (process.env.ADDRESS ?? '127.0.0.1:9001').split(':')
const maxBytes = Number(process.env.MAX_BYTES ?? 64 << 20)

function keep(body) {
  const file = openSync(process.env.FILE ?? 'notifications.jsonl', 'a')
  try {
    if (fstatSync(file).size + body.length > maxBytes) throw new Error('full: move the file away and work on it')
    // A line end on both sides: a line that a full disk cut short spoils no other one.
    const line = Buffer.from(`\n${body.replace(/[\r\n]+/g, ' ')}\n`)
    if (writeSync(file, line) < line.length) throw new Error('disk full')
    fsyncSync(file)
  } finally { closeSync(file) }
}

const server = createServer(async (request, response) => {
  try {
    keep(Buffer.concat(await request.toArray()).toString())
    response.writeHead(200).end()
  } catch (problem) { // not now: the edge asks another handler, or this one again
    console.error(problem.message)
    response.writeHead(503, { 'Retry-After': '5' }).end()
  }
}).listen(Number(port), host)

process.on('SIGTERM', () => { // finish what is in hand
  server.close(() => process.exit(0))
  setInterval(() => server.closeIdleConnections(), 20)
})
