//! Where an origin stores its blobs: in a folder of its own, or in a folder or a bucket that all origins share.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::SecretRef;
use crate::section::Section;

/// Where blobs are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobStore {
    /// In the origin's folder.
    Folder,
    /// In a folder that all origins mount.
    SharedFolder(PathBuf),
    /// In a bucket of an S3-compatible store.
    Bucket(Bucket),
}

/// A bucket, and what it takes to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What the keys of all blobs begin with; empty for nothing.
    pub prefix: String,
    /// The URL of the store, where it is not that of AWS.
    pub endpoint: Option<String>,
    /// The region that calls are signed for.
    pub region: String,
    /// The keys; where there are none, they come from the environment.
    pub keys: Option<BucketKeys>,
    /// Whether the bucket's name stands in the host rather than in the path.
    pub virtual_hosted: bool,
}

/// What a bucket is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketKeys {
    /// The id of the key.
    pub access: SecretRef,
    /// The key.
    pub secret: SecretRef,
}

/// The region that stores take which know none.
const REGION: &str = "us-east-1";

const EXPECTED: &str = "\"embedded\", a URL such as \"s3://bucket/prefix\" or \"file:///srv/blobs\", or { url = \"s3://...\", endpoint = \"http://minio:9000\", \
                        region = \"us-east-1\", access_key = \"env:NAME\", secret_key = \"file:PATH\", virtual_hosted = false }";

impl BlobStore {
    pub(crate) fn read(origin: &Section<'_>) -> Self {
        if !origin.is_table("blobs") {
            return match origin.parsed_or("blobs", EXPECTED, Short::Embedded) {
                Short::Embedded => Self::Folder,
                Short::Folder(path) => Self::SharedFolder(path),
                Short::Bucket(url) => Self::Bucket(Bucket::of(url)),
            };
        }
        origin.table("blobs").and_then(|section| Bucket::read(&section)).map_or(Self::Folder, Self::Bucket)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "s3://{}{slash}{}", self.name, self.prefix)?;
        self.endpoint.as_ref().map_or(Ok(()), |endpoint| write!(f, " at {endpoint}"))
    }
}

impl Bucket {
    fn of(url: BucketUrl) -> Self {
        let (name, prefix) = (url.name, url.prefix);
        Self { name, prefix, endpoint: None, region: REGION.to_owned(), keys: None, virtual_hosted: false }
    }

    fn read(section: &Section<'_>) -> Option<Self> {
        let url = section.required::<BucketUrl>("url", "a URL such as \"s3://bucket/prefix\"");
        let endpoint = section.parsed::<Endpoint>("endpoint", "a URL such as \"http://minio:9000\"");
        let region = section.parsed_or("region", "a name such as \"us-east-1\"", Region(REGION.to_owned()));
        for (one, other) in [("access_key", "secret_key"), ("secret_key", "access_key")] {
            if section.has(one) && !section.has(other) {
                section.complain(other, "is missing; expected file:PATH or env:NAME");
            }
        }
        let keys = section.secret("access_key").zip(section.secret("secret_key")).map(|(access, secret)| BucketKeys { access, secret });
        let virtual_hosted = section.bool_or("virtual_hosted", false);
        Some(Self { endpoint: endpoint.map(|endpoint| endpoint.0), region: region.0, keys, virtual_hosted, ..Self::of(url?) })
    }
}

/// What is written in one text.
enum Short {
    Embedded,
    /// `file:///srv/blobs`
    Folder(PathBuf),
    Bucket(BucketUrl),
}

/// `s3://bucket/prefix`
struct BucketUrl {
    name: String,
    prefix: String,
}

/// A store's URL, without a slash at its end.
struct Endpoint(String);

/// A region's name.
struct Region(String);

impl FromStr for Short {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("file://") {
            // From the root: what all origins mount is no part of any one's folder.
            Some(path) if path.len() > 1 && path.starts_with('/') => Ok(Self::Folder(PathBuf::from(path))),
            Some(_) => Err(()),
            None if text == "embedded" => Ok(Self::Embedded),
            None => text.parse().map(Self::Bucket),
        }
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Bucket(url) => write!(f, "s3://{}/{}", url.name, url.prefix),
        }
    }
}

impl FromStr for BucketUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("s3://").ok_or(())?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if is_bucket(name) && (prefix.is_empty() || prefix.split('/').all(is_segment)) {
            return Ok(Self { name: name.to_owned(), prefix: prefix.to_owned() });
        }
        Err(())
    }
}

/// What S3 allows as a bucket's name.
fn is_bucket(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    let allowed = |byte: &u8| is_end(Some(byte)) || b".-".contains(byte);
    (3..=63).contains(&bytes.len()) && bytes.iter().all(allowed) && is_end(bytes.first()) && is_end(bytes.last())
}

/// Characters that no store and no tool spells in several ways.
fn is_segment(segment: &str) -> bool {
    !segment.is_empty() && !segment.chars().all(|c| c == '.') && segment.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

impl FromStr for Endpoint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or(())?;
        wire::Host::of_authority(authority).map_err(|_| ())?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Region {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_name = (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if is_name { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_read_with_its_prefix_and_what_stores_would_spell_differently_is_refused() {
        for (text, name, prefix) in [
            ("s3://atoll-blobs", "atoll-blobs", ""),
            ("s3://a.b/", "a.b", ""),
            ("s3://abc/one", "abc", "one"),
            ("s3://abc/one/Two_2/", "abc", "one/Two_2"),
        ] {
            let url: BucketUrl = text.parse().unwrap();
            assert_eq!((url.name.as_str(), url.prefix.as_str()), (name, prefix), "{text}");
        }
        for wrong in
            ["", "s3://", "s3://ab", "s3://Abc", "s3://-ab", "s3://abc//x", "s3://abc/../x", "s3://abc/a b", "s3://k:s@abc", "http://abc"]
        {
            assert!(wrong.parse::<BucketUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_that_origins_share_is_named_from_the_root() {
        assert!(matches!("file:///srv/blobs".parse(), Ok(Short::Folder(path)) if path.as_os_str() == "/srv/blobs"));
        for wrong in ["file://", "file:///", "file://srv", "file:/srv", "/srv"] {
            assert!(wrong.parse::<Short>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_endpoint_has_neither_a_path_nor_a_password() {
        assert_eq!("https://s3.test:9000/".parse::<Endpoint>().unwrap().0, "https://s3.test:9000");
        for wrong in ["minio:9000", "http://", "http://a/b", "http://k:s@minio", "ftp://minio"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}
