//! One version of a site: which path has which bytes. Its digest is the version's name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The most files that one version may have.
pub const MAX_FILES: usize = 100_000;

/// A path within a site: relative, with `/`, and unable to climb out.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePath(String);

/// Why a manifest or one of its paths is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadManifest {
    /// A path that could mean something else than a file below the site's root.
    #[error("path `{path}` is not allowed: {why}")]
    Path {
        /// The path.
        path: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The same path twice.
    #[error("path `{0}` stands there twice")]
    Twice(FilePath),
    /// One digest with two sizes.
    #[error("blob {0} is given with two different sizes")]
    TwoSizes(Digest),
    /// Nothing to publish.
    #[error("there is no file in it")]
    Empty,
    /// Too much to publish.
    #[error("{0} files are more than the {MAX_FILES} that a version may have")]
    TooMany(usize),
    /// A header that a response must not take from a manifest.
    #[error("header `{name}` of `{path}` is not allowed")]
    Header {
        /// The file.
        path: FilePath,
        /// The header's name.
        name: String,
    },
}

/// One file of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FileEntry {
    /// Where it is.
    #[schema(value_type = String)]
    pub path: FilePath,
    /// SHA-256 of its bytes.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its `Content-Type`.
    pub media_type: String,
    /// Further response headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl FileEntry {
    /// Tells whether the file is of a kind and size that compression makes smaller, so that its readers
    /// have a choice of codings.
    #[must_use]
    pub fn is_compressible(&self) -> bool {
        const TYPES: [&str; 11] = [
            "application/javascript",
            "application/json",
            "application/xml",
            "application/wasm",
            "application/rtf",
            "application/vnd.ms-fontobject",
            "font/ttf",
            "font/otf",
            "image/bmp",
            "image/x-icon",
            "image/vnd.microsoft.icon",
        ];
        let essence = self.media_type.split(';').next().unwrap_or_default().trim();
        let (kind, sub) = essence.split_once('/').unwrap_or((essence, ""));
        let text = kind == "text" || sub.ends_with("+json") || sub.ends_with("+xml") || TYPES.contains(&essence);
        text && self.size >= 256
    }
}

/// All files of one version, sorted by path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Manifest {
    /// The files.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// Sorts and checks the files of a version.
    ///
    /// # Errors
    /// See [`BadManifest`].
    pub fn new(mut files: Vec<FileEntry>) -> Result<Self, BadManifest> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Self { files };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), BadManifest> {
        match self.files.len() {
            0 => return Err(BadManifest::Empty),
            count if count > MAX_FILES => return Err(BadManifest::TooMany(count)),
            _ => {}
        }
        if let Some(pair) = self.files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(BadManifest::Twice(pair[0].path.clone()));
        }
        let mut sizes = BTreeMap::new();
        for file in &self.files {
            if *sizes.entry(file.digest).or_insert(file.size) != file.size {
                return Err(BadManifest::TwoSizes(file.digest));
            }
            if let Some(name) = file.headers.iter().find_map(|(name, value)| (!may_set(name, value)).then_some(name)) {
                return Err(BadManifest::Header { path: file.path.clone(), name: name.clone() });
            }
            if !is_field_value(&file.media_type) {
                return Err(BadManifest::Header { path: file.path.clone(), name: "content-type".to_owned() });
            }
        }
        Ok(())
    }

    /// Returns the one JSON text of this manifest, the bytes that its blob has.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        // A struct of strings and numbers always serialises; BTreeMap keeps header names in order.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns the digest of the canonical JSON: the version's name.
    #[must_use]
    pub fn version(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    /// Returns the file at `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&FileEntry> {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().and_then(|at| self.files.get(at))
    }

    /// Returns the bytes of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

/// Framing, validators and the connection are the edge's own business.
fn may_set(name: &str, value: &str) -> bool {
    const OURS: [&str; 14] = [
        "connection",
        "content-length",
        "content-type",
        "content-encoding",
        "content-range",
        "transfer-encoding",
        "trailer",
        "upgrade",
        "te",
        "keep-alive",
        "etag",
        "date",
        "age",
        "vary",
    ];
    let is_token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    is_token && !OURS.contains(&name) && is_field_value(value)
}

fn is_field_value(value: &str) -> bool {
    !value.is_empty() && value.len() <= 8192 && value.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b))
}

