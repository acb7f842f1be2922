//! Reads a folder as a version of a site: paths, digests, sizes and media types.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::ProgressBar;
use walkdir::{DirEntry, WalkDir};
use wire::{Digest, FileEntry, FilePath, Hasher, MAX_FILES, Manifest};

use crate::exit::Failure;

/// A folder that can be published.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) manifest: Manifest,
    /// Where the bytes of each digest are.
    pub(crate) sources: HashMap<Digest, PathBuf>,
    pub(crate) warnings: Vec<String>,
}

/// A file that was found.
#[derive(Debug)]
struct FoundFile {
    path: FilePath,
    source: PathBuf,
    size: u64,
}

/// Reads `folder`; `progress` counts bytes.
pub(crate) async fn scan(folder: &Path, progress: &ProgressBar) -> Result<Scanned, Failure> {
    let Walk { files, mut warnings } = walk(folder)?;
    progress.set_length(files.iter().map(|file| file.size).sum());
    let side_by_side = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let hashed = stream::iter(files.into_iter().map(|file| {
        let progress = progress.clone();
        async move {
            let hashed = tokio::task::spawn_blocking(move || hash(file, &progress)).await;
            hashed.map_err(Failure::failed)?
        }
    }));
    let hashed: Vec<(FileEntry, PathBuf)> = hashed.buffered(side_by_side).try_collect().await?;
    let sources = hashed.iter().map(|(entry, source)| (entry.digest, source.clone())).collect();
    warnings.extend(case_twins(&hashed));
    let manifest = Manifest::new(hashed.into_iter().map(|(entry, _)| entry).collect()).map_err(Failure::typed)?;
    Ok(Scanned { manifest, sources, warnings })
}

/// What a walk through a folder found.
#[derive(Debug, Default)]
struct Walk {
    files: Vec<FoundFile>,
    warnings: Vec<String>,
}

/// Files and folders that are hardly meant for everybody.
const PRIVATE: [&str; 5] = [".env", ".git", ".hg", ".htpasswd", ".svn"];

/// Names that can't be published are listed up to this many.
const NAMED: usize = 20;

fn walk(folder: &Path) -> Result<Walk, Failure> {
    let root = folder.canonicalize().map_err(|error| Failure::typed(format!("failed to read the folder {}: {error}", folder.display())))?;
    if !root.is_dir() {
        return Err(Failure::typed(format!("{} is not a folder", folder.display())));
    }
    let (mut walk, mut wrong) = (Walk::default(), Vec::new());
    for entry in WalkDir::new(&root).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| Failure::typed(format!("failed to read {}: {error}", folder.display())))?;
        if entry.path_is_symlink() {
            check_link(&root, entry.path())?;
        }
        walk.remark(&root, &entry);
        if !entry.file_type().is_file() {
            continue;
        }
        let size = entry.path().metadata().with_context(|| format!("failed to read {}", entry.path().display()))?.len();
        match path_of(&root, entry.path()) {
            Ok(path) => walk.files.push(FoundFile { path, source: entry.path().to_owned(), size }),
            Err(said) => wrong.push(said),
        }
        if walk.files.len() > MAX_FILES {
            return Err(Failure::typed(format!("{} has more than the {MAX_FILES} files that a version may have", folder.display())));
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::typed(listed(&wrong)));
    }
    if walk.files.is_empty() {
        return Err(Failure::typed(format!("there is no file in {}", folder.display())));
    }
    Ok(walk)
}

impl Walk {
    /// Remarks on what is left out without being asked to, and on what is hardly meant to be published.
    fn remark(&mut self, root: &Path, entry: &DirEntry) {
        let shown = entry.path().strip_prefix(root).unwrap_or_else(|_| entry.path()).display();
        if !entry.file_type().is_file() && !entry.file_type().is_dir() {
            self.warnings.push(format!("`{shown}` is left out: it is neither a file nor a folder"));
        } else if entry.depth() > 0 && PRIVATE.iter().any(|private| entry.file_name() == *private) {
            self.warnings.push(format!("`{shown}` is published too, for everybody to read"));
        }
    }
}

/// Lists all that is wrong, a line each.
fn listed(wrong: &[String]) -> String {
    let mut lines: Vec<_> = wrong.iter().take(NAMED).cloned().collect();
    if wrong.len() > NAMED {
        lines.push(format!("and {} more such names", wrong.len() - NAMED));
    }
    lines.join("\n")
}

/// A link may point to what is published, never to what lies around it.
fn check_link(root: &Path, link: &Path) -> Result<(), Failure> {
    let target = link.canonicalize().map_err(|error| Failure::typed(format!("the link {} leads nowhere: {error}", link.display())))?;
    if target.starts_with(root) {
        return Ok(());
    }
    Err(Failure::typed(format!("the link {} leaves the folder: it points to {}", link.display(), target.display())))
}

