//! A program whose output is read in blocks: bounded, cancellable, and ended when nobody wants it any more.
//!
//! Two threads read its pipes. They are not joined but end with the pipes: a program that started another one, which
//! holds a pipe open, must not hold us up.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// How often a waiting caller looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(50);

/// How long a program may take to end once its output has.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

/// Most bytes kept of what a program says, and most of one line.
const KEPT_BYTES: usize = 2048;
const LINE_BYTES: u64 = 4096;

/// When waiting ends.
pub(crate) struct Limits<'a> {
    /// Longest time without any sign of progress.
    pub stall: Duration,
    /// Whether the caller gave up.
    pub cancelled: Option<&'a (dyn Fn() -> bool + Send + Sync)>,
}

/// A running program.
pub(crate) struct Process<'a> {
    name: &'static str,
    child: Child,
    blocks: Receiver<std::io::Result<Vec<u8>>>,
    /// Grows with every line and block.
    progress: Arc<AtomicU64>,
    said: Arc<Mutex<Said>>,
    /// Closed when all that the program says is read.
    said_all: Receiver<()>,
    limits: Limits<'a>,
}

/// The first and last of what a program says.
#[derive(Debug, Default)]
struct Said {
    first: String,
    last: String,
}

impl<'a> Process<'a> {
    /// Starts a program whose output comes in blocks of `block_bytes`, the last one shorter. Each line that it says goes
    /// to `on_line`, which returns whether it is kept as something to tell people.
    pub fn start(
        name: &'static str,
        mut command: Command,
        block_bytes: usize,
        limits: Limits<'a>,
        on_line: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Result<Self, Error> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|source| Error::Start { path: command.get_program().into(), source })?;
        let (send, blocks) = sync_channel(0);
        let progress = Arc::new(AtomicU64::new(0));
        let said = Arc::new(Mutex::new(Said::default()));
        let (done, said_all) = sync_channel(0);
        let out = child.stdout.take().expect("stdout is piped");
        let err = child.stderr.take().expect("stderr is piped");
        let (out_progress, err_progress, err_said) = (progress.clone(), progress.clone(), said.clone());
        thread::spawn(move || read_blocks(out, block_bytes, &send, &out_progress));
        thread::spawn(move || {
            read_lines(err, on_line, &err_said, &err_progress);
            drop(done);
        });
        Ok(Self { name, child, blocks, progress, said, said_all, limits })
    }

    /// The next block; nothing at the end of the output.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut seen = self.progress.load(Ordering::Relaxed);
        let mut since = Instant::now();
        loop {
            if self.limits.cancelled.is_some_and(|cancelled| cancelled()) {
                return Err(Error::Cancelled);
            }
            match self.blocks.recv_timeout(TICK) {
                Ok(block) => return Ok(Some(block?)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = self.progress.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= self.limits.stall {
                return Err(Error::Stalled { program: self.name, seconds: self.limits.stall.as_secs() });
            }
        }
    }

    /// Waits for the end after the output's end: how it ended, and what it said.
    pub fn finish(mut self) -> Result<(ExitStatus, String), Error> {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if started.elapsed() >= EXIT_LIMIT {
                return Err(Error::Stalled { program: self.name, seconds: EXIT_LIMIT.as_secs() });
            }
            thread::sleep(Duration::from_millis(1));
        };
        // Closed by the reading thread; a pipe that something else holds open is not waited for.
        let _ = self.said_all.recv_timeout(Duration::from_secs(1));
        Ok((status, self.said()))
    }

    /// What it has said so far, in one line.
    pub fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match said.last.is_empty() {
            true => said.first.clone(),
            false => format!("{}; …; {}", said.first, said.last),
        }
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_blocks(
    mut out: impl Read,
    block_bytes: usize,
    send: &SyncSender<std::io::Result<Vec<u8>>>,
    progress: &AtomicU64,
) {
    loop {
        let mut block = Vec::new();
        let read = match block.try_reserve_exact(block_bytes) {
            Ok(()) => out.by_ref().take(block_bytes as u64).read_to_end(&mut block),
            Err(_) => Err(std::io::ErrorKind::OutOfMemory.into()),
        };
        progress.fetch_add(1, Ordering::Relaxed);
        let message = match read {
            Ok(0) => return,
            Ok(_) => Ok(block),
            Err(error) => Err(error),
        };
        let ended = message.is_err();
        if send.send(message).is_err() || ended {
            return;
        }
    }
}

