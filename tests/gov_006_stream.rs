//! GOV-006: what is recorded leaves the machine: in order, whatever the stream does; nothing is lost in an outage or
//! a crash, what lags behind too far ends, and who reads the stream finds what is missing, twice or altered.

mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use support::amazon::{Emulator, FaultProxy, Faults, REGION};
use support::archive::{STREAM, alarms, assert_archived, consume, lines, node_in, streaming, verify};
use support::bastion::run_with_input;
use support::calls::psql_at_work;
use support::{Bastion, Postgres, Shell, wait_until};

#[test]
fn all_that_is_recorded_is_archived_whatever_the_stream_does_and_whenever_we_are_killed() {
    let postgres = Postgres::start();
    let amazon = Emulator::moto();
    amazon.create_stream(STREAM, 3);
    let proxy = FaultProxy::before(&amazon, 0x5a11_7001);
    proxy.set(Faults { partial: 30, throttled: 10, unheard: 15, doubled: 15, down: false });
    // Small records of the stream, so that lines are cut into pieces.
    let mut bastion = Bastion::start_with(&postgres, streaming(&proxy.url(), &["record_bytes = 2048"]));
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    let archive = bastion.scratch().join("archive");
    for round in 0..4 {
        for number in 0..6 {
            let long = "x".repeat(number * 1500);
            bastion.psql("alice", "ledger-dev", &format!("SELECT 'round {round}, {number}{long}'")).success();
        }
        let running = psql_at_work(&bastion, &postgres, "alice", "ledger-dev");
        bastion.kill();
        running.finish().failure();
        if round == 1 {
            // Read in the middle of it all, while shards are split.
            consume(&amazon, STREAM, &archive, &bastion.verify_key(), &["--silent-after", "1h"]);
            amazon.python(
                "kinesis",
                &format!(
                    "s = c.list_shards(StreamName='{STREAM}')['Shards'][0]\n\
                     r = s['HashKeyRange']\n\
                     m = (int(r['StartingHashKey']) + int(r['EndingHashKey'])) // 2\n\
                     c.split_shard(StreamName='{STREAM}', ShardToSplit=s['ShardId'], NewStartingHashKey=str(m))"
                ),
            );
        }
        bastion.boot();
    }
    let (spoiled, _) = proxy.counts();
    assert!(spoiled > 10, "{spoiled} requests were spoiled");
    proxy.set(Faults::default());
    bastion.stop();
    let key = bastion.verify_key();
    let consumed = consume(&amazon, STREAM, &archive, &key, &["--segment-bytes", "20000"]).success();
    assert_eq!(alarms(&consumed), BTreeSet::new());
    assert_archived(&bastion, &archive);
    // Files that are full are compressed, and read all the same.
    let again =
        consume(&amazon, STREAM, &archive, &key, &["--segment-bytes", "1", "--silent-after", "1h"]).success();
    assert_eq!(alarms(&again), BTreeSet::new());
    assert!(node_in(&archive).join("journal-00000001.log.zst").exists());
    assert_archived(&bastion, &archive);
    assert!(lines(&node_in(&archive)).iter().any(|record| record.contains("round 3")));
}

