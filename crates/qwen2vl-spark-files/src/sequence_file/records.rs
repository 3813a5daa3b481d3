//! Records one by one, and the sync markers between them.

use std::io::Read;

use super::codec::Inflater;
use super::input::{Input, checked_length};
use super::{Limits, Record};
use crate::{Error, Reason};

/// Stands in the place of a length where a sync marker follows.
const SYNC_ESCAPE: i32 = -1;

pub(super) fn read<R: Read>(
    input: &mut Input<R>,
    sync: &[u8; 16],
    inflater: Option<&mut Inflater>,
    limits: &Limits,
) -> Result<Option<Record>, Error> {
    let Some((offset, length)) = read_length(input, sync)? else { return Ok(None) };
    let length = checked_length(offset, "the length of a record", length.into(), limits.max_record_bytes)?;
    let key_at = input.offset();
    let key_length = i64::from(input.i32("the length of a key")?);
    if !(0..=length as i64).contains(&key_length) {
        let (what, allowed) = ("the length of a key", "0 to the length of its record");
        return Err(Error::new(key_at, Reason::OutOfRange { what, found: key_length, allowed }));
    }
    let key = input.bytes("a key", key_length as u64)?;
    let value_at = input.offset();
    let value = input.bytes("a value", length - key_length as u64)?;
    Ok(Some(match inflater {
        None => Record { offset, value_offset: Some(value_at), key, value },
        Some(inflater) => {
            let value = inflater.inflate(value_at, "a compressed value", &value)?;
            Record { offset, value_offset: None, key, value }
        }
    }))
}

/// Where the next record starts and its length, past any sync markers; none at the end of the file.
fn read_length<R: Read>(input: &mut Input<R>, sync: &[u8; 16]) -> Result<Option<(u64, i32)>, Error> {
    loop {
        let offset = input.offset();
        let Some(length) = input.array_or_end("the length of a record")? else { return Ok(None) };
        match i32::from_be_bytes(length) {
            SYNC_ESCAPE => check_sync(input, sync)?,
            length => return Ok(Some((offset, length))),
        }
    }
}

/// Reads the escape and the marker before a block; false at the end of the file.
pub(super) fn read_block_sync<R: Read>(input: &mut Input<R>, sync: &[u8; 16]) -> Result<bool, Error> {
    let offset = input.offset();
    let what = "the escape before a block";
    let Some(escape) = input.array_or_end(what)? else { return Ok(false) };
    match i32::from_be_bytes(escape) {
        SYNC_ESCAPE => check_sync(input, sync).map(|()| true),
        found => Err(Error::new(offset, Reason::OutOfRange { what, found: found.into(), allowed: "-1" })),
    }
}

fn check_sync<R: Read>(input: &mut Input<R>, sync: &[u8; 16]) -> Result<(), Error> {
    let offset = input.offset();
    let found = input.array("a sync marker")?;
    if found != *sync {
        return Err(Error::new(offset, Reason::Sync { expected: *sync, found }));
    }
    Ok(())
}
