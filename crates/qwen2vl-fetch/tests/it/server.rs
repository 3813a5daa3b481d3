//! A small HTTP server whose every answer a test decides, down to the byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The target: a path, or for a proxy a whole address.
    pub target: String,
    pub method: String,
    headers: Vec<(String, String)>,
    /// How many requests for the same target came before.
    pub nth: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The first byte of the range that was asked for.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A running server; it ends with the value.
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopping: Arc<AtomicBool>,
}

impl Server {
    /// Answers each request by `answer`, one per connection, each on a thread of its own.
    pub fn start(answer: impl Fn(&Seen, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::<Seen>::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (log, stop, answer) = (Arc::clone(&seen), Arc::clone(&stopping), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &log, answer.as_ref()));
            }
        });
        Self { port, seen, stopping }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Where the requests for a path began.
    pub fn froms(&self, path: &str) -> Vec<Option<usize>> {
        self.seen().iter().filter(|s| s.target == path).map(Seen::from).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Seen>>, answer: &(impl Fn(&Seen, &mut TcpStream) + ?Sized)) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return };
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned())))
        .collect();
    let seen = {
        let mut log = log.lock().unwrap();
        let nth = log.iter().filter(|s| s.target == target).count();
        let seen = Seen { target: target.to_owned(), method: method.to_owned(), headers, nth };
        log.push(seen.clone());
        seen
    };
    answer(&seen, &mut stream);
    stream.flush().ok();
    stream.shutdown(std::net::Shutdown::Write).ok();
    // Closing with unread bytes would throw away what was sent.
    std::io::copy(&mut stream, &mut std::io::sink()).ok();
}

/// Writes a head: status line, headers, the end of a connection.
pub fn head(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)]) {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).ok();
}

/// A whole answer.
pub fn answer(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) {
    let length = body.len().to_string();
    head(stream, status, &[headers, &[("Content-Length", length.as_str())]].concat());
    stream.write_all(body).ok();
}

/// Says nothing more until the other side gives up.
pub fn stall(stream: &mut TcpStream) {
    stream.read_exact(&mut [0; 1]).ok();
}

/// A file as a good server has it.
#[derive(Clone)]
pub struct Resource {
    pub bytes: Arc<Vec<u8>>,
    pub etag: String,
}

impl Resource {
    pub fn new(bytes: Vec<u8>, etag: &str) -> Self {
        Self { bytes: Arc::new(bytes), etag: format!("\"{etag}\"") }
    }

    /// Answers as RFC 9110 has it: ranges, `If-Range`, `If-None-Match`.
    pub fn send(&self, seen: &Seen, stream: &mut TcpStream) {
        self.send_until(seen, stream, usize::MAX);
    }

    /// The same, but the connection ends when `until` bytes of the file are through.
    pub fn send_until(&self, seen: &Seen, stream: &mut TcpStream, until: usize) {
        let until = until.min(self.bytes.len());
        if seen.header("if-none-match") == Some(&self.etag) {
            return head(stream, "304 Not Modified", &[("ETag", &self.etag)]);
        }
        let same = seen.header("if-range").is_none_or(|given| given == self.etag);
        match seen.from().filter(|_| same) {
            Some(from) if from >= self.bytes.len() => {
                let range = format!("bytes */{}", self.bytes.len());
                answer(
                    stream,
                    "416 Range Not Satisfiable",
                    &[("Content-Range", &range), ("ETag", &self.etag)],
                    b"",
                );
            }
            Some(from) => self.send_part(stream, from, until),
            None => {
                let length = self.bytes.len().to_string();
                let headers =
                    [("Content-Length", length.as_str()), ("ETag", &self.etag), ("Accept-Ranges", "bytes")];
                head(stream, "200 OK", &headers);
                stream.write_all(&self.bytes[..until]).ok();
            }
        }
    }

    pub fn send_part(&self, stream: &mut TcpStream, from: usize, until: usize) {
        let length = (self.bytes.len() - from).to_string();
        let range = format!("bytes {from}-{}/{}", self.bytes.len() - 1, self.bytes.len());
        let headers = [("Content-Length", length.as_str()), ("Content-Range", &range), ("ETag", &self.etag)];
        head(stream, "206 Partial Content", &headers);
        stream.write_all(&self.bytes[from..until.max(from)]).ok();
    }
}
