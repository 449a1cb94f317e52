//! Files: sftp, scp, rsync, git, tar; what arrives, and what is on record of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::Value;

use crate::support::process::wait_until;
use crate::way::{Case, NAME, Way, fed, noise, same, seen, sha256};

const MIB: usize = 1024 * 1024;

/// A tree of files with what copying may lose; and its description.
fn plant(at: &Path) -> String {
    fs::create_dir_all(at.join("deep/er")).unwrap();
    fs::write(at.join("empty"), "").unwrap();
    fs::write(at.join("a name with spaces 'and' ü"), "named\n").unwrap();
    fs::write(at.join("deep/noise"), noise(3_000_001, 21)).unwrap();
    fs::write(at.join("deep/er/script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("deep/er/script"), fs::Permissions::from_mode(0o751)).unwrap();
    for name in ["empty", "deep/noise", "deep/er/script"] {
        let file = fs::File::options().write(true).open(at.join(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
    }
    tree(at, true)
}

/// Everything under a directory: names, modes, contents, and times where they are kept.
fn tree(at: &Path, times: bool) -> String {
    let mut lines = Vec::new();
    let mut directories = vec![at.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(at).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                lines.push(format!("{name}/"));
                directories.push(path);
            } else {
                let old = times && meta.mtime() == 1_000_000_000;
                let sum = sha256(&fs::read(&path).unwrap());
                lines.push(format!("{name} {:o} {old} {sum}", meta.mode() & 0o777));
            }
        }
    }
    lines.sort();
    lines.join("\n")
}

/// What `sftp` says to a batch of commands.
fn sftp(way: &Way<'_>, batch: &str) -> String {
    let mut command = way.client("sftp");
    fed(command.args(["-b", "-", NAME]), batch.into()).to_string()
}

fn scp(way: &Way<'_>, options: &[&str], from: &str, to: &str) {
    let mut command = way.client("scp");
    let seen = seen(command.args(options).args([from, to])).success();
    assert!(seen.stderr.is_empty(), "{seen}");
}

/// There and back again with `options`.
fn scp_tree(way: &Way<'_>, options: &[&str]) -> String {
    let planted = plant(&way.path("tree"));
    scp(way, options, &way.place("tree"), &format!("{NAME}:{}", way.place("there")));
    scp(way, options, &format!("{NAME}:{}", way.place("there")), &way.place("back"));
    assert_eq!(tree(&way.path("there"), true), planted);
    assert_eq!(tree(&way.path("back"), true), planted);
    planted
}

fn rsync(way: &Way<'_>, options: &[&str], from: &str, to: &str) -> String {
    let mut command = way.program("rsync");
    command.args(["-e", &way.ssh_line(), "--info=name1,del1"]).args(options).args([from, to]);
    seen(&mut command).success().text()
}

const CASES: &[Case] = &[
    ("sftp: put, get, ls, mkdir, rename, chmod, rm", |way| {
        fs::write(way.path("local"), noise(300_000, 22)).unwrap();
        let dir = way.place("");
        let batch = format!(
            "cd {dir}\nmkdir made\nput local made/sent\nrename made/sent made/renamed\nchmod 640 made/renamed\n\
             symlink made/renamed made/link\nls -1 made\nget made/renamed back\nrm made/link\nrm made/renamed\nls made\n\
             rmdir made\npwd\ndf\n",
        );
        let said = sftp(way, &batch);
        assert_eq!(fs::read(way.path("back")).unwrap(), noise(300_000, 22));
        assert!(!way.path("made").exists() && said.contains("made/renamed"), "{said}");
        // How full the disk is changes.
        said.split("Size").next().unwrap().to_owned()
    }),
    ("sftp: 64 MB there and back", |way| {
        fs::write(way.path("local"), noise(64 * MIB, 23)).unwrap();
        let said = sftp(way, &format!("put local {0}\nget {0} back\n", way.place("there")));
        let sums = ["local", "there", "back"].map(|name| sha256(&fs::read(way.path(name)).unwrap()));
        assert!(sums[0] == sums[1] && sums[1] == sums[2], "{sums:?}");
        said
    }),
    ("sftp: what was interrupted goes on", |way| {
        let bytes = noise(5_000_000, 24);
        fs::write(way.path("there"), &bytes).unwrap();
        fs::write(way.path("back"), &bytes[..1_234_567]).unwrap();
        fs::write(way.path("up"), &bytes[..2_345_678]).unwrap();
        let said = sftp(way, &format!("reget {} back\nreput back {}\n", way.place("there"), way.place("up")));
        assert!(fs::read(way.path("back")).unwrap() == bytes && fs::read(way.path("up")).unwrap() == bytes);
        said
    }),
    ("sftp: what is not there, or not allowed", |way| {
        fs::create_dir(way.path("full")).unwrap();
        fs::write(way.path("full/file"), "").unwrap();
        [
            "get /no/such/file",
            "rmdir full",
            "mkdir full",
            "rename nothing something",
            "put config /no/such/file",
        ]
        .map(|line| sftp(way, &format!("cd {}\n{line}\n", way.place(""))))
        .join("\n")
    }),
    ("sftp: a whole tree there and back, with times", |way| {
        let planted = plant(&way.path("tree"));
        let there = way.place("there");
        let said = sftp(way, &format!("put -Rp tree {there}\nget -Rp {there} back\n"));
        assert_eq!(
            (tree(&way.path("there"), true), tree(&way.path("back"), true)),
            (planted.clone(), planted)
        );
        said
    }),
    ("scp: a tree both ways with times", |way| scp_tree(way, &["-rp"])),
    ("scp, the old protocol: a tree both ways with times", |way| scp_tree(way, &["-O", "-rp"])),
    ("scp: what is not there", |way| {
        let from = format!("{NAME}:/no/such/file");
        let told = [&["-O"][..], &[]].map(|options| {
            let mut command = way.client("scp");
            seen(command.args(options).args([&from, "here"])).complains(1, "No such file")
        });
        told.join("\n")
    }),
    ("scp: between two hosts through here", |way| {
        fs::write(way.path("one"), noise(1_000_000, 25)).unwrap();
        scp(way, &["-3"], &format!("{NAME}:{}", way.place("one")), &format!("{NAME}:{}", way.place("two")));
        sha256(&fs::read(way.path("two")).unwrap())
    }),
    ("rsync: both ways, then only what changed, then what is gone", |way| {
        plant(&way.path("tree"));
        let (here, there) = (way.place("tree/"), format!("{NAME}:{}", way.place("there/")));
        let mut said =
            vec![rsync(way, &["-a"], &here, &there), rsync(way, &["-a", "--checksum"], &here, &there)];
        let mut changed = fs::read(way.path("tree/deep/noise")).unwrap();
        changed[1_500_000] ^= 1;
        changed.extend_from_slice(b"longer");
        fs::write(way.path("tree/deep/noise"), changed).unwrap();
        fs::remove_file(way.path("tree/empty")).unwrap();
        said.push(rsync(way, &["-a", "--delete", "--checksum", "--no-whole-file"], &here, &there));
        assert_eq!(tree(&way.path("there"), true), tree(&way.path("tree"), true));
        said.push(rsync(way, &["-a", "-z"], &there, &way.place("back/")));
        assert_eq!(tree(&way.path("back"), true), tree(&way.path("tree"), true));
        // The directory itself is named where a second passed since it was changed.
        said.join("---\n").replace("./\n", "")
    }),
    ("git: clone, push, fetch", |way| {
        let git = |at: &str, arguments: &[&str]| {
            let mut command = way.program("git");
            command
                .env("GIT_SSH_COMMAND", way.ssh_line())
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .current_dir(way.path(at));
            command.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]);
            seen(command.args(arguments)).success()
        };
        git("", &["init", "-q", "--bare", "there"]);
        let url = format!("ssh://{NAME}{}", way.place("there"));
        git("", &["clone", "-q", &url, "one"]);
        fs::write(way.path("one/file"), noise(2_000_000, 26)).unwrap();
        git("one", &["add", "file"]);
        git("one", &["commit", "-qm", "First"]);
        git("one", &["push", "-q", "origin", "HEAD:main"]);
        git("", &["clone", "-q", "-b", "main", &url, "two"]);
        git("two", &["fetch", "-q"]);
        git("two", &["fsck", "--full"]);
        sha256(&fs::read(way.path("two/file")).unwrap())
    }),
    ("tar through a pipe, both ways", |way| {
        let planted = plant(&way.path("tree"));
        for name in ["there", "back"] {
            fs::create_dir(way.path(name)).unwrap();
        }
        let (ssh, tar) = (way.ssh_line(), "tar --format=posix");
        let up = format!("{tar} -cC {} . | {ssh} {NAME} 'tar xpC {}'", way.place("tree"), way.place("there"));
        seen(way.program("sh").args(["-c", &up])).gives(0, "");
        let down =
            format!("{ssh} {NAME} '{tar} -cC {} .' | tar xpC {}", way.place("there"), way.place("back"));
        seen(way.program("sh").args(["-c", &down])).gives(0, "");
        assert_eq!(tree(&way.path("back"), true), planted);
        planted
    }),
];

