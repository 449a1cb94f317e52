//! Reads TOML tables key by key and gathers every mistake with its file, line and key, instead of
//! stopping at the first as a derived deserialiser does.
//!
//! Each reading function reports what is wrong and gives a stand-in back, so that reading goes on;
//! what was read is only used when nothing was reported.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::domain::time::{humane, parse_duration};

/// One mistake: where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub file: PathBuf,
    /// From 1.
    pub line: Option<usize>,
    /// The key, as `target[2].accesses.dba`; elements are counted from 1. Empty: the file as a whole.
    pub key: String,
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Every mistake in a configuration, in the order of the files and their lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<Mistake>);

impl ConfigErrors {
    pub fn mistakes(&self) -> &[Mistake] {
        &self.0
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
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

/// Where mistakes are gathered while several files are read.
#[derive(Debug, Default)]
pub(super) struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    pub(super) fn add(&self, mistake: Mistake) {
        self.0.borrow_mut().push(mistake);
    }

    pub(super) fn about(&self, file: &Path, message: String) {
        self.add(Mistake { file: file.to_owned(), line: None, key: String::new(), message });
    }

    pub(super) fn into_result(self) -> Result<(), ConfigErrors> {
        let mut mistakes = self.0.into_inner();
        mistakes.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        if mistakes.is_empty() { Ok(()) } else { Err(ConfigErrors(mistakes)) }
    }
}

/// A file as it was read.
#[derive(Debug)]
pub(super) struct Document {
    pub path: PathBuf,
    pub text: String,
}

impl Document {
    pub(super) fn read(path: &Path, mistakes: &Mistakes) -> Option<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(Self { path: path.to_owned(), text }),
            Err(error) => {
                mistakes.about(path, format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// The table that the file is; `None`, with all syntax errors reported, when it is not TOML.
    pub(super) fn parse(&self, mistakes: &Mistakes) -> Option<Spanned<DeTable<'_>>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        for error in &errors {
            mistakes.add(Mistake {
                file: self.path.clone(),
                line: error.span().map(|span| self.line(span.start)),
                key: String::new(),
                message: error.message().to_owned(),
            });
        }
        errors.is_empty().then_some(table)
    }

    /// A path of the file: relative ones are relative to the directory the file is in.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        if path == "." && !dir.as_os_str().is_empty() { dir.to_owned() } else { dir.join(path) }
    }

    fn line(&self, offset: usize) -> usize {
        self.text.get(..offset).unwrap_or("").matches('\n').count() + 1
    }
}

