//! Wheels of programs and libraries: checked and unpacked. Follows the binary distribution format of Python packages (PEP 427 and
//! the RECORD file of PEP 376): every line of RECORD is `path,sha256=<urlsafe base64 without padding>,size`.
//!
//! Only what is needed is unpacked, and the licences.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

/// Platform whose wheels are all known by their hash.
pub const PINNED_PLATFORM: (&str, &str) = ("linux", "x86_64");

/// What is fetched as a wheel.
#[derive(Debug)]
pub struct Wheel {
    /// What it is.
    pub title: &'static str,
    /// Name and version, as pip takes them.
    pub requirement: &'static str,
    /// Python tag and SHA-256 of each of its wheels for [`PINNED_PLATFORM`].
    pub pins: &'static [(&'static str, &'static str)],
    /// Folders and files that are unpacked.
    pub wanted: &'static [&'static str],
    /// Of these, programs.
    pub programs: &'static [&'static str],
    /// What to do where it cannot be fetched.
    pub remedy: &'static str,
}

impl Wheel {
    /// Whether a wheel with this file name has a pinned hash.
    pub fn is_pinned(&self, file_name: &str) -> bool {
        self.pins.iter().any(|(tag, _)| file_name.contains(&format!("-{tag}-")))
    }

    fn wants(&self, path: &str) -> bool {
        let licence = path
            .split_once('/')
            .is_some_and(|(folder, rest)| folder.ends_with(".dist-info") && rest.starts_with("licenses/"));
        licence || self.wanted.iter().any(|wanted| path.starts_with(wanted))
    }
}

/// The unpacked libraries take 170 MB; a wheel that says much more is not the one.
const MAX_UNPACKED_BYTES: u64 = 2 << 30;
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// Compares the wheel's hash with the pinned one of its Python tag.
///
/// # Errors
///
/// If the hash differs or none is pinned for the file's name.
pub fn verify(wheel: &Path, pinned: &[(&str, &str)]) -> Result<()> {
    let name = wheel.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let got = file_sha256(wheel).with_context(|| format!("cannot read {}", wheel.display()))?;
    let pin = pinned.iter().find(|(tag, _)| name.contains(&format!("-{tag}-")));
    let Some((_, want)) = pin else {
        bail!("no hash is pinned for {name} (sha256 {got})");
    };
    ensure!(
        got == *want,
        "{name} has sha256 {got}, not the pinned {want}: the download is damaged or is not the published file; \
         check what index or proxy pip uses and try again"
    );
    Ok(())
}

/// Unpacks what `what` wants of a wheel below `into`, comparing each file with the wheel's own RECORD; returns their number.
///
/// # Errors
///
/// If the archive cannot be read, a file is missing, differs or would lie outside of `into`, or writing fails. What
/// has been written until then stays in `into`.
pub fn unpack(what: &Wheel, wheel: &Path, into: &Path) -> Result<usize> {
    let file = File::open(wheel).with_context(|| format!("cannot open {}", wheel.display()))?;
    let mut archive =
        ZipArchive::new(file).with_context(|| format!("{} is not a whole wheel", wheel.display()))?;
    let mut wanted: BTreeMap<String, Recorded> = read_record(&mut archive)?;
    wanted.retain(|path, _| what.wants(path));
    ensure!(!wanted.is_empty(), "{} holds nothing of {}", wheel.display(), what.wanted.join(", "));
    let total: u64 = wanted.values().map(|r| r.size).sum();
    ensure!(
        total <= MAX_UNPACKED_BYTES,
        "{} says that it unpacks to {total} bytes; at most {MAX_UNPACKED_BYTES} are expected",
        wheel.display()
    );
    let mut unpacked = 0;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).with_context(|| format!("entry {i} of the wheel is damaged"))?;
        let name = entry.name().context("the wheel holds a file without a readable name")?.into_owned();
        if entry.is_dir() || !what.wants(&name) {
            continue;
        }
        let inside = entry.enclosed_name().filter(|p| p.to_str() == Some(name.as_str()));
        let Some(relative) = inside.filter(|_| !entry.is_symlink()) else {
            bail!("the wheel holds `{name}`, which would lie elsewhere; nothing of it is used");
        };
        let Some(recorded) = wanted.remove(&name) else {
            bail!("the wheel holds `{name}`, which is not in its RECORD, or holds it twice");
        };
        write_checked(&mut entry, &into.join(relative), &recorded, &name, total)?;
        unpacked += 1;
    }
    #[cfg(unix)]
    for program in what.programs {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(into.join(program), fs::Permissions::from_mode(0o755))
            .with_context(|| format!("the wheel lacks `{program}`"))?;
    }
    if let Some(missing) = wanted.keys().next() {
        bail!("the wheel lacks `{missing}`, which its RECORD names");
    }
    Ok(unpacked)
}

/// A line of RECORD.
struct Recorded {
    sha256: String,
    size: u64,
}

fn read_record(archive: &mut ZipArchive<File>) -> Result<BTreeMap<String, Recorded>> {
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let mut records = names.iter().filter(|n| {
        n.strip_suffix("/RECORD")
            .is_some_and(|folder| folder.ends_with(".dist-info") && !folder.contains('/'))
    });
    let (Some(name), None) = (records.next(), records.next()) else {
        bail!("the wheel has no RECORD, or several");
    };
    let mut text = String::new();
    let entry = archive.by_name(name).context("the wheel's RECORD is damaged")?;
    entry.take(MAX_RECORD_BYTES).read_to_string(&mut text).context("the wheel's RECORD is damaged")?;
    // RECORD itself stands in it without hash and size.
    Ok(text.lines().filter_map(parse_record_line).collect())
}

fn parse_record_line(line: &str) -> Option<(String, Recorded)> {
    let mut fields = line.rsplitn(3, ',');
    let size = fields.next()?.trim().parse().ok()?;
    let sha256 = fields.next()?.strip_prefix("sha256=")?.to_owned();
    let path = fields.next()?.trim_matches('"').to_owned();
    Some((path, Recorded { sha256, size }))
}

fn write_checked(
    entry: &mut impl Read,
    path: &Path,
    recorded: &Recorded,
    name: &str,
    total: u64,
) -> Result<()> {
    let write_failed =
        || format!("cannot write {}; {} MB are needed there", path.display(), total.div_ceil(1_000_000));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(write_failed)?;
    }
    let mut file = File::create(path).with_context(write_failed)?;
    let mut hasher = Sha256::new();
    let (mut size, mut buffer) = (0u64, vec![0; 1 << 16]);
    loop {
        let n = entry.read(&mut buffer).with_context(|| format!("`{name}` in the wheel is damaged"))?;
        if n == 0 {
            break;
        }
        size += n as u64;
        ensure!(size <= recorded.size, "`{name}` in the wheel is longer than its RECORD says");
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n]).with_context(write_failed)?;
    }
    file.sync_all().with_context(write_failed)?;
    ensure!(
        size == recorded.size && base64_url(&hasher.finalize()) == recorded.sha256,
        "`{name}` in the wheel differs from its RECORD"
    );
    Ok(())
}

fn file_sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// URL-safe base64 without padding (RFC 4648).
pub fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |w, (i, &b)| w | u32::from(b) << (16 - 8 * i));
        for i in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
        }
    }
    text
}

#[cfg(test)]
#[path = "wheel_tests.rs"]
mod tests;
