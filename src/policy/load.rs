//! Reads policies and their schema, and refuses them as a whole, with every mistake at once, unless
//! all hold together:
//!
//! 1. every file parses, and every policy carries an `@id` of its own; a `forbid` also `@needs`;
//! 2. all policies are valid, strictly and without warnings, against the schema;
//! 3. the schema accepts what Sallyport will supply with each query.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{Effect, Policy as Rule, PolicyId, PolicySet, Schema, ValidationMode, Validator};

use super::cedar::{ERRONEOUS, NO_PERMIT, PLACEHOLDERS};
use super::entities;
use crate::crypto;

pub(super) const SCHEMA_FILE: &str = "schema.cedarschema";

/// One file of policies, or the schema, as it was read.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Its name within the directory: what the hash covers.
    pub name: String,
    /// Its path, for messages.
    pub path: String,
    pub text: String,
}

#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub schema: Source,
    /// Sorted by name.
    pub policies: Vec<Source>,
}

/// What a policy says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInfo {
    pub id: String,
    /// The path of the file it stands in.
    pub file: String,
    pub forbids: bool,
    /// What would satisfy it, with its placeholders; empty for a `permit`.
    pub needs: String,
    pub about: String,
}

#[derive(Debug)]
pub(super) struct Compiled {
    pub policies: PolicySet,
    pub schema: Schema,
    pub infos: BTreeMap<String, PolicyInfo>,
    /// Names of the groups that policies mention.
    pub groups: BTreeSet<String>,
    pub hash: String,
}

/// One mistake in one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyMistake {
    pub file: String,
    /// Line and column, both from 1.
    pub position: Option<(usize, usize)>,
    pub message: String,
}

impl fmt::Display for PolicyMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// All mistakes found, in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors(Vec<PolicyMistake>);

impl PolicyErrors {
    pub(super) fn one(mistake: PolicyMistake) -> Self {
        Self(vec![mistake])
    }

    pub fn mistakes(&self) -> &[PolicyMistake] {
        &self.0
    }
}

impl std::error::Error for PolicyErrors {}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

/// Reads `*.cedar` and [`SCHEMA_FILE`] of one directory.
pub(super) fn read(dir: &Path) -> Result<Sources, PolicyErrors> {
    let mut mistakes = Vec::new();
    let names = match names(dir) {
        Ok(names) => names,
        Err(error) => {
            mistakes.push(unreadable(dir, &error));
            return Err(PolicyErrors(mistakes));
        }
    };
    let mut policies = Vec::new();
    for name in names {
        policies.extend(read_one(dir, &name, &mut mistakes));
    }
    if policies.is_empty() && mistakes.is_empty() {
        let message = "there is no *.cedar file: without policies nothing is permitted".to_owned();
        mistakes.push(PolicyMistake { file: dir.display().to_string(), position: None, message });
    }
    match read_one(dir, SCHEMA_FILE, &mut mistakes) {
        Some(schema) if mistakes.is_empty() => Ok(Sources { schema, policies }),
        _ => Err(PolicyErrors(mistakes)),
    }
}

fn names(dir: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(names)
}

