//! A repository on a small hub.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use qwen2vl_fetch::{Error, Trouble};

use crate::server::{Resource, Seen, Server, answer};
use crate::{Place, fetch, fetch_told};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LIST: &str = "/api/models/Org/qwen2-vl-2b-ov/revision/main?blobs=true";
const LARGE: &str = "openvino_language_model.bin";

/// Contents, and the checksums of them that `sha256sum` and `git hash-object` print.
struct RemoteFile {
    name: &'static str,
    bytes: Vec<u8>,
    git: &'static str,
    sha256: Option<&'static str>,
}

/// Small files all hold `abc`, the large one a megabyte of zeros.
fn files() -> Vec<RemoteFile> {
    let git = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";
    let small = [
        "tokenizer.json",
        "config.json",
        "chat_template.jinja",
        "openvino_language_model.xml",
        "openvino_text_embeddings_model.xml",
        "openvino_text_embeddings_model.bin",
        "openvino_vision_embeddings_model.xml",
        "openvino_vision_embeddings_model.bin",
        "openvino_vision_embeddings_merger_model.xml",
        "openvino_vision_embeddings_merger_model.bin",
        "openvino_tokenizer.xml",
        "model.safetensors",
        "README.md",
    ];
    let small = small.map(|name| RemoteFile { name, bytes: b"abc".to_vec(), git, sha256: None });
    let large = RemoteFile {
        name: LARGE,
        bytes: vec![0; 1 << 20],
        git: "9e0f96a2a253b173cb45b41868209a5d043e1437",
        sha256: Some("30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58"),
    };
    small.into_iter().chain([large]).collect()
}

fn list(files: &[RemoteFile]) -> Vec<u8> {
    let siblings: Vec<String> = files
        .iter()
        .map(|f| {
            let size = f.bytes.len();
            let lfs = f
                .sha256
                .map(|s| format!(",\"lfs\":{{\"sha256\":\"{s}\",\"size\":{size},\"pointerSize\":132}}"));
            let lfs = lfs.unwrap_or_default();
            format!("{{\"rfilename\":\"{}\",\"size\":{size},\"blobId\":\"{}\"{lfs}}}", f.name, f.git)
        })
        .collect();
    format!("{{\"id\":\"Org/x\",\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}", siblings.join(",")).into_bytes()
}

type Spoil = Box<dyn Fn(&Seen, &Resource, &mut std::net::TcpStream) -> bool + Send + Sync>;

/// A hub whose answers for files go through `spoil` first, which tells whether it has answered.
fn hub(files: Vec<RemoteFile>, spoil: Spoil) -> Server {
    let listing = list(&files);
    let resources: BTreeMap<String, Resource> = files
        .into_iter()
        .map(|f| (format!("/Org/qwen2-vl-2b-ov/resolve/{COMMIT}/{}", f.name), Resource::new(f.bytes, f.git)))
        .collect();
    Server::start(move |seen, out| match resources.get(&seen.target) {
        Some(resource) if !spoil(seen, resource, out) => resource.send(seen, out),
        Some(_) => {}
        None if seen.target == LIST => answer(out, "200 OK", &[], &listing),
        None => answer(out, "401 Unauthorized", &[], b""),
    })
}

fn good(_: &Seen, _: &Resource, _: &mut std::net::TcpStream) -> bool {
    false
}

const REPOSITORY: &str = "hf:Org/qwen2-vl-2b-ov";

#[test]
fn an_export_goes_into_the_cache_that_others_read() {
    let server = hub(files(), Box::new(good));
    let place = Place::new();
    let fetched = fetch(place.options(&server.url()), "Org/qwen2-vl-2b-ov").unwrap();
    let root = place.dir.path().join("hub/models--Org--qwen2-vl-2b-ov");
    assert_eq!(fetched.path, root.join("snapshots").join(COMMIT));
    // Files of the same content are one blob.
    assert_eq!(fetched.downloaded_bytes, Some((1 << 20) + 3));
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read(fetched.path.join(LARGE)).unwrap().len(), 1 << 20);
    for left_out in ["openvino_tokenizer.xml", "model.safetensors", "README.md"] {
        assert!(!fetched.path.join(left_out).exists(), "{left_out}");
    }
    // As the hub's own libraries look for it.
    let cache = hf_hub::Cache::new(place.dir.path().join("hub"));
    assert!(cache.model("Org/qwen2-vl-2b-ov".to_owned()).get("config.json").is_some());
    #[cfg(unix)]
    assert!(std::fs::read_link(fetched.path.join(LARGE)).unwrap().starts_with("../../blobs"));
    let blobs: Vec<_> = std::fs::read_dir(root.join("blobs")).unwrap().collect();
    assert_eq!(blobs.len(), 2);

    let before = server.seen().len();
    let mut options = place.options(&server.url());
    options.offline = true;
    assert!(fetch(options, REPOSITORY).unwrap().already_there);
    assert!(fetch(place.options(&server.url()), REPOSITORY).unwrap().already_there);
    assert_eq!(server.seen().len(), before);
}

