//! Committed text: module headers, ignored tests, and what belongs to a machine and not to the project.

use std::path::{Path, PathBuf};

use super::Problems;

/// Folders of one machine; split, so that this file passes its own check.
const MACHINE_FOLDERS: &[&str] = &[concat!("/ro", "ot"), concat!("/ho", "me"), concat!("/wo", "rk")];

/// Hosts of registries: packages come through their ordinary clients, as the user has configured them.
const REGISTRY_HOSTS: &[&str] = &[
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("static.crates", ".io"),
    concat!("index.crates", ".io"),
    concat!("registry.npmjs", ".org"),
    concat!("--index", "-url"),
    concat!("replace", "-with"),
];

const IGNORE_WITHOUT_REASON: &str = concat!("#[ig", "nore]");

/// The one source that `Cargo.lock` may name: cargo writes it so, whatever mirror is used.
const LOCK_SOURCE: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Checks every file that is text.
pub fn check(root: &Path, files: &[PathBuf]) -> Problems {
    let mut problems = Problems::new();
    for file in files {
        let Ok(bytes) = std::fs::read(root.join(file)) else {
            problems.push(format!("{} cannot be read", file.display()));
            continue;
        };
        // What is not UTF-8 is data.
        if let Ok(text) = String::from_utf8(bytes) {
            check_text(file, &text, &mut problems);
        }
    }
    problems
}

fn check_text(file: &Path, text: &str, problems: &mut Problems) {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if extension == "rs" {
        check_header(file, text, problems);
    }
    let is_lock = file.file_name().is_some_and(|n| n == "Cargo.lock");
    for (i, line) in text.lines().enumerate() {
        let mut problem = |what: &str| problems.push(format!("{}:{}: {what}", file.display(), i + 1));
        if extension == "rs" && line.contains(IGNORE_WITHOUT_REASON) {
            problem("an ignored test without a reason");
        }
        if let Some(folder) = MACHINE_FOLDERS.iter().find(|folder| names_path(line, folder)) {
            problem(&format!("names {folder}, a folder of one machine"));
        }
        if let Some(host) = REGISTRY_HOSTS.iter().find(|host| line.contains(**host)) {
            problem(&format!("names {host}; leave registries to their clients' configuration"));
        }
        if is_lock && line.starts_with("source = ") && line != LOCK_SOURCE {
            problem("a package that does not come from crates.io");
        }
    }
}

/// A module starts with what it is for; a crate may take that from its README.
fn check_header(file: &Path, text: &str, problems: &mut Problems) {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let from_readme = first.starts_with("#![doc = include_str!(");
    if !first.starts_with("//!") && !from_readme {
        problems.push(format!("{}: does not start with a `//!` header", file.display()));
    }
}

/// Whether `folder` stands in the line as the start of an absolute path, alone or with something below it.
fn names_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let in_path = |c: char| c.is_alphanumeric() || "._-/}".contains(c);
        let before = line[..at].chars().next_back();
        let after = line[at + folder.len()..].chars().next();
        !before.is_some_and(in_path) && !after.is_some_and(|c| c.is_alphanumeric() || "_-.".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    fn problems(name: &str, text: &str) -> Problems {
        let (dir, files) = tree(&[(name, text)]);
        check(dir.path(), &files)
    }

    #[test]
    fn each_rule_can_fail() {
        let ignore = format!("//! A.\n{IGNORE_WITHOUT_REASON}\nfn a() {{}}\n");
        let [pypi, ..] = REGISTRY_HOSTS else { panic!("no hosts") };
        let [folder, ..] = MACHINE_FOLDERS else { panic!("no folders") };
        let cases = [
            ("a.rs", "//! A.\nfn a() {}\n".to_owned(), None),
            ("a.rs", "#![doc = include_str!(\"../README.md\")]\n".to_owned(), None),
            ("a.rs", "fn a() {}\n".to_owned(), Some("a.rs: does not start")),
            ("a.rs", String::new(), Some("a.rs: does not start")),
            ("a.rs", ignore.clone(), Some("a.rs:2: an ignored test")),
            ("a.rs", ignore.replace(']', " = \"slow\"]"), None),
            ("a.md", ignore, None),
            ("a.md", format!("see {folder}/x\n"), Some("a.md:1: names")),
            ("a.md", format!("https://{pypi}/simple\n"), Some("a.md:1: names")),
            ("Cargo.lock", format!("{LOCK_SOURCE}\n"), None),
            (
                "Cargo.lock",
                "source = \"sparse+https://mirror\"\n".to_owned(),
                Some("Cargo.lock:1: a package"),
            ),
        ];
        for (name, text, want) in cases {
            let got = problems(name, &text);
            match want {
                None => assert_eq!(got, Problems::new(), "{text}"),
                Some(want) => assert!(got.len() == 1 && got[0].starts_with(want), "{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn only_absolute_paths_belong_to_a_machine() {
        let [folder, ..] = MACHINE_FOLDERS else { panic!("no folders") };
        for line in ["`F`", "F/x", "\"F/x\"", "path=F", "-v F:/x"] {
            assert!(names_path(&line.replace('F', folder), folder), "{line}");
        }
        for line in ["https://a.bF/x", "crates/a/srcF/x", "Fbook", "F-dir/x", "${HERE}F/x"] {
            assert!(!names_path(&line.replace('F', folder), folder), "{line}");
        }
    }

    #[test]
    fn data_is_not_text() {
        let dir = tempfile::tempdir().unwrap();
        let [folder, ..] = MACHINE_FOLDERS else { panic!("no folders") };
        std::fs::write(dir.path().join("a.bin"), [&[0xff, 0xfe], folder.as_bytes()].concat()).unwrap();
        assert_eq!(check(dir.path(), &["a.bin".into()]), Problems::new());
    }
}
