//! One file from a server to a partial file, whatever happens on the way.
//!
//! A partial file has a note beside it (`<partial>.json`): which address it came from, the server's validators, the
//! length. It is gone on with by `Range` and `If-Range` if the note fits, and the answer has to fit as well: the range
//! that was asked for, the same length, the same validators. Anything else starts over. A file is emptied before its
//! note is changed, so that bytes of two versions never stand in one file.

mod answer;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use ureq::Body;
use ureq::http::{HeaderMap, Response};

use crate::http::{self, Again, Client, Failure, header};
use crate::progress::{Meter, Progress, Tell};
use crate::{Error, Manual, Trouble, cache};
use answer::Answer;

/// Read at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// What to download.
pub(crate) struct Transfer<'a> {
    pub url: &'a str,
    /// Sent with each request.
    pub headers: Vec<(&'static str, String)>,
    /// Where to: the partial file.
    pub partial: &'a Path,
    /// What to call it.
    pub label: &'a str,
    /// The length, where it is known beforehand.
    pub expected_bytes: Option<u64>,
    /// Whether as much room again is needed to unpack it.
    pub unpacked_beside: bool,
    /// The way on by hand.
    pub manual: Manual,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    pub bytes: u64,
    /// What was there from earlier runs.
    pub resumed_from_bytes: u64,
}

/// What is known about a partial file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
    total_bytes: Option<u64>,
}

impl Note {
    fn of(url: &str, headers: &HeaderMap, total_bytes: Option<u64>) -> Self {
        let text = |name| header(headers, name).map(str::to_owned);
        Self { url: url.to_owned(), etag: text("etag"), last_modified: text("last-modified"), total_bytes }
    }

    /// What proves that the file is the same: a strong entity tag, or else its date. None for a file of unknown
    /// length: it may have been compressed on the way, and offsets into one form are none into the other.
    fn validator(&self) -> Option<&str> {
        self.total_bytes?;
        self.etag.as_deref().filter(|e| !e.starts_with("W/")).or(self.last_modified.as_deref())
    }
}

/// A partial file with its note.
struct Partial {
    path: PathBuf,
    note_path: PathBuf,
    file: File,
    note: Note,
    bytes: u64,
    resumed_from_bytes: u64,
}

/// Downloads a file until it is whole and on the disk.
pub(crate) fn download(client: &Client, transfer: &Transfer<'_>, tell: Tell<'_>) -> Result<Done, Error> {
    let done = get_all(client, transfer, tell);
    // A try that brought nothing leaves nothing.
    if done.is_err() && std::fs::metadata(transfer.partial).is_ok_and(|m| m.len() == 0) {
        discard(transfer.partial);
    }
    done
}

fn get_all(client: &Client, transfer: &Transfer<'_>, tell: Tell<'_>) -> Result<Done, Error> {
    let mut partial = Partial::open(transfer.partial, transfer.url)?;
    if partial.bytes > 0 {
        tell(Progress::Note(format!("going on from {} MB of an earlier try", partial.bytes / 1_000_000)));
    }
    let mut patience = client.patience();
    let mut restarts = 0;
    let failed = |trouble| download_error(transfer, trouble);
    while partial.note.total_bytes != Some(partial.bytes) {
        let before = partial.bytes;
        match attempt(client, transfer, &mut partial, tell)? {
            Attempt::Whole => break,
            Attempt::StartOver { why } => {
                restarts += 1;
                partial.clear()?;
                if restarts > client.attempts() {
                    return Err(failed(Trouble::KeepsChanging));
                }
                tell(Progress::Note(format!("{why}: starting over")));
            }
            Attempt::Failed(failure) => {
                if partial.bytes > before {
                    patience.refresh();
                }
                let again = match failure.again {
                    // There is a network, or was until now.
                    Again::Once if partial.bytes > 0 => Again::Yes,
                    again => again,
                };
                patience.wait(Failure { again, ..failure }, tell).map_err(failed)?;
            }
        }
    }
    let synced = partial.file.sync_all();
    synced.map_err(|e| cache::io_error(transfer.partial, e))?;
    Ok(Done { bytes: partial.bytes, resumed_from_bytes: partial.resumed_from_bytes })
}

/// Removes a partial file that is of no more use.
pub(crate) fn discard(partial: &Path) {
    std::fs::remove_file(partial).ok();
    std::fs::remove_file(note_path(partial)).ok();
}

/// How one request ended.
enum Attempt {
    Whole,
    StartOver { why: String },
    Failed(Failure),
}

fn attempt(
    client: &Client,
    transfer: &Transfer<'_>,
    partial: &mut Partial,
    tell: Tell<'_>,
) -> Result<Attempt, Error> {
    // A server's own compression would make lengths and ranges mean something else.
    let mut headers = vec![("Accept-Encoding", "identity".to_owned())];
    headers.extend(transfer.headers.iter().cloned());
    if partial.bytes > 0 {
        let Some(validator) = partial.note.validator() else {
            return Ok(Attempt::StartOver {
                why: "the server gives nothing to tell versions apart by".to_owned(),
            });
        };
        headers.push(("Range", format!("bytes={}-", partial.bytes)));
        headers.push(("If-Range", validator.to_owned()));
    }
    let response = match client.get(transfer.url, &headers) {
        Ok(response) => response,
        Err(failure) => return Ok(Attempt::Failed(failure)),
    };
    match answer::read(response.status(), response.headers(), partial.bytes, &partial.note) {
        Answer::Different { why } => return Ok(Attempt::StartOver { why }),
        Answer::Nonsense { what } => {
            let failure = Failure { trouble: Trouble::Nonsense { what }, again: Again::No };
            return Ok(Attempt::Failed(failure));
        }
        Answer::Beginning { total_bytes } => {
            if partial.bytes > 0 {
                tell(Progress::Note(
                    "the server sends the file from its beginning: starting over".to_owned(),
                ));
            }
            partial.begin(Note::of(transfer.url, response.headers(), total_bytes))?;
        }
        Answer::Rest => {}
    }
    if let (Some(expected), Some(total)) = (transfer.expected_bytes, partial.note.total_bytes)
        && expected != total
    {
        let what = format!("{total} bytes of a file that has {expected}");
        let failure = Failure { trouble: Trouble::Nonsense { what }, again: Again::Yes };
        return Ok(Attempt::Failed(failure));
    }
    check_room(transfer, partial)?;
    receive(client, transfer, partial, response, tell)
}

