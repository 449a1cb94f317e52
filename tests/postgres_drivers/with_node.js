// node-postgres: simple and extended queries, named statements, cursors, copies, notifications, cancels, its pool.
'use strict'

const crypto = require('node:crypto')
const fs = require('node:fs')
const { Readable, Writable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const pg = require('pg')
const Cursor = require('pg-cursor')
const { from, to } = require('pg-copy-streams')

// User, password, database and port come from the environment.
const CONFIG = {
  host: 'localhost',
  application_name: 'with_node',
  enableChannelBinding: true,
  ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT, 'utf8'), servername: 'localhost' },
}
const SLEEPING =
  "SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = session_user"
const FIELDS = ['severity', 'code', 'message', 'detail', 'hint', 'position', 'where', 'schema', 'table', 'column',
  'dataType', 'constraint', 'file', 'routine']

function brief(value) {
  if (Buffer.isBuffer(value)) {
    return value.length > 300 ? `<bytes ${value.length} ${hash(value)}>` : value.toString('hex')
  }
  if (typeof value === 'string' && value.length > 1000) return `<string ${value.length} ${hash(value)}>`
  if (Array.isArray(value)) return value.map(brief)
  return value
}

const hash = (data) => crypto.createHash('sha256').update(data).digest('hex')
// Each connection's temporary tables have a schema of their own.
const show = (name, ...values) =>
  console.log(`${name}:`, JSON.stringify(values.map(brief)).replace(/pg_temp_\d+/g, 'pg_temp'))
const fields = (message) => Object.fromEntries(FIELDS.filter((f) => message[f]).map((f) => [f, message[f]]))

async function attempt(name, work) {
  try {
    await work
    show(name, 'no error')
  } catch (error) {
    show(name, error.constructor.name, fields(error))
  }
}

async function rows(client, text, values) {
  return (await client.query({ text, values, rowMode: 'array' })).rows
}

async function parameters(client) {
  const values = [['int2', -32768], ['int4', 2147483647], ['int8', '-9223372036854775808'], ['float8', 1.5e-300],
    ['float8', -Infinity], ['numeric', '-12345678901234567890.0123456789'], ['text', "ünï ☃ 𝄞 ' \\ \" $1\n\t"],
    ['text', ''], ['text', null], ['bool', true], ['bytea', Buffer.from([0, 1, 255])], ['bytea', Buffer.alloc(0)],
    ['uuid', '00112233-4455-6677-8899-aabbccddeeff'], ['date', '2026-02-28'], ['time', '23:59:59.999999'],
    ['timestamptz', new Date(Date.UTC(2026, 0, 31, 12))], ['interval', '-3 days 7.5 seconds'], ['int4[]', [1, null, -3]],
    ['text[]', ['a,b', '', null, 'q"\\', 'ü']], ['int8[]', [[1, 2], [3, 4]]], ['json', { a: [1, null, 'ü'] }],
    ['jsonb', { b: { c: 1.5 } }]]
  for (const [kind, value] of values) {
    show(kind, ...(await rows(client, `SELECT $1::${kind}, pg_typeof($1::${kind})::text`, [value])))
    if (kind.endsWith('[]')) continue // pg-types reads NULL in a binary array as a length.
    const result = await client.query({ text: `SELECT $1::${kind} AS v`, values: [value], binary: true })
    show(`${kind}, binary`, result.fields[0].format, result.rows[0].v)
  }
  show('empty and null', ...(await rows(client, 'SELECT $1::text, $2::text, $3::bytea', ['', null, Buffer.alloc(0)])))
  const [text, data] = ['ü☃x'.repeat(2 ** 24 / 6), Buffer.alloc(2 ** 24, 'abc\0\xff', 'latin1')]
  show('16 MB', ...(await rows(client, 'SELECT $1::text, $2::bytea, length($1::text)', [text, data])))
  const result = await client.query('SELECT 1 AS a, 2 AS a, NULL AS "ü"')
  show('fields', result.command, result.rowCount, result.fields.map((f) => [f.name, f.dataTypeID, f.format]))
}

async function prepared(client) {
  for (let n = 0; n < 200; n += 1) {
    const result = await client.query({ name: 'double', text: 'SELECT $1::int4 * 2 AS prepared', values: [n] })
    if (result.rows[0].prepared !== n * 2) show('wrong', n, result.rows)
  }
  // Sent before the first is answered.
  const queries = [...Array(100).keys()].map((n) => rows(client, 'SELECT $1::int4 AS queued', [n]))
  show('queued', (await Promise.all(queries)).flat(2))
  show('prepared', await rows(client, 'SELECT name, statement FROM pg_prepared_statements'))
  await client.query('DEALLOCATE ALL')
  await attempt('deallocated', client.query({ name: 'double', text: 'SELECT $1::int4 * 2 AS prepared', values: [1] }))
  await attempt('bad name', client.query({ name: 'bad', text: 'SELECT $1::nowhere', values: [1] }))
  show('goes on', await rows(client, 'SELECT 1'))
}

async function cursors(client) {
  const cursor = client.query(new Cursor('SELECT n, n * n AS s FROM generate_series(1, $1::int4) n', [25]))
  for (const count of [10, 10, 10]) show('read', await cursor.read(count))
  await cursor.close()
  const closed = client.query(new Cursor('SELECT generate_series(1, 100000)'))
  show('first', (await closed.read(3)).length)
  await closed.close()
  const failing = client.query(new Cursor('SELECT 10 / (3 - n) FROM generate_series(1, 5) n'))
  await attempt('failing', failing.read(10))
  show('goes on', await rows(client, 'SELECT 2'))
}

