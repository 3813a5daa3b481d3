//! What the vision tower made of an image or video is kept, in memory and on disk, and found again by content.
//!
//! A key is the hash of the decoded pixels (of a video: of its files and the choice of frames), of the size they are resized
//! to, and of everything else that the embeddings depend on: the model's vision files, preprocessing options, precision,
//! device, CPU, OpenVINO's and this crate's version. Names and times of files are not in it. So a hit is what would have
//! been computed, to the bit.

pub(crate) mod disk;
mod fingerprint;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use qwen2vl_package::ModelPackage;
use qwen2vl_preprocess::{ImageSize, PreprocessOptions, RgbImage};
use qwen2vl_runtime::{CancelToken, Engine, EngineOptions, VisionEmbeddings};
use qwen2vl_types::GridThw;

use disk::{DiskStore, Shape};

/// The folder below the cache root.
pub(crate) const FOLDER: &str = "vision";
/// Below that: hashes of weights.
pub(crate) const NOTES: &str = "models";

/// What is kept of the vision tower's work; see [`crate::AnnotatorBuilder::vision_cache`].
///
/// An entry has 2 bytes a value with [`crate::Precision::Fast`]: 0.8 MB for an image of 448x448 pixels and the 2B, 3.9 MB for one of a
/// million pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VisionCacheOptions {
    /// The most bytes in memory; 0 keeps nothing there. 256 MiB by default.
    pub memory_bytes: u64,
    /// The most bytes on disk, in the folder `vision` of the cache, which any number of processes share; `None`, the
    /// default, keeps nothing there.
    pub disk_bytes: Option<u64>,
}

impl Default for VisionCacheOptions {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, disk_bytes: None }
    }
}

impl VisionCacheOptions {
    /// Every image is computed each time.
    pub fn off() -> Self {
        Self { memory_bytes: 0, disk_bytes: None }
    }

    /// The same with this many bytes on disk, at most.
    #[must_use]
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.disk_bytes = Some(bytes);
        self
    }
}

/// What embeddings are found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Embeddings, and whether they were there already.
pub(crate) struct Found {
    pub embeddings: VisionEmbeddings,
    pub was_known: bool,
}

/// The caches of one loaded model.
pub(crate) struct VisionCache {
    /// Of all that is the same for every image.
    common: blake3::Hasher,
    hidden_size: usize,
    merge_size: u32,
    memory: Cache<Key, VisionEmbeddings, Bytes>,
    disk: Option<DiskStore>,
}

/// Weighs by bytes.
#[derive(Clone)]
struct Bytes;

impl Weighter<Key, VisionEmbeddings> for Bytes {
    fn weight(&self, _: &Key, embeddings: &VisionEmbeddings) -> u64 {
        // With what the cache itself takes for an entry; nothing is for free, or it would never be removed.
        embeddings.size_bytes() as u64 + 128
    }
}

/// How often somebody who waits for another's work looks whether it is still wanted.
const WAIT: Duration = Duration::from_millis(50);

/// Size of an entry by which the cache in memory estimates how many there will be.
const USUAL_BYTES: u64 = 512 << 10;

/// What entries on disk depend on beside the image, as far as it can be known before the model is loaded.
#[derive(Default)]
pub(crate) struct ModelIdentity(Option<blake3::Hash>);

impl ModelIdentity {
    /// Reads the model's vision files, where that is needed and was not done before.
    pub fn read(options: &VisionCacheOptions, package: &ModelPackage, cache_root: &Path) -> Self {
        let read = || fingerprint::model_fingerprint(&package.files, &folder(cache_root).join(NOTES));
        Self(options.disk_bytes.and_then(|_| {
            read()
                .inspect_err(|e| tracing::warn!("no embeddings are kept on disk: {}: {e}", package.name))
                .ok()
        }))
    }
}

/// Where entries are below the cache root.
pub(crate) fn folder(cache_root: &Path) -> PathBuf {
    cache_root.join(FOLDER)
}

impl VisionCache {
    /// `None` where nothing is kept.
    pub fn new(
        options: &VisionCacheOptions,
        package: &ModelPackage,
        identity: &ModelIdentity,
        engine: &Engine,
        engine_options: &EngineOptions,
        cache_root: &Path,
    ) -> Option<Self> {
        let disk_bytes = options.disk_bytes.filter(|bytes| *bytes > 0 && identity.0.is_some());
        if options.memory_bytes == 0 && disk_bytes.is_none() {
            return None;
        }
        let mut parts = vec![format!("{:?} {}", engine_options.precision, engine_options.device)];
        if disk_bytes.is_some() {
            parts.push(env!("CARGO_PKG_VERSION").to_owned());
            parts.push(engine.vision_identity());
            parts.push(format!("{:?} {:?}", package.model.vision, package.model.geometry));
            parts.push(fingerprint::cpu());
            parts.extend(identity.0.map(|hash| hash.to_hex().to_string()));
        }
        let disk = disk_bytes.map(|bytes| DiskStore::new(folder(cache_root), bytes));
        let merge_size = package.model.geometry.merge_size;
        Some(Self::with_parts(options.memory_bytes, disk, &parts, package.model.text.hidden_size, merge_size))
    }