/// A table being read. Keys that were not asked for are unknown ([`Section::finish`]).
pub(super) struct Section<'a> {
    pub document: &'a Document,
    mistakes: &'a Mistakes,
    table: Option<&'a DeTable<'a>>,
    path: String,
    offset: Option<usize>,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(
        document: &'a Document,
        table: &'a Spanned<DeTable<'a>>,
        mistakes: &'a Mistakes,
    ) -> Self {
        let known = RefCell::default();
        Self { document, mistakes, table: Some(table.get_ref()), path: String::new(), offset: None, known }
    }

    /// Reports something about `key`; about the table itself when `key` is empty.
    pub(super) fn blame(&self, key: &str, message: impl fmt::Display) {
        let offset = self.table.and_then(|table| table.get(key)).map(|value| value.span().start);
        self.blame_at(offset, self.path_of(key), &message);
    }

    fn blame_at(&self, offset: Option<usize>, key: String, message: &dyn fmt::Display) {
        self.mistakes.add(Mistake {
            file: self.document.path.clone(),
            line: offset.or(self.offset).map(|offset| self.document.line(offset)),
            key,
            message: message.to_string(),
        });
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    pub(super) fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().insert(key);
        self.table?.get(key)
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_none_or(DeTable::is_empty)
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &DeValue<'_>) {
        self.blame(key, format!("must be {expected}, not a value of type {}", found.type_str()));
    }

    pub(super) fn missing(&self, key: &str, what: &str) {
        self.blame_at(None, self.path_of(key), &format!("is missing: {what}"));
    }

    /// A table below; an empty one stands in when there is none.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let value = self.value(key);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            self.wrong_type(key, "a table", value.get_ref());
        }
        self.below(self.path_of(key), table, value.map(|value| value.span().start))
    }

    /// An array of tables below.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(elements) = value.get_ref().as_array() else {
            self.wrong_type(key, "an array of tables", value.get_ref());
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            let path = format!("{}[{}]", self.path_of(key), index + 1);
            match element.get_ref().as_table() {
                Some(table) => sections.push(self.below(path, Some(table), Some(element.span().start))),
                None => self.blame_at(Some(element.span().start), path, &"must be a table"),
            }
        }
        sections
    }

    fn below(&self, path: String, table: Option<&'a DeTable<'a>>, offset: Option<usize>) -> Section<'a> {
        let offset = offset.or(self.offset);
        let known = RefCell::default();
        Section { document: self.document, mistakes: self.mistakes, table, path, offset, known }
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        let value = self.value(key)?.get_ref();
        let text = value.as_str();
        if text.is_none() {
            self.wrong_type(key, "a text in quotes", value);
        }
        text
    }

    pub(super) fn required_text(&self, key: &'static str, what: &str) -> Option<&'a str> {
        if !self.has(key) {
            self.missing(key, what);
            return None;
        }
        let text = self.text(key)?;
        if text.is_empty() {
            self.blame(key, format!("is empty: {what}"));
            return None;
        }
        Some(text)
    }

    /// A text that is read as `T`; `None` when there is none or it is not one.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Option<T> {
        let text = self.text(key)?;
        text.parse().map_err(|error| self.blame(key, error)).ok()
    }

    pub(super) fn required<T: FromStr<Err: fmt::Display>>(&self, key: &'static str, what: &str) -> Option<T> {
        if !self.has(key) {
            self.missing(key, what);
        }
        self.parsed(key)
    }

    /// `false` when there is none.
    pub(super) fn switch(&self, key: &'static str) -> bool {
        let Some(value) = self.value(key) else { return false };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(key, "`true` or `false`", value.get_ref());
            false
        })
    }

    pub(super) fn integer(&self, key: &'static str, default: u64, least: u64, most: u64) -> u64 {
        let Some(value) = self.value(key) else { return default };
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, "a whole number", value.get_ref());
            return default;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if (least..=most).contains(&number) => number,
            _ => {
                self.blame(key, format!("must be from {least} to {most}, not {}", integer.as_str()));
                default
            }
        }
    }

    pub(super) fn count(&self, key: &'static str, default: usize, most: usize) -> usize {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        usize::try_from(self.integer(key, wide(default), 1, wide(most))).unwrap_or(default)
    }

    /// `None` when there is none.
    pub(super) fn duration(&self, key: &'static str, least: Duration, most: Duration) -> Option<Duration> {
        let text = self.text(key)?;
        match parse_duration(text) {
            Ok(duration) if (least..=most).contains(&duration) => Some(duration),
            Ok(_) => {
                self.blame(key, format!("must be from {} to {}, not `{text}`", humane(least), humane(most)));
                None
            }
            Err(error) => {
                self.blame(key, error);
                None
            }
        }
    }

    /// A path, relative to the file's directory.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        if !self.has(key) {
            return None;
        }
        self.required_text(key, "name a file or directory").map(|text| self.document.resolve(text))
    }

    /// A list of texts, each read as `T`; `None` when there is none.
    pub(super) fn list<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Some(elements) = value.get_ref().as_array() else {
            self.wrong_type(key, "a list of texts", value.get_ref());
            return None;
        };
        let mut list = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            let path = format!("{}[{}]", self.path_of(key), index + 1);
            let offset = Some(element.span().start);
            match element.get_ref().as_str().map(str::parse) {
                Some(Ok(value)) => list.push(value),
                Some(Err(error)) => self.blame_at(offset, path, &error),
                None => self.blame_at(offset, path, &"must be a text in quotes"),
            }
        }
        Some(list)
    }

    /// The texts of a table whose keys the operator chooses, each given to `read` with its key.
    pub(super) fn entries<T>(&self, read: impl Fn(&str, &str) -> Result<T, String>) -> Vec<T> {
        let mut entries = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let key: &str = key.get_ref();
            match value.get_ref().as_str().map(|text| read(key, text)) {
                Some(Ok(entry)) => entries.push(entry),
                Some(Err(message)) => self.blame(key, message),
                None => self.wrong_type(key, "a text in quotes", value.get_ref()),
            }
        }
        entries
    }

    /// Entries that are texts, or tables that have the text as `key`: those are handed to `read` too.
    pub(super) fn entries_or_tables<T>(
        &self,
        key: &'static str,
        what: &str,
        read: impl Fn(&str, &str, Option<&Section<'_>>) -> Result<T, String>,
    ) -> Vec<T> {
        let mut entries = Vec::new();
        for (name, value) in self.table.into_iter().flatten() {
            let name: &str = name.get_ref();
            let section = value
                .get_ref()
                .as_table()
                .map(|table| self.below(self.path_of(name), Some(table), Some(value.span().start)));
            let text = match &section {
                Some(section) => section.required_text(key, what),
                None => value.get_ref().as_str(),
            };
            match text.map(|text| read(name, text, section.as_ref())) {
                Some(Ok(entry)) => entries.push(entry),
                Some(Err(message)) => self.blame(name, message),
                None if section.is_none() => {
                    self.wrong_type(name, "a text in quotes or a table", value.get_ref());
                }
                None => {}
            }
            if let Some(section) = section {
                section.finish();
            }
        }
        entries
    }

    /// Reports the keys that nobody asked for, with the known one that is most like each.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if known.contains(name) {
                continue;
            }
            let like = known.iter().map(|known| (distance(name, known), known)).min();
            let message = match like {
                Some((distance, like)) if distance <= 3 && distance < name.len() => {
                    format!("is not a known key: did you mean `{like}`?")
                }
                _ => {
                    let all = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>();
                    format!("is not a known key: there are {}", all.join(", "))
                }
            };
            self.blame_at(Some(key.span().start), self.path_of(name), &message);
        }
    }
}

/// Levenshtein's distance, for short keys.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((to, above), pair) in b.iter().zip(row.iter().skip(1)).zip(row.iter()) {
            let left = next.last().copied().unwrap_or(0);
            next.push((above + 1).min(left + 1).min(pair + usize::from(from != *to)));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, expected) in
            [("", "", 0), ("listen", "listen", 0), ("lisen", "listen", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
