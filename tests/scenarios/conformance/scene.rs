//! What is the same in all steps of a case as it is told: its path, its name, and the time from which its dates are counted.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A case as it is told.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// The path below which all of it happens.
    pub(super) base: String,
    /// A name that no other scene has.
    pub(super) id: String,
    /// Seconds since 1970.
    now: u64,
}

impl Scene {
    pub(super) fn new(base: String, id: String) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { base, id, now }
    }

    /// Puts in what stands for something: `{base}`, `{id}`, and dates such as `{date-10}`, `{rfc850+60}` and
    /// `{asctime+60}`, in seconds from now. Any other brace is a brace.
    pub(super) fn fill(&self, text: &str) -> String {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let found = after.split_once('}').and_then(|(word, left)| Some((self.word(word)?, left)));
            if let Some((value, left)) = found {
                filled.push_str(&value);
                rest = left;
            } else {
                filled.push('{');
                rest = after;
            }
        }
        filled.push_str(rest);
        filled
    }

    fn word(&self, word: &str) -> Option<String> {
        match word {
            "base" => return Some(self.base.clone()),
            "id" => return Some(self.id.clone()),
            _ => {}
        }
        let (form, offset) = word.split_at(word.find(['+', '-'])?);
        let moment = Moment::of(self.now.saturating_add_signed(offset.parse().ok()?))?;
        match form {
            "date" => Some(moment.imf_fixdate()),
            "rfc850" => Some(moment.rfc850()),
            "asctime" => Some(moment.asctime()),
            _ => None,
        }
    }
}

/// A moment as a calendar shows it.
struct Moment {
    weekday: &'static str,
    day: u64,
    month: &'static str,
    year: u64,
    time: String,
}

impl Moment {
    fn of(seconds: u64) -> Option<Self> {
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let weekday = *DAYS.get(usize::try_from((days + 4) % 7).ok()?)?;
        let (mut year, mut left) = (1970, days);
        while left >= length_of_year(year) {
            left -= length_of_year(year);
            year += 1;
        }
        let mut months = MONTHS.iter().zip(lengths_of_months(year));
        let (month, day) = months.find_map(|(month, length)| {
            if left < length {
                return Some((*month, left + 1));
            }
            left -= length;
            None
        })?;
        let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
        Some(Self { weekday, day, month, year, time })
    }

    fn short_weekday(&self) -> &'static str {
        self.weekday.get(..3).unwrap_or_default()
    }

    fn imf_fixdate(&self) -> String {
        format!("{}, {:02} {} {} {} GMT", self.short_weekday(), self.day, self.month, self.year, self.time)
    }

    fn rfc850(&self) -> String {
        format!("{}, {:02}-{}-{:02} {} GMT", self.weekday, self.day, self.month, self.year % 100, self.time)
    }

    fn asctime(&self) -> String {
        format!("{} {} {:2} {} {}", self.short_weekday(), self.month, self.day, self.time, self.year)
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn length_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn lengths_of_months(year: u64) -> [u64; 12] {
    [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[test]
fn a_scene_writes_the_three_forms_of_a_date() {
    let scene = Scene { base: "/b".to_owned(), id: "i".to_owned(), now: 784_111_777 };
    assert_eq!(scene.fill("{date+0}|{date-10}"), "Sun, 06 Nov 1994 08:49:37 GMT|Sun, 06 Nov 1994 08:49:27 GMT");
    assert_eq!(scene.fill("{rfc850+0}|{asctime+0}"), "Sunday, 06-Nov-94 08:49:37 GMT|Sun Nov  6 08:49:37 1994");
    assert_eq!(scene.fill("{base}/{id}/{x}{"), "/b/i/{x}{");
    assert_eq!(Scene { now: 1_709_251_199, ..scene }.fill("{date+0}"), "Thu, 29 Feb 2024 23:59:59 GMT");
}
