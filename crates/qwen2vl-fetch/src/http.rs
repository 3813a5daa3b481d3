//! Requests: time-outs, certificates, proxies, what an answer's status means, and when to try again.
//!
//! Bodies are read elsewhere ([`crate::transfer`]); [`trouble_in_body`] tells what ended one.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use backon::BackoffBuilder;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::options::{FetchOptions, RetryPolicy, TimeOuts};
use crate::progress::{Progress, Tell};
use crate::{Trouble, proxy};

/// Sent as the user agent.
const USER_AGENT: &str = concat!("qwen2vl/", env!("CARGO_PKG_VERSION"));
/// An error page is read this far for S3's error code.
const ERROR_PAGE_BYTES: u64 = 4096;

/// Asks servers.
pub(crate) struct Client {
    agent: Agent,
    time_outs: TimeOuts,
    retry: RetryPolicy,
    offline: bool,
}

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub trouble: Trouble,
    /// Whether another try may help.
    pub again: Again,
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    No,
    /// Nothing was reached: no network is found out about quickly.
    Once,
    Yes,
    /// Not before this time.
    After(Duration),
}

impl Client {
    pub fn new(options: &FetchOptions) -> Self {
        let TimeOuts { connect, response, read } = options.time_outs;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(USER_AGENT)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .tls_config(TlsConfig::builder().root_certs(root_certificates()).build())
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .timeout_recv_response(Some(response))
            .timeout_per_read(Some(read))
            .timeout_per_write(Some(read))
            .proxy(None)
            // Tries are far apart: a connection that is kept would be closed by then.
            .max_idle_connections(0)
            .build();
        Self {
            agent: config.into(),
            time_outs: options.time_outs,
            retry: options.retry,
            offline: options.offline,
        }
    }

    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Asks for `url`. An answer is a success, 304 or 416; the rest is a failure.
    pub fn get(&self, url: &str, headers: &[(&str, String)]) -> Result<Response<Body>, Failure> {
        if self.offline {
            return Err(Failure { trouble: Trouble::Offline, again: Again::No });
        }
        let proxy = proxy::for_url(url, |name| std::env::var(name).ok()).map_err(|proxy| Failure {
            trouble: Trouble::Proxy { proxy, reason: "its address cannot be read".to_owned() },
            again: Again::No,
        })?;
        let shown_proxy = proxy.as_ref().map(|p| format!("{}:{}", p.host(), p.port()));
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = request.config().proxy(proxy).build().call();
        let response = answer.map_err(|e| self.failed_call(e, url, shown_proxy))?;
        let status = response.status();
        let is_answer = status.is_success()
            || matches!(status, StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE);
        if is_answer { Ok(response) } else { Err(refused(response)) }
    }

    fn failed_call(&self, error: ureq::Error, url: &str, proxy: Option<String>) -> Failure {
        let host = host(url);
        let reason = |e: &dyn std::fmt::Display| e.to_string();
        let proxied = proxy.is_some();
        let (trouble, again) = match error {
            ureq::Error::ConnectProxyFailed(what) => {
                (Trouble::Proxy { proxy: proxy.unwrap_or_default(), reason: what }, Again::Once)
            }
            ureq::Error::Io(e) if !connected(&e) => {
                let reason = match proxy {
                    Some(proxy) => format!("{e} (by the proxy {proxy})"),
                    None => e.to_string(),
                };
                if is_lookup(&e) && !proxied {
                    (Trouble::HostNotFound { host }, Again::Once)
                } else {
                    (Trouble::Connect { host, reason }, Again::Once)
                }
            }
            ureq::Error::HostNotFound => (Trouble::HostNotFound { host }, Again::Once),
            ureq::Error::ConnectionFailed => (Trouble::Connect { host, reason: reason(&error) }, Again::Once),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                let reason = format!("none within {} s", self.time_outs.connect.as_secs_f64());
                (Trouble::Connect { host, reason }, Again::Once)
            }
            // What rustls says comes wrapped as invalid data.
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => {
                (Trouble::Tls { host, reason: e.to_string() }, Again::No)
            }
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::TlsRequired => {
                (Trouble::Tls { host, reason: reason(&error) }, Again::No)
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                (Trouble::Nonsense { what: reason(&error) }, Again::No)
            }
            ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => {
                (Trouble::Nonsense { what: reason(&error) }, Again::No)
            }
            other => (self.trouble_in_body(other, 0, None), Again::Yes),
        };
        Failure { trouble, again }
    }

    /// What ended an answer's body.
    pub fn trouble_in_body(&self, error: ureq::Error, received: u64, expected: Option<u64>) -> Trouble {
        match error {
            ureq::Error::Timeout(ureq::Timeout::PerRead | ureq::Timeout::RecvBody) => {
                Trouble::Stalled { after: self.time_outs.read }
            }
            ureq::Error::Timeout(_) => Trouble::Stalled { after: self.time_outs.response },
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::TimedOut => {
                Trouble::Stalled { after: self.time_outs.read }
            }
            ureq::Error::Io(_) => Trouble::Cut { received_bytes: received, expected_bytes: expected },
            other => Trouble::Nonsense { what: other.to_string() },
        }
    }

    /// How often to begin anew.
    pub fn attempts(&self) -> usize {
        self.retry.attempts
    }

    /// The waits of one download.
    pub fn patience(&self) -> Patience {
        Patience { retry: self.retry, waits: waits(self.retry), tries: 0 }
    }
}