#[test]
fn an_outage_raises_the_alarm_then_ends_what_may_not_lag_behind_and_loses_nothing() {
    let postgres = Postgres::start_with(&["log_statement=all"]);
    let amazon = Emulator::moto();
    amazon.create_stream(STREAM, 2);
    let proxy = FaultProxy::before(&amazon, 0x5a11_7002);
    let limits = ["alarm_age = \"1m\"", "prod = { limit_age = \"10m\" }", "dev = { limit_age = \"2h\" }"];
    let bastion = Bastion::start_with(&postgres, streaming(&proxy.url(), &limits));
    bastion.grant_prod("readonly");
    bastion.grant("alice", "ledger-dev", "readonly", 7200, &[]);
    bastion.psql("alice", "ledger-prod", "SELECT 'before'").success();
    bastion.until_sent();
    let confirmed = bastion.metric("sallyport_stream_confirmed_total");
    assert!(confirmed > 0.0, "{confirmed}");

    proxy.set(Faults { down: true, ..Faults::default() });
    bastion.psql("alice", "ledger-prod", "SELECT 'early in the outage'").success();
    assert_eq!(bastion.events("stream_behind").len(), 0);
    bastion.advance(90);
    wait_until("the alarm is raised", || !bastion.events("stream_behind").is_empty());
    let alarm = bastion.events("stream_behind").remove(0);
    assert_eq!(alarm["outcome"], "failed", "{alarm}");
    assert!(
        alarm["detail"]["seconds"].as_u64().unwrap() >= 60
            && alarm["detail"]["records"].as_u64().unwrap() > 0,
        "{alarm}"
    );
    assert!(bastion.metric("sallyport_stream_backlog_seconds") >= 60.0);
    bastion.psql("alice", "ledger-prod", "SELECT 'still allowed'").success();
    let mut shell = Shell::start(&mut bastion.psql_command("alice", "ledger-prod", &[]));
    shell.types("SELECT 'a connection ' || 'that stays';\n");
    shell.says("a connection that stays");

    bastion.advance(520);
    shell.types("SELECT 'behind the bound';\n");
    shell.says("can no longer be recorded");
    bastion.psql("alice", "ledger-prod", "SELECT 'refused'").failure().says("the audit stream is");
    bastion.psql("alice", "ledger-dev", "SELECT 'dev may'").success();
    let log = postgres.log();
    assert!(log.contains("still allowed") && log.contains("dev may"));
    assert!(
        !log.contains("behind the bound") && !log.contains("'refused'"),
        "what is not recorded is not done"
    );

    proxy.set(Faults::default());
    bastion.advance(10);
    wait_until("it is said to be over", || !bastion.events("stream_caught_up").is_empty());
    bastion.psql("alice", "ledger-prod", "SELECT 'after'").success();
    let mut bastion = bastion;
    bastion.stop();
    let archive = bastion.scratch().join("archive");
    let consumed = consume(&amazon, STREAM, &archive, &bastion.verify_key(), &[]).success();
    assert_eq!(alarms(&consumed), BTreeSet::new());
    assert_archived(&bastion, &archive);
    assert_eq!(bastion.events("stream_behind").len(), 1, "once is enough");
}

#[test]
fn where_the_stream_must_confirm_nothing_reaches_the_target_before_it_does() {
    let postgres = Postgres::start_with(&["log_statement=all"]);
    let amazon = Emulator::moto();
    amazon.create_stream(STREAM, 1);
    let proxy = FaultProxy::before(&amazon, 0x5a11_7003);
    let rule = "prod = { durability = \"stream\", limit_age = \"30s\" }";
    let bastion = Bastion::start_with(&postgres, streaming(&proxy.url(), &[rule]));
    bastion.grant_prod("readonly");
    bastion.grant("alice", "ledger-dev", "readonly", 7200, &[]);
    bastion.psql("alice", "ledger-prod", "SELECT 'confirmed'").success();
    let mut shell = Shell::start(&mut bastion.psql_command("alice", "ledger-prod", &[]));
    shell.types("SELECT 'confirmed ' || 'as well';\n");
    shell.says("confirmed as well");
    proxy.set(Faults { down: true, ..Faults::default() });
    shell.types("SELECT 'never confirmed';\n");
    let recorded = || {
        bastion
            .statements()
            .iter()
            .any(|record| record["sql"].as_str().unwrap_or("").contains("never confirmed"))
    };
    wait_until("it is in the journal", recorded);
    bastion.advance(31);
    shell.says("can no longer be recorded");
    let log = postgres.log();
    assert!(log.contains("'as well'") && !log.contains("never confirmed"));
    // Elsewhere the journal is enough.
    bastion.psql("alice", "ledger-dev", "SELECT 'dev'").success();
}

