//! What an origin asks its edges beside the journal: how much they hold of what a purge would take. A question
//! travels on the feed, is no part of the fold, and moves nobody's position.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{NodeName, Owner, Scope};

/// "How much do you hold of this?"
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Question {
    /// Its number, by which it is answered.
    pub id: u64,
    /// The owner within which tags and `all` are matched.
    #[schema(value_type = String)]
    pub owner: Owner,
    /// What, with hosts and URLs resolved.
    #[schema(value_type = Vec<Object>)]
    pub scopes: Vec<Scope>,
}

/// How much is held of what was asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Counted {
    /// URLs with at least one such response.
    pub urls: u64,
    /// Stored responses: each variant of a URL is one, whole or in parts, with all of its codings.
    pub entries: u64,
    /// The memory that they take.
    pub bytes: u64,
}

impl Counted {
    /// Returns both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            urls: self.urls.saturating_add(other.urls),
            entries: self.entries.saturating_add(other.entries),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// The answer of one edge to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QuestionAnswer {
    /// Who answers.
    #[schema(value_type = String)]
    pub follower: NodeName,
    /// What it holds.
    #[serde(flatten)]
    pub counted: Counted,
}

/// Reads the questions of a feed line. What is not understood of them is left out: a question that a newer origin
/// asks must not keep a node from following.
pub(crate) fn understood<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Question>, D::Error> {
    let questions = match Value::deserialize(deserializer)? {
        Value::Array(questions) => questions,
        _ => Vec::new(),
    };
    Ok(questions.into_iter().filter_map(|question| serde_json::from_value(question).ok()).collect())
}

#[cfg(test)]
mod tests {
    use crate::FeedLine;

    fn line(more: &str) -> FeedLine {
        let begin = r#"{"epoch":"0707070707070707","from":4,"to":4,"chain":"000102030405060708090a0b0c0d0e0f","head":4,"events":[]"#;
        serde_json::from_str(&format!("{begin}{more}}}")).unwrap()
    }

    #[test]
    fn a_question_that_is_not_understood_keeps_nobody_from_following() {
        let good = r#"{"id":7,"owner":"default","scopes":[{"tag":"t"}]}"#;
        for (questions, ids) in [
            (format!("[{good}]"), vec![7_u64]),
            (format!(r#"[{{"id":8,"wish":"all"}},{good},"what?"]"#), vec![7_u64]),
            ("{}".to_owned(), vec![]),
            ("null".to_owned(), vec![]),
            ("[]".to_owned(), vec![]),
        ] {
            let line = line(&format!(r#","questions":{questions}"#));
            assert_eq!(line.questions.iter().map(|question| question.id).collect::<Vec<_>>(), ids, "{questions}");
        }
    }

    #[test]
    fn a_line_without_questions_is_written_as_it_always_was() {
        assert!(!serde_json::to_string(&line("")).unwrap().contains("questions"));
    }
}
