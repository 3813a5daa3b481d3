//! Names looked up in a catalogue, and the catalogue's copy.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use qwen2vl_fetch::{Error, Fetcher};

use crate::server::{Resource, Server, answer};
use crate::{NAME, Place, ZIP_PATH, assert_is_annotator, fetch, fetch_told, model_zip};

const CATALOGUE: &str = "/metadata.json";
/// Of the zip of seed 1, as `md5sum` prints it; computed here so that the zip writer may change.
fn md5() -> String {
    let place = Place::new();
    let zip = place.dir.path().join("a.zip");
    std::fs::write(&zip, model_zip(1)).unwrap();
    let mut options = place.options("http://127.0.0.1:1");
    options.md5 = Some("0".repeat(32));
    match fetch(options, zip.to_str().unwrap()) {
        Err(Error::Mismatch { found, .. }) => found,
        other => panic!("{other:?}"),
    }
}

fn catalogue(checksum: &str) -> Vec<u8> {
    let line = |name: &str, lib: &str, time: &str, sum: &str| {
        format!(
            "{{\"name\":\"{name}\",\"language\":\"en\",\"libVersion\":{{\"parts\":[{lib}]}},\"sparkVersion\":\
             {{\"parts\":[3,0]}},\"readyToUse\":true,\"time\":\"{time}\",\"isZipped\":true,\"category\":\"ml\",\
             \"checksum\":\"{sum}\",\"annotator\":\"Qwen2VLTransformer\",\"engine\":\"openvino\"}}"
        )
    };
    [
        line("bert_base_cased", "2,6,0", "2020-08-25T15:40:13.402Z", ""),
        String::new(),
        "{broken".to_owned(),
        line(NAME, "5,5,0", "2025-01-14T01:10:09.030Z", "0123"),
        line(NAME, "5,5,1", "2025-02-14T01:10:09.030Z", checksum),
    ]
    .join("\n")
    .into_bytes()
}

fn server(catalogue: Vec<u8>) -> Server {
    let (catalogue, zip) = (Resource::new(catalogue, "c1"), Resource::new(model_zip(1), "v1"));
    Server::start(move |seen, out| match seen.target.as_str() {
        CATALOGUE => catalogue.send(seen, out),
        ZIP_PATH => zip.send(seen, out),
        _ => answer(out, "404 Not Found", &[], b""),
    })
}

#[test]
fn a_name_is_resolved_fetched_and_then_there() {
    let server = server(catalogue(&md5().to_uppercase()));
    let place = Place::new();
    let fetched = fetch(place.options(&server.url()), NAME).unwrap();
    assert_eq!((&fetched.path, fetched.md5_checked), (&place.model(), true));
    assert_is_annotator(&place.model(), 1);
    assert_eq!(server.seen().len(), 2);
    assert!(fetch(place.options(&server.url()), NAME).unwrap().already_there);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn the_catalogues_checksum_counts_unless_it_is_none() {
    let wrong = server(catalogue(&"ab".repeat(16)));
    let place = Place::new();
    assert!(matches!(fetch(place.options(&wrong.url()), NAME), Err(Error::Mismatch { kind: "MD5", .. })));
    for none in ["", "n/a"] {
        let place = Place::new();
        let fetched = fetch(place.options(&server(catalogue(none)).url()), NAME).unwrap();
        assert!(!fetched.md5_checked);
    }
}

#[test]
fn the_copy_is_asked_for_conditionally_and_serves_without_a_network() {
    let server = server(catalogue(""));
    let place = Place::new();
    let names = |offline: bool| {
        let mut options = place.options(&server.url());
        options.offline = offline;
        let catalogue = Fetcher::new(options).unwrap().catalogue(&mut |_| {}).unwrap();
        catalogue.entries.iter().map(qwen2vl_fetch::Entry::file_name).collect::<Vec<_>>()
    };
    let first = names(false);
    assert_eq!(first.len(), 3);
    assert_eq!(names(false), first);
    let asked: Vec<Option<String>> =
        server.seen().iter().map(|s| s.header("if-none-match").map(str::to_owned)).collect();
    assert_eq!(asked, [None, Some("\"c1\"".to_owned())]);
    assert_eq!(names(true), first);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_catalogue_that_gets_bad_leaves_the_copy() {
    for bad in ["page", "error", "drops"] {
        let state = Arc::new(AtomicUsize::new(0));
        let (now, good) = (Arc::clone(&state), Resource::new(catalogue(""), "c1"));
        let server = Server::start(move |seen, out| match (now.load(Ordering::SeqCst), bad) {
            (0, _) => good.send(seen, out),
            (_, "page") => answer(out, "200 OK", &[], b"<html>log in</html>"),
            (_, "error") => answer(out, "500 Internal Server Error", &[], b""),
            _ => Resource { etag: "\"c2\"".to_owned(), ..good.clone() }.send_until(seen, out, 300),
        });
        let place = Place::new();
        let options = || place.options(&server.url());
        let told = |notes: &mut Vec<String>| {
            let fetcher = Fetcher::new(options()).unwrap();
            fetcher.catalogue(&mut |p| notes.push(format!("{p:?}"))).unwrap().entries.len()
        };
        assert_eq!(told(&mut Vec::new()), 3);
        state.store(1, Ordering::SeqCst);
        let mut notes = Vec::new();
        assert_eq!(told(&mut notes), 3, "{bad}");
        assert!(notes.last().is_some_and(|n| n.contains("its copy")), "{bad}: {notes:?}");
    }
}

#[test]
fn without_any_catalogue_the_way_by_hand_is_named() {
    let server = Server::start(|_, out| answer(out, "403 Forbidden", &[], b"<Code>AccessDenied</Code>"));
    let place = Place::new();
    let error = fetch(place.options(&server.url()), NAME).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Catalogue { .. }), "{text}");
    let known = format!("download {}{ZIP_PATH}", server.url());
    assert!(text.contains("AccessDenied") && text.contains(&known), "{text}");
    let mut options = place.options(&server.url());
    options.offline = true;
    let text = fetch(options, NAME).unwrap_err().to_string();
    assert!(text.contains("--offline") && text.contains(&known), "{text}");
}

#[test]
fn unknown_names_are_told_with_the_nearest() {
    let server = server(catalogue(""));
    let place = Place::new();
    let text = |name: &str, lib: Option<&str>| {
        let mut options = place.options(&server.url());
        options.lib_version = lib.map(|v| v.parse().unwrap());
        fetch(options, name).unwrap_err().to_string()
    };
    let typo = text("qwen2_vl_2b_instruct_in4", None);
    assert!(typo.contains(&format!("near it: {NAME}")) && typo.contains("list --remote"), "{typo}");
    let german = text(&format!("{NAME}@de"), None);
    assert!(german.contains("language de"), "{german}");
    let old = text(NAME, Some("5.4.0"));
    assert!(old.contains("Spark NLP 5.4.0"), "{old}");
}

#[test]
fn a_compressed_catalogue_is_read() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&catalogue("")).unwrap();
    let bytes = gzip.finish().unwrap();
    let server = Server::start(move |seen, out| {
        assert!(seen.header("accept-encoding").is_some_and(|e| e.contains("gzip")));
        answer(out, "200 OK", &[("Content-Encoding", "gzip"), ("ETag", "\"z\"")], &bytes);
    });
    let place = Place::new();
    let (result, _) = fetch_told(place.options(&server.url()), "bert_base_case");
    assert!(result.unwrap_err().to_string().contains("near it: bert_base_cased"));
}
