//! `qwen2vl model`, and fetched models by their names.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Ran, evaluation, finished, qwen2vl, text};

const NAME: &str = "qwen2_vl_2b_instruct_int4";
const FULL: &str = "qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1739495409030";

/// Caches of one test, and no server to ask.
struct Caches {
    dir: tempfile::TempDir,
}

impl Caches {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = qwen2vl(arguments);
        command
            .env("QWEN2VL_CACHE", self.path("cache"))
            .env("QWEN2VL_MODELS_DIR", self.path("models"))
            .env("QWEN2VL_MODEL_BASE_URL", "http://127.0.0.1:1")
            .env("HF_HUB_CACHE", self.path("hub"))
            .env("HF_ENDPOINT", "http://127.0.0.1:1");
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        finished(&self.command(arguments).output().unwrap())
    }

    /// The package that Spark NLP wrote, under the name of the published one, as a browser leaves it.
    fn download(&self) -> PathBuf {
        let zip = self.path(&format!("{FULL}.zip"));
        std::fs::copy(qwen2vl_testkit::demo_spark_zip(), &zip).unwrap();
        zip
    }
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", ran.stdout, ran.stderr))
}

#[test]
fn a_zip_that_was_downloaded_by_hand_becomes_the_model_of_its_name() {
    let caches = Caches::new();
    let zip = caches.download();
    let folder = caches.path("models").join(FULL);

    let ran = caches.run(&["model", "fetch", &text(&zip)]);
    assert_eq!((ran.code, Path::new(ran.stdout.trim())), (0, folder.as_path()), "{}", ran.stderr);
    assert!(ran.stderr.contains("unpacked"), "{}", ran.stderr);

    // By its name, by the default, without a network.
    for arguments in [&["model", "fetch", NAME, "--json"][..], &["model", "fetch", "--offline", "--json"]] {
        let ran = caches.run(arguments);
        let row = json(&ran);
        assert_eq!((ran.code, row["already_there"].as_bool()), (0, Some(true)), "{}", ran.stderr);
        assert_eq!(row["path"].as_str().map(Path::new), Some(folder.as_path()));
        assert_eq!(row["sha256"].as_str().map(str::len), Some(64));
    }

    let listed = json(&caches.run(&["model", "list", "--json"]));
    assert_eq!((listed[0]["name"].as_str(), listed[0]["place"].as_str()), (Some(FULL), Some("models")));
    let listed = caches.run(&["model", "list"]);
    assert!(listed.stdout.contains(FULL) && listed.stdout.contains(&text(&folder)), "{}", listed.stdout);

    let image = evaluation("caption_00.png");
    let [by_name, by_path] =
        [NAME, text(&folder).as_str()].map(|model| caches.run(&["inspect", &image, "--model", model]));
    assert_eq!((by_name.code, json(&by_name)), (0, json(&by_path)), "{}", by_name.stderr);
}

#[test]
fn an_incomplete_model_is_listed_as_such_and_not_used() {
    let caches = Caches::new();
    let metadata = caches.path("models").join(FULL).join("metadata");
    std::fs::create_dir_all(&metadata).unwrap();
    std::fs::write(metadata.join("part-00000"), "{\"class\":\"x.Qwen2VLTransformer\"}").unwrap();
    let listed = caches.run(&["model", "list"]);
    assert!(listed.stdout.contains("incomplete: lacks"), "{}", listed.stdout);
    let ran = caches.run(&["inspect", &evaluation("caption_00.png"), "--model", NAME]);
    assert_eq!(ran.code, 2);
}

#[test]
fn what_cannot_be_had_names_the_way_on() {
    let caches = Caches::new();
    let image = evaluation("caption_00.png");
    let cases: [(&[&str], &str); 7] = [
        (&["model", "fetch", "--offline"], "run `qwen2vl model fetch qwen2_vl_2b_instruct_int4_en_5.5.1"),
        (&["model", "fetch", FULL], "no connection to 127.0.0.1"),
        (&["model", "fetch", "Org/repo"], "no connection to 127.0.0.1"),
        (&["model", "fetch", "missing.zip"], "missing.zip does not exist"),
        (&["model", "fetch", FULL, "--sha256", "abc"], "64 hexadecimal digits"),
        (
            &["inspect", &image, "--model", NAME],
            "fetch it by `qwen2vl model fetch qwen2_vl_2b_instruct_int4`",
        ),
        (&["inspect", &image, "--model", "Org/repo"], "fetch it by `qwen2vl model fetch hf:Org/repo`"),
    ];
    for (arguments, told) in cases {
        let ran = caches.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ran.stderr.contains(told), "{arguments:?}: {}", ran.stderr);
    }
    let ran = caches.run(&["model", "list"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
}
