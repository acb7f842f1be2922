//! Cache groups (RFC 9875): responses of one origin that are made invalid together. A group is a tag whose
//! name holds the origin, so that no other origin can name it.

use http::HeaderMap;
use wire::{Host, Tag};

use super::fields::BadTags;
use super::list;

const CACHE_GROUPS: http::HeaderName = http::HeaderName::from_static("cache-groups");
const INVALIDATION: http::HeaderName = http::HeaderName::from_static("cache-group-invalidation");

/// Groups of one response: RFC 9875 (2.1) asks for 32 at the least.
const MOST: usize = 64;

/// Returns the tags of the groups that a response is in (RFC 9875, 2).
///
/// # Errors
/// Where it is in more than can be kept: it could not be made invalid by the others.
pub(crate) fn tags(headers: &HeaderMap, scheme: &str, host: &Host) -> Result<Vec<Tag>, BadTags> {
    read(headers, &CACHE_GROUPS, scheme, host)
}

/// What an answer to an unsafe method makes invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    /// The groups with these tags.
    Some(Vec<Tag>),
    /// More groups than are looked at one by one.
    Many,
}

/// Returns the groups that an answer to an unsafe method makes invalid (RFC 9875, 3). One that no tag can name
/// is of no stored response.
pub(crate) fn invalidated(headers: &HeaderMap, scheme: &str, host: &Host) -> Groups {
    let named = named(headers, &INVALIDATION);
    if named.len() > MOST {
        return Groups::Many;
    }
    Groups::Some(named.iter().filter_map(|group| tag(scheme, host, group)).collect())
}

/// The field is a structured list of strings; one that is not is ignored as a whole (RFC 9651, 4.2).
fn read(headers: &HeaderMap, name: &http::HeaderName, scheme: &str, host: &Host) -> Result<Vec<Tag>, BadTags> {
    let groups = named(headers, name);
    if groups.len() > MOST {
        return Err(BadTags::TooMany);
    }
    let mut tags = groups.iter().map(|group| tag(scheme, host, group).ok_or(BadTags::Invalid)).collect::<Result<Vec<_>, _>>()?;
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

fn named(headers: &HeaderMap, name: &http::HeaderName) -> Vec<String> {
    let members: Option<Vec<String>> = list::members_of(headers, name).map(string).collect();
    members.unwrap_or_default()
}

/// The string of a member, its parameters left out (RFC 9651, 3.3.3).
fn string(member: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(member).ok()?.trim().strip_prefix('"')?.chars();
    let mut text = String::new();
    loop {
        match rest.next()? {
            '"' => break,
            '\\' => text.push(rest.next().filter(|letter| matches!(letter, '"' | '\\'))?),
            letter @ ' '..='~' => text.push(letter),
            _ => return None,
        }
    }
    let behind = rest.as_str().trim_start();
    (behind.is_empty() || behind.starts_with(';')).then_some(text)
}

/// Tags are visible ASCII: a space is written as what no group's letter is written as.
fn tag(scheme: &str, host: &Host, group: &str) -> Option<Tag> {
    let escaped: String = group
        .chars()
        .map(|letter| match letter {
            ' ' => "%20".to_owned(),
            ',' => "%2C".to_owned(),
            '%' => "%25".to_owned(),
            letter => letter.to_string(),
        })
        .collect();
    format!("cache-group:{scheme}://{host}/{escaped}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn of(lines: &[(&str, &str)]) -> Vec<String> {
        tags(&headers(lines), "http", &"h".parse().unwrap()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rule_18_groups_are_tags_of_their_origin() {
        assert_eq!(
            of(&[("cache-groups", "\"b c\", \"a\";x=1"), ("cache-groups", "\"a\"")]),
            ["cache-group:http://h/a", "cache-group:http://h/b%20c"]
        );
        assert_eq!(of(&[("cache-groups", "\"a\\\"\\\\\"")]), ["cache-group:http://h/a\"\\"]);
        for bad in ["a", "\"a\", b", "\"a", "\"a\"x", "\"\\a\""] {
            assert!(of(&[("cache-groups", bad)]).is_empty(), "{bad}");
        }
        let many: String = (0..=MOST).map(|n| format!("\"{n}\",")).collect();
        assert!(
            tags(&headers(&[("cache-groups", &many)]), "http", &"h".parse().unwrap()).is_err(),
            "nothing is stored that can't be invalidated"
        );
        let invalid = headers(&[("cache-group-invalidation", "\"a\"")]);
        assert_eq!(invalidated(&invalid, "https", &"h".parse().unwrap()), Groups::Some(vec!["cache-group:https://h/a".parse().unwrap()]));
        let invalid = headers(&[("cache-group-invalidation", &many)]);
        assert_eq!(invalidated(&invalid, "https", &"h".parse().unwrap()), Groups::Many);
    }
}