#[test]
fn who_reads_the_stream_finds_what_is_missing_altered_or_none_of_ours() {
    let postgres = Postgres::start();
    let amazon = Emulator::moto();
    amazon.create_stream(STREAM, 1);
    let mut bastion = Bastion::start_for(&postgres, streaming(&amazon.url(), &[]), &["alice"]);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    for number in 0..5 {
        bastion.psql("alice", "ledger-dev", &format!("SELECT 'number {number}'")).success();
    }
    bastion.stop();
    let key = bastion.verify_key();
    // Copies of the stream, each with something done to it.
    let copies = "\
import time
i = c.get_shard_iterator(StreamName='audit', ShardId='shardId-000000000000', ShardIteratorType='TRIM_HORIZON')['ShardIterator']
records = c.get_records(ShardIterator=i)['Records']
def copy(name, records):
    c.create_stream(StreamName=name, ShardCount=1)
    for key, data in records:
        c.put_record(StreamName=name, PartitionKey=key, Data=data)
whole = [(r['PartitionKey'], r['Data']) for r in records]
at = next(i for i, (k, d) in enumerate(whole) if b'number 2' in d)
k, d = whole[at]
altered = (k, d.replace(b'number 2', b'number 7'))
copy('same', whole + whole)
copy('missing', whole[:at] + whole[at + 1:])
copy('altered-twice', whole + [altered])
copy('altered', whole[:at] + [altered] + whole[at + 1:])
copy('false-first', whole[:at] + [altered] + whole[at:])
copy('rubbish', whole + [('x', b'nothing of ours'), (k, b'sallyport/1 nod-0000000000000000 lines\\nrubbish\\n')])
last = max(i for i, (k, d) in enumerate(whole) if b' checkpoint\\n' in d)
k, d = whole[last]
copy('forged', whole[:last] + [(k, d[:-8] + b'AAAAAA=\\n')] + whole[last + 1:])
";
    amazon.python("kinesis", copies);
    let read = |stream: &str, more: &[&str]| {
        let archive = bastion.scratch().join(stream);
        (consume(&amazon, stream, &archive, &key, more), archive)
    };
    let found = |stream: &str, expected: &[&str]| {
        let (consumed, archive) = read(stream, &["--gap-after", "1ms"]);
        let expected: BTreeSet<String> = expected.iter().map(|kind| (*kind).to_owned()).collect();
        assert_eq!(alarms(&consumed), expected, "{stream}: {}", consumed.stdout);
        assert_eq!(consumed.code(), if expected.is_empty() { 0 } else { 10 }, "{stream}");
        archive
    };
    assert_archived(&bastion, &found("same", &[]));
    // What lacks before records that have only just come may be on its way.
    assert_eq!(alarms(&read("missing", &[]).0), BTreeSet::new());
    found("missing", &["gap"]);
    assert_archived(&bastion, &found("altered-twice", &["different"]));
    found("altered", &["broken", "gap"]);
    found("rubbish", &["malformed", "unknown_node"]);
    found("forged", &["forged"]);
    // A false record in a gap does not keep the right one out.
    assert_archived(&bastion, &found("false-first", &["broken"]));
    let (consumed, archive) = read("same", &["--silent-after", "1ms"]);
    assert_eq!(alarms(&consumed), ["silent".to_owned()].into());
    let told = fs::read_to_string(archive.join("alarms.log")).unwrap();
    assert!(told.contains("\"silent\""), "{told}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one archive, step by step")]
fn closed_files_are_locked_in_a_bucket_and_control_records_go_to_a_log_group() {
    let postgres = Postgres::start();
    let amazon = Emulator::ministack();
    amazon.create_stream(STREAM, 1);
    amazon.python(
        "s3",
        &format!(
            "c.create_bucket(Bucket='archive', ObjectLockEnabledForBucket=True, \
             CreateBucketConfiguration={{'LocationConstraint': '{REGION}'}})"
        ),
    );
    amazon.python("logs", "c.create_log_group(logGroupName='control')");
    let mut bastion = Bastion::start_for(&postgres, streaming(&amazon.url(), &[]), &["alice"]);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    bastion.psql("alice", "ledger-dev", "SELECT 'locked'").success();
    bastion.stop();
    let key = bastion.verify_key();
    let archive = bastion.scratch().join("archive");
    let to =
        ["--s3", "s3://archive/bank", "--retain", "48h", "--log-group", "control", "--segment-bytes", "1"];
    let consumed = consume(&amazon, STREAM, &archive, &key, &to).success();
    assert_eq!(alarms(&consumed), BTreeSet::new());

    // A copy of the bucket is a log that proves itself.
    let node = node_in(&archive).file_name().unwrap().to_str().unwrap().to_owned();
    let copy = bastion.scratch().join("copy");
    fs::create_dir(&copy).unwrap();
    let listed = amazon.python(
        "s3",
        &format!(
            "for o in c.list_objects_v2(Bucket='archive', Prefix='bank/{node}/')['Contents']:\n\
             \x20   c.download_file('archive', o['Key'], '{}/' + o['Key'].split('/')[-1])\n\
             \x20   r = c.get_object_retention(Bucket='archive', Key=o['Key'])['Retention']\n\
             \x20   print(o['Key'], r['Mode'], r['RetainUntilDate'].isoformat())",
            copy.display()
        ),
    );
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.lines().all(|line| line.contains(" COMPLIANCE ")), "{listed}");
    assert_eq!(lines(&copy), lines(&bastion.audit_dir()));
    assert_eq!(verify(&copy, &key)["records"], verify(&bastion.audit_dir(), &key)["covered"]);
    let refused = amazon.python(
        "s3",
        &format!(
            "k = 'bank/{node}/journal-00000001.log.zst'\n\
             v = c.list_object_versions(Bucket='archive', Prefix=k)['Versions'][0]['VersionId']\n\
             try: c.delete_object(Bucket='archive', Key=k, VersionId=v); print('deleted')\n\
             except c.exceptions.ClientError as e: print(e.response['Error']['Code'])"
        ),
    );
    assert_eq!(refused.trim(), "AccessDenied");

    let logged = amazon.python(
        "logs",
        &format!(
            "t, all = None, []\n\
             while True:\n\
             \x20   a = {{'nextToken': t}} if t else {{}}\n\
             \x20   r = c.get_log_events(logGroupName='control', logStreamName='{node}', startFromHead=True, **a)\n\
             \x20   if not r['events']: break\n\
             \x20   all += r['events']; t = r['nextForwardToken']\n\
             print('\\n'.join(e['message'] for e in all))"
        ),
    );
    let mut logged: Vec<&str> = logged.trim().lines().collect();
    let kept = lines(&bastion.audit_dir());
    let mut control: Vec<&str> = kept
        .iter()
        .map(String::as_str)
        .filter(|line| line.contains(&format!("\"rec\":\"{node}\"")))
        .collect();
    logged.sort_unstable();
    control.sort_unstable();
    assert!(control.len() > 5);
    assert_eq!(logged, control);

    // Nothing is written twice; what stands where ours belongs is told.
    let again =
        consume(&amazon, STREAM, &archive, &key, &[&to[..], &["--silent-after", "1h"]].concat()).success();
    assert_eq!(alarms(&again), BTreeSet::new());
    amazon.python(
        "s3",
        &format!("c.put_object(Bucket='archive', Key='other/{node}/journal-00000001.log.zst', Body=b'x')"),
    );
    let elsewhere = ["--s3", "s3://archive/other", "--silent-after", "1h"];
    assert_eq!(alarms(&consume(&amazon, STREAM, &archive, &key, &elsewhere)), ["occupied".to_owned()].into());
}

