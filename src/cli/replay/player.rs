//! The player as a state machine: keys and time go in, bytes for the terminal and the next deadline
//! come out. Nothing here reads a clock or writes to a terminal.
//!
//! A recording's events have a second time, on which pauses are no longer than asked: that is what is
//! played, and what seeking counts in. Where to start is told in the recording's own time, as its
//! transcript has it.

use std::time::Duration;

use super::filter::Filter;
use crate::audit::asciicast::{Event, What};

/// How far a key seeks.
const SEEK: Duration = Duration::from_secs(10);
const SLOWEST: f64 = 1.0 / 16.0;
const FASTEST: f64 = 64.0;
/// Clears the screen, with the cursor at its top.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Pause,
    Step,
    Forward,
    Back,
    Faster,
    Slower,
    Quit,
}

/// The keys that were pressed; those that mean nothing are passed over.
pub(super) fn keys(mut pressed: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let [first, rest @ ..] = pressed {
        let (key, rest) = match (*first, rest) {
            (0x1b, [b'[' | b'O', b'C', rest @ ..]) => (Some(Key::Forward), rest),
            (0x1b, [b'[' | b'O', b'D', rest @ ..]) => (Some(Key::Back), rest),
            (b' ', rest) => (Some(Key::Pause), rest),
            (b'.', rest) => (Some(Key::Step), rest),
            (b'+' | b'=', rest) => (Some(Key::Faster), rest),
            (b'-', rest) => (Some(Key::Slower), rest),
            // Also Ctrl-C, Ctrl-D and Ctrl-\, which a raw terminal gives as characters.
            (b'q' | 0x03 | 0x04 | 0x1c, rest) => (Some(Key::Quit), rest),
            (_, rest) => (None, rest),
        };
        keys.extend(key);
        pressed = rest;
    }
    keys
}

#[derive(Debug)]
struct Played {
    /// In the recording's own time.
    recorded: Duration,
    /// With pauses cut.
    at: Duration,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    /// At `position` when it was `since`, going on at the speed.
    Running {
        since: Duration,
        position: Duration,
    },
    Paused {
        position: Duration,
    },
}

#[derive(Debug)]
pub(super) struct Player {
    events: Vec<Played>,
    /// The first event that is not shown.
    next: usize,
    filter: Filter,
    pace: Pace,
    speed: f64,
    quit: bool,
}

impl Player {
    /// Plays what was shown from `begins` on; pauses last `idle` at most.
    pub(super) fn new(
        begins: Duration,
        events: impl IntoIterator<Item = Event>,
        idle: Duration,
        speed: f64,
    ) -> Self {
        let (mut last, mut at) = (begins, Duration::ZERO);
        let mut played = Vec::new();
        for event in events {
            let What::Output(text) = event.what else { continue };
            at += event.at.saturating_sub(last).min(idle);
            last = event.at;
            played.push(Played { recorded: event.at, at, text });
        }
        Self {
            events: played,
            next: 0,
            filter: Filter::default(),
            pace: Pace::Paused { position: Duration::ZERO },
            speed: speed.clamp(SLOWEST, FASTEST),
            quit: false,
        }
    }

    /// Begins to play at `from` in the recording's own time; what comes before is shown at once.
    pub(super) fn start(&mut self, from: Duration, now: Duration) -> Vec<u8> {
        let before = self.events.iter().take_while(|event| event.recorded < from).last();
        let position = before.map_or(Duration::ZERO, |event| event.at);
        self.pace = Pace::Running { since: now, position };
        self.show_until(position)
    }