#[test]
fn files_arrive_through_the_gateway_as_they_do_directly() {
    let hosts = crate::hosts();
    same(&hosts, CASES);
    hosts.bastion.verify().success();
}

/// The finished operations on a path that ends so, as `(tool, op, read, written, sha256, outcome)`.
fn on_record(records: &[Value], name: &str) -> Vec<String> {
    let done = records.iter().filter(|file| {
        let path = file["path"].as_str().unwrap_or_default();
        file["phase"] == "answered" && path.ends_with(name)
    });
    let line = |file: &Value| {
        let text = |field: &str| match &file[field] {
            Value::String(text) => text.clone(),
            Value::Null => "-".into(),
            other => other.to_string(),
        };
        ["tool", "op", "read", "written", "sha256", "outcome"].map(text).join(" ")
    };
    done.map(line).collect()
}

#[test]
fn each_file_that_was_copied_is_on_record_with_its_hash() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let bytes = noise(2_500_001, 27);
    let sum = sha256(&bytes);
    fs::write(way.path("local"), &bytes).unwrap();
    sftp(
        &way,
        &format!(
            "put local {0}/by-sftp\nget {0}/by-sftp one\nrename {0}/by-sftp {0}/moved\nrm {0}/moved\nget {0}/nothing\n",
            way.place("")
        ),
    );
    for (option, name) in [("-O", "by-old"), ("-q", "by-new")] {
        scp(&way, &[option], &way.place("local"), &format!("{NAME}:{}", way.place(name)));
        scp(&way, &[option], &format!("{NAME}:{}", way.place(name)), &way.place("two"));
    }
    wait_until("all are on record", || hosts.records("ended").len() == 5);
    let files = hosts.records("file");
    let has = |name: &str, line: String| {
        let found = on_record(&files, name);
        assert!(found.contains(&line), "{name}: {line} is not among {found:#?}");
    };
    let size = bytes.len();
    has("by-sftp", format!("sftp open - {size} {sum} done"));
    has("by-sftp", format!("sftp open {size} - {sum} done"));
    has("by-sftp", "sftp posix-rename - - - done".into());
    has("moved", "sftp remove - - - done".into());
    has("by-new", format!("sftp open - {size} {sum} done"));
    has("by-new", format!("sftp open {size} - {sum} done"));
    // The sender names the file as it is called where it comes from.
    has("local", format!("scp scp-file - {size} {sum} done"));
    has("by-old", format!("scp scp-file {size} - {sum} done"));
    hosts.bastion.verify().success();
}

#[test]
fn rsync_and_git_are_on_record_as_what_they_are() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    plant(&way.path("tree"));
    rsync(&way, &["-a"], &way.place("tree/"), &format!("{NAME}:{}", way.place("there/")));
    let mut command = way.program("git");
    command.env("GIT_SSH_COMMAND", way.ssh_line());
    seen(command.args(["ls-remote", &format!("ssh://{NAME}/no/such/repository")]));
    wait_until("both are on record", || hosts.records("ended").len() == 2);
    let hints: Vec<_> = hosts.records("program").iter().map(|program| program["hint"].clone()).collect();
    assert_eq!(hints, ["rsync", "git"]);
    let notices = hosts.records("notice");
    let texts: Vec<_> = notices.iter().filter_map(|notice| notice["text"].as_str()).collect();
    assert!(texts.iter().any(|text| text.starts_with("both sides speak rsync, protocol ")), "{texts:?}");
    assert!(hosts.records("stream_end").iter().any(|end| end["bytes"].as_u64().unwrap() > 3_000_000));
}
