//! The id of a publish between its manifest and its commit: it carries the version, so that any origin can commit it.
//!
//! It also carries a seal that only origins can make. Without it whoever may publish one site could commit a version of
//! another one, whose id shows in many places, and so get at files of which it has no more than that id.

use subtle::ConstantTimeEq as _;
use wire::{Digest, SiteName};

/// The hex digits of a seal.
const SEAL: usize = 32;

/// Returns the id of a publish whose manifest was taken.
pub(crate) fn write(site: &SiteName, version: &Digest, key: &[u8; 16]) -> String {
    format!("p{version}-{}", seal(site, version, key))
}

/// Returns the version that an id of this site stands for.
pub(crate) fn read(id: &str, site: &SiteName, key: &[u8; 16]) -> Option<Digest> {
    let (version, shown) = id.strip_prefix('p')?.split_once('-')?;
    let version = version.parse().ok()?;
    let is_ours: bool = seal(site, &version, key).as_bytes().ct_eq(shown.as_bytes()).into();
    is_ours.then_some(version)
}

/// Everything behind the key has one length or one end, so that no other text has the same seal.
fn seal(site: &SiteName, version: &Digest, key: &[u8; 16]) -> String {
    let text = [key.as_slice(), b"publish", version.as_bytes(), site.as_str().as_bytes()].concat();
    Digest::of(&text).to_string().chars().take(SEAL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stands_for_its_version_of_its_site_at_every_origin_of_the_network_and_nowhere_else() {
        let (site, other): (SiteName, SiteName) = ("www".parse().unwrap(), "docs".parse().unwrap());
        let (version, key) = (Digest::of(b"version"), [7; 16]);
        let id = write(&site, &version, &key);
        assert_eq!(read(&id, &site, &key), Some(version));
        assert_eq!(read(&id, &other, &key), None);
        assert_eq!(read(&id, &site, &[8; 16]), None);
        for strange in ["", "p1", "p-", &id[1..], &id[..id.len() - 1], &format!("{id}0"), &id.replace('-', "")] {
            assert_eq!(read(strange, &site, &key), None, "{strange}");
        }
    }
}
