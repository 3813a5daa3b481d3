//! Entries on disk: damaged, foreign, crowded, written by many.

use std::fs;
use std::sync::atomic::AtomicUsize;

use super::*;

const SHAPE: Shape = Shape { n_tokens: 5, hidden_size: 8 };

fn key(n: u8) -> Key {
    Key(*blake3::hash(&[n]).as_bytes())
}

/// Values that tell which key they belong to.
fn embeddings(n: u8, element_type: EmbeddingType) -> VisionEmbeddings {
    let n_bytes = SHAPE.n_tokens * SHAPE.hidden_size * element_type.size_bytes();
    let bytes: Vec<u8> = (0..n_bytes).map(|i| if i % 2 == 0 { n } else { 0x3c }).collect();
    VisionEmbeddings::from_le_bytes(element_type, SHAPE.hidden_size, &bytes).unwrap()
}

fn half(n: u8) -> VisionEmbeddings {
    embeddings(n, EmbeddingType::F16)
}

/// Bytes of an entry of [`half`].
const ENTRY: u64 = HEADER_BYTES as u64 + 80;

fn store(folder: &Path, max_bytes: u64) -> DiskStore {
    DiskStore::new(folder.to_owned(), max_bytes)
}

fn total(folder: &Path) -> u64 {
    list(folder).iter().map(|entry| entry.bytes).sum()
}

#[test]
fn what_is_put_is_found_again_by_any_store_of_the_folder_and_by_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("not/yet/there");
    let (one, other) = (store(&folder, 1 << 20), store(&folder, 1 << 20));
    assert_eq!(one.get(&key(1), SHAPE), None);
    one.put(&key(1), &half(1));
    one.put(&key(2), &embeddings(2, EmbeddingType::F32));
    assert_eq!(other.get(&key(1), SHAPE), Some(half(1)));
    assert_eq!(other.get(&key(2), SHAPE), Some(embeddings(2, EmbeddingType::F32)));
    assert_eq!(other.get(&key(3), SHAPE), None);
    assert!(!one.has_warned.load(Ordering::Relaxed) && !other.has_warned.load(Ordering::Relaxed));
    let left: Vec<_> = list(&folder).into_iter().map(|entry| entry.is_partial).collect();
    assert_eq!(left, [false, false]);
}

#[test]
fn damaged_entries_are_removed_and_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 1 << 20);
    let path = store.path(&key(1));
    let put = || {
        store.put(&key(1), &half(1));
        fs::read(&path).unwrap()
    };
    let whole = put();
    assert_eq!(whole.len() as u64, ENTRY);
    let mut damaged: Vec<(String, Vec<u8>)> = Vec::new();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        damaged.push((format!("bit {bit}"), bytes));
    }
    for len in 0..whole.len() {
        damaged.push((format!("cut at {len}"), whole[..len].to_vec()));
    }
    damaged.push(("one byte more".to_owned(), [&whole[..], &[0]].concat()));
    damaged.push(("zeros".to_owned(), vec![0; whole.len()]));
    store.put(&key(2), &half(2));
    damaged.push(("another's".to_owned(), fs::read(store.path(&key(2))).unwrap()));
    store.put(&key(1), &embeddings(1, EmbeddingType::F32));
    let mut taller = fs::read(&path).unwrap();
    taller[12] = 1;
    damaged.push(("another type".to_owned(), taller));
    for (what, bytes) in damaged {
        fs::write(&path, bytes).unwrap();
        assert_eq!(store.get(&key(1), SHAPE), None, "{what}");
        assert!(!path.exists(), "{what} is still there");
    }
    // Sizes far beyond the file are not asked for.
    let mut huge = put();
    huge[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, &huge).unwrap();
    for n_tokens in [usize::MAX, usize::MAX / 8, 1 << 40] {
        assert_eq!(store.get(&key(1), Shape { n_tokens, ..SHAPE }), None);
        fs::write(&path, &huge).unwrap();
    }
    put();
    assert_eq!(store.get(&key(1), Shape { n_tokens: 6, ..SHAPE }), None, "another size");
    put();
    assert_eq!(store.get(&key(1), SHAPE), Some(half(1)));
}

