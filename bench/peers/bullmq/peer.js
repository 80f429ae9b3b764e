// BullMQ with node-postgres: one job goes through the members by OFFSET, 500 a batch, one transaction each.
// A run with `sampled` does so many batches, spread evenly over the whole, and no more: the bench extrapolates.
import { createInterface } from "node:readline";
import { Queue, Worker } from "bullmq";
import IORedis from "ioredis";
import pg from "pg";

const BATCH = 500;
const QUEUE = "cycles";
const redis = new IORedis(process.env.BENCH_REDIS_URL, { maxRetriesPerRequest: null });
const url = new URL(process.env.BENCH_DATABASE_URL.replace("@/", "@unix/"));
const pool = new pg.Pool({
  user: url.username,
  host: url.searchParams.get("host"),
  database: url.pathname.slice(1),
  max: 10,
});

const PAGE = `
  SELECT member_id FROM tier_memberships
  WHERE tenant_id = $1 AND tier_id = $2 AND member_id <> $3
    AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now())
  ORDER BY member_id LIMIT ${BATCH} OFFSET $4`;
const INSERT = `
  INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)
  SELECT $1, $2, unnest($3::uuid[]), 100, current_date + 15`;
const ADVANCE = `
  UPDATE bench_runs SET processed = processed + $2, status = CASE WHEN $3 THEN 'Active' ELSE status END
  WHERE run_id = $1`;

async function insertBatch(run, offset, isLast) {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const page = await client.query(PAGE, [run.tenant_id, run.tier_id, run.dead, offset]);
    const members = page.rows.map((row) => row.member_id);
    await client.query(INSERT, [run.tenant_id, run.run_id, members]);
    await client.query(ADVANCE, [run.run_id, members.length, isLast]);
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
}

async function createContributions(job) {
  const found = await pool.query("SELECT * FROM bench_runs WHERE run_id = $1", [job.data.run_id]);
  const run = found.rows[0];
  const counted = await pool.query(
    `SELECT count(*)::int AS total FROM tier_memberships WHERE tenant_id = $1 AND tier_id = $2 AND member_id <> $3
       AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now())`,
    [run.tenant_id, run.tier_id, run.dead],
  );
  const total = counted.rows[0].total;
  const batches = Math.ceil(total / BATCH);
  const step = job.data.sampled ? batches / job.data.sampled : 1;
  for (let at = 0; at < batches; at += step) {
    await insertBatch(run, Math.floor(at) * BATCH, at + step >= batches);
    await job.updateProgress(Math.floor((100 * at) / batches));
  }
}

const say = (word) => process.stdout.write(`${word}\n`);

if (process.argv[2] === "worker") {
  const worker = new Worker(QUEUE, createContributions, { connection: redis, concurrency: 2 });
  worker.on("failed", (_, error) => process.stderr.write(`${error.stack}\n`));
  await worker.waitUntilReady();
  say("ready");
} else if (process.argv[2] === "client") {
  const queue = new Queue(QUEUE, { connection: redis });
  say("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    await pool.query("INSERT INTO bench_runs (run_id, tenant_id, tier_id, dead) VALUES ($1, $2, $3, $4)", [
      order.run_id,
      order.tenant_id,
      order.tier_id,
      order.dead,
    ]);
    await queue.add("create", { run_id: order.run_id, sampled: order.sampled }, { attempts: 10 });
    say("done");
  }
  process.exit(0);
}
