//! `sallyport search` and `sallyport audit search`: across recordings, by the server's index or from the files alone.

use std::path::Path;

use reqwest::Url;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::when::{self, local_to_the_second};
use super::{Form, out};
use crate::access::credential::error_chain;
use crate::audit::search::{Found, Query, scan};
use crate::clock::Clock;
use crate::domain::id::SessionId;
use crate::domain::name::TargetName;
use crate::domain::time::Timestamp;
use crate::http::view::{FoundView, HitView};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    form: Form,
}

/// What to look for; everything that is given must apply.
#[derive(Debug, clap::Args)]
pub(super) struct Wanted {
    /// What was written, typed or shown; case and the amount of white space do not matter [default: anything]
    #[arg(default_value = "", hide_default_value = true)]
    text: String,
    /// Who did it: a name or an id
    #[arg(long, value_name = "USER")]
    principal: Option<String>,
    /// Where
    #[arg(long)]
    target: Option<TargetName>,
    /// Under which session
    #[arg(long)]
    session: Option<SessionId>,
    /// Not before: 2026-11-26, '2026-11-26 14:00' (both local), RFC 3339, or so long ago (2h)
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,
    /// Not after; a day means to its end
    #[arg(long, value_name = "WHEN")]
    to: Option<String>,
    /// The kind of record: statement, output (shown), input (typed), program, file and so on
    #[arg(long)]
    kind: Option<String>,
    /// At most so many, the newest
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Go on where a search ended that found more
    #[arg(long, value_name = "N")]
    before: Option<u64>,
}

impl Wanted {
    fn query(self) -> Result<Query, Failure> {
        let now = Clock::system().now();
        let instant = |text: Option<String>, edge| {
            text.map(|text| when::parse(&text, now, edge).map_err(Failure::usage)).transpose()
        };
        Ok(Query {
            text: self.text,
            principal: self.principal,
            target: self.target,
            session: self.session,
            from: instant(self.from, when::Edge::Start)?,
            to: instant(self.to, when::Edge::End)?,
            kind: self.kind,
            limit: usize::from(self.limit),
            before: self.before,
        })
    }
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let query = arguments.wanted.query()?;
    let mut found =
        FoundView::new(Found { hits: Vec::new(), next: query.before, withheld: false, moved: false }, false);
    loop {
        let page: FoundView = client.get(&path(&query, found.next, query.limit - found.items.len())?).await?;
        found.items.extend(page.items);
        found.next = page.next;
        found.withheld |= page.withheld;
        found.moved |= page.moved;
        found.behind |= page.behind;
        // The server looks at so much at a time; a page may be short, or empty, and not the last.
        if found.next.is_none() || found.items.len() >= query.limit {
            break;
        }
    }
    show(&found, arguments.form, "")
}

/// The call for a page.
fn path(query: &Query, before: Option<u64>, limit: usize) -> Result<String, Failure> {
    let mut url = Url::parse("https://server/pam/search")
        .map_err(|error| Failure::of("cannot write the question", &error))?;
    let text = Some(query.text.clone()).filter(|text| !text.is_empty());
    let instant = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let parts = [
        ("text", text),
        ("principal", query.principal.clone()),
        ("target", query.target.as_ref().map(ToString::to_string)),
        ("session", query.session.as_ref().map(ToString::to_string)),
        ("from", instant(query.from)),
        ("to", instant(query.to)),
        ("kind", query.kind.clone()),
        ("limit", Some(limit.to_string())),
        ("before", before.map(|n| n.to_string())),
    ];
    url.query_pairs_mut().extend_pairs(parts.into_iter().filter_map(|(name, value)| Some((name, value?))));
    Ok(format!("{}?{}", url.path(), url.query().unwrap_or_default()))
}

/// From the files in `directory`.
pub(super) fn offline(wanted: Wanted, directory: &Path, form: Form) -> Outcome {
    let query = wanted.query()?;
    let found = scan(directory, query).map_err(|error| {
        if error.is_the_askers() {
            Failure::usage(error.to_string())
        } else {
            Failure::failed(error_chain(&error))
        }
    })?;
    show(&FoundView::new(found, false), form, &format!(" --audit-dir {}", directory.display()))
}

fn show(found: &FoundView, form: Form, replay_from: &str) -> Outcome {
    if form.json {
        out::json(found)?;
    } else {
        let rows = found.items.iter().map(row);
        out::table(["when", "who", "target", "connection", "what", "text"], rows, "nothing was found")?;
    }
    if found.withheld {
        out::note("recordings that you may not read were left out");
    }
    if found.moved {
        out::note(
            "files of the log were moved away: what may be in them was not looked at; `audit search` can, with a copy",
        );
    }
    if found.behind {
        out::note("the server's index is behind: what is newest was not looked at; search again in a minute");
    }
    if let Some(next) = found.next {
        out::note(format!("there is more, and it is older: the same again with --before {next}"));
    }
    if let Some(hit) = found.items.first().filter(|_| !form.json) {
        out::note(format!("→ sallyport replay {}{replay_from} --format text", hit.connection));
    }
    Ok(Exit::Done)
}

fn row(hit: &HitView) -> [String; 6] {
    let more = if hit.more > 0 { format!(" (and {} more)", hit.more) } else { String::new() };
    let glass = if hit.break_glass { " BREAK-GLASS" } else { "" };
    [
        local_to_the_second(hit.at),
        format!("{}{glass}", hit.principal.name),
        hit.target.to_string(),
        hit.connection.to_string(),
        hit.kind.replace('_', " "),
        format!("{}{more}", hit.excerpt),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_written_so_that_nothing_in_it_is_lost() {
        let mut query = Query::new("a&b=c d/é+", 7);
        query.from = Some(Timestamp::from_micros(0));
        let path = path(&query, Some(9), 5).unwrap();
        let start = "/pam/search?text=a%26b%3Dc+d%2F%C3%A9%2B&from=1970-01-01T00%3A00%3A00.000000Z";
        assert_eq!(path, format!("{start}&limit=5&before=9"));
    }
}