#[test]
fn journal_files_that_the_stream_has_are_removed_and_what_is_left_proves_itself() {
    let postgres = Postgres::start();
    let amazon = Emulator::moto();
    amazon.create_stream(STREAM, 1);
    let mut options = streaming(&amazon.url(), &[]);
    // Of each file a half is its reserve.
    options
        .settings
        .extend(["segment_bytes = 2097152", "keep_bytes = 2097152"].map(|line| ("audit", line.to_owned())));
    let mut bastion = Bastion::start_for(&postgres, options, &["alice", "erin"]);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    let mut shell = Shell::start(&mut bastion.psql_command("alice", "ledger-dev", &[]));
    shell.types("SELECT 'all ' || 'along';\n");
    shell.says("all along");
    for number in 0..5 {
        let long = "x".repeat(600_000);
        run_with_input(
            bastion.psql_command("alice", "ledger-dev", &[]),
            &format!("SELECT length('{number}{long}');\n"),
        )
        .success();
    }
    let first = bastion.audit_dir().join("journal-00000001.log");
    assert!(first.exists());
    bastion.until_sent();
    bastion.advance(2);
    bastion.psql("alice", "ledger-dev", "SELECT 'so that the position is kept'").success();
    wait_until("the first file is gone", || {
        bastion.advance(61);
        !first.exists()
    });
    let trimmed = bastion.events("journal_trimmed");
    assert!(!trimmed.is_empty());
    let report = verify(&bastion.audit_dir(), &bastion.verify_key());
    assert_eq!(report["begins_at"], trimmed.last().unwrap()["detail"]["records"], "{report}");

    // Killed, with a connection that was opened before all that is left: it is ended, and the archive has all of it.
    bastion.kill();
    drop(shell);
    bastion.boot();
    bastion.psql("alice", "ledger-dev", "SELECT 'after the start'").success();
    bastion.stop();
    verify(&bastion.audit_dir(), &bastion.verify_key());
    let archive = bastion.scratch().join("archive");
    let consumed = consume(&amazon, STREAM, &archive, &bastion.verify_key(), &[]).success();
    assert_eq!(alarms(&consumed), BTreeSet::new());
    let archived = verify(&node_in(&archive), &bastion.verify_key());
    assert_eq!(
        (&archived["unfinished"], archived.get("begins_at")),
        (&Value::Array(Vec::new()), None),
        "{archived}"
    );
    let (whole, left) = (lines(&node_in(&archive)), lines(&bastion.audit_dir()));
    assert_eq!(whole[whole.len() - left.len()..], left);
    assert!(whole.iter().any(|line| line.contains("all ' || 'along")));
}
