//! Registers of logs whose records come in the orders that they may.

use std::path::Path;
use std::time::Duration;

use sallyport::audit::export::{self, Counts, Filter, Format, Order};
use sallyport::audit::{ControlEntry, Journal, JournalOptions, SigningKey, Totals};
use sallyport::clock::Clock;
use sallyport::domain::deny::EndReason;
use sallyport::domain::event::{Action, Event};
use sallyport::domain::id::{RequestId, SessionId};
use sallyport::domain::time::Timestamp;
use tempfile::TempDir;

use crate::log::{START, connection, node, opening};
use crate::samples::alice;

fn session(number: u8) -> SessionId {
    SessionId::from_random([number; 10])
}

fn about(action: Action, number: u8) -> Event {
    Event {
        session: Some(session(number)),
        request: Some(RequestId::from_random([number; 10])),
        target: Some("ledger-prod".parse().unwrap()),
        ..Event::done(action).by(alice())
    }
}

async fn control(journal: &Journal, at: Timestamp, event: Event) {
    journal.control(&[ControlEntry { outbox: None, at, event }]).await.unwrap();
}

fn rows(directory: &Path, format: Format, may: bool) -> (Vec<Vec<String>>, Counts) {
    let filter = Filter::default();
    let order = Order { directory, format, filter: &filter, size: None };
    let mut written = Vec::new();
    let counts = export::write(&order, &mut |_| may, &mut written).unwrap();
    let text = String::from_utf8(written).unwrap();
    let rows = text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect();
    (rows, counts)
}

/// Three sessions. Of the first the connection ends before its revocation is on record, as both are written at the
/// same time; of the second after; the third goes on.
async fn kept() -> TempDir {
    let dir = TempDir::new().unwrap();
    let signing = SigningKey::from_pem(&SigningKey::generate(), node()).unwrap();
    let clock = Clock::manual(START);
    let (journal, _) = Journal::open(dir.path(), clock.clone(), JournalOptions::new(signing)).unwrap();
    let revoked = || EndReason::Revoked { by: "bob".parse().unwrap(), why: "over".to_owned() };
    let mut recorders = Vec::new();
    for number in [1, 2, 3] {
        let asked = Event { session: None, ..about(Action::RequestCreated, number) };
        control(&journal, START, asked.with("reason", "look")).await;
        let activated = about(Action::SessionActivated, number).with("holder", "alice");
        control(&journal, START, activated.with("granted_at", START.to_string())).await;
        let opening = opening(connection(number), session(number), RequestId::from_random([number; 10]));
        recorders.push(journal.begin(opening).await.unwrap());
    }
    let decided = START.plus(Duration::from_secs(5));
    clock.advance(Duration::from_millis(5_250));
    recorders.remove(0).end(revoked(), Totals::default()).await.unwrap();
    control(&journal, decided, about(Action::SessionRevoked, 1).with("why", "over")).await;
    control(&journal, decided, about(Action::SessionRevoked, 2).with("why", "over")).await;
    let destroyed = about(Action::CredentialDestroyed, 1).with("handle", "sp_1");
    control(&journal, decided.plus(Duration::from_micros(1_500)), destroyed).await;
    clock.advance(Duration::from_millis(250));
    recorders.remove(0).end(revoked(), Totals::default()).await.unwrap();
    // Ended by itself before: nobody cut it.
    recorders.remove(0).end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    control(&journal, decided.plus(Duration::from_secs(9)), about(Action::SessionRevoked, 3)).await;
    dir
}

#[tokio::test]
async fn a_cut_is_told_whether_it_or_its_decision_is_recorded_first() {
    let dir = kept().await;
    let (rows, counts) = rows(dir.path(), Format::RevocationLatency, true);
    let told: Vec<[&str; 4]> = rows.iter().map(|row| [&*row[8], &*row[10], &*row[11], &*row[14]]).collect();
    let (first, second) = (connection(1).to_string(), connection(2).to_string());
    assert_eq!(
        told,
        [
            [first.as_str(), "250.000", "revoked", "1.500"],
            [second.as_str(), "500.000", "revoked", ""],
            ["", "", "", ""]
        ]
    );
    assert_eq!((counts.written, counts.left_out), (3, 0));
}

#[tokio::test]
async fn a_session_is_a_line_once_and_what_one_may_not_read_none() {
    let dir = kept().await;
    let (told, counts) = rows(dir.path(), Format::AccessRegister, true);
    let sessions: Vec<&str> = told.iter().map(|row| row[0].as_str()).collect();
    let expected = [1, 2, 3].map(|number| session(number).to_string());
    assert_eq!(sessions, expected.each_ref().map(String::as_str));
    assert!(told.iter().all(|row| row[9] == "look" && row[18] == "1"), "{told:?}");
    assert_eq!((counts.written, counts.left_out), (3, 0));
    let (none, counts) = rows(dir.path(), Format::AccessRegister, false);
    assert_eq!((none.len(), counts.written, counts.left_out), (0, 0, 3));
    assert_eq!(rows(dir.path(), Format::BreakGlassRegister, true).0.len(), 0);
}
