//! A case as it is written: steps, each with what is asked, what the upstream would answer, and what must be seen.

use std::fmt;

use harness::{Heard, Seen};

use super::scene::Scene;
use super::script::{Script, ok};

/// One situation with its outcome.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// The rule of http.md.
    pub(super) rule: u8,
    pub(super) name: String,
    /// The section that it comes from.
    pub(super) rfc: &'static str,
    /// A route of its own kind: its name and its lines in the configuration.
    pub(super) route: Option<(&'static str, &'static str)>,
    /// Whether it needs an upstream that no other case sees fail.
    pub(super) alone: bool,
    pub(super) steps: Vec<Step>,
}

/// Begins a case.
pub(super) fn case(rule: u8, name: impl Into<String>, rfc: &'static str, steps: impl Into<Vec<Step>>) -> Case {
    Case { rule, name: name.into(), rfc, route: None, alone: false, steps: steps.into() }
}

impl Case {
    /// Tells it on a route with these lines.
    pub(super) fn on(self, name: &'static str, lines: &'static str) -> Self {
        Self { route: Some((name, lines)), ..self }
    }

    /// Gives it an upstream of its own: what fails for one case must not make the edge wary in the next.
    pub(super) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }
}

/// One request, and what must come of it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    method: &'static str,
    /// Stands for the whole request target where it does not begin with the case's path.
    pub(super) target: String,
    host: &'static str,
    lines: String,
    body: Option<&'static str>,
    /// What the upstream answers where it is asked.
    pub(super) reply: Option<Script>,
    /// How often the upstream must have been asked in this case before the step begins.
    pub(super) after: usize,
    pub(super) expected: Vec<Expect>,
}

/// Asks with GET.
pub(super) fn get() -> Step {
    send("GET")
}

/// Asks with a method.
pub(super) fn send(method: &'static str) -> Step {
    let target = "{base}".to_owned();
    Step { method, target, host: "api.test", lines: String::new(), body: None, reply: None, after: 0, expected: Vec::new() }
}

impl Step {
    /// Asks for something below the case's path, or for the same with a query.
    pub(super) fn at(self, suffix: &str) -> Self {
        Self { target: format!("{{base}}{suffix}"), ..self }
    }

    /// Asks for exactly this target.
    pub(super) fn target(self, target: &str) -> Self {
        Self { target: target.to_owned(), ..self }
    }

