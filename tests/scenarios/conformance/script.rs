//! What an upstream has ready in a step, down to its framing.

use harness::{Reply, Seen};

use super::scene::Scene;

/// How a body is framed.
#[derive(Clone, Copy, Debug)]
enum Framing {
    /// By its length.
    Length,
    /// By a length that it does not have.
    Announced(usize),
    /// In chunks.
    Chunked,
    /// In chunks, of which the last never comes.
    Cut,
    /// By the end of the connection.
    Open,
}

/// An answer that is ready.
#[derive(Clone, Debug)]
pub(super) struct Script {
    status: u16,
    lines: String,
    body: Option<String>,
    framing: Framing,
    interim: &'static str,
    verbatim: Option<&'static str>,
    /// Whether it heeds Range and If-Range.
    heeds_ranges: bool,
}

/// An answer with status 200 and these lines. Its body tells its step: `step 1`.
pub(super) fn ok(lines: &str) -> Script {
    answer(200, lines)
}

/// An answer with these lines. `Date` is now where no line says otherwise; a line `!Date` leaves it away.
pub(super) fn answer(status: u16, lines: &str) -> Script {
    let lines = lines.to_owned();
    Script { status, lines, body: None, framing: Framing::Length, interim: "", verbatim: None, heeds_ranges: false }
}

/// Exactly these bytes; none are no answer at all.
pub(super) fn verbatim(bytes: &'static str) -> Script {
    Script { verbatim: Some(bytes), ..ok("") }
}

/// The letters from one place to another, both included: what an upstream that heeds ranges is made of.
pub(super) fn letters(first: usize, last: usize) -> String {
    (first..=last).filter_map(|at| char::from_u32(u32::try_from(at % 26).ok()? + u32::from('a'))).collect()
}

impl Script {
    /// Says this.
    pub(super) fn body(self, body: impl Into<String>) -> Self {
        Self { body: Some(body.into()), ..self }
    }

    /// Announces this length, whatever comes.
    pub(super) fn announcing(self, length: usize) -> Self {
        Self { framing: Framing::Announced(length), ..self }
    }

    /// Comes in chunks.
    pub(super) fn chunked(self) -> Self {
        Self { framing: Framing::Chunked, ..self }
    }

    /// Comes in chunks, of which the last never comes.
    pub(super) fn cut(self) -> Self {
        Self { framing: Framing::Cut, ..self }
    }

    /// Ends with its connection.
    pub(super) fn open(self) -> Self {
        Self { framing: Framing::Open, ..self }
    }

    /// Says this before: a status line without the protocol, and fields.
    pub(super) fn after(self, interim: &'static str) -> Self {
        Self { interim, ..self }
    }

    /// Heeds Range and If-Range.
    pub(super) fn heeding_ranges(self) -> Self {
        Self { heeds_ranges: true, ..self }
    }

    /// Returns the bytes that answer a request in a step.
    pub(super) fn play(&self, seen: &Seen, scene: &Scene, step: usize) -> Reply {
        if let Some(bytes) = self.verbatim {
            return Reply::verbatim(bytes);
        }
        let lines = scene.fill(&self.lines);
        let whole = self.body.clone().unwrap_or_else(|| format!("step {step}"));
        let (status, range, body) = if self.heeds_ranges { ranged(seen, &lines, &whole) } else { (self.status, None, whole) };
        let mut text = String::new();
        if !self.interim.is_empty() {
            push_head(&mut text, self.interim.lines());
        }
        let first = format!("{status} Scripted");
        let has = |name: &str| lines.lines().any(|line| line.to_ascii_lowercase().starts_with(name));
        let date = (!has("date:") && !has("!date")).then(|| scene.fill("Date: {date+0}"));
        let connection = (!has("connection:")).then(|| "Connection: close".to_owned());
        let bare = matches!(status, 204 | 304);
        let framing = if bare { None } else { self.framing_line(&body) };
        let made: Vec<String> = [Some(first), date, connection, framing, range].into_iter().flatten().collect();
        push_head(&mut text, made.iter().map(String::as_str).chain(lines.lines().filter(|line| !line.starts_with('!'))));
        if !bare && seen.method != "HEAD" {
            text.push_str(&self.framed(body));
        }
        Reply::verbatim(text)
    }

    fn framing_line(&self, body: &str) -> Option<String> {
        match self.framing {
            Framing::Length => Some(format!("Content-Length: {}", body.len())),
            Framing::Announced(length) => Some(format!("Content-Length: {length}")),
            Framing::Chunked | Framing::Cut => Some("Transfer-Encoding: chunked".to_owned()),
            Framing::Open => None,
        }
    }

    fn framed(&self, body: String) -> String {
        match self.framing {
            Framing::Chunked => format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            Framing::Cut => format!("{:x}\r\n{body}\r\n", body.len()),
            Framing::Length | Framing::Announced(_) | Framing::Open => body,
        }
    }
}

fn push_head<'a>(text: &mut String, lines: impl Iterator<Item = &'a str>) {
    text.push_str("HTTP/1.1 ");
    lines.for_each(|line| {
        text.push_str(line);
        text.push_str("\r\n");
    });
    text.push_str("\r\n");
}

/// The part of `whole` that a request asks for, where it asks for one range, on its condition.
fn ranged(seen: &Seen, lines: &str, whole: &str) -> (u16, Option<String>, String) {
    let is_unmet = seen.header("if-range").is_some_and(|condition| !lines.lines().any(|line| line.ends_with(condition)));
    let found = seen.header("range").filter(|_| !is_unmet && seen.method == "GET").and_then(|range| bounds(range, whole.len()));
    let content_range = |bytes: String| Some(format!("Content-Range: bytes {bytes}/{}", whole.len()));
    match found {
        None => (200, None, whole.to_owned()),
        Some((first, last)) if first > last => (416, content_range("*".to_owned()), String::new()),
        Some((first, last)) => {
            let part = whole.get(first..=last).unwrap_or_default().to_owned();
            (206, content_range(format!("{first}-{last}")), part)
        }
    }
}

/// The first byte and the last one; the first lies behind the last where there is nothing of the range.
fn bounds(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = length.checked_sub(1)?;
    if first.is_empty() {
        return Some((length.saturating_sub(last.parse().ok()?), end));
    }
    let last = if last.is_empty() { end } else { last.parse::<usize>().ok()?.min(end) };
    Some((first.parse().ok()?, last))
}
