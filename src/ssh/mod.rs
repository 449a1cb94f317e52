//! The SSH gateway: hosts, with the OpenSSH client that people have. Start reading at [`serve`].
//!
//! - [`server`] and [`client`] are the two legs, and the only files that name the library underneath;
//!   [`message`] is what goes between them, [`flow`] keeps a fast sender back, [`strict`] refuses an unsafe one.
//! - [`authenticate`]: from a proof to a principal; [`lobby`], [`ask`], [`jump`]: before there is a permit.
//! - [`channels`]: what is opened under a permit; [`session`] and [`forward`] carry it, [`carrier`] is what
//!   they share, [`reach`] and [`way`] lead to the target, [`goodbye`] is what is said at the end.
//! - [`observe`] is pure and looks at the bytes beside their way; [`watch`] makes records of it.

mod ask;
mod authenticate;
mod carrier;
mod channels;
mod client;
mod files;
mod flow;
mod forward;
mod goodbye;
mod jump;
mod lobby;
mod message;
mod modes;
pub mod observe;
mod presence;
mod prompt;
mod reach;
mod serve;
mod server;
mod session;
mod settings;
pub mod strict;
mod watch;
mod way;

pub use serve::SshGateway;
pub use settings::Settings;
