//! Responses at random, each field with what it means by the RFCs, so that no reader has to be trusted about it.

use http::header::{AGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, DATE, ETAG, EXPIRES, LAST_MODIFIED, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wire::Timestamp;

use crate::rules::date;
use crate::rules::testing::THEN;

const MINUTE: u64 = 60;
const DAY: u64 = 86_400;

/// A stream of numbers that a seed decides (SplitMix64).
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// One line of a field with one value, and what that means in seconds: since 1970 for a date. `None` is rubbish.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) means: Option<u64>,
}

impl Line {
    /// The date in the form that everybody reads.
    pub(super) fn plain_date(second: u64) -> Self {
        Self { text: date::imf(Timestamp::from_millis(second * 1000)), means: Some(second) }
    }

    fn date(second: u64, chance: &mut Chance) -> Self {
        let plain = Self::plain_date(second);
        let rubbish = |text: String| Self { text, means: None };
        let again = |text: String| Self { text, means: Some(second) };
        match chance.below(14) {
            0 => again(rfc850(&plain.text)),
            1 => again(asctime(&plain.text)),
            2 => again(plain.text.to_ascii_lowercase()),
            3 => rubbish(plain.text.replacen(" 0", " ", 1).replace(", ", ",  ")),
            4 => rubbish(plain.text.replace("GMT", "+0000")),
            5 => rubbish(plain.text.replace("GMT", "EST")),
            6 => rubbish("0".to_owned()),
            7 => rubbish(String::new()),
            _ => plain,
        }
    }

    /// One line, sometimes a second one.
    fn dates(second: u64, chance: &mut Chance) -> Vec<Self> {
        let mut lines = vec![Self::date(second, chance)];
        if chance.one_in(12) {
            lines.push(Self::date(second + 1, chance));
        }
        lines
    }

    fn ages(chance: &mut Chance) -> Vec<Self> {
        let most = Some(1 << 31);
        let texts = [
            ("7", Some(7)),
            ("007", Some(7)),
            ("20", Some(20)),
            ("7, 9", Some(7)),
            ("x", None),
            ("-1", None),
            ("7.5", None),
            ("4294967296", most),
            ("99999999999999999999", most),
        ];
        let count = if chance.one_in(10) { 2 } else { 1 };
        (0..count).map(|_| chance.pick(&texts)).map(|(text, means)| Self { text: text.to_owned(), means }).collect()
    }
}

/// `Sunday, 06-Nov-94 08:49:37 GMT` from `Sun, 06 Nov 1994 08:49:37 GMT`.
fn rfc850(imf: &str) -> String {
    let days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let day = days.iter().find(|day| day.starts_with(&imf[..3])).unwrap();
    format!("{day}, {}-{}-{} {}", &imf[5..7], &imf[8..11], &imf[14..16], &imf[17..])
}

/// `Sun Nov  6 08:49:37 1994` from `Sun, 06 Nov 1994 08:49:37 GMT`.
fn asctime(imf: &str) -> String {
    let day = imf[5..7].trim_start_matches('0');
    format!("{} {} {day:>2} {} {}", &imf[..3], &imf[8..11], &imf[17..25], &imf[12..16])
}

/// A directive as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) argument: Option<String>,
}

impl Directive {
    fn any(chance: &mut Chance) -> Self {
        let names = [
            "max-age",
            "max-age",
            "max-age",
            "max-age",
            "s-maxage",
            "s-maxage",
            "public",
            "public",
            "no-store",
            "no-cache",
            "private",
            "must-revalidate",
            "proxy-revalidate",
            "must-understand",
            "must-understand",
            "immutable",
            "no-transform",
            "stale-if-error",
            "ext",
        ];
        let name = chance.pick(&names);
        let argument = argument_of(name, chance).map(str::to_owned);
        let name = if chance.one_in(8) { name.to_ascii_uppercase() } else { name.to_owned() };
        Self { name, argument }
    }

    fn written(&self) -> String {
        self.argument.as_ref().map_or_else(|| self.name.clone(), |argument| format!("{}={argument}", self.name))
    }
}

fn argument_of(name: &str, chance: &mut Chance) -> Option<&'static str> {
    let seconds = [
        Some("0"),
        Some("5"),
        Some("30"),
        Some("60"),
        Some("060"),
        Some("\"60\""),
        Some("3600"),
        Some("4294967296"),
        Some("99999999999999999999"),
        Some("-1"),
        Some("+5"),
        Some(" 5"),
        Some("5.5"),
        Some("x"),
        Some(""),
        None,
    ];
    let fields = [None, None, None, Some("\"x-a\""), Some("\"x-a, x-b\""), Some("x-a"), Some("\"\""), Some("\"x a\"")];
    let others = [Some("1"), Some("\"max-age=9\""), Some("\"a, max-age=9\""), Some("\"a, no-store, b\""), Some("'a'")];
    match name {
        // Half of them plain, or hardly any response would be fresh.
        "max-age" | "s-maxage" if chance.one_in(2) => Some(chance.pick(&["30", "60", "3600"])),
        "max-age" | "s-maxage" => chance.pick(&seconds),
        "no-cache" | "private" => chance.pick(&fields),
        "stale-if-error" => Some("60"),
        "ext" => chance.pick(&others),
        _ => None,
    }
}

