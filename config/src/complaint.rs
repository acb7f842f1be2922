//! What is wrong with a configuration, said so that it can be mended at once.

use std::fmt;

use crate::Source;
use crate::secret::NO_PASSWORD;

/// One thing that is wrong: where, which key and value, what was expected, and the nearest that we understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    source: Source,
    key: String,
    value: Option<String>,
    expected: String,
    nearest: Option<String>,
}

impl Complaint {
    pub(crate) fn new(source: Source, key: &str, value: Option<String>, expected: impl Into<String>) -> Self {
        let mut expected: String = expected.into();
        if value.as_ref().is_some_and(|value| value.contains(NO_PASSWORD)) {
            expected += "; a password does not stand in the file itself";
        }
        Self { source, key: key.to_owned(), value, expected, nearest: None }
    }

    pub(crate) fn syntax(source: Source, message: &str) -> Self {
        Self::new(source, "", None, message)
    }

    /// Returns the line that it is about; what stands in no line comes last.
    pub(crate) fn line(&self) -> usize {
        if let Source::File { line, .. } = self.source { line } else { usize::MAX }
    }

    /// Names what was probably meant.
    pub(crate) fn with_meant(self, meant: String) -> Self {
        Self { nearest: Some(meant), ..self }
    }

    /// Names the candidate that looks most like `given`, where one is near enough to be meant.
    pub(crate) fn with_nearest<'a>(mut self, given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        let scored = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(given, candidate), candidate));
        self.nearest = scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.to_owned());
        self
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), &self.value) {
            (true, _) => write!(f, "{}: {}", self.source, self.expected)?,
            (false, None) => write!(f, "{}: {}: {}", self.source, self.key, self.expected)?,
            (false, Some(value)) => write!(f, "{}: {} = {value}: {}", self.source, self.key, self.expected)?,
        }
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    pub(crate) fn new(complaints: impl IntoIterator<Item = Complaint>) -> Self {
        Self(complaints.into_iter().collect())
    }

    /// Returns the complaints in the order in which they were found.
    #[must_use]
    pub fn as_slice(&self) -> &[Complaint] {
        &self.0
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, complaint) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}
