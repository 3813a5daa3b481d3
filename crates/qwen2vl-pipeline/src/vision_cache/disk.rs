//! Embeddings on disk, one file each: `<folder>/<first 2 digits of the key>/<64 digits>.q2v`.
//!
//! Any number of processes may share a folder without locks: files are written under another name and renamed, readers
//! check all they read, and everyone bears with files that others removed. Nothing that goes wrong here is an error: what
//! cannot be read is computed again, and what cannot be written is left out, with one warning.

use std::fs::{File, FileTimes};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use qwen2vl_runtime::{EmbeddingType, VisionEmbeddings};

use super::Key;

/// What a file begins with.
const MAGIC: [u8; 8] = *b"QWEN2VIS";
/// Changes with the layout; files of another version count as damaged.
const VERSION: u32 = 1;
/// Magic, version, type, tokens, values per token, key, checksum of all of that and of the values.
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 32 + 32;
const CHECKSUM_AT: usize = HEADER_BYTES - 32;

/// The extension of entries.
const EXTENSION: &str = "q2v";
/// How a file is named while it is written.
const PARTIAL_PREFIX: &str = ".partial-";
/// What was being written so long ago is not being written any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// How many values an entry has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub n_tokens: usize,
    pub hidden_size: usize,
}

/// A folder of entries, and how large it may become.
#[derive(Debug)]
pub(crate) struct DiskStore {
    folder: PathBuf,
    max_bytes: u64,
    /// Bytes that may be written before it is looked again at how many there are.
    unchecked_bytes: Mutex<u64>,
    is_writable: AtomicBool,
    has_warned: AtomicBool,
}

impl DiskStore {
    /// Touches no disk.
    pub fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self {
            folder,
            max_bytes,
            unchecked_bytes: Mutex::new(0),
            is_writable: AtomicBool::new(true),
            has_warned: AtomicBool::new(false),
        }
    }

    /// The embeddings of a key, if they are there and whole.
    pub fn get(&self, key: &Key, shape: Shape) -> Option<VisionEmbeddings> {
        let path = self.path(key);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    self.warn(&format!("{} cannot be read: {error}", path.display()));
                }
                return None;
            }
        };
        match read(&mut file, key, shape) {
            Ok(embeddings) => {
                // What was used last is removed last; a folder that may only be read has its order from elsewhere.
                file.set_times(FileTimes::new().set_modified(SystemTime::now())).ok();
                Some(embeddings)
            }
            Err(reason) => {
                self.warn(&format!("{} is damaged ({reason}) and is computed again", path.display()));
                std::fs::remove_file(&path).ok();
                None
            }
        }
    }

    /// Keeps embeddings, if there is room.
    pub fn put(&self, key: &Key, embeddings: &VisionEmbeddings) {
        let bytes = (HEADER_BYTES + embeddings.size_bytes()) as u64;
        if bytes > self.max_bytes || !self.is_writable.load(Ordering::Relaxed) {
            return;
        }
        self.make_room(bytes);
        if let Err(error) = self.write(key, embeddings) {
            self.is_writable.store(false, Ordering::Relaxed);
            self.warn(&format!("nothing more is kept in {}: {error}", self.folder.display()));
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        let digits = key.to_string();
        self.folder.join(&digits[..2]).join(digits).with_extension(EXTENSION)
    }

    fn write(&self, key: &Key, embeddings: &VisionEmbeddings) -> io::Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)?;
        let partial = tempfile::Builder::new().prefix(PARTIAL_PREFIX).tempfile_in(folder)?;
        let mut header = header(key, embeddings);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header[..CHECKSUM_AT]);
        embeddings.write_le(&mut hasher)?;
        header[CHECKSUM_AT..].copy_from_slice(hasher.finalize().as_bytes());
        let mut out = BufWriter::new(partial.as_file());
        out.write_all(&header)?;
        embeddings.write_le(&mut out)?;
        out.flush()?;
        drop(out);
        match partial.persist(&path) {
            Ok(_) => Ok(()),
            // Where an open file cannot be replaced, what is there is the same.
            Err(_) if path.exists() => Ok(()),
            Err(error) => Err(error.error),
        }
    }

    /// Removes the entries that were not used for longest, where so many bytes more would be too many. Looks at the folder
    /// only once in a sixteenth of what may be in it.
    fn make_room(&self, bytes: u64) {
        let mut unchecked = self.unchecked_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = unchecked.checked_sub(bytes) {
            *unchecked = rest;
            return;
        }
        let mut entries = list(&self.folder);
        entries.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let step = self.max_bytes / 16;
        let most = (self.max_bytes - step).max(bytes);
        for entry in entries {
            if total.saturating_add(bytes) <= most {
                break;
            }
            if remove(&entry.path) {
                total = total.saturating_sub(entry.bytes);
            }
        }
        *unchecked = step.min(self.max_bytes.saturating_sub(total.saturating_add(bytes)));
    }

    /// Says the first thing that goes wrong; the others are much the same.
    fn warn(&self, what: &str) {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::debug!("vision cache: {what}");
        } else {
            tracing::warn!("vision cache: {what}");
        }
    }
}

