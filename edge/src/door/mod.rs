//! The door for HTTP/1.1: a stream of our own between the socket and actix-http.
//!
//! It sees every byte first. It reads heads strictly, frames bodies itself, normalises the request once
//! and refuses what is wrong before anybody else can take it for something else; it cuts off who is too
//! slow, sends interim responses, which actix-http can't, and carries tunnels. What it lets on to actix-http
//! is one request at a time, as a head without a body: the request itself waits in an [`Exchange`].

mod admit;
mod exchange;
mod framing;
mod handle;
mod head;
mod pace;
mod stream;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

pub(crate) use exchange::{Exchange, Incoming};
pub(crate) use handle::{GRACE_S, serve};
