//! The audit log's volume fails under the running server: nothing goes on unrecorded, whoever waits is told, and on the
//! mended volume everything that reached a target is on record, with an end.

use std::time::Duration;

use crate::full_disk::is_refused;
use crate::support::load::{Load, Moments, Recorded};
use crate::support::process::pause_for;
use crate::support::volume::{Failure, Volume};
use crate::support::{Bastion, Postgres};

/// A server whose audit log is on a volume; none where there can be no such volume.
fn start() -> Option<(Postgres, Bastion, Volume)> {
    let volume = match Volume::new() {
        Ok(volume) => volume,
        Err(lacks) => {
            #[expect(clippy::print_stderr, reason = "a test says why it tests nothing")]
            {
                eprintln!("skipped: {lacks}");
            }
            return None;
        }
    };
    let options = crate::audit_on(&volume.path(), &volume.outside(), volume.wrapper());
    let (postgres, bastion) = crate::start(options);
    Some((postgres, bastion, volume))
}

/// All that reached the target is on record, and every recording has its end. Gives how many a crash ended.
fn is_whole(bastion: &Bastion, postgres: &Postgres, load: &Load) -> usize {
    let mut recorded = Recorded::default();
    bastion.each_record(|record| recorded.take(&record));
    recorded.has_all_of(postgres, load, 0);
    bastion.verify().success().says("0 without an end");
    recorded.all_have_ended()
}

/// `says`: one of these is why, for the operator.
fn fails(failure: Failure, says: &[&str]) {
    let Some((postgres, mut bastion, volume)) = start() else { return };
    let (mut bystander, _) = crate::Wire::session(&bastion, "alice", "ledger-dev");
    let mut load = Load::start(&bastion, Duration::ZERO);
    for _ in 0..20 {
        load.is_at_work();
    }
    volume.fail(failure);
    let (sqlstate, message, _) = bystander.last_words();
    assert_eq!(sqlstate, "58030", "those who only wait are cut as well: {message}");
    is_refused(&bastion, says);
    let answered = load.answered();
    load.stop(&postgres);
    assert_eq!(load.answered(), answered, "nobody was let in and served");
    let stopped = bastion.stop().failure();
    assert_ne!(stopped.code(), 101, "its stop cannot be recorded, which is no panic");

    volume.mend();
    bastion.boot();
    assert_eq!(crate::ready(&bastion).0, 200);
    let mut psql = bastion.client("psql", "alice", "ledger-dev+dba");
    psql.args(["-XAtqc", "SELECT 'goes on'"]);
    crate::support::Finished::from(psql.output().unwrap()).success().says("goes on");
    bastion.stop().success();
    assert!(is_whole(&bastion, &postgres, &load) > 0, "connections were open when it failed");
}

#[test]
fn a_file_system_that_turns_read_only_cuts_connections_before_anything_goes_unrecorded() {
    fails(Failure::ReadOnly, &["Read-only file system"]);
}

#[test]
fn io_errors_cut_connections_before_anything_goes_unrecorded() {
    // Where the file system's own journal meets them first, it is the file system that turns read-only.
    fails(Failure::BadBlocks, &["Input/output error", "Read-only file system"]);
}

#[test]
fn a_volume_that_is_gone_cuts_connections_before_anything_goes_unrecorded() {
    fails(Failure::Yanked, &["Input/output error"]);
}

/// G1 where it counts: what the kernel had not yet written is lost, as in a power cut.
#[test]
fn whatever_reached_the_target_is_on_the_volume_wherever_its_power_is_cut() {
    const CUTS: usize = 5;
    let Some((postgres, mut bastion, volume)) = start() else { return };
    let mut load = Load::start(&bastion, Duration::ZERO);
    let mut moments = Moments(0x5a11_7006);
    for cut in 1..=CUTS {
        load.is_at_work();
        pause_for(Duration::from_millis(moments.next() % 500));
        volume.fail(Failure::Yanked);
        bastion.kill();
        volume.mend();
        bastion.boot();
        bastion.verify().success();
        println!("cut {cut} of {CUTS}: {} statements answered", load.answered());
    }
    load.stop(&postgres);
    assert_eq!(bastion.stop().code(), 0);
    assert!(is_whole(&bastion, &postgres, &load) >= CUTS, "connections were open when it failed");
}
