//! Checksums beside files.

use std::io::{Read, Write};

use qwen2vl_spark_files::checksum::{Checksums, Verifier, side_file_name};
use qwen2vl_spark_files::object_file::elements;
use qwen2vl_spark_files::{Error, Reason};
use qwen2vl_testkit::golden;

fn real() -> (Vec<u8>, Checksums) {
    let read = |name| std::fs::read(golden("spark-files").join(name)).unwrap();
    (read("odd-strings.seq"), Checksums::parse(&read("odd-strings.seq.crc")).unwrap())
}

/// Gives the bytes in pieces of `size`.
fn verify(bytes: &[u8], checksums: &Checksums, size: usize) -> Result<(), Error> {
    let mut verifier = Verifier::new(checksums);
    let mut given = 0;
    for piece in bytes.chunks(size) {
        verifier.update(piece)?;
        given += piece.len() as u64;
        assert_eq!(verifier.offset(), given);
    }
    verifier.finish()
}

#[test]
fn the_name_of_the_side_file() {
    assert_eq!(side_file_name("part-00000"), ".part-00000.crc");
    assert_eq!(side_file_name("_SUCCESS"), "._SUCCESS.crc");
}

#[test]
fn the_real_file_fits_however_it_is_cut() {
    let (bytes, checksums) = real();
    for size in [1, 511, 512, 513, 4096, bytes.len()] {
        verify(&bytes, &checksums, size).unwrap();
    }
}

#[test]
fn any_changed_byte_is_found_and_its_chunk_named() {
    let (bytes, checksums) = real();
    for at in (0..bytes.len()).step_by(199).chain([bytes.len() - 1]) {
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 0x10;
        let error = verify(&spoilt, &checksums, 1000).unwrap_err();
        assert_eq!(error.offset, at as u64 / 512 * 512, "byte {at}: {error}");
        let last = bytes.len() % 512;
        let want = if at >= bytes.len() - last { last } else { 512 };
        assert!(matches!(error.reason, Reason::Checksum { length, .. } if length == want as u64), "{error}");
    }
}

#[test]
fn a_file_of_another_length() {
    let (bytes, checksums) = real();
    // 139 checksums.
    let covered = 139 * 512;
    let longer = [bytes.as_slice(), &[0; 1000]].concat();
    let aligned = [bytes.as_slice(), &vec![0; covered - bytes.len()]].concat();
    let is_length = |e: &Error| matches!(e.reason, Reason::ChecksumLength { .. });
    let cut = verify(&bytes[..1024], &checksums, 100).unwrap_err();
    assert_eq!(
        cut.to_string(),
        "at byte 1024: the file has 1024 bytes, its checksums cover 71168; one of the two is \
                                 from another version of it"
    );
    assert!(is_length(&cut));
    let error = verify(&bytes[..1000], &checksums, 100).unwrap_err();
    assert!(matches!(error.reason, Reason::Checksum { length: 488, .. }) && error.offset == 512, "{error}");
    assert!(matches!(verify(&longer, &checksums, 100).unwrap_err().reason, Reason::Checksum { .. }));
    assert!(matches!(verify(&aligned, &checksums, 100).unwrap_err().reason, Reason::Checksum { .. }));

    let one = Checksums::parse(b"crc\0\x00\x00\x00\x04\xad\x98\xe5\x45").unwrap(); // of "aaaa"
    verify(b"aaaa", &one, 3).unwrap();
    let error = verify(b"aaaaa", &one, 3).unwrap_err();
    assert!(is_length(&error) && error.offset == 4, "{error}");
    let error = verify(b"", &one, 3).unwrap_err();
    assert!(is_length(&error) && error.offset == 0, "{error}");
}

#[test]
fn an_empty_file_has_a_header_alone() {
    let checksums = Checksums::parse(b"crc\0\x00\x00\x02\x00").unwrap();
    verify(b"", &checksums, 1).unwrap();
    assert_eq!(verify(b"x", &checksums, 1).unwrap_err().offset, 0);
}

#[test]
fn bad_side_files() {
    let cases: &[(&[u8], &str)] = &[
        (
            b"",
            "at byte 0: the data end within the header of a checksum file: 8 bytes needed, 0 left; the file is \
               truncated or damaged",
        ),
        (
            b"crc\0\0\0\x02",
            "at byte 0: the data end within the header of a checksum file: 8 bytes needed, 7 left; the \
                            file is truncated or damaged",
        ),
        (
            b"crc1\0\0\x02\0",
            "at byte 0: no Hadoop checksum file: it starts with [63, 72, 63, 31] instead of [63, 72, \
                             63, 00]",
        ),
        (b"crc\0\0\0\0\0", "at byte 4: the number of bytes to a checksum is 0; allowed is 1 or more"),
        (
            b"crc\0\xff\xff\xff\xff",
            "at byte 4: the number of bytes to a checksum is -1; allowed is 1 or more",
        ),
        (
            b"crc\0\0\0\x02\0abcdef",
            "at byte 12: the data end within a checksum: 4 bytes needed, 2 left; the file is \
                                    truncated or damaged",
        ),
    ];
    for (bytes, want) in cases {
        assert_eq!(Checksums::parse(bytes).unwrap_err().to_string(), *want);
    }
}

#[test]
fn through_a_writer_and_through_a_reader() {
    let (bytes, checksums) = real();
    let mut writer = Verifier::new(&checksums);
    writer.write_all(&bytes).unwrap();
    writer.finish().unwrap();
    let mut read = Vec::new();
    checksums.verify(bytes.as_slice()).read_to_end(&mut read).unwrap();
    assert!(read == bytes);

    let mut spoilt = bytes.clone();
    spoilt[1030] ^= 1;
    let error = Verifier::new(&checksums).write_all(&spoilt).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(error.downcast::<Error>().unwrap().offset, 1024);
    let error = checksums.verify(spoilt.as_slice()).read_to_end(&mut read).unwrap_err();
    assert_eq!(error.downcast::<Error>().unwrap().offset, 1024);
}

#[test]
fn readers_of_this_crate_take_the_error_out_of_its_wrapping() {
    let (mut bytes, checksums) = real();
    assert!(elements(checksums.verify(bytes.as_slice())).all(|element| element.is_ok()));
    let last = bytes.len() - 1;
    // Within the last value, which is an Integer's: the file could be read.
    bytes[last] ^= 1;
    assert!(elements(bytes.as_slice()).all(|element| element.is_ok()));
    let error = elements(checksums.verify(bytes.as_slice())).find_map(Result::err).unwrap();
    assert!(matches!(error.reason, Reason::Checksum { .. }), "{error}");
    assert_eq!(error.offset, last as u64 / 512 * 512);
}
