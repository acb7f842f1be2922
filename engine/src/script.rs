//! A script that a Redis runs as one step.

use redis::{Cmd, cmd};

/// A script, and the digest that a server knows it by.
#[derive(Clone, Debug)]
pub struct Script {
    code: &'static str,
    digest: String,
}

impl Script {
    /// Takes the text of a script.
    #[must_use]
    pub fn new(code: &'static str) -> Self {
        Self { code, digest: redis::Script::new(code).get_hash().to_owned() }
    }

    /// Returns the call by its digest, which is short.
    pub(crate) fn by_digest(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> Cmd {
        call("EVALSHA", &self.digest, keys, arguments)
    }

    /// Returns the call by its text, which a server takes that does not know it yet.
    pub(crate) fn by_text(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> Cmd {
        call("EVAL", self.code, keys, arguments)
    }
}

fn call(verb: &str, script: &str, keys: &[&[u8]], arguments: &[&[u8]]) -> Cmd {
    let mut call = cmd(verb);
    call.arg(script).arg(keys.len());
    for part in keys.iter().chain(arguments) {
        call.arg(*part);
    }
    call
}
