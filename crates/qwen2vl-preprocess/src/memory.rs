//! Zeroed buffers for results, checked before they are taken, in huge pages where Linux has them to give.
//!
//! `pixel_values` of a large photograph are hundreds of megabytes of fresh memory. Faulting them in by 4-KiB pages costs
//! more than computing them, so the kernel is asked for huge pages: the one place in this crate that needs `unsafe`.

/// Zeroed values, or nothing if the memory cannot be had.
///
/// The size is tried first by a call that may fail. The memory itself is then asked for zeroed, which leaves fresh pages
/// untouched until they are written, and which no call that may fail offers.
pub(crate) fn zeroed<T>(len: usize, make: impl FnOnce(usize) -> Vec<T>) -> Option<Vec<T>> {
    Vec::<T>::new().try_reserve_exact(len).ok()?;
    let mut values = make(len);
    huge_pages(&mut values);
    Some(values)
}

/// Smaller buffers come from memory that the allocator has in use already.
#[cfg(target_os = "linux")]
const HUGE_FROM_BYTES: usize = 32 << 20;

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "madvise takes an address; nothing else here does")]
fn huge_pages<T>(values: &mut [T]) {
    use rustix::mm::{Advice, madvise};

    // A whole number of pages inside the buffer, for any page size up to 64 KiB.
    const PAGE: usize = 64 << 10;
    let bytes = size_of_val(values);
    let start = values.as_mut_ptr().cast::<u8>();
    let skip = start.align_offset(PAGE);
    if bytes < HUGE_FROM_BYTES || skip >= bytes {
        return;
    }
    let len = (bytes - skip) / PAGE * PAGE;
    // SAFETY: `skip + len <= bytes`, so the range lies within `values`, which is borrowed mutably for this call; the
    // advice changes how pages are backed and never what they hold. A refusal leaves everything as it was.
    let _refused = unsafe { madvise(start.add(skip).cast(), len, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn huge_pages<T>(_: &mut [T]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_are_zero_and_writable_at_every_size() {
        for len in [0, 1, 1000, (8 << 20) - 1, 9_000_001] {
            let mut values = zeroed(len, |len| vec![0.0_f32; len]).unwrap();
            assert_eq!(values.len(), len);
            assert!(values.iter().all(|v| v.to_bits() == 0));
            values.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
            assert!(values.iter().enumerate().all(|(i, v)| *v == i as f32));
        }
    }

    #[test]
    fn too_much_is_nothing() {
        assert!(zeroed(usize::MAX / 8, |len| vec![0_u8; len]).is_none());
        assert!(zeroed(usize::MAX, |len| vec![0.0_f32; len]).is_none());
    }
}
