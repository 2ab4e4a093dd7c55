//! Expands the paths of a request, absolute or relative to the tree's directory and with wildcards,
//! into paths of the tree.
//!
//! Must not follow a symbolic link: its target is not part of the tree.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::FileType;

use crate::error::IoResultExt;
use crate::manifest::TreePath;
use crate::manifest::header::MAX_PATTERNS;
use crate::tree::Root;
use crate::units::printable;
use crate::{Error, Result};

/// Expanded paths of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// Paths, none of them below another; empty for the whole tree.
    pub(super) paths: Vec<TreePath>,
    /// The directories among them.
    pub(super) dirs: Vec<TreePath>,
    /// The missing paths.
    pub(super) missing: Vec<TreePath>,
}

/// Expands `words` in the tree at `root`; no word means the whole tree. A missing path is an error
/// unless `may_be_missing`.
pub(super) fn named(root: &Root, words: &[Vec<u8>], may_be_missing: bool) -> Result<Named> {
    let mut paths = Vec::new();
    for word in words {
        let Some(path) = within(root.path(), word)? else {
            return Ok(Named::default());
        };
        match is_there(root, &path)? {
            Some(_) => paths.push(path),
            None if is_pattern(path.as_bytes()) => paths.extend(expand(root, &path)?),
            None if may_be_missing => paths.push(path),
            None => return Err(no_such(&path)),
        }
    }

    paths.sort();
    // In the order of a walk, paths below a path follow directly.
    paths.dedup_by(|later, earlier| later.is_within(earlier));

    if paths.len() > MAX_PATTERNS {
        return Err(
            Error::usage(format!("more than {MAX_PATTERNS} paths at once"))
                .hint("name the directory above them"),
        );
    }

    let mut named = Named {
        paths,
        ..Named::default()
    };

    for path in &named.paths {
        match is_there(root, path)? {
            Some(FileType::Directory) => named.dirs.push(path.clone()),
            Some(_) => {}
            None => named.missing.push(path.clone()),
        }
    }

    Ok(named)
}

/// Error for a missing path, in the words of the C library.
pub(super) fn no_such(path: &TreePath) -> Error {
    Error::usage(format!(
        "No such file or directory {}",
        printable(path.as_bytes())
    ))
}

/// The path to which `from` goes by the word `to`: a directory for it if that ends with a slash.
pub(super) fn destination(root: &Root, from: &TreePath, to: &[u8]) -> Result<TreePath> {
    let dir = within(root.path(), to)?;
    match dir {
        Some(dir) if !to.ends_with(b"/") => Ok(dir),
        Some(dir) => dir
            .join(from.name())
            .map_err(|e| Error::usage(e.to_string())),
        None => TreePath::new(from.name()).map_err(|e| Error::usage(e.to_string())),
    }
}

/// Converts `word` to a path within the tree at `base`; `None` for the tree itself.
fn within(base: &Path, word: &[u8]) -> Result<Option<TreePath>> {
    let outside = || {
        let word = printable(word);
        let base = printable(base.as_os_str().as_bytes());
        Error::usage(format!("{word} is outside the base directory {base}"))
    };

    let word_path = Path::new(std::ffi::OsStr::from_bytes(word));
    let relative = match word_path.is_absolute() {
        false => word_path.to_path_buf(),
        true => {
            let real = std::fs::canonicalize(base).unwrap_or_else(|_| base.to_path_buf());
            let below = word_path
                .strip_prefix(base)
                .or_else(|_| word_path.strip_prefix(&real));
            below.map_err(|_| outside())?.to_path_buf()
        }
    };

    // Normalizes `./a//b/` and keeps `..`, which is no path of a tree.
    let clean: std::path::PathBuf = relative
        .components()
        .filter(|c| *c != std::path::Component::CurDir)
        .collect();

    if clean
        .components()
        .any(|c| c == std::path::Component::ParentDir)
    {
        return Err(outside());
    }

    match clean.as_os_str().is_empty() {
        true => Ok(None),
        false => TreePath::new(clean.as_os_str().as_bytes())
            .map(Some)
            .map_err(|e| Error::usage(e.to_string())),
    }
}

fn is_there(root: &Root, path: &TreePath) -> Result<Option<FileType>> {
    match root.stat(path) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Err(Error::usage(format!(
                "{} is behind a symbolic link",
                printable(path.as_bytes())
            ))
            .hint("name the path that the link leads to, when that is in the tree"))
        }
        Err(e) => Err(Error::io("cannot look at", root.shown(path), e)),
    }
}

fn is_pattern(path: &[u8]) -> bool {
    path.iter().any(|b| b"*?[{\\".contains(b))
}

/// Paths that match the pattern, component by component; `**` matches any number of directories.
fn expand(root: &Root, pattern: &TreePath) -> Result<Vec<TreePath>> {
    let parts: Vec<PatternPart> = pattern
        .components()
        .map(PatternPart::of)
        .collect::<Result<_>>()?;
    let mut found = Vec::new();
    step(root, None, &parts, &mut found)?;

    if found.is_empty() {
        Err(no_such(pattern))
    } else {
        Ok(found)
    }
}

enum PatternPart {
    Any,
    Exact(Vec<u8>),
    Glob(GlobMatcher, bool),
}

