//! Right packages in every form, and folders that lack something.

use qwen2vl_package::ModelPackage;
use qwen2vl_testkit::{check_all, demo_model_dir, demo_model_zip};
use serde_json::json;

use super::{Export, IRS, Place, says};

/// The same but for where it lies.
fn at(package: &ModelPackage, root: &std::path::Path) -> ModelPackage {
    let moved = |path: &std::path::Path| root.join(path.file_name().unwrap());
    let mut package = package.clone();
    package.name = "x".to_owned();
    package.root = root.to_owned();
    package.tokenizer_json = moved(&package.tokenizer_json);
    package.provenance.source = root.to_owned();
    package.provenance.sha256 = None;
    let files = &mut package.files;
    for file in [
        &mut files.vision_embeddings,
        &mut files.vision_embeddings_merger,
        &mut files.text_embeddings,
        &mut files.language_model,
    ] {
        assert!(file.is_file(), "{}", file.display());
        *file = moved(file);
    }
    package
}

#[test]
fn the_demo_models_zip_bytes_and_folder_open_to_equal_packages() {
    let place = Place::new();
    let folder = ModelPackage::open(&demo_model_dir(), &place.cache()).unwrap();
    let zip = ModelPackage::open(&demo_model_zip(), &place.cache()).unwrap();
    let bytes = std::fs::read(demo_model_zip()).unwrap();
    let embedded = ModelPackage::open_zip_bytes("demo", &bytes, &place.cache()).unwrap();
    assert_eq!(at(&zip, &folder.root), at(&folder, &folder.root));
    assert_eq!(at(&embedded, &folder.root), at(&folder, &folder.root));
    assert_eq!((zip.name.as_str(), embedded.name.as_str()), ("demo-model-int4-ov", "demo"));

    assert_eq!(folder.weight_bytes, 19_751_684 + 941_224 + 20_365_369 + 150_840);
    assert_eq!((folder.model.text.head_dim, folder.model.vision.hidden_size), (32, 128));
    assert_eq!(folder.generation.stop_token_ids, [151_645, 151_643]);
    assert_eq!((folder.generation.top_k, folder.generation.do_sample), (1, true));
    assert_eq!(folder.preprocess.pixel_limits.max_pixels, 200_704);
    assert!(folder.chat_template.contains("<|image_pad|>"));
}

#[test]
fn a_zip_with_folders_and_other_files_around_opens_as_its_files_alone() {
    let place = Place::new();
    let export = Export::new();
    let plain = place.open(&export).unwrap();
    for top in ["", "model/", "a/b/"] {
        let bytes = export.zip_with(top, |zip| {
            let options = zip::write::SimpleFileOptions::default();
            for other in ["__MACOSX/model/._config.json", "docs/README.md"] {
                zip.start_file(other, options).unwrap();
            }
            zip.add_directory("empty/", options).unwrap();
        });
        let zip = place.open_zip(&bytes).unwrap();
        assert_eq!(at(&zip, &plain.root), at(&plain, &plain.root), "{top}");
        assert!(!zip.root.join("README.md").exists());
    }
}

#[test]
fn a_second_open_writes_nothing_and_a_changed_zip_is_seen() {
    let place = Place::new();
    let first = place.open_zip(&Export::new().zip("")).unwrap();
    let zip = place.dir.path().join("model.zip");
    // Old enough to be noted by time and size.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    std::fs::File::options().write(true).open(&zip).unwrap().set_modified(old).unwrap();
    ModelPackage::open(&zip, &place.cache()).unwrap();
    let written = std::fs::metadata(first.root.join("config.json")).unwrap().modified().unwrap();
    assert_eq!(ModelPackage::open(&zip, &place.cache()).unwrap(), first);
    assert_eq!(std::fs::metadata(first.root.join("config.json")).unwrap().modified().unwrap(), written);
    assert_eq!(place.cached().len(), 1);

    // By its note alone: a zip of the same path, size and time is not read again, which the README says.
    let bytes = std::fs::read(&zip).unwrap();
    std::fs::write(&zip, vec![0; bytes.len()]).unwrap();
    std::fs::File::options().write(true).open(&zip).unwrap().set_modified(old).unwrap();
    assert_eq!(ModelPackage::open(&zip, &place.cache()).unwrap(), first);

    let other = place.open_zip(&Export::new().file("chat_template.jinja", "other").zip("")).unwrap();
    assert_eq!(other.chat_template, "other");
    assert_ne!(other.root, first.root);
}