proptest::proptest! {
    #[test]
    fn whatever_a_file_holds_it_is_no_entry(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
        n_tokens in 0usize..6,
        has_header in proptest::prelude::any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), 1 << 20);
        let path = store.path(&key(1));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut content = bytes;
        if has_header {
            content.splice(..0, header(&key(1), &half(1)));
        }
        fs::write(&path, content).unwrap();
        proptest::prop_assert_eq!(store.get(&key(1), Shape { n_tokens, ..SHAPE }), None);
        proptest::prop_assert!(!path.exists());
    }
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 10 * ENTRY);
    let used = |n: u8, seconds_ago: u64| {
        let time = SystemTime::now() - Duration::from_secs(seconds_ago);
        File::options().write(true).open(store.path(&key(n))).unwrap().set_modified(time).unwrap();
    };
    for n in 0..9 {
        store.put(&key(n), &half(n));
        used(n, 1000 - u64::from(n));
    }
    assert_eq!(total(dir.path()), 9 * ENTRY);
    // A look at the oldest makes it the youngest.
    assert!(store.get(&key(0), SHAPE).is_some());
    store.put(&key(9), &half(9));
    used(9, 5);
    store.put(&key(10), &half(10));
    let kept: Vec<u8> = (0..11).filter(|n| store.path(&key(*n)).exists()).collect();
    assert_eq!(kept, [0, 3, 4, 5, 6, 7, 8, 9, 10]);

    // No file of others counts or goes, however old it is.
    let foreign = [dir.path().join("ab/notes.txt"), dir.path().join("other/x.q2v"), dir.path().join("x.q2v")];
    for path in &foreign {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [0; 4096]).unwrap();
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    let partial = |age: u64| {
        let path = dir.path().join(format!("ab/{PARTIAL_PREFIX}{age}"));
        fs::write(&path, [0; 100]).unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    };
    let (written_now, abandoned) = (partial(60), partial(7200));
    for n in 20..60 {
        store.put(&key(n), &half(n));
        assert!(total(dir.path()) <= 10 * ENTRY + 100);
    }
    assert!(written_now.exists() && !abandoned.exists());
    assert!(foreign.iter().all(|path| path.exists()));
}

#[test]
fn an_entry_that_is_larger_than_the_cache_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), ENTRY - 1).put(&key(1), &half(1));
    assert_eq!(total(dir.path()), 0);
    store(dir.path(), ENTRY).put(&key(1), &half(1));
    assert_eq!(total(dir.path()), ENTRY);
}

#[test]
fn the_bound_holds_without_looking_at_the_folder_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 64 * ENTRY);
    for n in 0..200 {
        store.put(&key(n), &half(n));
        let total = total(dir.path());
        assert!(total <= 64 * ENTRY, "{total} after {n}");
    }
    assert!(total(dir.path()) >= 56 * ENTRY);
}

#[test]
fn stores_that_write_and_remove_at_once_never_see_half_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let found = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..6u64 {
            let (folder, found) = (dir.path(), &found);
            scope.spawn(move || {
                // As separate processes: each with a store of its own, and room for half of the keys.
                let store = store(folder, 8 * ENTRY);
                for i in 0..400 {
                    let n = ((i * (worker + 3)) % 16) as u8;
                    match store.get(&key(n), SHAPE) {
                        Some(got) => {
                            assert_eq!(got, half(n));
                            found.fetch_add(1, Ordering::Relaxed);
                        }
                        None => store.put(&key(n), &half(n)),
                    }
                }
                assert!(!store.has_warned.load(Ordering::Relaxed), "something was damaged");
            });
        }
    });
    assert!(found.load(Ordering::Relaxed) > 0);
    assert!(list(dir.path()).iter().all(|entry| !entry.is_partial));
}

#[test]
fn a_folder_that_cannot_be_written_costs_one_warning_and_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    // A file where a folder has to be: so even for those whom no permission stops.
    let folder = dir.path().join("vision");
    fs::write(&folder, "").unwrap();
    let blocked = store(&folder, 1 << 20);
    blocked.put(&key(1), &half(1));
    assert!(!blocked.is_writable.load(Ordering::Relaxed) && blocked.has_warned.load(Ordering::Relaxed));
    blocked.put(&key(1), &half(1));
    assert_eq!(blocked.get(&key(1), SHAPE), None);

    let full = store(&dir.path().join("full"), 1 << 20);
    full.put(&key(1), &half(1));
    full.is_writable.store(false, Ordering::Relaxed);
    full.put(&key(2), &half(2));
    assert_eq!((full.get(&key(1), SHAPE), full.get(&key(2), SHAPE)), (Some(half(1)), None));
}