/// All but the checksum.
fn header(key: &Key, embeddings: &VisionEmbeddings) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let element = match embeddings.element_type() {
        EmbeddingType::F16 => 1u32,
        EmbeddingType::F32 => 2,
    };
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&element.to_le_bytes());
    header[16..24].copy_from_slice(&(embeddings.n_tokens() as u64).to_le_bytes());
    header[24..32].copy_from_slice(&(embeddings.hidden_size() as u64).to_le_bytes());
    header[32..64].copy_from_slice(key.as_bytes());
    header
}

/// Reads an entry; why it cannot be used. No more is read or asked for than `shape` says.
fn read(file: &mut File, key: &Key, shape: Shape) -> Result<VisionEmbeddings, String> {
    let as_text = |error: io::Error| error.to_string();
    let len = file.metadata().map_err(as_text)?.len();
    let mut header = [0; HEADER_BYTES];
    if len < HEADER_BYTES as u64 {
        return Err(format!("{len} bytes are less than a header"));
    }
    file.read_exact(&mut header).map_err(as_text)?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let element = match (header[..8] == MAGIC, number(8), number(12)) {
        (true, VERSION, 1) => EmbeddingType::F16,
        (true, VERSION, 2) => EmbeddingType::F32,
        _ => return Err("its header is of no known form".to_owned()),
    };
    let values = shape.n_tokens.checked_mul(shape.hidden_size).ok_or("too many values")?;
    let bytes = values.checked_mul(element.size_bytes()).ok_or("too many bytes")?;
    let want =
        [&(shape.n_tokens as u64).to_le_bytes()[..], &(shape.hidden_size as u64).to_le_bytes()].concat();
    if header[16..32] != want || &header[32..64] != key.as_bytes() {
        return Err("it holds something else than its name says".to_owned());
    }
    if len != (HEADER_BYTES + bytes) as u64 {
        return Err(format!("{len} bytes instead of {}", HEADER_BYTES + bytes));
    }
    let mut payload = vec![0; bytes];
    file.read_exact(&mut payload).map_err(as_text)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header[..CHECKSUM_AT]);
    hasher.update(&payload);
    if hasher.finalize().as_bytes()[..] != header[CHECKSUM_AT..] {
        return Err("its checksum is wrong".to_owned());
    }
    VisionEmbeddings::from_le_bytes(element, shape.hidden_size, &payload)
        .ok_or_else(|| "it has no rows".to_owned())
}

/// An entry, or what is left of one that was being written.
pub(crate) struct Entry {
    pub path: PathBuf,
    pub bytes: u64,
    pub is_partial: bool,
    used: SystemTime,
}

/// The entries of a folder. What is being written just now is left out, and what cannot be looked at.
pub(crate) fn list(folder: &Path) -> Vec<Entry> {
    let now = SystemTime::now();
    shards(folder)
        .flat_map(|shard| std::fs::read_dir(shard).into_iter().flatten().flatten())
        .filter_map(|file| {
            let (path, metadata) = (file.path(), file.metadata().ok()?);
            let is_partial = file.file_name().to_str()?.starts_with(PARTIAL_PREFIX);
            let is_entry = path.extension().is_some_and(|e| e == EXTENSION)
                && path.file_stem().and_then(|s| s.to_str()).is_some_and(|s| is_hex(s, 64));
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let is_abandoned = is_partial && now.duration_since(used).is_ok_and(|age| age > ABANDONED);
            let is_ours = metadata.is_file() && (is_entry || is_abandoned);
            is_ours.then_some(Entry { path, bytes: metadata.len(), is_partial, used })
        })
        .collect()
}

/// The folders that entries are in.
pub(crate) fn shards(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let shards = std::fs::read_dir(folder).into_iter().flatten().flatten();
    shards.filter(|f| f.file_name().to_str().is_some_and(|name| is_hex(name, 2))).map(|f| f.path())
}

/// Removes a file; whether it is gone.
fn remove(path: &Path) -> bool {
    match std::fs::remove_file(path) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests;
