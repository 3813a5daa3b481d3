//! What is the same entry and what is not, and what is computed once.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use qwen2vl_runtime::EmbeddingType;

use super::*;

const GRID: GridThw = GridThw { t: 1, h: 4, w: 4 };

fn cache(memory_bytes: u64, disk: Option<DiskStore>) -> VisionCache {
    VisionCache::with_parts(memory_bytes, disk, &[], 8, 2)
}

fn key(n: u8) -> Key {
    Key(*blake3::hash(&[n]).as_bytes())
}

fn embeddings(n: u8) -> VisionEmbeddings {
    VisionEmbeddings::from_le_bytes(EmbeddingType::F16, 8, &[n; 64]).unwrap()
}

fn made(n: u8) -> Result<(VisionEmbeddings, bool), Infallible> {
    Ok((embeddings(n), true))
}

fn get(cache: &VisionCache, n: u8) -> Found {
    cache.find_or_encode(&key(n), GRID, &CancelToken::new(), || made(n)).unwrap().expect("nobody cancelled")
}

#[test]
fn keys_differ_where_anything_does_that_embeddings_depend_on() {
    let image = |height, width, data: &[u8]| RgbImage::new(height, width, data.to_vec()).unwrap();
    let (a, b) = (image(2, 1, &[1, 2, 3, 4, 5, 6]), image(2, 1, &[1, 2, 3, 4, 5, 7]));
    let turned = image(1, 2, a.as_raw());
    let size = |height, width| ImageSize { height, width };
    let default = PreprocessOptions::default();
    let changed = |change: &dyn Fn(&mut PreprocessOptions)| {
        let mut options = default.clone();
        change(&mut options);
        options
    };
    let common = |parts: &[&str]| {
        let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        VisionCache::with_parts(1, None, &parts, 8, 2)
    };
    let plain = common(&["CPU", "model"]);
    let small = size(56, 56);
    let video = |content: &str| {
        let hash = |hasher: &mut blake3::Hasher| {
            hasher.update(content.as_bytes());
            Some(())
        };
        plain.video_key(small, &default, hash).unwrap()
    };
    let keys = [
        plain.image_key(&a, small, &default, false),
        plain.image_key(&a, small, &default, true),
        plain.image_key(&b, small, &default, false),
        plain.image_key(&turned, small, &default, false),
        plain.image_key(&a, size(56, 84), &default, false),
        plain.image_key(&a, size(84, 56), &default, false),
        plain.image_key(&a, small, &changed(&|o| o.geometry.patch_size = 16), false),
        plain.image_key(&a, small, &changed(&|o| o.do_resize = false), false),
        plain.image_key(&a, small, &changed(&|o| o.do_rescale = false), false),
        plain.image_key(&a, small, &changed(&|o| o.do_normalize = false), false),
        plain.image_key(&a, small, &changed(&|o| o.rescale_factor = 0.5), false),
        plain.image_key(&a, small, &changed(&|o| o.image_mean[1] = 0.5), false),
        plain.image_key(&a, small, &changed(&|o| o.image_std[2] = 0.5), false),
        common(&["CPU", "other"]).image_key(&a, small, &default, false),
        common(&["CPUmodel"]).image_key(&a, small, &default, false),
        video("a"),
        video("b"),
    ];
    let different: BTreeSet<String> = keys.iter().map(Key::to_string).collect();
    assert_eq!(different.len(), keys.len());
    // Limits count by the size that they lead to, and an equal cache has equal keys.
    let limits = changed(&|o| o.pixel_limits.max_pixels = 1000);
    assert_eq!(common(&["CPU", "model"]).image_key(&a, small, &limits, false), keys[0]);
    assert!(plain.video_key(small, &default, |_| None).is_none());
}

#[test]
fn memory_is_bounded_and_what_was_computed_is_known() {
    // 64 bytes of values each, and as many as the cache itself counts for an entry.
    let cache = cache(10 * 192, None);
    for n in 0..100 {
        assert!(!get(&cache, n).was_known);
        assert!(cache.memory.weight() <= 10 * 192, "{} after {n}", cache.memory.weight());
    }
    assert!(cache.memory.len() >= 8, "{} of 10 are kept", cache.memory.len());
    let known = (0..100).filter(|n| cache.find(&key(*n), GRID) == Some(embeddings(*n))).count();
    assert_eq!(known, cache.memory.len());
}

#[test]
fn those_who_ask_for_the_same_at_once_have_it_computed_once() {
    for memory_bytes in [1 << 20, 0] {
        let (cache, computed) = (cache(memory_bytes, None), AtomicUsize::new(0));
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let encode = || {
                        computed.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(200));
                        made(7)
                    };
                    let found = cache.find_or_encode(&key(7), GRID, &CancelToken::new(), encode).unwrap();
                    assert_eq!(found.expect("nobody cancelled").embeddings, embeddings(7));
                });
            }
        });
        assert_eq!(computed.load(Ordering::SeqCst), 1, "{memory_bytes} bytes");
    }
}

#[test]
fn who_waits_takes_over_when_the_work_fails_or_may_not_be_kept_and_stops_when_cancelled() {
    let cache = cache(1 << 20, None);
    let (begun, cancel) = (std::sync::Barrier::new(4), CancelToken::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let failed = cache.find_or_encode(&key(1), GRID, &CancelToken::new(), || {
                begun.wait();
                std::thread::sleep(Duration::from_millis(300));
                Err("no memory")
            });
            assert_eq!(failed.map(drop).unwrap_err(), "no memory");
        });
        for _ in 0..2 {
            scope.spawn(|| {
                begun.wait();
                let not_kept = || Ok::<_, Infallible>((embeddings(1), false));
                let found = cache.find_or_encode(&key(1), GRID, &CancelToken::new(), not_kept).unwrap();
                assert!(!found.expect("nobody cancelled").was_known);
            });
        }
        begun.wait();
        cancel.cancel();
        let nothing = cache.find_or_encode(&key(1), GRID, &cancel, || made(1)).unwrap();
        assert!(nothing.is_none());
    });
    assert!(cache.find(&key(1), GRID).is_none());
}

#[test]
fn the_disk_gives_what_another_process_computed_and_memory_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = || Some(DiskStore::new(dir.path().to_owned(), 1 << 20));
    for n in 0..3 {
        assert!(!get(&cache(0, store()), n).was_known);
        let other = cache(1 << 20, store());
        assert!(get(&other, n).was_known);
        assert_eq!(other.memory.len(), 1);
    }
    let third = cache(1 << 20, store());
    assert_eq!(third.find(&key(2), GRID), Some(embeddings(2)));
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(third.find(&key(2), GRID), Some(embeddings(2)), "from memory");
    assert_eq!(third.find(&key(1), GRID), None);
    // A grid of another size cannot have this key, so whatever has it is damaged.
    assert!(!get(&cache(0, store()), 1).was_known);
    assert_eq!(cache(0, store()).find(&key(1), GridThw { h: 8, ..GRID }), None);
    assert_eq!(cache(0, store()).find(&key(1), GRID), None);
}