    /// Names the host as it stands in the request.
    pub(super) fn host(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    /// Sends these fields.
    pub(super) fn with(self, lines: impl Into<String>) -> Self {
        Self { lines: lines.into(), ..self }
    }

    /// Sends a body.
    pub(super) fn content(self, body: &'static str) -> Self {
        Self { body: Some(body), ..self }
    }

    /// Has this answer ready.
    pub(super) fn reply(self, script: Script) -> Self {
        Self { reply: Some(script), ..self }
    }

    /// Waits until the upstream was asked so often: what is fetched in the background comes when it comes.
    pub(super) fn after(self, asked: usize) -> Self {
        Self { after: asked, ..self }
    }

    fn expect(mut self, expected: Expect) -> Self {
        self.expected.push(expected);
        self
    }

    /// The upstream is not asked, and the edge says so.
    pub(super) fn cached(self) -> Self {
        self.expect(Expect::Cached)
    }

    /// The upstream is asked.
    pub(super) fn asked(self) -> Self {
        self.expect(Expect::Asked)
    }

    /// The upstream is asked exactly once: nothing is sent again.
    pub(super) fn asked_once(self) -> Self {
        self.expect(Expect::AskedOnce)
    }

    /// The upstream is not asked.
    pub(super) fn unasked(self) -> Self {
        self.expect(Expect::Unasked)
    }

    /// The upstream is asked on this condition.
    pub(super) fn validated(self, line: &str) -> Self {
        self.expect(Expect::Sees(line.to_owned()))
    }

    /// The upstream is asked without a condition.
    pub(super) fn unconditional(self) -> Self {
        self.asked().expect(Expect::SeesNot("If-None-Match")).expect(Expect::SeesNot("If-Modified-Since"))
    }

    /// The answer has this status.
    pub(super) fn status(self, status: u16) -> Self {
        self.expect(Expect::Status(status))
    }

    /// The answer has another status than this.
    pub(super) fn not_status(self, status: u16) -> Self {
        self.expect(Expect::NotStatus(status))
    }

    /// The answer has this body, and it is whole.
    pub(super) fn body(self, body: &str) -> Self {
        self.expect(Expect::Body(body.to_owned()))
    }

    /// The answer has the body that the upstream had ready in this step, from 1.
    pub(super) fn body_of(self, step: usize) -> Self {
        self.body(&format!("step {step}"))
    }

    /// The answer has this line.
    pub(super) fn has(self, line: &str) -> Self {
        self.expect(Expect::Has(line.to_owned()))
    }

    /// The answer does not have this field.
    pub(super) fn lacks(self, name: &'static str) -> Self {
        self.expect(Expect::Lacks(name))
    }

    /// All lines of a field together contain this.
    pub(super) fn contains(self, name: &'static str, part: &str) -> Self {
        self.expect(Expect::Contains(name, part.to_owned()))
    }

    /// None of a field's lines contains this.
    pub(super) fn contains_not(self, name: &'static str, part: &'static str) -> Self {
        self.expect(Expect::ContainsNot(name, part))
    }

    /// The upstream sees this line.
    pub(super) fn sees(self, line: &str) -> Self {
        self.expect(Expect::Sees(line.to_owned()))
    }

    /// The upstream does not see this field.
    pub(super) fn sees_not(self, name: &'static str) -> Self {
        self.expect(Expect::SeesNot(name))
    }

    /// The upstream sees this method.
    pub(super) fn sees_method(self, method: &'static str) -> Self {
        self.expect(Expect::SeesMethod(method))
    }

    /// The upstream sees exactly this target.
    pub(super) fn sees_target(self, target: &str) -> Self {
        self.expect(Expect::SeesTarget(target.to_owned()))
    }

    /// An interim answer comes first.
    pub(super) fn interim(self, status: u16) -> Self {
        self.expect(Expect::Interim(status))
    }

    /// The answer says that it is between so and so many seconds old.
    pub(super) fn age(self, least: u64, most: u64) -> Self {
        self.expect(Expect::Age(least, most))
    }

    /// Whoever asks learns that it did not work: an error of the edge, or an answer that breaks off.
    pub(super) fn fails(self) -> Self {
        self.expect(Expect::Fails)
    }

    /// Returns the request as it stands on the wire.
    pub(super) fn request(&self, scene: &Scene) -> Vec<u8> {
        let lines = scene.fill(&self.lines);
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, scene.fill(&self.target), self.host);
        lines.lines().for_each(|line| {
            head.push_str(line);
            head.push_str("\r\n");
        });
        let has = |name: &str| lines.lines().any(|line| line.to_ascii_lowercase().starts_with(name));
        if !has("connection:") {
            head.push_str("Connection: close\r\n");
        }
        if self.body.is_some() || matches!(self.method, "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.unwrap_or_default().len()));
        }
        head.push_str("\r\n");
        head.push_str(self.body.unwrap_or_default());
        head.into_bytes()
    }
}

