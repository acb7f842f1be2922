//! Dates in header fields: the three forms that HTTP knows, read strictly, and the one form that is written.
//!
//! Strictness is safety here: a date that is read where another cache sees rubbish makes a response
//! fresh that its author meant to be stale (RFC 9110, 5.6.7; RFC 9111, 5.3).

use http::{HeaderMap, HeaderName};
use wire::Timestamp;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const LONG_DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const DAY_S: u64 = 86_400;

/// The last second of the year 9999, beyond which no four digits reach.
const LAST_S: u64 = 253_402_300_799;

/// What a field that should hold one date holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DateField {
    /// There is no such field.
    Absent,
    /// There are several lines, or one that is no date.
    Bad,
    /// The one date.
    At(Timestamp),
}

impl DateField {
    /// Returns the date, where there is a good one.
    pub(crate) fn time(self) -> Option<Timestamp> {
        match self {
            Self::At(time) => Some(time),
            Self::Absent | Self::Bad => None,
        }
    }
}

/// Reads a field that holds one date (RFC 9110, 5.6.7); two lines are no date, even where they agree.
pub(crate) fn field(headers: &HeaderMap, name: &HeaderName, now: Timestamp) -> DateField {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => DateField::Absent,
        (Some(line), None) => parse(line.as_bytes(), now).map_or(DateField::Bad, DateField::At),
        (Some(_), Some(_)) => DateField::Bad,
    }
}