#[test]
fn a_cached_folder_that_lost_or_changed_a_file_is_made_anew() {
    let place = Place::new();
    let bytes = Export::new().zip("");
    let first = place.open_zip(&bytes).unwrap();
    std::fs::remove_file(&first.tokenizer_json).unwrap();
    assert_eq!(place.open_zip(&bytes).unwrap(), first);
    std::fs::write(first.root.join("openvino_language_model.bin"), "w").unwrap();
    assert_eq!(place.open_zip(&bytes).unwrap(), first);
    assert_eq!(std::fs::read(first.root.join("openvino_language_model.bin")).unwrap(), b"weights");
    std::fs::write(first.root.join(".unpacked.json"), "damaged").unwrap();
    assert_eq!(place.open_zip(&bytes).unwrap(), first);
    assert_eq!(place.cached().len(), 1);
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let place = Place::new();
    let bytes = Export::new().zip("");
    let root = place.open_zip(&bytes).unwrap().root;
    let key = root.file_name().unwrap().to_string_lossy().into_owned();
    std::fs::remove_dir_all(&root).unwrap();
    let leftover = root.with_file_name(format!(".{key}.partial-abc"));
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("config.json"), "half").unwrap();
    place.open_zip(&bytes).unwrap();
    assert_eq!(place.cached(), [key]);
}

