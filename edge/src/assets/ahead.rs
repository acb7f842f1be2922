//! Fetches ahead what a new version will be asked for: its pages, and whatever readers of the version
//! before had asked this edge for, so that a switch is no wave of misses.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::stream::{self, TryStreamExt as _};
use wire::{Digest, FileEntry, Manifest};

use super::fetch::FetchError;
use super::folder::AssetKey;
use super::manifests::Manifests;

/// Bytes that one switch fetches ahead, before coding: what memory and folder hold for others is worth as much.
const MOST: u64 = 32 << 20;

/// What a form counts at least: a call costs something whatever it brings, and so the number of calls is bounded too.
const LEAST: u64 = 4 << 10;

/// Blobs that are fetched side by side; readers' own misses find room beside them.
const SIDE_BY_SIDE: usize = 4;

/// What every site is asked for, whatever its links say.
const PAGES: [&str; 2] = ["index.html", "404.html"];

/// The forms that a file may be asked for in, the best liked coding first.
const FORMS: [Option<&str>; 4] = [None, Some("zstd"), Some("br"), Some("gzip")];

/// A version that is or will be shown, and the one that its site showed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) to: Digest,
    pub(crate) from: Option<Digest>,
}

/// Fetches the blobs of each change until all are here, the bound is reached, or the origin can't be
/// asked: what is missing then is fetched when somebody asks for it.
pub(crate) async fn fetch_ahead(manifests: Arc<Manifests>, changes: Vec<Change>) {
    let mut room = MOST;
    for change in changes {
        let Ok(new) = manifests.get(change.to).await else { continue };
        let former = match change.from {
            Some(version) => manifests.get(version).await.ok(),
            None => None,
        };
        let held = Arc::clone(&manifests.assets);
        // Large sites have many files, and each is looked up in both tiers.
        let chosen = tokio::task::spawn_blocking(move || choose(&new, former.as_deref(), room, |key| held.holds(key))).await;
        let Ok((keys, left)) = chosen else { return };
        room = left;
        let fetched = stream::iter(keys.into_iter().map(Ok)).try_for_each_concurrent(SIDE_BY_SIDE, |(digest, coding)| {
            let assets = Arc::clone(&manifests.assets);
            async move {
                match assets.get(digest, coding).await {
                    Err(error @ FetchError::Unreachable(_)) => Err(error),
                    // One blob that can't be had says nothing about the others.
                    Ok(_) | Err(_) => Ok(()),
                }
            }
        });
        if fetched.await.is_err() {
            return;
        }
    }
}

/// Chooses what to fetch within `room`, the most important first, and returns it with the room that is left.
fn choose(new: &Manifest, former: Option<&Manifest>, mut room: u64, holds: impl Fn(&AssetKey) -> bool) -> (Vec<AssetKey>, u64) {
    let pages = PAGES.iter().filter_map(|page| new.get(page));
    let mut others: Vec<_> = new.files.iter().filter(|file| !PAGES.contains(&file.path.as_str())).collect();
    others.sort_by_key(|file| file.size);
    let (mut chosen, mut seen) = (Vec::new(), HashSet::new());
    for file in pages.chain(others) {
        let before = former.and_then(|former| former.get(file.path.as_str()));
        for coding in wanted_forms(file, before, &holds) {
            let key = (file.digest, coding);
            if holds(&key) || !seen.insert(key) {
                continue;
            }
            let cost = file.size.max(LEAST);
            // The others go by size: what comes behind does not fit either.
            let Some(left) = room.checked_sub(cost) else { return (chosen, room) };
            room = left;
            chosen.push(key);
        }
    }
    (chosen, room)
}

/// The forms in which readers had the file of the version before; of a page that none had, the plain one and the best coded one.
fn wanted_forms(file: &FileEntry, before: Option<&FileEntry>, holds: impl Fn(&AssetKey) -> bool) -> Vec<Option<&'static str>> {
    let possible = FORMS.into_iter().filter(|coding| coding.is_none() || file.is_compressible());
    let held: Vec<_> = possible.clone().filter(|coding| before.is_some_and(|before| holds(&(before.digest, *coding)))).collect();
    if held.is_empty() && PAGES.contains(&file.path.as_str()) { possible.take(2).collect() } else { held }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str, size: u64) -> FileEntry {
        let media_type = if path.ends_with(".png") { "image/png" } else { "text/html" }.to_owned();
        FileEntry { path: path.parse().unwrap(), digest: Digest::of(text.as_bytes()), size, media_type, headers: Default::default() }
    }

    fn manifest(files: Vec<FileEntry>) -> Manifest {
        Manifest::new(files).unwrap()
    }

    fn key(text: &str, coding: Option<&'static str>) -> AssetKey {
        (Digest::of(text.as_bytes()), coding)
    }

    #[test]
    fn pages_come_first_and_then_what_readers_had_the_smallest_first() {
        let old = [("large.html", "old large", 9000), ("small.png", "old small", 900), ("unread.html", "old", 9)];
        let former = manifest(old.iter().map(|(path, text, size)| file(path, text, *size)).collect());
        let new = manifest(vec![
            file("large.html", "large", 9000),
            file("small.png", "small", 800),
            file("unread.html", "unread", 9),
            file("added.html", "added", 9),
            file("index.html", "index", 20_000),
        ]);
        let held = [key("old large", Some("br")), key("old large", None), key("old small", None)];

        let (chosen, left) = choose(&new, Some(&former), MOST, |key| held.contains(key));

        let expected = [key("index", None), key("index", Some("zstd")), key("small", None), key("large", None), key("large", Some("br"))];
        assert_eq!(chosen, expected);
        assert_eq!(left, MOST - 40_000 - LEAST - 18_000);
    }

    #[test]
    fn what_is_here_already_is_not_fetched_again() {
        let one = manifest(vec![file("index.html", "same", 5000), file("a.html", "a", 10)]);
        let held = [key("same", None), key("same", Some("zstd")), key("a", None)];
        assert_eq!(choose(&one, Some(&one), MOST, |key| held.contains(key)), (vec![], MOST));
        let (chosen, _) = choose(&one, None, MOST, |key| *key == held[0]);
        assert_eq!(chosen, [key("same", Some("zstd"))], "a file that nobody asked for is left alone");
    }

    #[test]
    fn what_one_switch_fetches_is_bounded() {
        let former: Vec<_> = (0..20).map(|n| file(&format!("{n}.png"), &format!("old {n}"), 10)).collect();
        let new: Vec<_> = (0..20).map(|n| file(&format!("{n}.png"), &format!("new {n}"), n * 1000)).collect();
        let held: Vec<_> = former.iter().map(|file| (file.digest, None)).collect();
        let (chosen, left) = choose(&manifest(new), Some(&manifest(former)), 10 * LEAST, |key| held.contains(key));
        assert_eq!((chosen.len(), left), (8, 5 * LEAST - 18_000));
    }
}
