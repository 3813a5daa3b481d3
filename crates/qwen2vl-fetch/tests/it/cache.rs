//! The cache: shared with Spark NLP, with other processes, and with what killed ones left.

use std::path::Path;
use std::sync::{Arc, Barrier};

use qwen2vl_fetch::{Error, Place as Where, Progress, Source, installed};

use crate::server::{Resource, Server};
use crate::{
    FULL, NAME, Place, ZIP_PATH, annotator, assert_is_annotator, fetch, fetch_told, model_zip, zipped,
};

fn good_server(seed: u32) -> Server {
    let resource = Resource::new(model_zip(seed), "v1");
    Server::start(move |seen, out| resource.send(seen, out))
}

fn write(folder: &Path, files: &[(&str, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn what_is_there_is_found_by_any_name_without_a_network() {
    let place = Place::new();
    // As Spark NLP leaves it.
    write(&place.model(), &annotator(1));
    for reference in [FULL, NAME, &format!("{NAME}@en"), &format!("http://127.0.0.1:1{ZIP_PATH}")] {
        for offline in [true, false] {
            let mut options = place.options("http://127.0.0.1:1");
            options.offline = offline;
            let (fetched, notes) = fetch_told(options, reference);
            let fetched = fetched.unwrap();
            assert_eq!((fetched.path, fetched.already_there), (place.model(), true), "{reference}");
            assert_eq!((fetched.downloaded_bytes, notes), (None, vec![]), "{reference}");
        }
    }
}

#[test]
fn of_several_the_latest_that_fits_is_found() {
    let place = Place::new();
    let names = [
        format!("{NAME}_en_5.5.1_3.0_1739495409030"),
        format!("{NAME}_en_6.0.0_3.4_1749495409030"),
        format!("{NAME}_de_5.5.1_3.0_1759495409030"),
        format!("{NAME}_en_5.5.1_3.0_1769495409030"),
    ];
    for name in &names[..3] {
        write(&place.models().join(name), &annotator(1));
    }
    // The latest is incomplete.
    write(&place.models().join(&names[3]), &annotator(1)[..3]);
    let found = |reference: &str, lib: Option<&str>| {
        let mut options = place.options("http://127.0.0.1:1");
        options.lib_version = lib.map(|v| v.parse().unwrap());
        fetch(options, reference).map(|f| f.name)
    };
    assert_eq!(found(NAME, None).unwrap(), names[2]);
    assert_eq!(found(&format!("{NAME}@en"), None).unwrap(), names[1]);
    assert_eq!(found(&format!("{NAME}@en"), Some("5.5.3")).unwrap(), names[0]);
}

#[test]
fn a_folder_that_another_program_left_half_unpacked_is_fetched_anew() {
    let place = Place::new();
    write(&place.model(), &annotator(9)[1..6]);
    std::fs::write(place.model().join("stray"), "gone afterwards").unwrap();
    let mut options = place.options("http://127.0.0.1:1");
    options.offline = true;
    let error = fetch(options, FULL).unwrap_err().to_string();
    assert!(error.contains("--offline") && error.contains("model fetch"), "{error}");

    let server = good_server(1);
    let (fetched, notes) = fetch_told(place.options(&server.url()), FULL);
    assert!(!fetched.unwrap().already_there);
    assert_is_annotator(&place.model(), 1);
    assert_eq!(place.names(), [FULL]);
    assert!(notes[0].contains("half-unpacked") && notes[0].contains("metadata/part-00000"), "{notes:?}");
}

#[test]
fn what_killed_processes_left_is_cleared_away() {
    let place = Place::new();
    for leftover in ["partial-12345", "incomplete-12345"] {
        write(&place.models().join(format!("{FULL}.{leftover}")), &annotator(2)[..2]);
    }
    let other = format!("{FULL}2.partial-1");
    write(&place.models().join(&other), &annotator(2)[..1]);
    fetch(place.options(&good_server(1).url()), FULL).unwrap();
    assert_eq!(place.names(), [FULL, other.as_str()]);
}

#[test]
fn a_zip_that_lies_in_the_cache_is_used_and_a_damaged_one_is_not() {
    let place = Place::new();
    let zip = place.models().join(format!("{FULL}.zip"));
    std::fs::create_dir_all(place.models()).unwrap();
    std::fs::write(&zip, model_zip(1)).unwrap();
    let mut options = place.options("http://127.0.0.1:1");
    options.offline = true;
    assert_eq!(fetch(options, NAME).unwrap().path, place.model());
    assert_is_annotator(&place.model(), 1);
    assert_eq!(place.names(), [FULL]);

    std::fs::remove_dir_all(place.model()).unwrap();
    std::fs::write(&zip, &model_zip(1)[..500_000]).unwrap();
    let server = good_server(2);
    let (fetched, notes) = fetch_told(place.options(&server.url()), FULL);
    fetched.unwrap();
    assert_is_annotator(&place.model(), 2);
    assert!(notes.iter().any(|n| n.contains("of no use") && n.contains("fetched anew")), "{notes:?}");
    assert_eq!(place.names(), [FULL]);
}

#[test]
fn two_at_once_download_once() {
    let resource = Resource::new(model_zip(1), "v1");
    let (entered, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (server_entered, server_go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
    let server = Server::start(move |seen, out| {
        server_entered.wait();
        server_go_on.wait();
        resource.send(seen, out);
    });
    let place = Place::new();
    let options = || place.options(&server.url());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| fetch(options(), FULL).unwrap());
        // The first one holds the lock now, and its server is silent until the second one waits.
        entered.wait();
        let fetcher = qwen2vl_fetch::Fetcher::new(options()).unwrap();
        let reference = qwen2vl_fetch::Reference::parse(FULL).unwrap();
        let second = fetcher.fetch(&reference, &mut |progress| {
            if matches!(progress, Progress::Waiting) {
                go_on.wait();
            }
        });
        assert!(second.unwrap().already_there);
        assert!(!first.join().unwrap().already_there);
    });
    assert_eq!(server.seen().len(), 1);
    assert_is_annotator(&place.model(), 1);
}

#[test]
fn a_zip_that_lies_elsewhere_is_checked_and_unpacked_into_the_cache() {
    let place = Place::new();
    let zip = place.dir.path().join("mine.zip");
    std::fs::write(&zip, model_zip(1)).unwrap();
    let options = || place.options("http://127.0.0.1:1");
    let fetched = fetch(options(), zip.to_str().unwrap()).unwrap();
    assert!(fetched.name.starts_with("mine-") && !fetched.already_there, "{fetched:?}");
    assert_eq!(fetched.source, Source::File);
    assert_is_annotator(&fetched.path, 1);
    assert!(zip.is_file());
    let sha256 = fetched.sha256.unwrap();

    let mut right = options();
    right.sha256 = Some(sha256.to_uppercase());
    let again = fetch(right, zip.to_str().unwrap()).unwrap();
    assert!(again.already_there && again.sha256_checked, "{again:?}");
    let mut wrong = options();
    wrong.sha256 = Some("0".repeat(64));
    assert!(matches!(fetch(wrong, zip.to_str().unwrap()), Err(Error::Mismatch { kind: "SHA-256", .. })));

    // The way by hand: a published name given as a file is the published model.
    let by_hand = place.dir.path().join(format!("{FULL}.zip"));
    std::fs::write(&by_hand, model_zip(3)).unwrap();
    assert_eq!(fetch(options(), by_hand.to_str().unwrap()).unwrap().path, place.model());
    assert!(fetch(options(), NAME).unwrap().already_there);
}

#[test]
fn a_folder_that_lies_elsewhere_is_used_there() {
    let place = Place::new();
    let folder = place.dir.path().join("export");
    write(&folder, &annotator(1));
    let mut options = place.options("http://127.0.0.1:1");
    let fetched = fetch(options.clone(), folder.to_str().unwrap()).unwrap();
    assert_eq!((fetched.path, fetched.source), (std::fs::canonicalize(&folder).unwrap(), Source::Folder));
    assert!(!place.models().exists());
    options.md5 = Some("0".repeat(32));
    assert!(matches!(fetch(options, folder.to_str().unwrap()), Err(Error::ChecksumUnusable { .. })));
}

#[test]
fn a_zip_without_a_whole_model_is_refused_and_leaves_nothing() {
    let files = annotator(1);
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("lacks a model", zipped(&files[..9]), "lacks openvino_rotary_embeddings_model.xml"),
        ("is of something else", zipped(&[("a.txt", b"a".to_vec())]), "lacks metadata/part-00000"),
        ("leads out", zipped(&[("../a.txt", b"a".to_vec())]), "refused"),
        ("is cut", model_zip(1)[..900_000].to_vec(), "damaged"),
    ];
    for (what, zip, problem) in cases {
        let resource = Resource::new(zip, "v1");
        let server = Server::start(move |seen, out| resource.send(seen, out));
        let place = Place::new();
        let error = fetch(place.options(&server.url()), FULL).unwrap_err().to_string();
        assert!(error.contains(problem), "a zip that {what}: {error}");
        assert_eq!(place.names(), Vec::<String>::new(), "a zip that {what}");
        assert_eq!(server.seen().len(), 1, "a zip that {what}");
    }
}

#[test]
fn what_lies_here_is_listed() {
    let place = Place::new();
    write(&place.model(), &annotator(1));
    write(&place.models().join("qwen2_vl_7b_en_5.5.1_3.0_1739495409031"), &annotator(1)[..2]);
    write(
        &place.models().join("bert_en_5.5.1_3.0_1739495409031"),
        &[("metadata/part-00000", b"{}".to_vec())],
    );
    let hub = place.dir.path().join("hub");
    let snapshot = hub.join("models--Org--repo--x/snapshots/abc");
    let export: Vec<(&str, Vec<u8>)> =
        ["language", "text_embeddings", "vision_embeddings", "vision_embeddings_merger"]
            .iter()
            .flat_map(|m| {
                ["xml", "bin"].map(|e| (format!("openvino_{m}_model.{e}").leak() as &str, b"x".to_vec()))
            })
            .chain([("config.json", b"{}".to_vec())])
            .collect();
    write(&snapshot, &export);
    write(&hub.join("models--Org--other/snapshots/abc"), &[("config.json", b"{}".to_vec())]);
    let packages = place.dir.path().join("packages");
    write(&packages.join("demo-0123456789abcdef"), &export);
    write(&packages.join("index"), &[("a.json", b"{}".to_vec())]);

    let found = installed(&place.models(), Some(&hub), Some(&packages));
    let rows: Vec<(Where, &str, bool)> =
        found.iter().map(|m| (m.place, m.name.as_str(), m.missing.is_empty())).collect();
    assert_eq!(
        rows,
        [
            (Where::Models, FULL, true),
            (Where::Models, "qwen2_vl_7b_en_5.5.1_3.0_1739495409031", false),
            (Where::Hub, "Org/repo--x", true),
            (Where::Packages, "demo-0123456789abcdef", true),
        ]
    );
    assert!(found[0].bytes > 1 << 20 && found[2].bytes == 10, "{found:?}");
    assert!(installed(Path::new("does/not/exist"), None, None).is_empty());
}