/// Counts tries in a row that brought nothing.
pub(crate) struct Patience {
    retry: RetryPolicy,
    waits: backon::ExponentialBackoff,
    tries: usize,
}

impl Patience {
    /// Bytes came: the count starts again.
    pub fn refresh(&mut self) {
        self.waits = waits(self.retry);
        self.tries = 0;
    }

    /// Waits for the next try, or gives the trouble back if there is none to be made.
    pub fn wait(&mut self, failure: Failure, tell: Tell<'_>) -> Result<(), Trouble> {
        self.tries += 1;
        let after = match failure.again {
            Again::No => return Err(failure.trouble),
            Again::Once if self.tries > 1 => return Err(failure.trouble),
            Again::After(after) if after > self.retry.longest_wait => return Err(failure.trouble),
            Again::After(after) => after,
            Again::Once | Again::Yes => Duration::ZERO,
        };
        let Some(wait) = self.waits.next() else { return Err(failure.trouble) };
        let wait = wait.min(self.retry.longest_wait).max(after);
        tell(Progress::Retrying { reason: failure.trouble.to_string(), wait });
        std::thread::sleep(wait);
        Ok(())
    }
}

fn waits(retry: RetryPolicy) -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(retry.first_wait)
        .with_max_delay(retry.longest_wait)
        .with_max_times(retry.attempts.saturating_sub(1))
        .with_jitter()
        .build()
}

fn refused(response: Response<Body>) -> Failure {
    let status = response.status().as_u16();
    let retry_after =
        header(response.headers(), "retry-after").and_then(|v| seconds_from_now(v, SystemTime::now()));
    let trouble = match status {
        401 => Trouble::Unauthorized,
        403 => Trouble::Forbidden { code: s3_code(response) },
        404 | 410 => Trouble::NotFound,
        _ => Trouble::Status { status, retry_after },
    };
    let again = match (status, retry_after) {
        (408 | 429 | 500.., Some(after)) => Again::After(after),
        (408 | 429 | 500.., None) => Again::Yes,
        _ => Again::No,
    };
    Failure { trouble, again }
}

/// The code in S3's error document, `<Error><Code>AccessDenied</Code>…`.
fn s3_code(response: Response<Body>) -> Option<String> {
    let mut page = Vec::new();
    response.into_body().into_reader().take(ERROR_PAGE_BYTES).read_to_end(&mut page).ok()?;
    let page = String::from_utf8_lossy(&page);
    let code = page.split_once("<Code>")?.1.split_once("</Code>")?.0;
    let plain = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    (plain && !code.is_empty()).then(|| code.to_owned())
}

/// `Retry-After` is a number of seconds or a date.
fn seconds_from_now(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// An answer's body, decompressed if it is compressed.
pub(crate) fn decoded(response: Response<Body>) -> Box<dyn Read> {
    let gzip = header(response.headers(), "content-encoding").is_some_and(|e| e.eq_ignore_ascii_case("gzip"));
    let body = response.into_body().into_reader();
    if gzip { Box::new(flate2::read::MultiGzDecoder::new(body)) } else { Box::new(body) }
}

/// A header's text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|v| !v.is_empty())
}

/// Whether an error came after the connection was made.
fn connected(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
        PermissionDenied,
    };
    let kinds = [
        ConnectionRefused,
        HostUnreachable,
        NetworkUnreachable,
        NetworkDown,
        AddrNotAvailable,
        PermissionDenied,
    ];
    !kinds.contains(&error.kind()) && !is_lookup(error)
}

/// The standard library has no kind for a name that is not resolved.
fn is_lookup(error: &io::Error) -> bool {
    let text = error.to_string();
    text.contains("lookup address") || text.contains("No such host")
}

fn host(url: &str) -> String {
    url.parse::<ureq::http::Uri>()
        .ok()
        .and_then(|u| u.host().map(str::to_owned))
        .unwrap_or_else(|| url.to_owned())
}

/// Those of the machine, where companies put theirs (`SSL_CERT_FILE` included); Mozilla's if it has none.
fn root_certificates() -> RootCerts {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate of the machine cannot be read");
    }
    if found.certs.is_empty() {
        return RootCerts::WebPki;
    }
    RootCerts::from(found.certs.iter().map(|c| Certificate::from_der(c.as_ref()).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ];
        for (value, want) in cases {
            assert_eq!(seconds_from_now(value, now), want.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn waits_double_with_chance_and_end() {
        let [first_wait, longest_wait] = [10, 40].map(Duration::from_millis);
        let all: Vec<Duration> = waits(RetryPolicy { attempts: 4, first_wait, longest_wait }).collect();
        assert_eq!(all.len(), 3, "{all:?}");
        for (wait, base) in all.iter().zip([10, 20, 40]) {
            let base = Duration::from_millis(base);
            assert!(*wait >= base && *wait <= 2 * base, "{all:?}");
        }
    }
}
