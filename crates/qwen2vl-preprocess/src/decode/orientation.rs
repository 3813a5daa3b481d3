//! The turn that EXIF, or XMP where EXIF is silent, asks for.
//!
//! Follows Pillow 13's `ImageOps.exif_transpose` and `Image.getexif`.

use image::metadata::Orientation;

use crate::RgbImage;

/// From the metadata blocks of a file; an unreadable one is ignored, as Pillow does.
pub(super) fn from_metadata(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    exif.and_then(Orientation::from_exif_chunk)
        .or_else(|| xmp.and_then(from_xmp))
        .unwrap_or(Orientation::NoTransforms)
}

/// `tiff:Orientation="N` or `tiff:Orientation>N`, the first one.
fn from_xmp(xmp: &[u8]) -> Option<Orientation> {
    const KEY: &[u8] = b"tiff:Orientation";
    xmp.windows(KEY.len() + 3).find_map(|window| {
        let rest = window.strip_prefix(KEY)?;
        let digit = match rest {
            [b'=', b'"', digit] | [b'>', digit, _] => digit,
            _ => return None,
        };
        digit.is_ascii_digit().then(|| Orientation::from_exif(digit - b'0')).flatten()
    })
}

/// Whether height and width change places.
pub(super) fn transposes(orientation: Orientation) -> bool {
    orientation.to_exif() >= 5
}

/// Turns and flips.
pub(super) fn apply(image: RgbImage, orientation: Orientation) -> RgbImage {
    if orientation == Orientation::NoTransforms {
        return image;
    }
    let size = image.size();
    let (h, w) = (size.height as isize, size.width as isize);
    let last = h * w - 1;
    // Where output pixel (0, 0) comes from, and how far the source moves for one output row and one output column.
    let (start, row_step, column_step) = match orientation {
        Orientation::NoTransforms => (0, w, 1),
        Orientation::FlipHorizontal => (w - 1, w, -1),
        Orientation::Rotate180 => (last, -w, -1),
        Orientation::FlipVertical => (last - w + 1, -w, 1),
        Orientation::Rotate90FlipH => (0, 1, w),
        Orientation::Rotate90 => (last - w + 1, 1, -w),
        Orientation::Rotate270FlipH => (last, -1, -w),
        Orientation::Rotate270 => (w - 1, -1, w),
    };
    let turned = if transposes(orientation) { size.transposed() } else { size };
    let source = image.as_raw().as_chunks::<3>().0;
    let mut data = vec![0; image.as_raw().len()];
    let rows = data.chunks_exact_mut(turned.width as usize * 3);
    for (y, row) in rows.enumerate() {
        let mut from = start + y as isize * row_step;
        for pixel in row.as_chunks_mut::<3>().0 {
            *pixel = source[from as usize];
            from += column_step;
        }
    }
    RgbImage::from_parts(turned, data)
}

#[cfg(test)]
mod tests {
    use image::DynamicImage;

    use super::*;
    use crate::{AlphaMode, ImageSize};

    #[test]
    fn turns_equal_the_image_crate() {
        let size = ImageSize { height: 5, width: 3 };
        let data: Vec<u8> = (0..45).collect();
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let plain = image::RgbImage::from_raw(3, 5, data.clone()).unwrap();
            let mut plain = DynamicImage::ImageRgb8(plain);
            plain.apply_orientation(orientation);
            let turned = apply(RgbImage::from_parts(size, data.clone()), orientation);
            assert_eq!(turned, RgbImage::from_dynamic(&plain, AlphaMode::Drop), "orientation {exif}");
        }
    }

    #[test]
    fn xmp_speaks_only_where_exif_is_silent() {
        let exif = *b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let attribute: &[u8] = b"<x tiff:Orientation=\"8\"/>";
        let element: &[u8] = b"<tiff:Orientation>3</tiff:Orientation>";
        for (exif, xmp, want) in [
            (Some(&exif[..]), Some(attribute), 6),
            (None, Some(attribute), 8),
            (None, Some(element), 3),
            (Some(&exif[..5]), Some(element), 3),
            (Some(b"".as_slice()), Some(b"tiff:Orientation=\"9\"".as_slice()), 1),
            (None, None, 1),
        ] {
            assert_eq!(from_metadata(exif, xmp).to_exif(), want);
        }
    }
}