/// What must have been seen when a step is over.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    Cached,
    Asked,
    AskedOnce,
    Unasked,
    Status(u16),
    NotStatus(u16),
    Body(String),
    Has(String),
    Lacks(&'static str),
    Contains(&'static str, String),
    ContainsNot(&'static str, &'static str),
    Sees(String),
    SeesNot(&'static str),
    SeesMethod(&'static str),
    SeesTarget(String),
    Interim(u16),
    Age(u64, u64),
    Fails,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cached => f.write_str("an answer from the cache"),
            Self::Asked => f.write_str("the upstream to be asked"),
            Self::AskedOnce => f.write_str("the upstream to be asked exactly once"),
            Self::Unasked => f.write_str("the upstream not to be asked"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::NotStatus(status) => write!(f, "any status but {status}"),
            Self::Body(body) => write!(f, "the whole body `{body}`"),
            Self::Has(line) => write!(f, "the answer to have `{line}`"),
            Self::Lacks(name) => write!(f, "the answer to have no {name}"),
            Self::Contains(name, part) => write!(f, "the answer's {name} to contain `{part}`"),
            Self::ContainsNot(name, part) => write!(f, "the answer's {name} not to contain `{part}`"),
            Self::Sees(line) => write!(f, "the upstream to see `{line}`"),
            Self::SeesNot(name) => write!(f, "the upstream to be asked without {name}"),
            Self::SeesMethod(method) => write!(f, "the upstream to see {method}"),
            Self::SeesTarget(target) => write!(f, "the upstream to see the target {target}"),
            Self::Interim(status) => write!(f, "an interim {status}"),
            Self::Age(least, most) => write!(f, "an Age of {least} to {most}"),
            Self::Fails => f.write_str("an error or an answer that breaks off"),
        }
    }
}

impl Expect {
    /// Tells whether it is what was heard and what the upstream saw.
    pub(super) fn is_met(&self, heard: &Heard, asked: &[Seen], scene: &Scene) -> bool {
        let answer = &heard.answer;
        let values = |name: &str| -> Vec<String> {
            let lines = answer.headers.get_all(name).iter();
            lines.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
        };
        let age = || answer.header("age").parse::<u64>().ok();
        match self {
            Self::Cached => {
                let is_hit = values("cache-status").join(", ").contains("atoll; hit");
                asked.is_empty() && is_hit && (matches!(answer.status, 304 | 416) || age().is_some())
            }
            Self::Asked => !asked.is_empty(),
            Self::AskedOnce => asked.len() == 1,
            Self::Unasked => asked.is_empty(),
            Self::Status(status) => answer.status == *status,
            Self::NotStatus(status) => answer.status != *status,
            Self::Body(body) => heard.is_whole && answer.text() == scene.fill(body),
            Self::Has(line) => {
                let (name, value) = field(line, scene);
                values(&name).contains(&value)
            }
            Self::Lacks(name) => values(name).is_empty(),
            Self::Contains(name, part) => values(name).join(", ").contains(&scene.fill(part)),
            Self::ContainsNot(name, part) => !values(name).join(", ").contains(*part),
            Self::Sees(line) => {
                let (name, value) = field(line, scene);
                asked.iter().any(|seen| seen.headers.iter().any(|(known, said)| *known == name && *said == value))
            }
            Self::SeesNot(name) => {
                let name = name.to_ascii_lowercase();
                !asked.is_empty() && asked.iter().all(|seen| seen.header(&name).is_none())
            }
            Self::SeesMethod(method) => asked.iter().any(|seen| seen.method == *method),
            Self::SeesTarget(target) => asked.iter().any(|seen| seen.target == scene.fill(target)),
            Self::Interim(status) => heard.interim.contains(status),
            Self::Age(least, most) => age().is_some_and(|age| (*least..=*most).contains(&age)),
            Self::Fails => !heard.is_whole || (500..600).contains(&answer.status),
        }
    }
}

/// A line's name, in lower case, and its value.
fn field(line: &str, scene: &Scene) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_ascii_lowercase(), scene.fill(value.trim()))
}

/// Cases in which the upstream's first answer may be used again.
pub(super) fn reused(rule: u8, rfc: &'static str, rows: &[(&str, &str)]) -> Vec<Case> {
    let told = |(name, lines): &(&str, &str)| {
        let steps = [get().reply(ok(lines)), get().cached().status(200).body_of(1)];
        case(rule, *name, rfc, steps)
    };
    rows.iter().map(told).collect()
}

/// Cases in which the upstream must be asked again.
pub(super) fn not_reused(rule: u8, rfc: &'static str, rows: &[(&str, &str)]) -> Vec<Case> {
    let told = |(name, lines): &(&str, &str)| {
        let steps = [get().reply(ok(lines)), get().asked().status(200).body_of(2)];
        case(rule, *name, rfc, steps)
    };
    rows.iter().map(told).collect()
}