    /// What is due by now.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<u8> {
        match self.pace {
            Pace::Running { .. } => self.show_until(self.position(now)),
            Pace::Paused { .. } => Vec::new(),
        }
    }

    pub(super) fn press(&mut self, key: Key, now: Duration) -> Vec<u8> {
        let mut shown = self.tick(now);
        let position = self.position(now);
        match key {
            Key::Pause => {
                self.pace = match self.pace {
                    Pace::Running { .. } => Pace::Paused { position },
                    Pace::Paused { .. } => Pace::Running { since: now, position },
                };
            }
            Key::Step => {
                let position = self.events.get(self.next).map_or(position, |event| event.at);
                self.pace = Pace::Paused { position };
                shown.extend(self.show_next());
            }
            Key::Forward => shown.extend(self.seek(position + SEEK, now)),
            Key::Back => shown.extend(self.seek(position.saturating_sub(SEEK), now)),
            Key::Faster => self.change_speed(2.0, now),
            Key::Slower => self.change_speed(0.5, now),
            Key::Quit => self.quit = true,
        }
        shown
    }

    /// When something is due next; none while paused and at the end.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let (Pace::Running { since, position }, Some(event)) = (self.pace, self.events.get(self.next)) else {
            return None;
        };
        Some(since + event.at.saturating_sub(position).div_f64(self.speed))
    }

    /// Whether there is nothing more to do: all was played, or the viewer has seen enough.
    pub(super) fn is_over(&self) -> bool {
        let running = matches!(self.pace, Pace::Running { .. });
        self.quit || (running && self.next >= self.events.len())
    }

    /// What leaves the viewer's terminal as it should be.
    pub(super) fn restore(&self) -> Vec<u8> {
        self.filter.restore()
    }

    fn position(&self, now: Duration) -> Duration {
        match self.pace {
            Pace::Running { since, position } => position + now.saturating_sub(since).mul_f64(self.speed),
            Pace::Paused { position } => position,
        }
    }

    fn change_speed(&mut self, factor: f64, now: Duration) {
        let position = self.position(now);
        if let Pace::Running { .. } = self.pace {
            self.pace = Pace::Running { since: now, position };
        }
        self.speed = (self.speed * factor).clamp(SLOWEST, FASTEST);
    }

    /// A terminal cannot go back: it is cleared, and all up to there is shown anew.
    fn seek(&mut self, position: Duration, now: Duration) -> Vec<u8> {
        let mut shown = Vec::new();
        if position < self.position(now) {
            shown.extend(self.filter.restore());
            shown.extend_from_slice(CLEAR);
            self.filter = Filter::default();
            self.next = 0;
        }
        self.pace = match self.pace {
            Pace::Running { .. } => Pace::Running { since: now, position },
            Pace::Paused { .. } => Pace::Paused { position },
        };
        shown.extend(self.show_until(position));
        shown
    }

    fn show_until(&mut self, position: Duration) -> Vec<u8> {
        let mut shown = Vec::new();
        while self.events.get(self.next).is_some_and(|event| event.at <= position) {
            shown.extend(self.show_next());
        }
        shown
    }

    fn show_next(&mut self) -> Vec<u8> {
        let mut shown = Vec::new();
        if let Some(event) = self.events.get(self.next) {
            self.filter.pass(event.text.as_bytes(), &mut shown);
            self.next += 1;
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(2);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// `a` at 1 s, `b` at 2 s, and so on; then `z` a minute later.
    fn alphabet(speed: f64) -> Player {
        let event = |at, text: &str| Event { at: seconds(at), what: What::Output(text.to_owned()) };
        let letters = (1..=15_u8).map(|n| event(f64::from(n), &char::from(b'a' + n - 1).to_string()));
        let typed = Event { at: seconds(3.5), what: What::Input("secret".to_owned()) };
        let mut events: Vec<Event> = letters.collect();
        events.insert(3, typed);
        events.push(event(75.0, "z"));
        Player::new(Duration::ZERO, events, IDLE, speed)
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn it_plays_in_the_recording_s_own_time() {
        let mut player = alphabet(1.0);
        assert_eq!(text(player.start(Duration::ZERO, seconds(100.0))), "");
        assert_eq!(player.deadline(), Some(seconds(101.0)));
        assert_eq!(text(player.tick(seconds(100.9))), "");
        assert_eq!(text(player.tick(seconds(101.0))), "a");
        assert_eq!(player.deadline(), Some(seconds(102.0)));
        assert_eq!(text(player.tick(seconds(104.2))), "bcd");
    }

    #[test]
    fn long_pauses_are_cut_and_the_end_is_the_end() {
        let mut player = alphabet(1.0);
        player.start(Duration::ZERO, Duration::ZERO);
        assert_eq!(text(player.tick(seconds(15.0))), "abcdefghijklmno");
        assert_eq!(player.deadline(), Some(seconds(17.0)));
        assert!(!player.is_over());
        assert_eq!(text(player.tick(seconds(17.0))), "z");
        assert!(player.is_over() && player.deadline().is_none());
    }

    #[test]
    fn speed_can_be_given_and_changed() {
        let mut player = alphabet(2.0);
        player.start(Duration::ZERO, Duration::ZERO);
        assert_eq!(player.deadline(), Some(seconds(0.5)));
        assert_eq!(text(player.tick(seconds(1.0))), "ab");
        assert_eq!(text(player.press(Key::Faster, seconds(1.0))), "");
        assert_eq!(player.deadline(), Some(seconds(1.25)));
        player.press(Key::Slower, seconds(1.25));
        player.press(Key::Slower, seconds(1.25));
        assert_eq!(player.deadline(), Some(seconds(2.25)));
        for _ in 0..40 {
            player.press(Key::Slower, seconds(1.25));
        }
        assert_eq!(player.deadline(), Some(seconds(17.25)), "not slower than a sixteenth");
    }

    #[test]
    fn a_pause_takes_no_time_of_the_recording() {
        let mut player = alphabet(1.0);
        player.start(Duration::ZERO, Duration::ZERO);
        assert_eq!(text(player.press(Key::Pause, seconds(1.5))), "a");
        assert_eq!((player.deadline(), player.tick(seconds(50.0))), (None, Vec::new()));
        assert!(!player.is_over());
        assert_eq!(text(player.press(Key::Pause, seconds(60.0))), "");
        assert_eq!(player.deadline(), Some(seconds(60.5)));
    }

    #[test]
    fn a_step_shows_one_event_and_stays_there() {
        let mut player = alphabet(1.0);
        player.start(Duration::ZERO, Duration::ZERO);
        assert_eq!(text(player.press(Key::Step, seconds(1.5))), "ab");
        assert_eq!(text(player.press(Key::Step, seconds(1.6))), "c");
        assert_eq!(player.deadline(), None);
        player.press(Key::Pause, seconds(10.0));
        assert_eq!(player.deadline(), Some(seconds(11.0)), "it goes on from the step");
        for _ in 0..30 {
            player.press(Key::Step, seconds(10.0));
        }
        assert!(!player.is_over(), "who steps to the end may still go back");
    }

    #[test]
    fn seeking_ahead_shows_all_until_there() {
        let mut player = alphabet(1.0);
        player.start(Duration::ZERO, Duration::ZERO);
        assert_eq!(text(player.press(Key::Forward, seconds(1.5))), "abcdefghijk");
        assert_eq!(player.deadline(), Some(seconds(2.0)));
        player.press(Key::Forward, seconds(1.5));
        assert!(player.is_over());
    }

    #[test]
    fn seeking_back_clears_and_shows_all_until_there() {
        let mut player = alphabet(1.0);
        player.start(Duration::ZERO, Duration::ZERO);
        player.tick(seconds(13.5));
        player.press(Key::Pause, seconds(13.5));
        let shown = text(player.press(Key::Back, seconds(99.0)));
        assert!(shown.ends_with("\u{1b}[H\u{1b}[2Jabc"), "{}", shown.escape_debug());
        assert_eq!(player.deadline(), None, "it is still paused");
        player.press(Key::Back, seconds(99.0));
        player.press(Key::Pause, seconds(100.0));
        assert_eq!(player.deadline(), Some(seconds(101.0)), "not before the beginning");
    }

    #[test]
    fn it_starts_where_asked_in_the_recording_s_own_time() {
        let mut player = alphabet(1.0);
        assert_eq!(text(player.start(seconds(3.0), Duration::ZERO)), "ab");
        assert_eq!(player.deadline(), Some(seconds(1.0)));
        let mut late = alphabet(1.0);
        assert_eq!(text(late.start(seconds(74.0), Duration::ZERO)), "abcdefghijklmno");
        assert_eq!(late.deadline(), Some(seconds(2.0)));
        assert!(!late.is_over());
    }

    #[test]
    fn what_is_played_is_filtered() {
        let asks = Event { at: seconds(1.0), what: What::Output("a\u{1b}[6nb".to_owned()) };
        let mut player = Player::new(Duration::ZERO, [asks], IDLE, 1.0);
        player.start(Duration::ZERO, Duration::ZERO);
        assert_eq!(text(player.tick(seconds(1.0))), "ab");
    }

    #[test]
    fn keys_are_read_and_others_passed_over() {
        use Key::*;
        assert_eq!(keys(b" .\x1b[C\x1bOD+=-xq"), [Pause, Step, Forward, Back, Faster, Faster, Slower, Quit]);
        assert_eq!(keys(b"\x03"), [Quit]);
        assert_eq!(keys(b"\x1b[A\x1b[1;5Cz\x1b"), []);
    }
}
