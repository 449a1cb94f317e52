//! What a statement is, for rules about statements: which kinds of commands are in it, which relations it names, whether
//! what changes rows has a WHERE.
//!
//! It goes by words and parentheses, not by a grammar, and errs to one side: a word that could be a command counts as
//! one, what looks like a relation is one, and where it cannot be told what will run (`DO`, `EXECUTE`, `CALL`, a command that
//! is not known here, a text that does not end) the answer is "not known". It does not look into functions: what they do is
//! for the rights of the database role. `docs/statements.md` tells operators what this means.

mod relations;
mod scan;
#[cfg(test)]
mod tests;

use super::lexer::{Kind, Lexer, Strings};
use crate::policy::StatementFacts;

use scan::Scan;

/// So many statements of one text are looked at.
const MOST_STATEMENTS: usize = 1_000;

/// The statements of a text, in order; `in_transaction` is left to be filled in. Takes time linear in the text's length and
/// memory that does not grow with it.
pub fn classify(sql: &[u8], strings: Strings) -> Vec<StatementFacts> {
    let lexer = Lexer::new(sql, strings);
    let mut statements = Vec::new();
    let mut scan = Scan::default();
    for token in lexer {
        if token.kind == Kind::Mark(b';') && scan.is_outermost() {
            statements.extend(std::mem::take(&mut scan).finish());
            if statements.len() >= MOST_STATEMENTS {
                statements.push(StatementFacts::default());
                return statements;
            }
        } else {
            let text = sql.get(token.content.clone()).unwrap_or_default();
            scan.token(token.kind, text);
        }
    }
    statements.extend(scan.finish());
    statements
}