#[test]
fn a_large_file_is_gone_on_with_and_a_bad_one_is_fetched_again() {
    // Drops in the middle; then in another run sends other bytes for what is missing.
    let server = hub(
        files(),
        Box::new(|seen, resource, out| {
            let large = seen.target.ends_with(LARGE);
            match seen.nth {
                0 if large => resource.send_until(seen, out, 400_000),
                1 if large => {
                    let spoilt = Resource { bytes: Arc::new(vec![1; 1 << 20]), ..resource.clone() };
                    spoilt.send(seen, out);
                }
                _ => return false,
            }
            true
        }),
    );
    let place = Place::new();
    let mut options = place.options(&server.url());
    options.retry.attempts = 1;
    assert!(matches!(fetch(options, REPOSITORY), Err(Error::Download { trouble: Trouble::Cut { .. }, .. })));
    let (fetched, notes) = fetch_told(place.options(&server.url()), REPOSITORY);
    assert!(std::fs::read(fetched.unwrap().path.join(LARGE)).unwrap().iter().all(|b| *b == 0));
    let large = format!("/Org/qwen2-vl-2b-ov/resolve/{COMMIT}/{LARGE}");
    assert_eq!(server.froms(&large), [None, Some(400_000), None]);
    assert!(notes.iter().any(|n| n.contains("SHA-256") && n.contains("starting over")), "{notes:?}");
}

#[test]
fn files_that_are_not_what_the_hub_lists_are_refused() {
    type Make = fn(&Resource) -> Vec<u8>;
    let cases: [(&str, Make, &str); 3] = [
        (LARGE, |r| vec![7; r.bytes.len()], "SHA-256"),
        ("tokenizer.json", |_| b"abd".to_vec(), "git id"),
        ("tokenizer.json", |_| b"abcd".to_vec(), "4 bytes of a file that has 3"),
    ];
    for (name, make, problem) in cases {
        let server = hub(
            files(),
            Box::new(move |seen, resource, out| {
                let spoil = seen.target.ends_with(name);
                if spoil {
                    answer(out, "200 OK", &[("ETag", "\"x\"")], &make(resource));
                }
                spoil
            }),
        );
        let place = Place::new();
        let error = fetch(place.options(&server.url()), REPOSITORY).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains(name), "{name}: {error}");
        assert!(fetch(place.options("http://127.0.0.1:1"), REPOSITORY).is_err());
    }
}

#[test]
fn a_repository_without_an_export_and_one_that_is_not_there() {
    let files = files().into_iter().filter(|f| !f.name.starts_with("openvino_")).collect();
    let server = hub(files, Box::new(good));
    let place = Place::new();
    let error = fetch(place.options(&server.url()), REPOSITORY).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::NoExport { .. }) && text.contains("optimum-cli export openvino -m Org/qwen2")
    );
    let error = fetch(place.options(&server.url()), "Org/missing").unwrap_err().to_string();
    assert!(
        error.contains("401") && error.contains("HF_TOKEN") && error.contains("/Org/missing/tree/main"),
        "{error}"
    );
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let seen_by_storage = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen_by_storage);
    let storage = Server::start(move |seen, out| {
        log.lock().unwrap().push(seen.header("authorization").map(str::to_owned));
        Resource::new(vec![0; 1 << 20], "x").send(seen, out);
    });
    // Another name of the same machine is another host.
    let blob = format!("http://localhost:{}/blob", storage.port);
    let server = hub(
        files(),
        Box::new(move |seen, _, out| {
            let large = seen.target.ends_with(LARGE);
            // Repositories that got another name are redirected within the hub.
            let renamed = seen.target.ends_with("/tokenizer.json");
            if large {
                answer(out, "302 Found", &[("Location", &blob)], b"");
            } else if renamed {
                let target = seen.target.replace("/tokenizer.json", "/config.json");
                answer(out, "307 Temporary Redirect", &[("Location", &target)], b"");
            }
            large || renamed
        }),
    );
    let place = Place::new();
    let mut options = place.options(&server.url());
    options.hub_token = Some("secret".to_owned());
    fetch(options, REPOSITORY).unwrap();
    assert!(server.seen().iter().all(|s| s.header("authorization") == Some("Bearer secret")));
    assert_eq!(*seen_by_storage.lock().unwrap(), [None]);
}

#[test]
fn names_that_lead_out_of_the_cache_are_left_out() {
    let mut files = files();
    let git = files[0].git;
    files.push(RemoteFile { name: "../../../../evil.json", bytes: b"abc".to_vec(), git, sha256: None });
    let server = hub(files, Box::new(good));
    let place = Place::new();
    fetch(place.options(&server.url()), REPOSITORY).unwrap();
    assert!(server.seen().iter().all(|s| !s.target.contains("evil")));
}
