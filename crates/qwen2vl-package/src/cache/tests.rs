//! The cache: room, identity, wholeness.

use super::*;

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    (dir, cache)
}

fn names(cache: &Cache) -> Vec<String> {
    let entries = std::fs::read_dir(&cache.packages).unwrap();
    entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|n| !n.ends_with(".lock"))
        .collect()
}

const SHA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn more_than_the_free_space_is_refused_before_writing() {
    let (_dir, cache) = cache();
    let error = cache.get_or_unpack("m", SHA, u64::MAX, |_, _| panic!("written all the same")).unwrap_err();
    assert!(matches!(error, Error::DiskFull { needed_bytes: u64::MAX, .. }), "{error}");
    let error = cache.check_room(5 << 20, Some(3 << 20)).unwrap_err().to_string();
    assert!(error.contains("needs 5 MiB") && error.contains("3 MiB are free"), "{error}");
    assert!(names(&cache).is_empty());
}

#[test]
fn a_disk_that_fills_while_unpacking_says_so_and_leaves_nothing() {
    let (_dir, cache) = cache();
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        let error = cache.get_or_unpack("m", SHA, 7, |target, _| {
            std::fs::write(target.join("half"), "ha").unwrap();
            Err(cache_error(target, kind.into()))
        });
        let needed = 7 + HEADROOM_BYTES;
        assert!(
            matches!(error, Err(Error::DiskFull { needed_bytes, .. }) if needed_bytes == needed),
            "{error:?}"
        );
        assert!(names(&cache).is_empty());
    }
}

#[test]
fn the_whole_hash_decides_not_the_digits_in_the_name() {
    let (_dir, cache) = cache();
    let fill = |target: &Path, list: &mut FileList| list.write(target, "a", |file| file.write_all(b"12"));
    let folder = cache.get_or_unpack("m", SHA, 2, fill).unwrap();
    assert_eq!(cache.find("m", SHA), Some(folder.clone()));
    let twin = SHA.replace("ef01", "ef02");
    assert_eq!(key("m", &twin), key("m", SHA));
    assert_eq!(cache.find("m", &twin), None);
    assert_eq!(cache.get_or_unpack("m", &twin, 2, fill).unwrap(), folder);
    assert_eq!(cache.find("m", SHA), None);
}

#[test]
fn only_settled_files_are_noted_and_only_the_same_file_is_found() {
    let (_dir, cache) = cache();
    let folder = cache.get_or_unpack("m", SHA, 0, |_, _| Ok(())).unwrap();
    let now = nanoseconds(SystemTime::now());
    let young = Identity { path: "/m.zip".to_owned(), size: 9, modified: now, listing: None };
    cache.remember(&young, SHA);
    assert_eq!(cache.find_by_identity(&young, "m"), None);
    let old = Identity { modified: 5, ..young };
    cache.remember(&old, SHA);
    assert_eq!(cache.find_by_identity(&old, "m"), Some((folder, SHA.to_owned())));
    for other in [Identity { size: 8, ..old.clone() }, Identity { modified: 6, ..old.clone() }] {
        assert_eq!(cache.find_by_identity(&other, "m"), None);
    }
    std::fs::write(cache.note_path(&old), "damaged").unwrap();
    assert_eq!(cache.find_by_identity(&old, "m"), None);
}

#[test]
fn only_folders_of_the_cache_are_removed() {
    let (_dir, cache) = cache();
    let other = tempfile::tempdir().unwrap();
    cache.remove(other.path());
    assert!(other.path().exists());
}