impl FilePath {
    /// Returns the path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part after the last slash.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Tells whether the name carries a hash, so that its bytes never change.
    ///
    /// A hash stands behind a `.`, `-` or `_` and before the ending: 8 or more hex digits, or 8 or more
    /// base64url characters with a digit, an upper-case and a lower-case letter. Since `-` and `_` are
    /// base64url characters themselves, such a hash may also be a whole part between dots, or the last
    /// 8 characters (what bundlers write) behind a separator.
    #[must_use]
    pub fn has_hash(&self) -> bool {
        let Some((stem, _ending)) = self.file_name().rsplit_once('.') else { return false };
        let pieces = stem.split(['.', '-', '_']).skip(1);
        let between_dots = stem.split('.').skip(1);
        let last_eight =
            stem.len().checked_sub(8).filter(|&at| at > 0 && b".-_".contains(&stem.as_bytes()[at - 1])).and_then(|at| stem.get(at..));
        pieces.chain(between_dots).chain(last_eight).any(is_hash)
    }
}

fn is_hash(part: &str) -> bool {
    let has = |test: fn(&u8) -> bool| part.as_bytes().iter().any(test);
    let hex = part.bytes().all(|b| b.is_ascii_hexdigit());
    let base64 = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    part.len() >= 8 && (hex || (base64 && has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)))
}

impl FromStr for FilePath {
    type Err = BadManifest;

    fn from_str(text: &str) -> Result<Self, BadManifest> {
        let refuse = |why| Err(BadManifest::Path { path: text.chars().take(200).collect(), why });
        if text.is_empty() || text.len() > 1024 {
            return refuse("1 to 1024 bytes are");
        }
        if text.chars().any(char::is_control) {
            return refuse("it has a control character");
        }
        if text.contains('\\') {
            return refuse("it has a backslash");
        }
        if text.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return refuse("it must be relative, without empty, `.` or `..` parts");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for FilePath {
    type Error = BadManifest;

    fn try_from(text: String) -> Result<Self, BadManifest> {
        text.parse()
    }
}

impl From<FilePath> for String {
    fn from(path: FilePath) -> Self {
        path.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: &[u8]) -> FileEntry {
        FileEntry {
            path: path.parse().unwrap(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            media_type: "text/plain".to_owned(),
            headers: BTreeMap::new(),
        }
    }

    #[test]
    fn the_version_does_not_depend_on_the_order_of_the_files() {
        let one = Manifest::new(vec![file("b", b"2"), file("a", b"1")]).unwrap();
        let two = Manifest::new(vec![file("a", b"1"), file("b", b"2")]).unwrap();
        assert_eq!(one.version(), two.version());
        assert_eq!(one.get("b").unwrap().size, 1);
        assert!(one.get("c").is_none());
    }

    #[test]
    fn the_canonical_json_is_golden() {
        let mut entry = file("index.html", b"abc");
        entry.headers.insert("x-robots-tag".to_owned(), "noindex".to_owned());
        let manifest = Manifest::new(vec![entry]).unwrap();
        assert_eq!(String::from_utf8(manifest.canonical()).unwrap(), include_str!("../golden/manifest.json").trim_end());
    }

    #[test]
    fn paths_that_climb_are_refused() {
        for good in ["index.html", "a/b/c.js", "..a/b..", "ü/é.html", "a b"] {
            assert!(good.parse::<FilePath>().is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a\\b", "a\nb", "a\0", &"x".repeat(1025)] {
            assert!(bad.parse::<FilePath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        assert!(matches!(Manifest::new(vec![]), Err(BadManifest::Empty)));
        assert!(matches!(Manifest::new(vec![file("a", b"1"), file("a", b"2")]), Err(BadManifest::Twice(_))));
        let mut liar = file("b", b"1");
        liar.size = 9;
        assert!(matches!(Manifest::new(vec![file("a", b"1"), liar]), Err(BadManifest::TwoSizes(_))));
        for (name, value) in [("content-length", "1"), ("x y", "1"), ("x", "a\r\nb"), ("X-Upper", "1")] {
            let mut smuggler = file("a", b"1");
            smuggler.headers.insert(name.to_owned(), value.to_owned());
            assert!(matches!(Manifest::new(vec![smuggler]), Err(BadManifest::Header { .. })), "{name}");
        }
    }

    #[test]
    fn names_with_a_hash_are_known() {
        for yes in [
            "index.3b1f9a07.js",
            "static/main-deadbeef.css",
            "a_0123456789abcdef.png",
            "index-BxK3q9Zt.js",
            "index.D4f-x_9Qz2.js",
            "Chart.D_YO7sq8.js",
            "index-Bx-3q9Zt.js",
            "chunk.DEADBEEF.map.js",
            "app.20240101.js",
        ] {
            assert!(yes.parse::<FilePath>().unwrap().has_hash(), "{yes}");
        }
        for no in [
            "index.html",
            "main-abc123.js",
            "jquery-3.7.1.min.js",
            "background.js",
            "Documentation.html",
            "deadbeef",
            "index.deadbeef",
            "Roboto-BoldItalic.woff2",
            "application-form.js",
            "MyComponent2.js",
            "20240101.html",
            "jquery-3-MyPlugin.js",
        ] {
            assert!(!no.parse::<FilePath>().unwrap().has_hash(), "{no}");
        }
    }
}