fn receive(
    client: &Client,
    transfer: &Transfer<'_>,
    partial: &mut Partial,
    response: Response<Body>,
    tell: Tell<'_>,
) -> Result<Attempt, Error> {
    let total = partial.note.total_bytes;
    let mut meter = Meter::new(partial.bytes, total);
    let mut body = http::decoded(response);
    let mut block = vec![0; BLOCK_BYTES];
    let ended = loop {
        let read = match body.read(&mut block) {
            Ok(0) => break None,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => break Some(ureq::Error::from(e)),
        };
        if total.is_some_and(|total| partial.bytes + read as u64 > total) {
            return Ok(Attempt::StartOver { why: "the server sends more than it announced".to_owned() });
        }
        partial.file.write_all(&block[..read]).map_err(|e| write_error(transfer, partial, e))?;
        partial.bytes += read as u64;
        meter.add(read as u64, transfer.label, tell);
    };
    meter.tell(transfer.label, tell);
    let trouble = match ended {
        None if total.is_none_or(|total| total == partial.bytes) => return Ok(Attempt::Whole),
        None => Trouble::Cut { received_bytes: meter.done_bytes(), expected_bytes: total },
        Some(error) => client.trouble_in_body(error, meter.done_bytes(), total),
    };
    Ok(Attempt::Failed(Failure { trouble, again: Again::Yes }))
}

impl Partial {
    /// Opens what an earlier try left, emptied if it is of no use.
    fn open(path: &Path, url: &str) -> Result<Self, Error> {
        let error = |e| cache::io_error(path, e);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(error)?;
        let note_path = note_path(path);
        let note = std::fs::read(&note_path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let note: Note = note.filter(|n: &Note| n.url == url).unwrap_or_default();
        let bytes = file.metadata().map_err(error)?.len();
        let mut partial =
            Self { path: path.to_owned(), note_path, file, note, bytes, resumed_from_bytes: bytes };
        let usable = partial.note.validator().is_some()
            && partial.note.total_bytes.is_none_or(|total| partial.bytes <= total);
        if usable {
            partial.file.seek(SeekFrom::End(0)).map_err(error)?;
        } else {
            partial.clear()?;
        }
        Ok(partial)
    }

    /// Empties the file, then forgets what it was.
    fn clear(&mut self) -> Result<(), Error> {
        let empty = || -> io::Result<()> {
            // What is no regular file has no length that could be set.
            if self.file.metadata()?.len() > 0 {
                self.file.set_len(0)?;
                (&self.file).seek(SeekFrom::Start(0))?;
            }
            Ok(())
        };
        empty().map_err(|e| cache::io_error(&self.path, e))?;
        (self.bytes, self.resumed_from_bytes) = (0, 0);
        self.note = Note::default();
        std::fs::remove_file(&self.note_path).ok();
        Ok(())
    }

    fn begin(&mut self, note: Note) -> Result<(), Error> {
        self.clear()?;
        self.note = note;
        let text = serde_json::to_vec(&self.note).map_err(|e| cache::io_error(&self.note_path, e.into()))?;
        cache::write_whole(&self.note_path, &text).map_err(|e| cache::io_error(&self.note_path, e))
    }
}

fn note_path(partial: &Path) -> PathBuf {
    let mut name = partial.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// What is missing, to the end of it all.
fn needed_bytes(transfer: &Transfer<'_>, partial: &Partial) -> Option<u64> {
    let total = partial.note.total_bytes.or(transfer.expected_bytes)?;
    let unpacked = if transfer.unpacked_beside { total } else { 0 };
    Some(total.saturating_sub(partial.bytes).saturating_add(unpacked).saturating_add(cache::HEADROOM_BYTES))
}

fn check_room(transfer: &Transfer<'_>, partial: &Partial) -> Result<(), Error> {
    let folder = transfer.partial.parent().unwrap_or(Path::new("."));
    match (needed_bytes(transfer, partial), fs4::available_space(folder).ok()) {
        (Some(needed_bytes), Some(available_bytes)) if available_bytes < needed_bytes => {
            Err(Error::NoSpace {
                folder: folder.to_owned(),
                needed_bytes,
                available_bytes,
                kept_bytes: partial.bytes,
            })
        }
        _ => Ok(()),
    }
}

/// A full disk is told in its own words. What was written of the block stays: its bytes are right.
fn write_error(transfer: &Transfer<'_>, partial: &Partial, error: io::Error) -> Error {
    let folder = transfer.partial.parent().unwrap_or(Path::new("."));
    if !cache::is_full(&error) {
        return cache::io_error(transfer.partial, error);
    }
    Error::NoSpace {
        folder: folder.to_owned(),
        needed_bytes: needed_bytes(transfer, partial).unwrap_or(0),
        available_bytes: fs4::available_space(folder).unwrap_or(0),
        kept_bytes: partial.bytes,
    }
}

fn download_error(transfer: &Transfer<'_>, trouble: Trouble) -> Error {
    Error::Download { url: transfer.url.to_owned(), trouble, manual: transfer.manual.clone() }
}
