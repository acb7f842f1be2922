//! Which file of a version a path means: exact files, `index.html`, clean URLs, `404.html`, and
//! hashed files of versions that were shown within the last day.

use wire::{FileEntry, FilePath, Manifest};

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved<'a> {
    /// A file.
    File(&'a FileEntry),
    /// `/dir` is a folder: its address ends in a slash.
    Folder,
    /// A file with a hash in its name that this version lacks: a version of the last day may have it.
    Former(FilePath),
    /// Nothing; with the site's own page for that, where it has one.
    Nothing(Option<&'a FileEntry>),
}

/// Finds the file for a decoded path that begins with `/`.
pub(crate) fn resolve<'a>(manifest: &'a Manifest, path: &str) -> Resolved<'a> {
    let relative = path.strip_prefix('/').unwrap_or(path);
    if relative.is_empty() || relative.ends_with('/') {
        return manifest.get(&format!("{relative}index.html")).map_or_else(|| nothing(manifest), Resolved::File);
    }
    if let Some(file) = manifest.get(relative).or_else(|| manifest.get(&format!("{relative}.html"))) {
        return Resolved::File(file);
    }
    if manifest.get(&format!("{relative}/index.html")).is_some() {
        return Resolved::Folder;
    }
    match relative.parse::<FilePath>() {
        Ok(path) if path.has_hash() => Resolved::Former(path),
        _ => nothing(manifest),
    }
}

/// Returns the answer for a path that leads nowhere.
pub(crate) fn nothing(manifest: &Manifest) -> Resolved<'_> {
    Resolved::Nothing(manifest.get("404.html"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Digest;

    fn manifest(paths: &[&str]) -> Manifest {
        let file = |path: &&str| FileEntry {
            path: path.parse().unwrap(),
            digest: Digest::of(path.as_bytes()),
            size: 1,
            media_type: "text/html".to_owned(),
            headers: Default::default(),
        };
        Manifest::new(paths.iter().map(file).collect()).unwrap()
    }

    #[test]
    fn a_path_leads_to_its_file() {
        let site = manifest(&["index.html", "about.html", "docs/index.html", "docs/a b.txt", "404.html", "both", "both.html"]);
        let found = |path: &str| match resolve(&site, path) {
            Resolved::File(file) => file.path.to_string(),
            Resolved::Folder => "folder".to_owned(),
            Resolved::Former(path) => format!("former {path}"),
            Resolved::Nothing(page) => format!("nothing, {}", page.map_or("bare", |page| page.path.as_str())),
        };
        let cases = [
            ("/", "index.html"),
            ("/index.html", "index.html"),
            ("/about", "about.html"),
            ("/about.html", "about.html"),
            ("/docs", "folder"),
            ("/docs/", "docs/index.html"),
            ("/docs/a b.txt", "docs/a b.txt"),
            ("/both", "both"),
            ("/about/", "nothing, 404.html"),
            ("/nowhere", "nothing, 404.html"),
            ("//", "nothing, 404.html"),
            ("/index.3b1f9a07.js", "former index.3b1f9a07.js"),
        ];
        for (path, file) in cases {
            assert_eq!(found(path), file, "{path}");
        }
    }
}