/// A request with its response, which came at [`THEN`].
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) method: Method,
    pub(super) authorization: bool,
    pub(super) cookie: bool,
    /// The request's Cache-Control.
    pub(super) asked: Vec<Directive>,
    pub(super) status: u16,
    /// The response's Cache-Control.
    pub(super) directives: Vec<Directive>,
    /// Whether each directive has a line of its own.
    pub(super) is_apart: bool,
    pub(super) date: Vec<Line>,
    pub(super) expires: Vec<Line>,
    pub(super) last_modified: Vec<Line>,
    pub(super) age: Vec<Line>,
    /// The lines of Vary.
    pub(super) vary: Vec<&'static str>,
    /// How many seconds after its coming it is used.
    pub(super) later: u64,
}

impl Case {
    /// Anything that the grammar has.
    pub(super) fn any(chance: &mut Chance) -> Self {
        let then = THEN.as_secs();
        let statuses = [200, 200, 200, 200, 200, 203, 204, 206, 299, 301, 302, 304, 404, 410, 499, 500, 503, 599];
        let asked =
            |chance: &mut Chance| vec![Directive { name: chance.pick(&["no-store", "No-Store", "no-cache"]).to_owned(), argument: None }];
        let varies: [&[&str]; 6] =
            [&["accept-encoding"], &["*"], &["accept-encoding, *"], &["accept-encoding", "*"], &[", ,"], &["Accept-Encoding , x-a"]];
        let count = chance.below(5);
        Self {
            method: method(chance),
            authorization: chance.one_in(5),
            cookie: chance.one_in(8),
            asked: some(chance.one_in(12), chance, asked),
            status: chance.pick(&statuses),
            directives: (0..count).map(|_| Directive::any(chance)).collect(),
            is_apart: chance.one_in(3),
            date: some(!chance.one_in(4), chance, |chance| Line::dates(then + 5 - chance.pick(&[0, 5, 5, 10, 105]), chance)),
            expires: some(chance.one_in(4), chance, |chance| Line::dates(then - 50 + chance.pick(&[0, 50, 51, 80, 110, 3650]), chance)),
            last_modified: some(chance.one_in(2), chance, |chance| {
                Line::dates(then + 10 - chance.pick(&[0, 10, 60, 1010, 10 * DAY]), chance)
            }),
            age: some(chance.one_in(4), chance, Line::ages),
            vary: some(chance.one_in(5), chance, |chance| chance.pick(&varies).to_vec()),
            later: chance.pick(&[0, 0, 1, 7, 40, 100]),
        }
    }

    /// What any two caches read alike.
    pub(super) fn plain(chance: &mut Chance) -> Self {
        let then = THEN.as_secs();
        let directive = |name: &str, argument: Option<&str>| Directive { name: name.to_owned(), argument: argument.map(str::to_owned) };
        let age = chance.pick(&["0", "5", "30"]);
        let mut directives = vec![directive("max-age", Some(chance.pick(&["0", "30", "60", "3600"])))];
        for (name, many) in [("public", 3), ("must-revalidate", 3), ("no-store", 8), ("no-cache", 8), ("private", 8)] {
            if chance.one_in(many) {
                directives.push(directive(name, None));
            }
        }
        if chance.one_in(3) {
            directives.push(directive("s-maxage", Some(chance.pick(&["0", "20", "600"]))));
        }
        Self {
            method: Method::GET,
            authorization: chance.one_in(5),
            cookie: chance.one_in(5),
            asked: Vec::new(),
            status: chance.pick(&[200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501]),
            directives,
            is_apart: chance.one_in(2),
            date: vec![Line::plain_date(then)],
            expires: some(chance.one_in(3), chance, |chance| vec![Line::plain_date(then + chance.below(2 * MINUTE))]),
            last_modified: some(chance.one_in(3), chance, |chance| vec![Line::plain_date(then - chance.below(DAY))]),
            age: some(chance.one_in(2), chance, |_| vec![Line { text: age.to_owned(), means: age.parse().ok() }]),
            vary: some(chance.one_in(3), chance, |_| vec!["accept-encoding"]),
            later: chance.below(2 * MINUTE),
        }
    }

    pub(super) fn request_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        append(&mut headers, &CACHE_CONTROL, self.asked.iter().map(Directive::written));
        append(&mut headers, &AUTHORIZATION, self.authorization.then(|| "Basic YTpi".to_owned()));
        append(&mut headers, &COOKIE, self.cookie.then(|| "a=b".to_owned()));
        headers
    }

    pub(super) fn response_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let directives: Vec<_> = self.directives.iter().map(Directive::written).collect();
        match self.is_apart {
            true => append(&mut headers, &CACHE_CONTROL, directives),
            false if directives.is_empty() => {}
            false => append(&mut headers, &CACHE_CONTROL, [directives.join(", ")]),
        }
        for (name, lines) in [(DATE, &self.date), (EXPIRES, &self.expires), (LAST_MODIFIED, &self.last_modified), (AGE, &self.age)] {
            append(&mut headers, &name, lines.iter().map(|line| line.text.clone()));
        }
        append(&mut headers, &VARY, self.vary.iter().map(|line| (*line).to_owned()));
        append(&mut headers, &ETAG, ["\"e\"".to_owned()]);
        headers
    }
}

fn method(chance: &mut Chance) -> Method {
    match chance.below(20) {
        0 => Method::HEAD,
        1 => Method::POST,
        _ => Method::GET,
    }
}

fn some<T>(is_there: bool, chance: &mut Chance, lines: impl FnOnce(&mut Chance) -> Vec<T>) -> Vec<T> {
    if is_there { lines(chance) } else { Vec::new() }
}

fn append(headers: &mut HeaderMap, name: &HeaderName, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        headers.append(name.clone(), HeaderValue::try_from(line).unwrap());
    }
}
