//! One result that is larger than any memory, read as it comes: what the gateway grows by meanwhile.

use std::time::Instant;

use futures_util::TryStreamExt as _;
use tokio::runtime::Builder;

use crate::ways::{TARGET, Way, World};

/// Bytes of a row.
const ROW: u64 = 8_192;
/// Gigabytes, unless `RESULT_GB` says how many.
const DEFAULT_GB: u64 = 10;

pub(crate) fn print(world: &World) {
    let wanted = std::env::var("RESULT_GB").ok().and_then(|wanted| wanted.parse().ok());
    let gigabytes = wanted.unwrap_or(DEFAULT_GB);
    let rows = gigabytes * 1_000_000_000 / ROW;
    println!(
        "\n| one result of {gigabytes} GB | MB/s | CPU s/GB | KiB resident before | at most | after |\n|---|---:|---:|---:|---:|---:|"
    );
    let way = Way::Durable;
    // What a process allocates once does not count.
    read(world, way, rows.min(1_000));
    let before = world.resident_kib(way);
    world.forget_peak(way);
    let (began, cpu) = (Instant::now(), world.cpu(way));
    let bytes = read(world, way, rows);
    let seconds = began.elapsed().as_secs_f64();
    let cpu = world.cpu(way).checked_sub(cpu).unwrap().as_secs_f64() / (bytes as f64 / 1e9);
    let (peak, after) = (world.peak_kib(way), world.resident_kib(way));
    assert_eq!(bytes, rows * ROW, "the whole result");
    println!(
        "| {} | {:.0} | {cpu:.2} | {before} | {peak} | {after} |",
        way.name(),
        bytes as f64 / 1e6 / seconds
    );
}

/// Reads so many rows, one by one; gives their bytes.
fn read(world: &World, way: Way, rows: u64) -> u64 {
    let bastion = world.bastion(way).unwrap();
    let (config, tls) = bastion.driver_config("alice", TARGET, &bastion.token("alice"));
    let sql = format!("SELECT repeat('x', {ROW}) FROM generate_series(1, {rows})");
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (client, connection) = config.connect(tls).await.unwrap();
        let read = async {
            let mut bytes = 0;
            let mut rows = Box::pin(client.query_raw::<_, &str, _>(&sql, []).await.unwrap());
            while let Some(row) = rows.try_next().await.unwrap() {
                bytes += row.get::<_, &str>(0).len() as u64;
            }
            bytes
        };
        tokio::select! {
            ended = connection => panic!("{ended:?}"),
            bytes = read => bytes,
        }
    })
}