fn read_one(dir: &Path, name: &str, mistakes: &mut Vec<PolicyMistake>) -> Option<Source> {
    let path = dir.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(Source { name: name.to_owned(), path: path.display().to_string(), text }),
        Err(error) => {
            mistakes.push(unreadable(&path, &error));
            None
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> PolicyMistake {
    let message = format!("cannot be read: {error}");
    PolicyMistake { file: path.display().to_string(), position: None, message }
}

/// Checks everything and puts it together.
pub(super) fn compile(sources: &Sources) -> Result<Compiled, PolicyErrors> {
    let mut gathered = Gathered::default();
    for source in &sources.policies {
        gathered.add_file(source);
    }
    let schema = match Schema::from_cedarschema_str(&sources.schema.text) {
        Ok((schema, warnings)) => {
            for warning in warnings {
                gathered.mistakes.extend(located(&sources.schema, DetailedError::from(&warning)));
            }
            Some(schema)
        }
        Err(error) => {
            gathered.mistakes.extend(located(&sources.schema, DetailedError::from(&error)));
            None
        }
    };
    if let Some(schema) = &schema {
        gathered.validate(schema, &sources.policies);
        for message in entities::misfits(schema) {
            gathered.mistakes.push(PolicyMistake {
                file: sources.schema.path.clone(),
                position: None,
                message,
            });
        }
    }
    let Gathered { policies, infos, groups, mut mistakes } = gathered;
    mistakes.sort();
    mistakes.dedup();
    match schema {
        Some(schema) if mistakes.is_empty() => {
            Ok(Compiled { policies, schema, infos, groups, hash: hash(sources) })
        }
        _ => Err(PolicyErrors(mistakes)),
    }
}

#[derive(Default)]
struct Gathered {
    policies: PolicySet,
    infos: BTreeMap<String, PolicyInfo>,
    groups: BTreeSet<String>,
    mistakes: Vec<PolicyMistake>,
}

impl Gathered {
    fn add_file(&mut self, source: &Source) {
        let set: PolicySet = match source.text.parse() {
            Ok(set) => set,
            Err(errors) => {
                let errors: &cedar_policy::ParseErrors = &errors;
                self.mistakes.extend(located(source, DetailedError::from(errors)));
                return;
            }
        };
        if set.num_of_templates() > 0 {
            self.blame(source, None, "templates (`?principal`, `?resource`) are not supported".to_owned());
        }
        for policy in set.policies() {
            self.add(source, policy);
        }
    }

    fn add(&mut self, source: &Source, policy: &Rule) {
        let id = policy.annotation("id").unwrap_or("").to_owned();
        let at = source.text.find(&format!("@id(\"{id}\")"));
        let forbids = policy.effect() == Effect::Forbid;
        let needs = policy.annotation("needs").unwrap_or("").to_owned();
        if !well_formed(&id) {
            let number = policy.id().to_string();
            let message = format!(
                "`{number}` (counted from 0) needs an @id(\"…\") of 1 to 63 letters, digits, `.`, `_` or `-`"
            );
            return self.blame(source, at, message);
        }
        if [NO_PERMIT, ERRONEOUS].contains(&id.as_str()) {
            return self.blame(source, at, format!("the id `{id}` is reserved: choose another"));
        }
        if let Some(first) = self.infos.get(&id) {
            let message = format!("the id `{id}` is already used in {}: choose another", first.file);
            return self.blame(source, at, message);
        }
        if forbids && needs.trim().is_empty() {
            let message = format!("`{id}` forbids: add @needs(\"…\"), what would satisfy it");
            self.blame(source, at, message);
        }
        if let Some(unknown) = unknown_placeholder(&needs) {
            let known = PLACEHOLDERS.map(|name| format!("`{{{name}}}`")).join(", ");
            self.blame(source, at, format!("@needs of `{id}` has an unknown `{unknown}`: there are {known}"));
        }
        for literal in policy.entity_literals() {
            if literal.type_name().basename() == "Group" {
                self.groups.insert(literal.id().unescaped().to_owned());
            }
        }
        if let Err(error) = self.policies.add(policy.new_id(PolicyId::new(&id))) {
            return self.blame(source, at, error.to_string());
        }
        let about = policy.annotation("about").unwrap_or("").to_owned();
        let file = source.path.clone();
        self.infos.insert(id.clone(), PolicyInfo { id, file, forbids, needs, about });
    }

    fn validate(&mut self, schema: &Schema, sources: &[Source]) {
        let result = Validator::new(schema.clone()).validate(&self.policies, ValidationMode::Strict);
        let errors = result.validation_errors().map(|error| (error.policy_id(), DetailedError::from(error)));
        let warnings =
            result.validation_warnings().map(|warning| (warning.policy_id(), DetailedError::from(warning)));
        for (id, error) in errors.chain(warnings) {
            let file = self.infos.get::<str>(id.as_ref()).map(|info| &info.file);
            if let Some(source) = sources.iter().find(|source| Some(&source.path) == file) {
                self.mistakes.extend(located(source, error));
            } else {
                let file = id.to_string();
                self.mistakes.push(PolicyMistake { file, position: None, message: error.message });
            }
        }
    }

    fn blame(&mut self, source: &Source, offset: Option<usize>, message: String) {
        let position = offset.map(|offset| position(&source.text, offset));
        self.mistakes.push(PolicyMistake { file: source.path.clone(), position, message });
    }
}

fn well_formed(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 63
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The first `{…}` that stands for nothing.
fn unknown_placeholder(needs: &str) -> Option<String> {
    needs.split('{').skip(1).find_map(|rest| {
        let name = rest.split('}').next().unwrap_or(rest);
        let known = PLACEHOLDERS.contains(&name) && rest.len() > name.len();
        (!known).then(|| format!("{{{name}}}"))
    })
}

/// An error of Cedar's with its relatives, each at its place.
fn located(source: &Source, error: DetailedError) -> Vec<PolicyMistake> {
    let offset = error.source_locations.first().map(|label| label.loc.start);
    let message = match error.help {
        Some(help) => format!("{} ({help})", error.message),
        None => error.message,
    };
    let first = PolicyMistake {
        file: source.path.clone(),
        position: offset.map(|offset| position(&source.text, offset)),
        message,
    };
    let related = error.related.into_iter().flat_map(|error| located(source, error));
    std::iter::once(first).chain(related).collect()
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// Every name and text with its length, so that no two sets of files share one input.
fn hash(sources: &Sources) -> String {
    let mut input = b"sallyport-policies-v1\n".to_vec();
    for source in std::iter::once(&sources.schema).chain(&sources.policies) {
        for part in [&source.name, &source.text] {
            input.extend_from_slice(part.len().to_string().as_bytes());
            input.push(b':');
            input.extend_from_slice(part.as_bytes());
        }
    }
    crypto::hex(&crypto::sha256(&[&input]))
}
