//! Which module may know which: arrows go down only, and siblings never know each other
//! (`ARCHITECTURE.md`, section 1). Unit tests inside the modules are held to it as well. And: every
//! module says what it is for, every dependency why it is there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const BASE: &[&str] = &["domain", "clock", "crypto", "config", "failpoint", "amazon"];
const SEAMS: &[&str] = &["audit", "credentials", "identity", "policy", "store"];

/// Every module of the crate, and what it may know beside itself.
fn rules() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let below_app = [BASE, SEAMS, &["access", "gateway", "postgres", "ssh", "http"]].concat();
    let mut rules = BTreeMap::new();
    let mut rule = |module, may_know: &[&'static str]| {
        assert!(rules.insert(module, may_know.iter().copied().collect()).is_none(), "two rules for {module}");
    };
    rule("domain", &[]);
    rule("crypto", &[]);
    rule("failpoint", &[]);
    rule("amazon", &[]);
    rule("clock", &["domain"]);
    rule("config", &["domain", "crypto"]);
    for seam in SEAMS {
        rule(seam, BASE);
    }
    rule("access", &[BASE, SEAMS].concat());
    rule("gateway", &[BASE, &["audit", "access"]].concat());
    for edge in ["postgres", "ssh", "http"] {
        rule(edge, &[BASE, SEAMS, &["access", "gateway"]].concat());
    }
    rule("lifecycle", &below_app);
    rule("app", &[&below_app[..], &["lifecycle"]].concat());
    rule("cli", &[&below_app[..], &["lifecycle", "app"]].concat());
    rule("main", &["cli"]);
    rules
}

/// Every source file with the module of the crate that it belongs to.
fn sources() -> Vec<(String, PathBuf)> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let module = |path: &PathBuf| {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
    };
    files.into_iter().map(|path| (module(&path), path)).collect()
}

/// The source without lines that are only comment.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The names at the top of `{a, b::c, d::{e, f}}`, which `text` begins with.
fn names_in_braces(text: &str) -> Vec<&str> {
    let (mut depth, mut names, mut at_name) = (0, Vec::new(), false);
    for (index, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match c {
            '}' if depth == 0 => break,
            '{' | ',' if depth == 1 => at_name = true,
            c if at_name && !c.is_whitespace() => {
                names.push(identifier(&text[index..]));
                at_name = false;
            }
            _ => {}
        }
    }
    names
}

/// The modules of this crate that a text names by paths that begin with `prefix`.
fn named<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        // `$crate::`, `mycrate::`, and the tail of a longer chain of `super::` are something else.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:$".contains(c)) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        if rest.starts_with('{') {
            names.extend(names_in_braces(rest));
        } else {
            names.push(identifier(rest));
        }
    }
    names
}

/// What a file knows: paths from the crate's root, and chains of `super` that reach it.
fn known<'a>(path: &Path, code: &'a str) -> BTreeSet<&'a str> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let below = path.strip_prefix(root).unwrap().with_extension("");
    let depth = below.components().filter(|part| part.as_os_str() != "mod").count();
    let mut names: BTreeSet<&str> = named(code, "crate::").into_iter().collect();
    names.extend(named(code, "sallyport::"));
    for supers in depth..depth + 3 {
        names.extend(named(code, &"super::".repeat(supers)));
    }
    names
}

#[test]
fn arrows_go_down_only() {
    let rules = rules();
    let mut broken = Vec::new();
    for (module, path) in sources().into_iter().filter(|(module, _)| module != "lib") {
        let may_know = rules.get(module.as_str()).unwrap_or_else(|| panic!("no rule for `{module}`"));
        let code = code(&path);
        if code.contains("{super::") {
            broken.push(format!(
                "{}: write `super::super::…` out, so that it can be read here",
                path.display()
            ));
        }
        for name in known(&path, &code) {
            let is_module = rules.contains_key(name);
            if is_module && name != module && !may_know.contains(name) {
                broken.push(format!("{}: `{module}` may not know `{name}`", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_module_of_the_map_has_a_rule() {
    let map = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let declared: BTreeSet<&str> =
        map.match_indices("mod ").map(|(at, found)| identifier(&map[at + found.len()..])).collect();
    let rules = rules();
    let unruled: Vec<_> = declared.iter().filter(|name| !rules.contains_key(*name)).collect();
    assert!(declared.len() > 10, "the map was not read: {declared:?}");
    assert!(unruled.is_empty(), "say in this file what these may know: {unruled:?}");
}

#[test]
fn the_domain_is_pure() {
    let impure = ["tokio", "std::fs", "std::env", "std::process", "SystemTime", "Instant::now"];
    let sockets = ["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener"];
    for (_, path) in sources().into_iter().filter(|(module, _)| module == "domain") {
        let code = code(&path);
        for word in impure.iter().chain(&sockets) {
            assert!(
                !code.contains(word),
                "{}: the domain does no I/O and reads no clock: `{word}`",
                path.display()
            );
        }
    }
}

/// An SSH library's types and defaults stay where they can be looked over.
#[test]
fn few_files_name_the_ssh_library() {
    let allowed = ["src/crypto/ssh/mod.rs", "src/ssh/client.rs", "src/ssh/server.rs"];
    for (_, path) in sources() {
        let names_it = code(&path).contains("russh");
        let may = allowed.iter().any(|file| path == Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
        assert!(may || !names_it, "{}: go through `crypto::ssh` instead of `russh`", path.display());
    }
}

#[test]
fn every_module_says_what_it_does() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(_, path)| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|(_, path)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "begin these with `//!` and what they are for: {silent:#?}");
}

#[test]
fn every_direct_dependency_has_its_reason_in_the_readme() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, table) = readme.split_once("| crate | why |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let named: BTreeSet<&str> = table
        .lines()
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|crates| crates.trim().trim_start_matches("*tests:* ").split(", "))
        .collect();
    let direct: BTreeSet<&str> = ["dependencies", "dev-dependencies"]
        .iter()
        .flat_map(|kind| manifest.get(*kind).unwrap().as_table().unwrap().keys())
        .map(String::as_str)
        .collect();
    let unexplained: Vec<_> = direct.difference(&named).collect();
    assert!(unexplained.is_empty(), "say in README.md why these are there: {unexplained:?}");
    let gone: Vec<_> = named.difference(&direct).filter(|name| name.contains(char::is_alphabetic)).collect();
    assert!(gone.is_empty(), "README.md still names: {gone:?}");
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let code = "use crate::{a, b::c, d::{e, crate_f}};\nfn x() { crate::g::h(); $crate::i!(); mycrate::j() }";
    assert_eq!(named(code, "crate::"), ["a", "b", "d", "g"]);
    let code = "use super::super::a::b; use super::c; use super::{super::d, e};";
    assert_eq!(named(code, "super::super::"), ["a"]);
    assert_eq!(named(code, "super::"), ["super", "c", "super", "e", "d"]);
}
