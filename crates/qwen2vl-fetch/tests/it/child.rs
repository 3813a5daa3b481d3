//! What needs a process of its own: being killed, and the environment's proxies.
//!
//! The child is this test binary again: with [`VARIABLE`] set, [`fetch_in_a_child`] is the fetch and not a test.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use crate::server::{Resource, Server, answer, stall};
use crate::{FULL, Place, ZIP_PATH, assert_is_annotator, fetch_told, model_zip};

/// `<folder of the place>\n<base address>`.
const VARIABLE: &str = "QWEN2VL_FETCH_TEST_CHILD";
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

pub fn child(place: &Place, base_url: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child::fetch_in_a_child", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    for name in PROXIES {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.env(VARIABLE, format!("{}\n{base_url}", place.dir.path().display()));
    command
}

#[test]
fn fetch_in_a_child() {
    let Ok(task) = std::env::var(VARIABLE) else { return };
    let (dir, base_url) = task.split_once('\n').unwrap();
    let options = Place::new().options(base_url);
    let dir = std::path::Path::new(dir);
    let options = qwen2vl_fetch::FetchOptions {
        models_dir: dir.join("models"),
        state_dir: dir.join("state"),
        ..options
    };
    crate::fetch(options, FULL).unwrap();
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_process_is_gone_on_from() {
    const SENT: usize = 700_000;
    let resource = Resource::new(model_zip(1), "v1");
    let server = Server::start(move |seen, out| match seen.nth {
        0 => {
            resource.send_until(seen, out, SENT);
            stall(out);
        }
        _ => resource.send(seen, out),
    });
    let place = Place::new();
    let running = child(&place, &server.url()).spawn().unwrap();
    let partial = place.models().join(format!("{FULL}.zip.partial"));
    let there = || std::fs::metadata(&partial).map_or(0, |m| m.len());
    while there() < SENT as u64 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    kill(running);
    assert!(!place.model().exists());

    let (fetched, notes) = fetch_told(place.options(&server.url()), FULL);
    assert_eq!(fetched.unwrap().resumed_from_bytes, SENT as u64);
    assert_is_annotator(&place.model(), 1);
    assert_eq!(server.froms(ZIP_PATH), [None, Some(SENT)]);
    assert!(notes[0].contains("going on from"), "{notes:?}");
    assert_eq!(place.names(), [FULL]);
}

#[test]
fn proxies_of_the_environment_are_used() {
    // The proxy answers for a host that does not exist, so that only through it there is an answer.
    let resource = Resource::new(model_zip(1), "v1");
    let (connected, was_connected) = mpsc::channel();
    let proxy = Server::start(move |seen, out| {
        if seen.method == "CONNECT" {
            connected.send(seen.target.clone()).ok();
            tunnel(out, &resource);
        } else {
            connected.send(seen.target.clone()).ok();
            resource.send(seen, out);
        }
    });
    let unused = Server::start(|_, out| answer(out, "500 Internal Server Error", &[], b""));
    for (set, other) in
        [("http_proxy", "https_proxy"), ("HTTP_PROXY", "HTTPS_PROXY"), ("ALL_PROXY", "https_proxy")]
    {
        let place = Place::new();
        let mut command = child(&place, "http://models.invalid");
        let status = command.env(set, proxy.url()).env(other, unused.url()).status().unwrap();
        assert!(status.success(), "{set}");
        assert!(was_connected.recv().unwrap().contains("models.invalid"), "{set}");
        assert_is_annotator(&place.model(), 1);
    }
    assert!(unused.seen().is_empty());

    let direct = Resource::new(model_zip(2), "v1");
    let server = Server::start(move |seen, out| direct.send(seen, out));
    let place = Place::new();
    let status = child(&place, &server.url())
        .env("http_proxy", proxy.url())
        .env("NO_PROXY", "127.0.0.1")
        .status()
        .unwrap();
    assert!(status.success());
    assert_is_annotator(&place.model(), 2);
}

/// Takes the place of the host behind a tunnel.
fn tunnel(out: &mut std::net::TcpStream, resource: &Resource) {
    use std::io::{BufRead, BufReader, Write};
    out.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    let lines = BufReader::new(out.try_clone().unwrap()).lines().map_while(Result::ok);
    assert!(
        lines
            .take_while(|l| !l.is_empty())
            .any(|l| l.to_ascii_lowercase().starts_with("host: models.invalid"))
    );
    answer(out, "200 OK", &[("ETag", &resource.etag)], &resource.bytes);
}
