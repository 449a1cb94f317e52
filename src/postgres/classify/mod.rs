//! What a statement is, for rules about statements: which kinds of commands are in it, which relations it names, whether
//! what changes rows has a WHERE.
//!
//! It goes by words and parentheses, not by a grammar, and errs to one side: a word that could be a command counts as
//! one, what looks like a relation is one, and where it cannot be told what will run (`DO`, `CALL`, a command that is not known
//! here, a text that does not end; `EXECUTE` for whoever does not look at what was prepared) the answer is "not known". It does not look into functions: what they do is
//! for the rights of the database role. `docs/statements.md` tells operators what this means.

mod relations;
mod scan;
#[cfg(test)]
mod tests;

use super::lexer::{Kind, Lexer, Strings, Token};
use crate::policy::StatementFacts;

use scan::{Part, Scan};

/// So many statements of one text are looked at.
const MOST_STATEMENTS: usize = 1_000;

/// A statement, and what it has to do with SQL's prepared statements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Classified {
    pub facts: StatementFacts,
    pub prepared: Prepared,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Prepared {
    #[default]
    No,
    /// By `PREPARE`, under that name, if that can be told.
    Made(Option<String>),
    /// By `EXECUTE`, of that name. It is not known what it does; all else that the facts tell is so.
    Run(String),
}

/// The statements of a text, in order; `in_transaction` is left to be filled in. Takes time linear in the text's length and
/// memory that does not grow with it.
pub fn classify(sql: &[u8], strings: Strings) -> Vec<Classified> {
    let mut statements = Vec::new();
    let mut scan = Scan::default();
    for token in Lexer::new(sql, strings) {
        if token.is_punctuation(sql, ";") && scan.is_outermost() {
            statements.extend(std::mem::take(&mut scan).finish());
            if statements.len() >= MOST_STATEMENTS {
                statements.push(Classified::default());
                return statements;
            }
        } else if let Some(part) = part(&token, sql) {
            scan.part(part);
        }
    }
    statements.extend(scan.finish());
    statements
}

/// What a token is to a statement; `None` for a comment.
fn part<'a>(token: &Token, sql: &'a [u8]) -> Option<Part<'a>> {
    let text = token.text(sql);
    if !token.is_ended() {
        return Some(Part::Unclear);
    }
    Some(match token.kind {
        Kind::Comment => return None,
        Kind::Word | Kind::QuotedName if !is_one_name(token.kind, text) => Part::Unclear,
        Kind::Word => Part::Word(text),
        // Escapes in names are not read here.
        Kind::QuotedName if text.first() != Some(&b'"') => Part::Unclear,
        Kind::QuotedName => {
            let (start, end) = token.content();
            Part::Name(sql.get(start..end).unwrap_or_default())
        }
        Kind::String(_) | Kind::DollarString => Part::String,
        // Servers differ in where such a number ends.
        Kind::Number if is_glued(token, sql) => Part::Unclear,
        Kind::Number | Kind::Parameter | Kind::Operator => Part::Other,
        Kind::Punctuation | Kind::Other => Part::Mark(match text {
            [mark] => *mark,
            // `::` and the like.
            _ => b':',
        }),
    })
}

/// Whether it is known which name beyond ASCII it is: bytes that are no UTF-8 are some other encoding's, and whether a server
/// takes such capital letters for small ones depends on its database's encoding.
fn is_one_name(kind: Kind, text: &[u8]) -> bool {
    if text.is_ascii() {
        return true;
    }
    let is_folded = |text: &str| text.to_lowercase() == text.to_ascii_lowercase();
    std::str::from_utf8(text).is_ok_and(|text| kind != Kind::Word || is_folded(text))
}

/// Whether a number is followed by what could belong to it, or is one of the new forms (`1_000`, `0x1F`).
fn is_glued(token: &Token, sql: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80;
    let is_exponent = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    !token.text(sql).iter().all(is_exponent) || sql.get(token.end).is_some_and(is_word)
}
