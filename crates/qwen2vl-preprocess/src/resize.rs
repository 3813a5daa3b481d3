//! Antialiased bicubic resizing, equal to torchvision's on 8-bit images.
//!
//! torchvision 0.29 (`interpolate(mode="bicubic", antialias=True)` on uint8) filters along the width, rounds to 8 bits,
//! then filters along the height, each with 16-bit weights, and leaves out a pass whose side does not change.
//! `fast_image_resize` computes the same integers when it is given one axis at a time; given both, it would take the
//! height first.

use std::borrow::Cow;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::memory::zeroed;
use crate::{Error, ImageSize, RgbImage};

/// The RGB bytes of `image` at the size `to`.
pub(crate) fn resize(image: &RgbImage, to: ImageSize) -> Result<Cow<'_, [u8]>, Error> {
    let mut size = image.size();
    let mut data = Cow::Borrowed(image.as_raw());
    for next in [ImageSize { width: to.width, ..size }, to] {
        if next != size {
            data = Cow::Owned(pass(&data, size, next)?);
            size = next;
        }
    }
    Ok(data)
}

/// One axis; the other keeps its length.
fn pass(data: &[u8], from: ImageSize, to: ImageSize) -> Result<Vec<u8>, Error> {
    let out_of_memory = || Error::OutOfMemory { bytes: to.pixels().saturating_mul(3) };
    let bytes = usize::try_from(to.pixels().saturating_mul(3)).map_err(|_| out_of_memory())?;
    let mut out = zeroed(bytes, |len| vec![0_u8; len]).ok_or_else(out_of_memory)?;
    let source = ImageRef::new(from.width, from.height, data, PixelType::U8x3)
        .expect("the data has the length of its size, and bytes are aligned");
    let mut target = Image::from_slice_u8(to.width, to.height, &mut out, PixelType::U8x3)
        .expect("the buffer was made for this size, and bytes are aligned");
    let options =
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).use_alpha(false);
    Resizer::new()
        .resize(&source, &mut target, &options)
        .expect("both images have the same pixel type and no crop is asked for");
    Ok(out)
}