#[test]
fn a_name_that_no_file_system_likes_is_made_safe() {
    let place = Place::new();
    let bytes = Export::new().zip("");
    for name in ["../../x", "a/b", "", "...", "模型 2B", "a:b\\c"] {
        let package = ModelPackage::open_zip_bytes(name, &bytes, &place.cache()).unwrap();
        assert_eq!(package.name, name);
        assert_eq!(package.root.parent().unwrap(), place.cache().join("packages"), "{name}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error_that_names_it() {
    let place = Place::new();
    std::fs::write(place.cache(), "a file where the cache should be").unwrap();
    let result = place.open_zip(&Export::new().zip(""));
    says(result, &["cannot write", "cache/packages", "QWEN2VL_CACHE"]).unwrap();
    // A folder needs no cache.
    place.open(&Export::new()).unwrap();
}

#[test]
fn a_filled_cache_needs_no_writing() {
    let place = Place::new();
    let bytes = Export::new().zip("");
    let first = place.open_zip(&bytes).unwrap();
    // Locks and partial folders could not be made in this place.
    let packages = first.root.parent().unwrap();
    let lock = format!(".{}.lock", first.root.file_name().unwrap().to_string_lossy());
    std::fs::remove_file(packages.join(&lock)).unwrap();
    std::fs::create_dir(packages.join(&lock)).unwrap();
    assert_eq!(place.open_zip(&bytes).unwrap(), first);
}

#[test]
fn the_default_cache_is_below_the_named_one() {
    let root = qwen2vl_package::cache_root().unwrap();
    match std::env::var_os("QWEN2VL_CACHE").filter(|v| !v.is_empty()) {
        Some(named) => assert_eq!(root.as_os_str(), named),
        None => assert!(root.ends_with("qwen2vl"), "{}", root.display()),
    }
}

struct Case {
    name: String,
    export: Export,
    says: Vec<String>,
}

fn case(name: &str, export: Export, says: &[&str]) -> Case {
    Case { name: name.to_owned(), export, says: says.iter().map(|s| (*s).to_owned()).collect() }
}

#[test]
fn each_missing_part_is_named_for_folders_and_zips() {
    let nothing = Export(std::collections::BTreeMap::new());
    let checkpoint = nothing.clone().file("model-00001-of-00002.safetensors", "x").file("config.json", "{}");
    let bin = nothing.clone().file("pytorch_model.bin", "x");
    let mut cases = vec![
        case(
            "empty",
            nothing.clone(),
            &["neither an OpenVINO export", "openvino_language_model.xml", "optimum-cli"],
        ),
        case("other files", nothing.file("a.txt", "x"), &["neither an OpenVINO export", "optimum-cli"]),
        case(
            "checkpoint",
            checkpoint,
            &["checkpoint", "model-00001-of-00002.safetensors", "optimum-cli export"],
        ),
        case("old checkpoint", bin, &["checkpoint", "pytorch_model.bin", "optimum-cli export"]),
        case(
            "no template",
            Export::new().without("chat_template.jinja"),
            &["lacks a chat template", "chat_template.json"],
        ),
        case(
            "no template in tokenizer_config",
            Export::new().without("chat_template.jinja").json("tokenizer_config.json", &json!({})),
            &["lacks a chat template"],
        ),
        case(
            "no image processor",
            Export::new().without("preprocessor_config.json").json("processor_config.json", &json!({})),
            &["lacks preprocessor_config.json"],
        ),
        case(
            "blank template",
            Export::new().file("chat_template.jinja", " \n"),
            &["chat_template.jinja is empty"],
        ),
        case("blank tokenizer", Export::new().file("tokenizer.json", ""), &["tokenizer.json is empty"]),
    ];
    for ir in IRS {
        for file in [format!("{ir}.xml"), format!("{ir}.bin")] {
            let lacks = format!("lacks {file}: copy or export");
            cases.push(case(&file, Export::new().without(&file), &[&lacks]));
            let empty = format!("{file} is empty");
            cases.push(case(&format!("{file} of 0 bytes"), Export::new().file(&file, ""), &[&empty]));
        }
    }
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
        cases.push(case(file, Export::new().without(file), &[&format!("lacks {file}")]));
    }
    cases.push(case(
        "two at once",
        Export::new().without("config.json").without("openvino_language_model.bin"),
        &["lacks openvino_language_model.bin, config.json"],
    ));
    check_all(
        &cases,
        |c| c.name.clone(),
        |c| {
            let parts: Vec<&str> = c.says.iter().map(String::as_str).collect();
            says(Place::new().open(&c.export), &parts)?;
            says(Place::new().open_zip(&c.export.zip("top/")), &parts)
        },
    );
}

#[test]
fn a_path_that_is_no_package_is_named() {
    let place = Place::new();
    let missing = place.dir.path().join("nowhere");
    says(ModelPackage::open(&missing, &place.cache()), &["nowhere does not exist"]).unwrap();
    says(ModelPackage::open(&missing.join("x"), &place.cache()), &["nowhere/x does not exist"]).unwrap();
    for (name, content) in [("empty", ""), ("text", "hello, I am no zip"), ("tiny", "PK")] {
        let path = place.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        says(ModelPackage::open(&path, &place.cache()), &[name, "neither a folder nor a zip"]).unwrap();
        says(ModelPackage::open(&path.join("below"), &place.cache()), &["does not exist"]).unwrap();
    }
    assert_eq!(place.cached(), [""; 0]);
}

#[test]
fn links_in_a_folder_are_followed_as_in_hugging_faces_cache() {
    let place = Place::new();
    let blobs = Export::new().write(&place.dir.path().join("blobs"));
    std::fs::create_dir(place.model()).unwrap();
    for entry in std::fs::read_dir(&blobs).unwrap() {
        let entry = entry.unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(entry.path(), place.model().join(entry.file_name())).unwrap();
        #[cfg(not(unix))]
        std::fs::copy(entry.path(), place.model().join(entry.file_name())).unwrap();
    }
    assert_eq!(ModelPackage::open(&place.model(), &place.cache()).unwrap().name, "model");
}
