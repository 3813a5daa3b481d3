//! The committed files, and how much they weigh together.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Problems;

/// Of data: models, goldens, images. Everybody who clones the repository pays for it.
const MAX_TOTAL_BYTES: u64 = 25_000_000;

/// Extensions of what people write, which may grow.
const WRITTEN: &[&str] = &["cpp", "lock", "md", "py", "rs", "sh", "toml"];

const LISTED: usize = 5;

/// Paths, relative to `root`, of the files that are committed or would be by `git add --all`.
///
/// # Errors
///
/// If git does not list them.
pub fn committed(root: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("git");
    // The checkout may belong to another user, as in containers.
    command.args(["-c", "safe.directory=*", "-C"]).arg(root);
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = command.output().context("cannot start git, which lists the files to check")?;
    if !output.status.success() {
        bail!("git does not list the files to check: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    let mut files: Vec<PathBuf> = text.split('\0').filter(|p| !p.is_empty()).map(PathBuf::from).collect();
    files.retain(|f| root.join(f).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

/// Checks the sum of all files that nobody wrote by hand.
pub fn check_size(root: &Path, files: &[PathBuf]) -> Problems {
    check_size_below(root, files, MAX_TOTAL_BYTES)
}

fn check_size_below(root: &Path, files: &[PathBuf], limit: u64) -> Problems {
    let size = |f: &PathBuf| std::fs::metadata(root.join(f)).map_or(0, |m| m.len());
    let is_data = |f: &&PathBuf| f.extension().and_then(|e| e.to_str()).is_none_or(|e| !WRITTEN.contains(&e));
    let mut sizes: Vec<(u64, &PathBuf)> = files.iter().filter(is_data).map(|f| (size(f), f)).collect();
    let total: u64 = sizes.iter().map(|(size, _)| size).sum();
    if total <= limit {
        return Problems::new();
    }
    sizes.sort_by(|a, b| b.cmp(a));
    let largest: Vec<String> =
        sizes.iter().take(LISTED).map(|(size, f)| format!("{} ({size})", f.display())).collect();
    vec![format!("all data together has {total} bytes, at most {limit}; the largest: {}", largest.join(", "))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    #[test]
    fn the_sum_counts_and_the_largest_are_named() {
        let (dir, files) = tree(&[("a", "1234"), ("b/c", "123456")]);
        assert_eq!(check_size_below(dir.path(), &files, 10), Problems::new());
        let problems = check_size_below(dir.path(), &files, 9);
        assert!(problems[0].contains("10 bytes, at most 9; the largest: b/c (6), a (4)"), "{problems:?}");
    }

    #[test]
    fn new_files_are_listed_and_ignored_or_deleted_ones_are_not() {
        let (dir, _) =
            tree(&[("kept.rs", ""), ("gone.rs", ""), ("target/x", ""), (".gitignore", "/target\n")]);
        let git = |args: &[&str]| {
            assert!(Command::new("git").arg("-C").arg(dir.path()).args(args).status().unwrap().success());
        };
        git(&["init", "--quiet"]);
        git(&["add", "gone.rs"]);
        std::fs::remove_file(dir.path().join("gone.rs")).unwrap();
        assert_eq!(committed(dir.path()).unwrap(), [Path::new(".gitignore"), Path::new("kept.rs")]);
    }

    #[test]
    fn outside_of_a_repository_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = committed(dir.path()).unwrap_err().to_string();
        assert!(error.contains("git does not list"), "{error}");
    }
}
