//! Memory of idle connections, each after a query. One pgbench holds them, asleep.

use std::path::Path;
use std::process::Stdio;

use crate::support::process::{Running, wait_until};
use crate::ways::{CONNECTIONS, WAYS, Way, World};

/// Connections before it is measured, so that what a process allocates once does not count.
const WARM_UP: usize = 50;
const QUERY: &str = "SELECT 'held'";

pub(crate) fn print(world: &World, directory: &Path) {
    let script = directory.join("held.sql");
    std::fs::write(&script, format!("{QUERY};\n\\sleep 600 s\n")).unwrap();
    println!("\n| KiB per idle connection, {CONNECTIONS} of them, after a query | |\n|---|---:|");
    for way in WAYS.into_iter().skip(1) {
        println!("| {} | {:.1} |", way.name(), kib_each(world, way, &script));
    }
}

fn kib_each(world: &World, way: Way, script: &Path) -> f64 {
    let some = hold(world, way, WARM_UP, script);
    held(world, WARM_UP);
    let before = world.resident_kib(way);
    let rest = hold(world, way, CONNECTIONS - WARM_UP, script);
    held(world, CONNECTIONS);
    let grown = world.resident_kib(way).saturating_sub(before);
    drop((some, rest));
    world.clear(QUERY);
    held(world, 0);
    grown as f64 / (CONNECTIONS - WARM_UP) as f64
}

fn hold(world: &World, way: Way, count: usize, script: &Path) -> Running {
    let mut pgbench = world.client(way, "pgbench");
    pgbench.args(["-n", "-t", "1", "-c", &count.to_string(), "-f"]).arg(script).stdout(Stdio::null());
    Running::start_quietly(&mut pgbench)
}

fn held(world: &World, count: usize) {
    wait_until("connections are idle", || world.idle(QUERY) == count);
}
