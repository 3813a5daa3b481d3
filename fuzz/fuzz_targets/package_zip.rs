//! A zip of any bytes: it opens to a package whose files lie in the cache, or is refused and leaves nothing there.
//!
//! Each input is tried as it is and with its checksums made right, so that more than the checksums is reached.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use qwen2vl_package::ModelPackage;

thread_local! {
    static CACHE: LazyCell<tempfile::TempDir> =
        LazyCell::new(|| tempfile::tempdir().expect("the temporary folder is writable"));
}

fuzz_target!(|bytes: &[u8]| {
    open(bytes);
    let mut repaired = bytes.to_vec();
    if repair(&mut repaired) && repaired != bytes {
        open(&repaired);
    }
});

fn open(bytes: &[u8]) {
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
}

/// Puts the right CRC-32 into the directory, and into the descriptor behind the data, of each entry that is one stored
/// block or plain, zips within it first; whether there was any.
fn repair(zip: &mut [u8]) -> bool {
    let mut any = false;
    for record in 0..zip.len().saturating_sub(46) {
        if zip[record..].starts_with(b"PK\x01\x02") {
            any |= repair_entry(zip, record).is_some();
        }
    }
    any
}

fn repair_entry(zip: &mut [u8], record: usize) -> Option<()> {
    let u16_at = |zip: &[u8], at: usize| Some(usize::from(u16::from_le_bytes(zip.get(at..at + 2)?.try_into().ok()?)));
    let u32_at = |zip: &[u8], at: usize| {
        usize::try_from(u32::from_le_bytes(zip.get(at..at.checked_add(4)?)?.try_into().ok()?)).ok()
    };
    let (method, packed, local) = (u16_at(zip, record + 10)?, u32_at(zip, record + 20)?, u32_at(zip, record + 42)?);
    let data = local + 30 + u16_at(zip, local + 26)? + u16_at(zip, local + 28)?;
    let end = data.checked_add(packed).filter(|end| *end <= record)?;
    let start = match method {
        0 => data,
        8 if zip.get(data) == Some(&1) && u16_at(zip, data + 1)? + 5 == packed => data + 5,
        _ => return None,
    };
    let content = zip.get_mut(start..end)?;
    if content.starts_with(b"PK\x03\x04") {
        repair(content);
    }
    let crc32 = crc32fast::hash(content).to_le_bytes();
    zip[record + 16..record + 20].copy_from_slice(&crc32);
    if zip.get(end..end + 4) == Some(b"PK\x07\x08") && end + 8 <= record {
        zip[end + 4..end + 8].copy_from_slice(&crc32);
    }
    Some(())
}
