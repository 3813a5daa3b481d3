//! Made-up pictures, the same on every machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub height: u32,
    pub width: u32,
}

/// Pixels that become a token are a square of this side.
const TOKEN_SIDE: u32 = 28;

impl Size {
    /// Tokens at full size.
    pub fn tokens(self) -> usize {
        let of = |side: u32| ((side + TOKEN_SIDE / 2) / TOKEN_SIDE) as usize;
        of(self.height) * of(self.width)
    }

    /// A limit of pixels that it stays below when its sides become multiples of a token's.
    pub fn max_pixels(self) -> u64 {
        let of = |side: u32| u64::from(side + TOKEN_SIDE);
        of(self.height) * of(self.width)
    }
}

/// The file of picture `index` of a size, which is made if it is not there.
///
/// # Errors
///
/// If it cannot be written.
pub fn made(folder: &Path, size: Size, index: usize) -> Result<PathBuf> {
    let path = folder.join(format!("{}x{}-{index}.ppm", size.width, size.height));
    if !path.is_file() {
        let partial = path.with_extension("partial");
        write(&partial, size, index)?;
        std::fs::rename(&partial, &path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    Ok(path)
}

/// Writes a PPM file of gradients with a pattern over them, another one for each `index`.
fn write(path: &Path, size: Size, index: usize) -> Result<()> {
    let mut bytes = format!("P6\n{} {}\n255\n", size.width, size.height).into_bytes();
    for y in 0..size.height {
        for x in 0..size.width {
            let ramp = |at: u32, side: u32| (u64::from(at) * 255 / u64::from(side)) as u8;
            let (r, g) = (ramp(x, size.width), ramp(y, size.height));
            bytes.extend([r, g, ((x ^ y) as u8).wrapping_add((index * 7) as u8)]);
        }
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_limit_are_those_of_sides_rounded_to_multiples_of_28() {
        for (height, width, tokens) in [(448, 448, 256), (1080, 1920, 39 * 69), (3024, 4032, 15_552)] {
            let size = Size { height, width };
            assert_eq!(size.tokens(), tokens);
            assert!(
                size.max_pixels() >= tokens as u64 * 784 && size.max_pixels() < tokens as u64 * 784 * 5 / 4
            );
        }
    }

    #[test]
    fn the_file_holds_all_pixels() {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path(), Size { height: 2, width: 3 }, 0).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(b"P6\n3 2\n255\n"));
        assert_eq!(bytes.len(), "P6\n3 2\n255\n".len() + 18);
        let other = made(dir.path(), Size { height: 2, width: 3 }, 1).unwrap();
        assert_ne!(std::fs::read(other).unwrap(), bytes);
    }
}
