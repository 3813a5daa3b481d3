//! A checksum file of any bytes against a file of any bytes: both ways through it give the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qwen2vl_spark_files::Error;
use qwen2vl_spark_files::checksum::{Checksums, Verifier};

fuzz_target!(|input: (&[u8], &[u8], u8)| {
    let (side, bytes, piece) = input;
    let Ok(checksums) = Checksums::parse(side) else { return };
    let mut verifier = Verifier::new(&checksums);
    let pieces = bytes.chunks(usize::from(piece).max(1)).try_for_each(|piece| verifier.update(piece));
    let whole = std::io::copy(&mut checksums.verify(bytes), &mut std::io::sink());
    match (pieces.and_then(|()| verifier.finish()), whole) {
        (Ok(()), Ok(n)) => assert_eq!(n, bytes.len() as u64),
        (Err(a), Err(b)) => {
            assert!(a.offset <= bytes.len() as u64, "{a}");
            assert_eq!(a.offset, Error::io(0, b).offset);
        }
        (a, b) => panic!("{a:?} {b:?}"),
    }
});
