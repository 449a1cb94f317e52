//! Ids as people type them: whole, or a unique beginning of their random part.

use super::exit::{Exit, Failure};

/// Something that an abbreviation may stand for.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub id: String,
    /// For the list that is shown when an abbreviation is ambiguous.
    pub about: String,
}

/// Whether `text` is a whole id of the kind that begins with `prefix`.
pub(super) fn is_whole(prefix: &str, text: &str) -> bool {
    random_part(prefix, text).len() == 16 && text.len() == prefix.len() + 17
}

fn random_part<'a>(prefix: &str, text: &'a str) -> &'a str {
    text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).unwrap_or(text)
}

/// The one candidate that `given` stands for.
pub(super) fn expand(
    what: &str,
    prefix: &str,
    given: &str,
    candidates: &[Candidate],
) -> Result<String, Failure> {
    let wanted = random_part(prefix, given).to_lowercase();
    let fits = |candidate: &&Candidate| random_part(prefix, &candidate.id).starts_with(&wanted);
    let found: Vec<&Candidate> = candidates.iter().filter(fits).collect();
    match found.as_slice() {
        _ if wanted.is_empty() => Err(Failure::usage(format!("`{given}` names no {what}"))),
        [only] => Ok(only.id.clone()),
        [] => Err(Failure::new(Exit::NotFound, format!("no {what} begins with `{given}`"))
            .hint(format!("give more of the id, or look it up: `sallyport {what}s`"))),
        several => {
            let mut failure = Failure::usage(format!("`{given}` could be several {what}s"));
            failure.why = several.iter().map(|one| format!("{}  {}", one.id, one.about)).collect();
            Err(failure.hint("give more of the id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        ["req-7f3k9m2qv8x4n1t6", "req-7f3zzzzzzzzzzzzz", "req-a000000000000000"]
            .map(|id| Candidate { id: id.to_owned(), about: "alice".to_owned() })
            .to_vec()
    }

    fn expanded(given: &str) -> Result<String, Exit> {
        expand("request", "req", given, &candidates()).map_err(|failure| failure.exit)
    }

    #[test]
    fn a_unique_beginning_stands_for_the_whole() {
        assert_eq!(expanded("a"), Ok("req-a000000000000000".to_owned()));
        assert_eq!(expanded("req-7f3k"), Ok("req-7f3k9m2qv8x4n1t6".to_owned()));
        assert_eq!(expanded("7F3K"), Ok("req-7f3k9m2qv8x4n1t6".to_owned()));
    }

    #[test]
    fn an_ambiguous_beginning_is_refused_and_lists_what_it_could_be() {
        let failure = expand("request", "req", "7f3", &candidates()).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.why.len(), 2);
        assert!(failure.why[0].contains("req-7f3k9m2qv8x4n1t6  alice"));
    }

    #[test]
    fn a_beginning_of_nothing_is_not_found_and_an_empty_one_is_refused() {
        assert_eq!(expanded("zz"), Err(Exit::NotFound));
        assert_eq!(expanded("ses-a"), Err(Exit::NotFound));
        assert_eq!(expanded("req-"), Err(Exit::Usage));
        assert_eq!(expanded(""), Err(Exit::Usage));
    }

    #[test]
    fn whole_ids_are_told_from_beginnings() {
        assert!(is_whole("req", "req-7f3k9m2qv8x4n1t6"));
        assert!(!is_whole("req", "ses-7f3k9m2qv8x4n1t6"));
        assert!(!is_whole("req", "7f3k9m2qv8x4n1t6"));
        assert!(!is_whole("req", "req-7f3k"));
    }
}
