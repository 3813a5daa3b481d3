//! What a person is told when it does not work, and what is kept for the next try.

use qwen2vl_fetch::{Error, Trouble};

use crate::server::{Resource, Server, answer, head, stall};
use crate::{FULL, Place, ZIP_PATH, assert_is_annotator, fetch, model_zip};

const ACCESS_DENIED: &[u8] =
    b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>No</Message></Error>";
const PAGE: &[u8] = b"<!DOCTYPE html><title>Log in to the network</title>";
const HUGE: &str = "1152921504606846976";

#[test]
fn errors_say_what_to_do_and_are_not_tried_in_vain() {
    type Answer = fn(&mut std::net::TcpStream);
    // The answer, what the message has to hold, how often is asked.
    let cases: [(Answer, &[&str], usize); 8] = [
        (
            |out| answer(out, "403 Forbidden", &[], ACCESS_DENIED),
            &["403 Forbidden, AccessDenied", "company's proxy", "wrong bucket"],
            1,
        ),
        (|out| answer(out, "404 Not Found", &[], b""), &["404"], 1),
        (|out| answer(out, "401 Unauthorized", &[], b""), &["401", "HF_TOKEN"], 1),
        (|out| answer(out, "400 Bad Request", &[], b""), &["400"], 1),
        (
            |out| answer(out, "429 Too Many Requests", &[("Retry-After", "3600")], b""),
            &["429", "come back after 3600 s"],
            1,
        ),
        (|out| answer(out, "500 Internal Server Error", &[], b""), &["500"], 4),
        (|out| answer(out, "302 Found", &[("Location", ZIP_PATH)], b""), &["redirects"], 11),
        (
            // Announces more than it ever sends, and ignores ranges.
            |out| {
                head(out, "200 OK", &[("Content-Length", "1000"), ("ETag", "\"a\"")]);
                std::io::Write::write_all(out, b"PK\x03\x04").ok();
            },
            &["after 4 bytes of 1000"],
            4,
        ),
    ];
    for (behave, told, asked) in cases {
        let server = Server::start(move |_, out| behave(out));
        let place = Place::new();
        let url = format!("{}{ZIP_PATH}", server.url());
        let error = fetch(place.options(&server.url()), FULL).unwrap_err().to_string();
        let by_hand = format!("by hand: download {url} where that works");
        let command = format!("run `qwen2vl model fetch {FULL}.zip`");
        for part in told.iter().copied().chain([url.as_str(), by_hand.as_str(), command.as_str()]) {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        assert_eq!(server.seen().len(), asked, "{error}");
        assert!(!place.model().exists());
        // Only bytes that can be gone on from are worth keeping.
        let partial = place.model().with_file_name(format!("{FULL}.zip.partial"));
        assert_eq!(partial.exists(), told[0].contains("after 4 bytes"), "{error}");
    }
}

#[test]
fn what_is_no_zip_is_shown_and_not_kept() {
    let server = Server::start(|_, out| answer(out, "200 OK", &[("ETag", "\"a\"")], PAGE));
    let place = Place::new();
    let error = fetch(place.options(&server.url()), FULL).unwrap_err();
    assert!(matches!(error, Error::NotAZip { .. }) && error.to_string().contains("Log in to"), "{error}");
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn a_server_that_announces_less_than_there_is_gives_a_damaged_zip() {
    let server = Server::start(|_, out| {
        let zip = model_zip(1);
        head(out, "200 OK", &[("Content-Length", "500000"), ("ETag", "\"a\"")]);
        std::io::Write::write_all(out, &zip).ok();
    });
    let place = Place::new();
    let error = fetch(place.options(&server.url()), FULL).unwrap_err().to_string();
    assert!(error.contains("damaged or truncated"), "{error}");
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn checksums_are_compared_in_either_case() {
    let zip = model_zip(1);
    let resource = Resource::new(zip, "v1");
    let server = Server::start(move |seen, out| resource.send(seen, out));
    let place = Place::new();
    let options = |sha256: Option<&str>, md5: Option<&str>| {
        let mut options = place.options(&server.url());
        (options.sha256, options.md5) = (sha256.map(str::to_owned), md5.map(str::to_owned));
        options
    };
    let zeros = "0".repeat(64);
    for (sha256, md5, kind) in [(Some(zeros.as_str()), None, "SHA-256"), (None, Some(&zeros[..32]), "MD5")] {
        let error = fetch(options(sha256, md5), FULL).unwrap_err();
        assert!(matches!(&error, Error::Mismatch { kind: k, .. } if *k == kind), "{error}");
        assert!(place.names().is_empty(), "{:?}", place.names());
    }
    assert!(matches!(fetch(options(Some("abc"), None), FULL), Err(Error::BadChecksum { digits: 64, .. })));

    let sha256 = fetch(options(None, None), FULL).unwrap().sha256.unwrap();
    // It is there now, and its zip is gone: what was noted is compared.
    let again = fetch(options(Some(&sha256.to_uppercase()), None), FULL).unwrap();
    assert!(again.already_there && again.sha256_checked);
    assert!(matches!(fetch(options(Some(&zeros), None), FULL), Err(Error::Mismatch { .. })));
    assert!(matches!(fetch(options(None, Some(&zeros[..32])), FULL), Err(Error::Unverifiable { .. })));
}

#[test]
fn a_bad_rest_of_an_earlier_try_is_thrown_away_once() {
    let resource = Resource::new(model_zip(1), "v1");
    let place = Place::new();
    let partial = place.models().join(format!("{FULL}.zip.partial"));
    let server = Server::start(move |seen, out| {
        resource.send_until(seen, out, if seen.nth == 0 { 300_000 } else { usize::MAX });
    });
    let mut options = place.options(&server.url());
    options.retry.attempts = 1;
    assert!(matches!(fetch(options, FULL), Err(Error::Download { trouble: Trouble::Cut { .. }, .. })));
    // Something writes into what is kept.
    let mut bytes = std::fs::read(&partial).unwrap();
    assert_eq!(bytes.len(), 300_000);
    bytes[1000] ^= 1;
    bytes[200_000] ^= 1;
    std::fs::write(&partial, bytes).unwrap();
    fetch(place.options(&server.url()), FULL).unwrap();
    assert_is_annotator(&place.model(), 1);
    assert_eq!(server.froms(ZIP_PATH), [None, Some(300_000), None]);
}

#[test]
fn no_space_is_seen_before_the_first_byte() {
    let server = Server::start(|_, out| head(out, "200 OK", &[("Content-Length", HUGE), ("ETag", "\"a\"")]));
    let place = Place::new();
    let error = fetch(place.options(&server.url()), FULL).unwrap_err();
    assert!(
        matches!(error, Error::NoSpace { kept_bytes: 0, .. }) && error.to_string().contains("--dir"),
        "{error}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_gets_full_midway_is_said_so() {
    let resource = Resource::new(model_zip(1), "v1");
    let server = Server::start(move |seen, out| resource.send(seen, out));
    let place = Place::new();
    std::fs::create_dir_all(place.models()).unwrap();
    std::os::unix::fs::symlink("/dev/full", place.models().join(format!("{FULL}.zip.partial"))).unwrap();
    let error = fetch(place.options(&server.url()), FULL).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn no_connection_and_no_encryption_have_their_own_words() {
    let place = Place::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = fetch(place.options(&format!("http://{closed}")), FULL).unwrap_err();
    assert!(
        matches!(&error, Error::Download { trouble: Trouble::Connect { host, .. }, .. } if host == "127.0.0.1")
    );
    assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");

    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = place.options(&format!("https://{}", plain.local_addr().unwrap()));
    std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        answer(&mut stream, "400 Bad Request", &[], b"this is not encrypted");
        stall(&mut stream);
    });
    let error = fetch(options, FULL).unwrap_err();
    assert!(matches!(error, Error::Download { trouble: Trouble::Tls { .. }, .. }), "{error:?}");
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
}

#[test]
fn addresses_are_checked_first() {
    let place = Place::new();
    let mut options = place.options("ftp://example.org");
    assert!(matches!(fetch(options.clone(), FULL), Err(Error::BadAddress { .. })));
    options.base_url = "http://127.0.0.1:1".to_owned();
    options.hub_endpoint = "hub".to_owned();
    assert!(matches!(fetch(options, FULL), Err(Error::BadAddress { .. })));
}