impl PatternPart {
    fn of(component: &[u8]) -> Result<Self> {
        if component == b"**" {
            return Ok(Self::Any);
        }

        if !is_pattern(component) {
            return Ok(Self::Exact(component.to_vec()));
        }

        let wrong = |why: String| Error::usage(format!("{}: {why}", printable(component)));
        let text = std::str::from_utf8(component)
            .map_err(|_| wrong("a pattern has to be UTF-8".into()))?;
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .build()
            .map_err(|e| wrong(e.kind().to_string()))?;

        // As in a shell, a wildcard does not match a leading dot.
        Ok(Self::Glob(glob.compile_matcher(), text.starts_with('.')))
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => !name.starts_with(b"."),
            Self::Exact(exact) => exact == name,
            Self::Glob(glob, hidden) => {
                (*hidden || !name.starts_with(b"."))
                    && glob.is_match(Path::new(std::ffi::OsStr::from_bytes(name)))
            }
        }
    }
}

fn step(
    root: &Root,
    at: Option<&TreePath>,
    parts: &[PatternPart],
    found: &mut Vec<TreePath>,
) -> Result<()> {
    let Some((part, rest)) = parts.split_first() else {
        return Ok(());
    };

    if matches!(part, PatternPart::Any) {
        step(root, at, rest, found)?;
    }

    let dir = match root.dir(at) {
        Ok(dir) => dir,
        // Removed since the listing.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => {
            return Err(Error::io(
                "cannot read",
                at.map_or(root.path().to_path_buf(), |at| root.shown(at)),
                e,
            ));
        }
    };

    let mut names = names(&dir).context("cannot read", root.path())?;
    names.retain(|name| part.matches(name));
    names.sort();

    for name in names {
        let path = at.map_or_else(|| TreePath::new(name.as_slice()), |at| at.join(&name));
        let Ok(path) = path else { continue };
        let is_dir = is_there(root, &path)? == Some(FileType::Directory);
        match (part, rest.is_empty()) {
            (PatternPart::Any, last) if is_dir => {
                if last {
                    found.push(path.clone());
                }
                step(root, Some(&path), parts, found)?;
            }
            (PatternPart::Any, _) => {}
            (_, true) => found.push(path),
            (_, false) if is_dir => step(root, Some(&path), rest, found)?,
            (_, false) => {}
        }
    }

    Ok(())
}

fn names(dir: &impl std::os::fd::AsFd) -> std::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }

    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for file in [
                "a.html",
                "b.html",
                "c.txt",
                ".hidden.html",
                "sub/x",
                "sub/y.html",
                "sub/deep/z.html",
                "we[ird",
            ] {
                let path = dir.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "").unwrap();
            }

            std::os::unix::fs::symlink("sub", dir.path().join("link")).unwrap();
            Self(dir)
        }

        fn named(&self, words: &[&str]) -> Result<Vec<String>> {
            let root = Root::open(self.0.path()).unwrap();
            let words: Vec<Vec<u8>> = words.iter().map(|w| w.as_bytes().to_vec()).collect();
            let named = named(&root, &words, false)?;
            Ok(named
                .paths
                .iter()
                .map(|p| String::from_utf8_lossy(p.as_bytes()).into_owned())
                .collect())
        }
    }

    #[test]
    fn wildcards_are_expanded_as_a_shell_would() {
        let tree = Tree::new();
        let named = |word: &str| tree.named(&[word]).unwrap();
        assert_eq!(named("*.html"), ["a.html", "b.html"]);
        assert_eq!(named(".*.html"), [".hidden.html"]);
        assert_eq!(named("s*/?"), ["sub/x"]);
        assert_eq!(
            named("**/*.html"),
            ["a.html", "b.html", "sub/deep/z.html", "sub/y.html"]
        );
        assert_eq!(named("{a,b}.html"), ["a.html", "b.html"]);
        assert_eq!(named("we[ird"), ["we[ird"], "a file of that very name");

        assert!(named("link*").contains(&"link".to_string()));
    }

    #[test]
    fn paths_are_taken_from_the_base_and_end_in_it() {
        let tree = Tree::new();
        let inside = tree.0.path().join("sub/x");
        assert_eq!(tree.named(&[inside.to_str().unwrap()]).unwrap(), ["sub/x"]);
        assert_eq!(
            tree.named(&["./sub//", "sub/x", "a.html"]).unwrap(),
            ["a.html", "sub"]
        );

        assert_eq!(
            tree.named(&["a.html", "."]).unwrap(),
            Vec::<String>::new(),
            "all of it"
        );

        for outside in ["../x", "sub/../../x", "/etc/passwd"] {
            let error = tree.named(&[outside]).unwrap_err().to_string();
            assert!(error.contains("outside the base directory"), "{error}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let tree = Tree::new();
        for missing in ["nosuch", "sub/x/y", "*.nosuch"] {
            let error = tree.named(&[missing]).unwrap_err().to_string();
            assert_eq!(error, format!("No such file or directory {missing}"));
        }

        assert!(
            tree.named(&["link/x"])
                .unwrap_err()
                .to_string()
                .contains("behind a symbolic link")
        );
        let root = Root::open(tree.0.path()).unwrap();
        let gone = named(&root, &[b"gone".to_vec()], true).unwrap();

        assert_eq!((gone.paths.len(), gone.missing.len()), (1, 1));
    }
}
