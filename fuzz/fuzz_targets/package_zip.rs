//! A zip of any bytes: it opens to a package whose files lie in the cache, or is refused and leaves nothing there.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use qwen2vl_package::ModelPackage;

thread_local! {
    static CACHE: LazyCell<tempfile::TempDir> =
        LazyCell::new(|| tempfile::tempdir().expect("the temporary folder is writable"));
}

fuzz_target!(|bytes: &[u8]| {
    CACHE.with(|dir| {
        let packages = dir.path().join("packages");
        match ModelPackage::open_zip_bytes("m", bytes, dir.path()) {
            Ok(package) => {
                assert!(package.root.starts_with(&packages));
                for file in [&package.files.language_model, &package.tokenizer_json] {
                    assert!(file.starts_with(&package.root) && file.is_file());
                }
                // The tokenizer is not looked into when a package is opened, so this may be refused.
                let _ = package.report();
                std::fs::remove_dir_all(&packages).expect("the cache is there");
            }
            Err(error) => {
                assert!(error.to_string().len() < 100_000, "{error}");
                let left: Vec<_> = std::fs::read_dir(&packages).into_iter().flatten().flatten().collect();
                // A whole export whose configs are wrong stays unpacked; nothing partial does.
                assert!(left.iter().all(|e| !e.file_name().to_string_lossy().contains(".partial")));
                if !left.is_empty() {
                    std::fs::remove_dir_all(&packages).expect("the cache is there");
                }
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0, "something lies outside");
    });
});