fn path_of(root: &Path, path: &Path) -> Result<FilePath, String> {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let text = relative.to_str().ok_or_else(|| format!("the name of {} is not UTF-8", path.display()))?;
    text.parse::<FilePath>().map_err(|error| error.to_string())
}

/// Reads a file for its digest and size.
pub(crate) fn digest_of(source: &Path, progress: &ProgressBar) -> std::io::Result<(Digest, u64)> {
    let mut file = File::open(source)?;
    let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.finish(), size)),
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
                progress.inc(count as u64);
            }
        }
    }
}

fn hash(found: FoundFile, progress: &ProgressBar) -> Result<(FileEntry, PathBuf), Failure> {
    let (digest, size) = digest_of(&found.source, progress).with_context(|| format!("failed to read {}", found.source.display()))?;
    let entry = FileEntry { media_type: media_type(found.path.file_name()), path: found.path, digest, size, headers: BTreeMap::new() };
    Ok((entry, found.source))
}

/// The media type of a file by its ending; text gets its charset.
fn media_type(name: &str) -> String {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    // What the table of the library lacks or calls by an older name.
    let known = match ending.as_str() {
        "js" | "mjs" | "cjs" => Some("text/javascript"),
        "wasm" => Some("application/wasm"),
        "avif" => Some("image/avif"),
        "webmanifest" => Some("application/manifest+json"),
        "map" => Some("application/json"),
        "ico" => Some("image/x-icon"),
        "woff2" => Some("font/woff2"),
        "md" => Some("text/markdown"),
        _ => None,
    };
    let essence = known.map_or_else(|| mime_guess::from_ext(&ending).first_or_octet_stream().essence_str().to_owned(), str::to_owned);
    if essence.starts_with("text/") { format!("{essence}; charset=utf-8") } else { essence }
}

fn case_twins(hashed: &[(FileEntry, PathBuf)]) -> Vec<String> {
    let mut seen = HashMap::new();
    let mut twins = Vec::new();
    for (entry, _) in hashed {
        if let Some(first) = seen.insert(entry.path.as_str().to_lowercase(), &entry.path) {
            twins.push(format!("`{first}` and `{}` differ by case alone", entry.path));
        }
    }
    twins
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn scan_files(files: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Result<Scanned, String> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("site");
        std::fs::create_dir(&root).unwrap();
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        prepare(&root);
        scan(&root, &ProgressBar::hidden()).await.map_err(|failure| match failure {
            Failure::Typed(error) | Failure::Failed(error) => error.to_string(),
        })
    }

    #[tokio::test]
    async fn a_folder_becomes_a_manifest() {
        let scanned = scan_files(&[("index.html", "hi"), ("a/b.wasm", ""), ("a/c.mjs", "x")], |_| {}).await.unwrap();
        let rows: Vec<_> = scanned.manifest.files.iter().map(|file| (file.path.as_str(), file.media_type.as_str(), file.size)).collect();
        assert_eq!(
            rows,
            [
                ("a/b.wasm", "application/wasm", 0),
                ("a/c.mjs", "text/javascript; charset=utf-8", 1),
                ("index.html", "text/html; charset=utf-8", 2)
            ]
        );
    }

    #[tokio::test]
    async fn a_link_that_leaves_the_folder_is_refused_and_one_within_is_followed() {
        let said =
            scan_files(&[("a", "1")], |root| std::os::unix::fs::symlink("/etc/hostname", root.join("out")).unwrap()).await.unwrap_err();
        assert!(said.contains("leaves the folder"), "{said}");
        let scanned = scan_files(&[("a", "1")], |root| std::os::unix::fs::symlink("a", root.join("b")).unwrap()).await.unwrap();
        assert_eq!(scanned.manifest.files.len(), 2);
    }

    #[tokio::test]
    async fn an_empty_folder_is_refused_and_paths_that_differ_by_case_are_named() {
        assert!(scan_files(&[], |_| {}).await.unwrap_err().contains("no file"));
        let twins = scan_files(&[("A.txt", "1"), ("a.txt", "2")], |_| {}).await.unwrap().warnings;
        assert_eq!(twins.len(), 1);
    }

    #[tokio::test]
    async fn what_is_left_out_and_what_is_hardly_meant_is_said() {
        let files = [("a", "1"), (".git/config", "x"), (".well-known/b", "2")];
        let listen = |root: &Path| drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
        let scanned = scan_files(&files, listen).await.unwrap();
        assert_eq!(
            scanned.warnings,
            ["`.git` is published too, for everybody to read", "`socket` is left out: it is neither a file nor a folder"]
        );
        assert_eq!(scanned.manifest.files.len(), 3);
    }

    #[tokio::test]
    async fn all_names_that_can_not_be_published_are_said_at_once() {
        let said = scan_files(&[("a", "1"), ("b\\c", "2"), ("d\\e", "3")], |_| {}).await.unwrap_err();
        assert!(said.lines().count() == 2 && said.contains("b\\c") && said.contains("d\\e"), "{said}");
    }
}