fn read_lines(
    err: impl Read,
    mut on_line: impl FnMut(&str) -> bool,
    said: &Mutex<Said>,
    progress: &AtomicU64,
) {
    let mut err = BufReader::new(err);
    let mut line = Vec::new();
    loop {
        line.clear();
        match err.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        progress.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if on_line(text) && !text.is_empty() {
            said.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    }
}

impl Said {
    fn push(&mut self, line: &str) {
        // Addresses in ffmpeg's prefixes differ from run to run and say nothing: "[h264 @ 0x5581]".
        let line = match (line.find(" @ 0x"), line.find(']')) {
            (Some(from), Some(to)) if from < to => format!("{}{}", &line[..from], &line[to..]),
            _ => line.to_owned(),
        };
        if self.first.is_empty() {
            self.first = cut(line);
        } else if self.first.len() + line.len() < KEPT_BYTES && self.last.is_empty() {
            self.first = format!("{}; {line}", self.first);
        } else {
            self.last = cut(line);
        }
    }
}

fn cut(mut line: String) -> String {
    if let Some((at, _)) = line.char_indices().nth(KEPT_BYTES / 4) {
        line.truncate(at);
    }
    line
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    fn run(
        script: &str,
        stall: Duration,
        cancelled: Option<&(dyn Fn() -> bool + Send + Sync)>,
    ) -> (Vec<usize>, Result<(ExitStatus, String), Error>) {
        let mut process =
            Process::start("sh", shell(script), 4, Limits { stall, cancelled }, |line| line != "mine")
                .expect("there is a shell");
        let mut blocks = Vec::new();
        loop {
            match process.next() {
                Ok(Some(block)) => blocks.push(block.len()),
                Ok(None) => return (blocks, process.finish()),
                Err(error) => return (blocks, Err(error)),
            }
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn blocks_end_status_and_what_was_said() {
        let (blocks, end) =
            run("printf 123456789; echo mine >&2; echo '[h264 @ 0x5] bad' >&2; exit 3", LONG, None);
        assert_eq!(blocks, [4, 4, 1]);
        let (status, said) = end.unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(3), "[h264] bad"));
    }

    #[test]
    fn what_is_said_is_bounded() {
        let (_, end) =
            run("i=0; while [ $i -lt 3000 ]; do echo line number $i >&2; i=$((i+1)); done", LONG, None);
        let said = end.unwrap().1;
        assert!(said.len() < 2 * KEPT_BYTES, "{}", said.len());
        assert!(said.starts_with("line number 0; ") && said.ends_with("line number 2999"), "{said}");
    }

    #[test]
    fn a_program_that_stalls_or_is_not_wanted_is_ended() {
        let started = Instant::now();
        let stalled = run("printf 1234; exec sleep 100", Duration::from_millis(200), None);
        assert_eq!(stalled.0, [4]);
        assert!(matches!(stalled.1, Err(Error::Stalled { program: "sh", .. })), "{:?}", stalled.1);
        let cancelled = run("exec sleep 100", LONG, Some(&|| true));
        assert!(matches!(cancelled.1, Err(Error::Cancelled)), "{:?}", cancelled.1);
        assert!(started.elapsed() < LONG, "{:?}", started.elapsed());
        // A sign of life in time, and a child of the child that holds the pipes.
        let slow = "for i in 1 2 3 4; do echo alive >&2; sleep 0.1; done; printf 12";
        assert_eq!(run(slow, Duration::from_secs(5), None).0, [2]);
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process =
            Process::start("sh", shell("exec sleep 100"), 4, Limits { stall: LONG, cancelled: None }, |_| {
                true
            })
            .unwrap();
        let entry = format!("/proc/{}", process.child.id());
        let watched = std::path::Path::new(&entry);
        let seen = watched.exists();
        drop(process);
        assert!(!watched.exists() || !seen);
    }
}