/// Reads an IMF-fixdate, RFC 850 or asctime date (RFC 9110, 5.6.7).
///
/// Names and `GMT` may be in any case; all else is exact. The weekday must be one, but need not fit.
/// `now` decides the century of a year of two digits. A date before 1970 is the beginning of 1970.
pub(crate) fn parse(text: &[u8], now: Timestamp) -> Option<Timestamp> {
    imf_fixdate(Cursor(text)).or_else(|| rfc850(Cursor(text), now)).or_else(|| asctime(Cursor(text)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(mut at: Cursor<'_>) -> Option<Timestamp> {
    at.one_of(&DAYS)?;
    at.eat(", ")?;
    let day = at.number(2)?;
    at.eat(" ")?;
    let month = at.one_of(&MONTHS)?;
    at.eat(" ")?;
    let year = at.number(4)?;
    at.eat(" ")?;
    let second = at.time_of_day()?;
    at.eat(" GMT")?;
    at.end()?;
    moment(year, month + 1, day, second)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(mut at: Cursor<'_>, now: Timestamp) -> Option<Timestamp> {
    at.one_of(&LONG_DAYS)?;
    at.eat(", ")?;
    let day = at.number(2)?;
    at.eat("-")?;
    let month = at.one_of(&MONTHS)? + 1;
    at.eat("-")?;
    let two_digits = at.number(2)?;
    at.eat(" ")?;
    let second = at.time_of_day()?;
    at.eat(" GMT")?;
    at.end()?;
    moment(full_year(two_digits, (month, day, second), now), month, day, second)
}

/// The latest year that ends so and does not put the date more than 50 years after `now`.
fn full_year(two_digits: u64, within_year: (u64, u64, u64), now: Timestamp) -> u64 {
    let today = Civil::of(now);
    let latest = today.year + 50;
    let year = latest - (latest - two_digits) % 100;
    if year == latest && within_year > (today.month, today.day, today.second) { year - 100 } else { year }
}

/// `Sun Nov  6 08:49:37 1994`: the only form whose day may be padded with a space.
fn asctime(mut at: Cursor<'_>) -> Option<Timestamp> {
    at.one_of(&DAYS)?;
    at.eat(" ")?;
    let month = at.one_of(&MONTHS)? + 1;
    at.eat(" ")?;
    let day = if at.eat(" ").is_some() { at.number(1)? } else { at.number(2)? };
    at.eat(" ")?;
    let second = at.time_of_day()?;
    at.eat(" ")?;
    let year = at.number(4)?;
    at.end()?;
    moment(year, month, day, second)
}

/// What is left of the text; each step takes its part or fails.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// Takes `text` in any case.
    fn eat(&mut self, text: &str) -> Option<()> {
        let (head, rest) = self.0.split_at_checked(text.len())?;
        head.eq_ignore_ascii_case(text.as_bytes()).then(|| self.0 = rest)
    }

    /// Takes one of the names and returns its place.
    fn one_of(&mut self, names: &[&str]) -> Option<u64> {
        (0..).zip(names).find_map(|(place, name)| self.eat(name).map(|()| place))
    }

    /// Takes exactly `digits` digits.
    fn number(&mut self, digits: usize) -> Option<u64> {
        let (head, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        head.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
    }

    /// Takes `hour:minute:second` and returns the second of the day; a leap second counts as the next one.
    fn time_of_day(&mut self) -> Option<u64> {
        let hour = self.number(2)?;
        self.eat(":")?;
        let minute = self.number(2)?;
        self.eat(":")?;
        let second = self.number(2)?;
        (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the beginning of year 1 to the beginning of `year`, which is at least 1.
fn days_before(year: u64) -> u64 {
    let passed = year - 1;
    passed * 365 + passed / 4 - passed / 100 + passed / 400
}

fn moment(year: u64, month: u64, day: u64, second: u64) -> Option<Timestamp> {
    if day == 0 || day > days_in(year, month) {
        return None;
    }
    if year < 1970 {
        return Some(Timestamp::from_millis(0));
    }
    let before_month: u64 = (1..month).map(|earlier| days_in(year, earlier)).sum();
    let days = days_before(year) - days_before(1970) + before_month + day - 1;
    Some(Timestamp::from_millis((days * DAY_S + second) * 1000))
}

/// A moment as a calendar shows it.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    second: u64,
    weekday: u64,
}

impl Civil {
    /// Howard Hinnant's `civil_from_days`: years begin in March, so that a leap day is a year's last.
    fn of(time: Timestamp) -> Self {
        let seconds = time.as_secs().min(LAST_S);
        let days = seconds / DAY_S;
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * march_month + 2) / 5 + 1,
            second: seconds % DAY_S,
            weekday: (days + 4) % 7,
        }
    }
}

fn name(names: &[&'static str], place: u64) -> &'static str {
    usize::try_from(place).ok().and_then(|place| names.get(place)).copied().unwrap_or_default()
}

/// Writes the moment as an IMF-fixdate, the only form that may be sent (RFC 9110, 5.6.7).
pub(crate) fn imf(time: Timestamp) -> String {
    let Civil { year, month, day, second, weekday } = Civil::of(time);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (weekday, month) = (name(&DAYS, weekday), name(&MONTHS, month - 1));
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use http::header::EXPIRES;

    use super::*;
    use crate::rules::testing::{THEN, headers};

    #[test]
    fn each_of_the_three_forms_is_the_same_moment() {
        let forms = [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "sun, 06 nOV 1994 08:49:37 gmt",
            "SUNDAY, 06-NOV-94 08:49:37 Gmt",
            "sun nov  6 08:49:37 1994",
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ];
        for form in forms {
            assert_eq!(parse(form.as_bytes(), THEN), Some(THEN), "{form}");
        }
    }

    #[test]
    fn any_other_form_is_no_date() {
        let others = [
            "",
            "0",
            "-1",
            "now",
            "784111777",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun,  6 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov  1994 08:49:37 GMT",
            "Sun, 06 Nov 1994  08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37  GMT",
            "Sun,06 Nov 1994 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Tue, 29 Feb 1900 00:00:00 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 November 1994 08:49:37 GMT",
            "06 Nov 1994 08:49:37 GMT",
            "Sunday, 6-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov   6 08:49:37 1994",
            "Sun Nov  16 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
            "1994-11-06T08:49:37Z",
        ];
        for text in others {
            assert_eq!(parse(text.as_bytes(), THEN), None, "{text}");
        }
    }

    #[test]
    fn a_year_of_two_digits_lies_at_most_fifty_years_ahead() {
        let now = parse(b"Sat, 04 Jul 2026 12:00:00 GMT", THEN).unwrap();
        let cases = [
            ("Sunday, 06-Nov-94 08:49:37 GMT", "1994"),
            ("Sunday, 06-Nov-26 08:49:37 GMT", "2026"),
            ("Sunday, 06-Nov-75 08:49:37 GMT", "2075"),
            ("Saturday, 04-Jul-76 12:00:00 GMT", "2076"),
            ("Saturday, 04-Jul-76 12:00:01 GMT", "1976"),
            ("Sunday, 06-Nov-77 08:49:37 GMT", "1977"),
            ("Sunday, 06-Nov-00 08:49:37 GMT", "2000"),
        ];
        for (text, year) in cases {
            assert_eq!(&imf(parse(text.as_bytes(), now).unwrap())[12..16], year, "{text}");
        }
    }

    #[test]
    fn a_date_survives_its_writing() {
        assert_eq!(imf(THEN), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(imf(Timestamp::from_millis(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(imf(Timestamp::from_millis(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
        for second in (0..LAST_S).step_by(86_400 * 97 + 12_345) {
            let time = Timestamp::from_millis(second * 1000);
            assert_eq!(parse(imf(time).as_bytes(), THEN), Some(time));
        }
        let leap_day = parse(b"Thu, 29 Feb 2024 23:59:59 GMT", THEN).unwrap();
        assert_eq!(leap_day.as_secs(), 1_709_251_199);
    }

    #[test]
    fn a_date_before_1970_is_its_beginning() {
        assert_eq!(parse(b"Mon, 01 Jan 1900 00:00:00 GMT", THEN), Some(Timestamp::from_millis(0)));
    }

    #[test]
    fn two_lines_are_no_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(field(&headers(&[]), &EXPIRES, THEN), DateField::Absent);
        assert_eq!(field(&headers(&[("expires", date)]), &EXPIRES, THEN), DateField::At(THEN));
        assert_eq!(field(&headers(&[("expires", date), ("expires", date)]), &EXPIRES, THEN), DateField::Bad);
        assert_eq!(field(&headers(&[("expires", "0")]), &EXPIRES, THEN), DateField::Bad);
    }
}
