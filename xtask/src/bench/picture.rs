//! A made-up picture, the same on every machine.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};

/// Size in pixels, written `WxH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub height: u32,
    pub width: u32,
}

const MAX_SIDE: u32 = 20_000;

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |s: &str| s.parse::<u32>().ok().filter(|n| (1..=MAX_SIDE).contains(n));
        let sides = text.split_once('x').and_then(|(w, h)| Some((side(w)?, side(h)?)));
        let (width, height) =
            sides.ok_or_else(|| format!("not a size as 640x480 with sides of 1 to {MAX_SIDE} pixels"))?;
        Ok(Self { height, width })
    }
}

/// Writes a PPM file of gradients with a pattern over them.
///
/// # Errors
///
/// If it cannot be written.
pub fn write(path: &Path, size: Size) -> Result<()> {
    let mut bytes = format!("P6\n{} {}\n255\n", size.width, size.height).into_bytes();
    for y in 0..size.height {
        for x in 0..size.width {
            let ramp = |at: u32, side: u32| (u64::from(at) * 255 / u64::from(side)) as u8;
            let (r, g) = (ramp(x, size.width), ramp(y, size.height));
            bytes.extend([r, g, (x ^ y) as u8]);
        }
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_width_first() {
        assert_eq!("640x480".parse(), Ok(Size { height: 480, width: 640 }));
        for bad in ["", "640", "0x5", "5x", "20001x5", "-1x5"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_file_holds_all_pixels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.ppm");
        write(&path, Size { height: 2, width: 3 }).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(b"P6\n3 2\n255\n"));
        assert_eq!(bytes.len(), "P6\n3 2\n255\n".len() + 18);
    }
}
