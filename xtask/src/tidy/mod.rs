//! Checks what the compiler does not: that the layers stay layers, that text and metadata are as the house wants them,
//! that goldens are what their manifest says. All problems are listed together.

mod files;
mod golden;
mod layers;
mod manifests;
mod sources;
mod versions;

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace;

/// What one check found wrong; each names the file or package.
type Problems = Vec<String>;

/// Runs all checks on the workspace.
///
/// # Errors
///
/// If the workspace cannot be read. Problems are an exit code.
pub fn run() -> Result<ExitCode> {
    let root = workspace::root();
    let packages = workspace::metadata()?.packages;
    let files = files::committed(&root)?;
    let checks = [
        ("layers", layers::check(&packages)),
        ("package metadata", manifests::check(&packages)),
        ("text", sources::check(&root, &files)),
        ("goldens", golden::check(&root, &files)),
        ("size", files::check_size(&root, &files)),
        ("OpenVINO version", versions::check(&root, &files)),
    ];
    let mut n_problems = 0;
    for (name, problems) in &checks {
        n_problems += problems.len();
        for problem in problems {
            eprintln!("tidy: {name}: {problem}");
        }
    }
    if n_problems > 0 {
        eprintln!("tidy: {n_problems} problems");
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("tidy: {} files and {} packages are in order", files.len(), packages.len());
    Ok(ExitCode::SUCCESS)
}

/// A folder with these files, for the checks' tests.
#[cfg(test)]
fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    (dir, files.iter().map(|(name, _)| name.into()).collect())
}
