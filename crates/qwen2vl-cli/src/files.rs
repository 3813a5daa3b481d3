//! Files beside the rows: named after inputs, whole or not there, and never in an input's place.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file's name has at most so many bytes on common file systems, some of which its ending and a number need.
const MAX_STEM_BYTES: usize = 200;

/// Names in one folder, each given once.
#[derive(Debug)]
pub struct Names {
    folder: PathBuf,
    ending: &'static str,
    /// In lower case: some file systems do not tell the cases apart.
    taken: HashSet<String>,
}

impl Names {
    /// Names in `folder` that end in `ending` and are none of `reserved`.
    pub fn new(folder: &Path, ending: &'static str, reserved: &[&str]) -> Self {
        let taken = reserved.iter().map(|name| (*name).to_owned()).collect();
        Self { folder: folder.to_owned(), ending, taken }
    }

    /// A new path after `input`'s name, with a number if it is taken, or if it leads to a file of `inputs`.
    pub fn next(&mut self, input: &Path, inputs: &HashSet<PathBuf>) -> PathBuf {
        let stem = stem(input);
        for number in 1_usize.. {
            let counted = if number == 1 { stem.clone() } else { format!("{stem}-{number}") };
            let name = format!("{counted}{}", self.ending);
            let path = self.folder.join(&name);
            let is_input = || inputs.contains(&real(&path));
            if !self.taken.contains(&name.to_lowercase()) && !is_input() {
                self.taken.insert(name.to_lowercase());
                return path;
            }
        }
        unreachable!("there are more numbers than files")
    }
}

/// A path without links in it, so that two of the same file are equal, whether there is such a file yet or not.
pub fn real(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let in_folder = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(in_folder).unwrap_or_else(|| path.to_owned())
}

fn stem(input: &Path) -> String {
    let text = input.to_string_lossy();
    let stem = match text.rsplit_once("#page=") {
        // The data of an image are no name.
        _ if text.starts_with("data:") => String::new(),
        Some((file, page)) => {
            let stem = Path::new(file).file_stem().map(|s| s.to_string_lossy().into_owned());
            format!("{}-page-{page}", stem.unwrap_or_default())
        }
        None => input.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    let mut stem: String =
        stem.chars().map(|c| if c.is_control() || "\\/:*?\"<>|".contains(c) { '_' } else { c }).collect();
    while stem.len() > MAX_STEM_BYTES {
        stem.pop();
    }
    // A name that begins with a dot is hidden, and is `write_whole`'s own.
    let stem = stem.trim_start_matches('.');
    if stem.is_empty() { "image".to_owned() } else { stem.to_owned() }
}

/// Writes a file so that it is whole or, after an error, as it was. What is no regular file, as a device or a pipe, is
/// written as it comes.
///
/// # Errors
///
/// The system's reason, as a full disk.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        let mut file = io::BufWriter::new(File::options().write(true).open(path)?);
        return write(&mut file).and_then(|()| file.flush());
    }
    let part = part_of(path)?;
    let written = (|| {
        let mut file = io::BufWriter::new(File::create(&part)?);
        write(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
        fs::rename(&part, path)
    })();
    if written.is_err() {
        fs::remove_file(&part).ok();
    }
    written
}

/// Whether [`write_whole`] has a chance, before work begins that would be lost.
///
/// # Errors
///
/// The system's reason.
pub fn check_writable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => Ok(()),
        _ => {
            let part = part_of(path)?;
            File::create(&part).and_then(|_| fs::remove_file(&part))
        }
    }
}

/// Where a file is written before it gets its name.
fn part_of(path: &Path) -> io::Result<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(format!(".{}.part", std::process::id()));
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_on_any_file_system_and_spare_inputs() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("b.boxes.png");
        fs::write(&input, "input").unwrap();
        let inputs = HashSet::from([real(&input)]);
        let mut names = Names::new(dir.path(), ".boxes.png", &["classes.boxes.png"]);
        let long = "x".repeat(300);
        for (input, want) in [
            ("a.png", "a.boxes.png"),
            ("sub/A.jpg", "A-2.boxes.png"),
            ("a-2.png", "a-2-2.boxes.png"),
            ("a.webp", "a-3.boxes.png"),
            ("b.png", "b-2.boxes.png"),
            ("classes.gif", "classes-2.boxes.png"),
            ("..", "image.boxes.png"),
            ("d/doc.pdf#page=3", "doc-page-3.boxes.png"),
            ("d/doc.pdf#page=3", "doc-page-3-2.boxes.png"),
            ("data:image/png;base64,iVBORw0KG… (9999 characters)", "image-2.boxes.png"),
            (".hidden.png", "hidden.boxes.png"),
            ("a:b?.png", "a_b_.boxes.png"),
            ("é狗.tar.png", "é狗.tar.boxes.png"),
            (&long, &format!("{}.boxes.png", "x".repeat(200))),
        ] {
            assert_eq!(names.next(Path::new(input), &inputs), dir.path().join(want), "{input}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&input, dir.path().join("link.boxes.png")).unwrap();
            assert_eq!(names.next(Path::new("link.png"), &inputs), dir.path().join("link-2.boxes.png"));
        }
    }

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_whole(&path, |file| file.write_all(b"one")).unwrap();
        let full = |file: &mut dyn Write| {
            file.write_all(b"tw")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        assert_eq!(write_whole(&path, full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        write_whole(&path, |file| file.write_all(b"three")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert!(write_whole(dir.path(), |file| file.write_all(b"x")).is_err());
        assert!(check_writable(dir.path()).is_err() && check_writable(&path.join("b")).is_err());
        assert!(check_writable(&path).is_ok() && check_writable(&dir.path().join("b")).is_ok());
        assert_eq!(
            (fs::read(&path).unwrap().as_slice(), dir.path().join("b").exists()),
            (&b"three"[..], false)
        );
        if Path::new("/dev/full").exists() {
            let error = write_whole(Path::new("/dev/full"), |file| file.write_all(b"x")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }
}