async function copies(client) {
  await client.query('CREATE TEMP TABLE copied (n int4, t text)')
  const lines = [...Array(20000).keys()].map((n) => `${n}\t${n % 3 ? `ü${n}` : '\\N'}\n`)
  const sink = client.query(from('COPY copied FROM STDIN'))
  await pipeline(Readable.from(lines), sink)
  show('in', sink.rowCount)
  for (const options of ['', '(FORMAT csv, HEADER)', '(FORMAT binary)']) {
    const chunks = []
    const source = client.query(to(`COPY (SELECT * FROM copied ORDER BY n) TO STDOUT ${options}`))
    await pipeline(source, new Writable({ write(chunk, _, done) { chunks.push(chunk); done() } }))
    show(`out ${options}`, source.rowCount, Buffer.concat(chunks))
    if (options === '(FORMAT binary)') {
      const again = client.query(from('COPY copied FROM STDIN (FORMAT binary)'))
      await pipeline(Readable.from([Buffer.concat(chunks)]), again)
      show('in, binary', again.rowCount)
    }
  }
  await attempt('bad row', pipeline(Readable.from(['not a number\tx\n']), client.query(from('COPY copied FROM STDIN'))))
  const broken = client.query(from('COPY copied FROM STDIN'))
  broken.write('1\tnever\n')
  await new Promise((resolve) => { broken.on('error', resolve).on('close', resolve).destroy() })
  show('rows', await rows(client, 'SELECT count(*) FROM copied'))
}

async function transactions(client) {
  await client.query('CREATE TEMP TABLE kept (n int CHECK (n < 10))')
  await client.query('BEGIN')
  await client.query('INSERT INTO kept VALUES ($1)', [1])
  await client.query('SAVEPOINT inner_point')
  await attempt('check', client.query('INSERT INTO kept VALUES ($1)', [11]))
  await attempt('in a failed transaction', client.query('SELECT 1'))
  await client.query('ROLLBACK TO inner_point')
  await client.query('COMMIT')
  show('kept', await rows(client, 'TABLE kept'))
  await attempt('syntax', client.query('SELEC 1'))
  await attempt('position', client.query("SELECT 'ünï', nowhere FROM accounts WHERE id = $1", [1]))
  await attempt('raised', client.query(`DO $$ BEGIN RAISE EXCEPTION 'mine ü' USING ERRCODE = 'P0042', DETAIL = 'so',
    HINT = 'do', COLUMN = 'c', TABLE = 't', SCHEMA = 's', DATATYPE = 'd', CONSTRAINT = 'k'; END $$`))
  await attempt('too many parameters', client.query('SELECT $1::int4', [1, 2]))
  const told = []
  client.on('notice', (notice) => told.push(fields(notice)))
  await client.query("DO $$ BEGIN RAISE NOTICE 'n ü'; RAISE WARNING 'w' USING HINT = 'h'; END $$")
  show('notices', told)
  const several = await client.query("SELECT 1 AS a; SELECT 2 AS b, 3 AS c; SET work_mem = '1MB'; SELECT 'ü'")
  show('several statements', several.map((one) => [one.command, one.rows]))
  await attempt('several with an error', client.query('INSERT INTO kept VALUES (5); SELECT 1/0; SELECT 3'))
  show('kept', await rows(client, 'TABLE kept'))
  show('empty', (await client.query('')).rows, (await client.query(' ; -- x')).rows)
}

async function notifications(client) {
  const listener = new pg.Client(CONFIG)
  await listener.connect()
  const heard = new Promise((resolve) => {
    const all = []
    listener.on('notification', ({ channel, payload }) => { if (all.push([channel, payload]) === 2) resolve(all) })
  })
  await listener.query('LISTEN news')
  await client.query("SELECT pg_notify('news', $1)", ['one ü'])
  await client.query("NOTIFY news, 'two'")
  show('heard', await heard)
  await listener.end()
}

async function cancels(client) {
  const watcher = new pg.Client(CONFIG)
  await watcher.connect()
  const query = new pg.Query('SELECT pg_sleep(600)')
  const slept = new Promise((resolve) => { query.once('error', resolve); query.once('end', resolve) })
  client.query(query)
  while ((await watcher.query(SLEEPING)).rows[0].n === 0);
  new pg.Client(CONFIG).cancel(client, query)
  show('cancelled', fields(await slept))
  show('goes on', await rows(client, 'SELECT 42'))
  await watcher.end()
}

async function pools() {
  const single = new pg.Pool({ ...CONFIG, max: 1 })
  for (let round = 0; round < 3; round += 1) {
    const client = await single.connect()
    show('fresh', await rows(client, "SELECT current_setting('my.mark', true)"))
    await client.query("SET my.mark = 'left behind'")
    await client.query({ name: 'pooled', text: 'SELECT $1::int4 AS pooled', values: [round] })
    await client.query('RESET ALL')
    client.release()
  }
  await single.query('DISCARD ALL')
  show('after DISCARD ALL', (await single.query('SELECT $1::text AS t', ['ü'])).rows)
  await single.end()
  const many = new pg.Pool({ ...CONFIG, max: 4 })
  const sums = await Promise.all([...Array(16).keys()].map((n) => many.query('SELECT $1::int4 + 1 AS n', [n])))
  show('sixteen at once', sums.map((one) => one.rows[0].n))
  await many.end()
}

async function main() {
  const client = new pg.Client(CONFIG)
  await client.connect()
  for (const part of [parameters, prepared, cursors, copies, transactions, notifications, cancels]) {
    console.log(`== ${part.name}`)
    await part(client)
  }
  await client.end()
  console.log('== pools')
  await pools()
}

main().catch((error) => { console.error(error); process.exitCode = 1 })
