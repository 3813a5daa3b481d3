//! Images from files into a frame: the counterparts of `spark.read.format("image")` and of Spark NLP's
//! `loadImagesAsBytes`. Local files only; folders are not searched below their first level, as in Spark.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use qwen2vl_preprocess::{DecodeOptions, decode_image, read_size};

use crate::{DataFrame, Error, PixelKind, SparkImage};

impl DataFrame {
    /// `spark.read.format("image").option("dropInvalid", drop_invalid).load(path)`: the images of a folder, or one.
    ///
    /// Every format that this project reads is decoded, turned as its EXIF data say; the rest become invalid images, or
    /// are left out. Decoded images take `height * width * 3` bytes each, all at once;
    /// [`crate::ImageAssembler::load_images_as_bytes`] takes less.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] of a file or folder that cannot be read; never of what a file holds.
    pub fn read_images(path: impl AsRef<Path>, drop_invalid: bool) -> Result<Self, Error> {
        let read = |path: &PathBuf| -> Result<Option<SparkImage>, Error> {
            let bytes = read(path)?;
            let origin = uri(path);
            Ok(match decode_image(&bytes, &DecodeOptions::default()) {
                Ok(image) => Some(SparkImage::from_rgb(origin, &image)),
                Err(_) if drop_invalid => None,
                Err(error) => {
                    tracing::warn!("{}: {error}", path.display());
                    Some(SparkImage::invalid(origin))
                }
            })
        };
        let images: Vec<_> = files(path.as_ref())?.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self::from_images(images.into_iter().flatten()))
    }
}

/// The files of a folder, or one, each with its bytes in place of pixels.
pub(crate) fn images_as_bytes(path: &Path) -> Result<DataFrame, Error> {
    let images: Result<Vec<SparkImage>, Error> =
        files(path)?.iter().map(|path| image_as_bytes(path)).collect();
    Ok(DataFrame::from_images(images?))
}

/// A file with its bytes in place of pixels; the size is that of its header.
pub(crate) fn image_as_bytes(path: &Path) -> Result<SparkImage, Error> {
    let bytes: Arc<[u8]> = read(path)?.into();
    let side = |side: u32| i32::try_from(side).ok();
    let size = read_size(&bytes).ok().and_then(|size| Some((side(size.height)?, side(size.width)?)));
    Ok(match size {
        Some((height, width)) => SparkImage::new(uri(path), PixelKind::Bgr, height, width, bytes),
        None => SparkImage::encoded(uri(path), bytes),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// The path itself, or the files of the folder in order of their names, without hidden ones and Spark's own (`_SUCCESS`).
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let error = |source| Error::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(error)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(error)? {
        let entry = entry.map_err(error)?;
        let hidden = entry.file_name().as_encoded_bytes().first().is_some_and(|b| matches!(b, b'.' | b'_'));
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn uri(path: &Path) -> String {
    let absolute = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    format!("file://{}", absolute.display())
}
