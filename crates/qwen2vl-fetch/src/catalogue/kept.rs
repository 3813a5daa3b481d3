//! The catalogue's copy: kept with its validators, asked for conditionally, used as it is without a network.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::Catalogue;
use crate::http::{self, Again, Client, Failure, header};
use crate::progress::{Progress, Tell};
use crate::{Error, Manual, Trouble, cache, digest};

/// The real one has about 10 MB.
const LIMIT_BYTES: u64 = 256 << 20;

/// Where the copy is.
struct Kept {
    lines: PathBuf,
    note: PathBuf,
}

/// What to ask with.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// An answer that was understood.
enum Answer {
    Unchanged,
    New(Vec<u8>, Note),
}

/// The catalogue at `url`: a new one, the kept one if it is still that, the kept one if none can be had.
pub(crate) fn catalogue(
    client: &Client,
    url: &str,
    state_dir: &Path,
    manual: &Manual,
    tell: Tell<'_>,
) -> Result<Catalogue, Error> {
    let stem = format!("catalogue-{}", digest::short(url.as_bytes()));
    let kept =
        Kept { lines: state_dir.join(format!("{stem}.jsonl")), note: state_dir.join(format!("{stem}.json")) };
    let copy = kept.read();
    let failed = |trouble| Error::Catalogue { url: url.to_owned(), trouble, manual: manual.clone() };
    match (ask(client, url, copy.as_ref().and_then(|_| kept.read_note(url)), tell), copy) {
        (Ok(Answer::New(bytes, note)), _) => {
            kept.write(&bytes, &note);
            Ok(Catalogue::parse(&bytes))
        }
        (Ok(Answer::Unchanged), Some(copy)) => Ok(copy),
        (Ok(Answer::Unchanged), None) => {
            Err(failed(Trouble::Nonsense { what: "304 to a question without conditions".to_owned() }))
        }
        (Err(Trouble::Offline), Some(copy)) => Ok(copy),
        (Err(trouble), Some(copy)) => {
            let age = kept.age().map(|age| format!(" of {} h ago", age.as_secs() / 3600)).unwrap_or_default();
            tell(Progress::Note(format!("the catalogue cannot be read: {trouble}; its copy{age} is used")));
            Ok(copy)
        }
        (Err(trouble), None) => Err(failed(trouble)),
    }
}

fn ask(client: &Client, url: &str, note: Option<Note>, tell: Tell<'_>) -> Result<Answer, Trouble> {
    let mut headers = vec![("Accept-Encoding", "gzip".to_owned())];
    if let Some(note) = note {
        headers.extend(note.etag.map(|etag| ("If-None-Match", etag)));
        headers.extend(note.last_modified.map(|date| ("If-Modified-Since", date)));
    }
    let mut patience = client.patience();
    loop {
        let answer = client.get(url, &headers).and_then(|response| understand(client, url, response));
        match answer {
            Ok(answer) => return Ok(answer),
            Err(failure) => patience.wait(failure, tell)?,
        }
    }
}

fn understand(client: &Client, url: &str, response: Response<Body>) -> Result<Answer, Failure> {
    if response.status() == StatusCode::NOT_MODIFIED {
        return Ok(Answer::Unchanged);
    }
    let text = |name| header(response.headers(), name).map(str::to_owned);
    let note = Note { url: url.to_owned(), etag: text("etag"), last_modified: text("last-modified") };
    let mut bytes = Vec::new();
    let nonsense =
        |what: &str| Failure { trouble: Trouble::Nonsense { what: what.to_owned() }, again: Again::No };
    if let Err(error) = http::decoded(response).take(LIMIT_BYTES + 1).read_to_end(&mut bytes) {
        let trouble = client.trouble_in_body(error.into(), bytes.len() as u64, None);
        return Err(Failure { trouble, again: Again::Yes });
    }
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(nonsense("a catalogue of more than 256 MiB"));
    }
    // A log-in page of a network is no catalogue and must not take the kept one's place.
    if Catalogue::parse(&bytes).entries.is_empty() {
        return Err(nonsense("not one line of it is a catalogue's"));
    }
    Ok(Answer::New(bytes, note))
}

impl Kept {
    fn read(&self) -> Option<Catalogue> {
        let catalogue = Catalogue::parse(&std::fs::read(&self.lines).ok()?);
        (!catalogue.entries.is_empty()).then_some(catalogue)
    }

    fn read_note(&self, url: &str) -> Option<Note> {
        let note: Note = serde_json::from_slice(&std::fs::read(&self.note).ok()?).ok()?;
        (note.url == url).then_some(note)
    }

    /// Failing costs only a download at the next time. The note goes first and comes last, so that it never stands
    /// beside another catalogue's lines.
    fn write(&self, bytes: &[u8], note: &Note) {
        let write = || -> std::io::Result<()> {
            if self.note.exists() {
                std::fs::remove_file(&self.note)?;
            }
            cache::write_whole(&self.lines, bytes)?;
            cache::write_whole(&self.note, &serde_json::to_vec(note)?)
        };
        if let Err(error) = write() {
            tracing::debug!(path = %self.lines.display(), %error, "the catalogue's copy is not kept");
        }
    }

    fn age(&self) -> Option<Duration> {
        let modified = std::fs::metadata(&self.lines).and_then(|m| m.modified()).ok()?;
        SystemTime::now().duration_since(modified).ok()
    }
}