    fn with_parts(
        memory_bytes: u64,
        disk: Option<DiskStore>,
        parts: &[String],
        hidden_size: usize,
        merge_size: u32,
    ) -> Self {
        let mut common = blake3::Hasher::new_derive_key("qwen2vl vision embeddings");
        for part in parts {
            common.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let items = usize::try_from(memory_bytes / USUAL_BYTES).unwrap_or(usize::MAX).clamp(16, 1 << 16);
        // One shard: several would each take only entries that are small against their share.
        let memory = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(memory_bytes)
            .shards(1)
            .build()
            .expect("both capacities are set");
        let memory =
            Cache::with_options(memory, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self { common, hidden_size, merge_size, memory, disk }
    }

    /// The key of an image that is resized to `resized`; `as_frame` by the way that frames of videos go.
    pub fn image_key(
        &self,
        image: &RgbImage,
        resized: ImageSize,
        options: &PreprocessOptions,
        as_frame: bool,
    ) -> Key {
        let mut hasher = self.common.clone();
        hasher.update(if as_frame { b"frame" } else { b"image" });
        hash_preprocessing(&mut hasher, options, resized);
        hash_size(&mut hasher, image.size());
        hasher.update(image.as_raw());
        Key(*hasher.finalize().as_bytes())
    }

    /// The key of what `write` hashes; `None` if that fails.
    pub fn video_key(
        &self,
        resized: ImageSize,
        options: &PreprocessOptions,
        write: impl FnOnce(&mut blake3::Hasher) -> Option<()>,
    ) -> Option<Key> {
        let mut hasher = self.common.clone();
        hasher.update(b"video");
        hash_preprocessing(&mut hasher, options, resized);
        write(&mut hasher)?;
        Some(Key(*hasher.finalize().as_bytes()))
    }

    /// The embeddings of an image, if they are known.
    pub fn find(&self, key: &Key, grid: GridThw) -> Option<VisionEmbeddings> {
        if let Some(embeddings) = self.memory.get(key) {
            return Some(embeddings);
        }
        let embeddings = self.disk.as_ref()?.get(key, self.shape(grid))?;
        self.memory.insert(*key, embeddings.clone());
        Some(embeddings)
    }

    /// The embeddings of an image or video; `encode` makes them where they are not known, for all who ask for the same
    /// at the same time, and says whether they may be kept. `None` if cancelled while another's work is waited for.
    pub fn find_or_encode<E>(
        &self,
        key: &Key,
        grid: GridThw,
        cancel: &CancelToken,
        encode: impl FnOnce() -> Result<(VisionEmbeddings, bool), E>,
    ) -> Result<Option<Found>, E> {
        let guard = loop {
            match self.memory.get_value_or_guard(key, Some(WAIT)) {
                GuardResult::Value(embeddings) => return Ok(Some(Found { embeddings, was_known: true })),
                GuardResult::Guard(guard) => break guard,
                GuardResult::Timeout if cancel.is_cancelled() => return Ok(None),
                GuardResult::Timeout => {}
            }
        };
        if let Some(embeddings) = self.disk.as_ref().and_then(|disk| disk.get(key, self.shape(grid))) {
            guard.insert(embeddings.clone()).ok();
            return Ok(Some(Found { embeddings, was_known: true }));
        }
        let (embeddings, keep) = encode()?;
        if keep {
            // Fails only where somebody removed the placeholder, which leaves nothing to be done.
            guard.insert(embeddings.clone()).ok();
            if let Some(disk) = &self.disk {
                disk.put(key, &embeddings);
            }
        }
        Ok(Some(Found { embeddings, was_known: false }))
    }

    fn shape(&self, grid: GridThw) -> Shape {
        Shape { n_tokens: grid.n_tokens(self.merge_size), hidden_size: self.hidden_size }
    }
}

fn hash_size(hasher: &mut blake3::Hasher, size: ImageSize) {
    hasher.update(&size.height.to_le_bytes()).update(&size.width.to_le_bytes());
}

/// All that makes pixel values of pixels. Limits do so by the size that they lead to.
fn hash_preprocessing(hasher: &mut blake3::Hasher, options: &PreprocessOptions, resized: ImageSize) {
    let PreprocessOptions {
        geometry,
        pixel_limits: _,
        do_resize,
        do_rescale,
        rescale_factor,
        do_normalize,
        image_mean,
        image_std,
    } = options;
    let sizes = [geometry.patch_size, geometry.temporal_patch_size, geometry.merge_size];
    for size in sizes {
        hasher.update(&size.to_le_bytes());
    }
    hasher.update(&[u8::from(*do_resize), u8::from(*do_rescale), u8::from(*do_normalize)]);
    for number in [*rescale_factor].iter().chain(image_mean).chain(image_std) {
        hasher.update(&number.to_le_bytes());
    }
    hash_size(hasher, resized);
}

#[cfg(test)]
mod tests;
